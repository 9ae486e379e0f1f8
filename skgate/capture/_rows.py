"""Whether the gates of a row depend on its data alone, not on other rows or on padding."""

from functools import partial

import numpy as np
import torch

from ..states import GatingStates
from ._batch_axis import SKIPPED
from ._coverage import DEPENDENT
from ._inputs import n_samples_in, tree_map
from ._positions import SampleRows

#: Rows that run: enough to see experts, a top-k or statistics that span the batch.
MAX_ROWS = 64
#: Share of gates that rounding may flip, of those that differ between two rows drawn at random:
#: in float64 and in float32 on a CPU, and in lower precision. Measured on 64 and 256 rows of an MLP
#: and a convolutional network on a CPU, it flips none; statistics of the batch change 4% to 15%.
TOLERANCE, LOW_TOLERANCE = 0.001, 0.02
#: Gates that may flip in any case, because a share of few gates is no measure.
ALWAYS_ALLOWED = 1


def compare_rows(runner, inputs, chosen, **options):
    """Compare the gates of rows in one batch with theirs in batches of other sizes and orders.

    Returns by layer how the gates of its rows depend on the other rows of the batch, and the names
    of the layers with equal gates in all rows, in which nothing could show. ``options`` are those
    of the recorder.
    """
    rng = np.random.RandomState(0)
    rows = np.sort(rng.permutation(n_samples_in(inputs))[:MAX_ROWS])
    if len(rows) == 1:
        return {}, set(chosen)
    order = rng.permutation(len(rows))
    pack = {name: layout.packed for name, layout in chosen.items()}
    whole, tolerances, reasons = _run_parts(runner, inputs, [rows], chosen, pack, options)
    parts = _split(rows[order])
    split, _, more_reasons = _run_parts(runner, inputs, parts, chosen, pack, options)
    reasons, unchecked = {**more_reasons, **reasons}, set()
    for name in chosen.keys() - reasons.keys():
        share, expected = _difference(whole[name][order], split[name], tolerances[name])
        if share:
            reasons[name] = f"{share:.2g} of its bits change when the rows run in other batches"
        elif not expected:
            unchecked.add(name)
    return {name: f"{DEPENDENT}: {reason}" for name, reason in reasons.items()}, unchecked


def compare_padding(runner, inputs, chosen, masks, found, **options):
    """Compare the gates of rows with theirs after a change of the inputs under the masks.

    Returns by layer how gates depend on padding. ``found`` are the masks of the batch.
    """
    rows = np.arange(min(n_samples_in(inputs), MAX_ROWS))
    found = {side: mask[: len(rows)] for side, mask in found.items()}
    if all(mask.all() for mask in found.values()):
        return {}
    inputs = tree_map(lambda a: a[: len(rows)], inputs)
    convert = SampleRows(chosen, masks).converters(inputs, found)
    before, tolerances, reasons = _run_parts(runner, inputs, [rows], chosen, convert, options)
    inputs = masks.with_other_padding(inputs, found)
    after, _, more_reasons = _run_parts(runner, inputs, [rows], chosen, convert, options)
    reasons = {**more_reasons, **reasons}
    for name in chosen.keys() - reasons.keys():
        share, _ = _difference(before[name], after[name], tolerances[name])
        if share:
            reasons[name] = f"{share:.2g} of its bits change with the inputs under the mask"
    return {name: f"its gates depend on padding: {reason}" for name, reason in reasons.items()}


def _difference(a, b, tolerance):
    """Return the share of bits that differ, 0 if rounding may be why, and the number expected.

    That is of rows drawn at random.
    """
    (rates,) = a.activation_rates()
    expected = 2 * len(a) * (rates * (1 - rates)).sum()
    differing = np.bitwise_count(a.packed[0] ^ b.packed[0]).sum()
    allowed = ALWAYS_ALLOWED + tolerance * expected
    return (differing / np.prod(a.shape) if differing > allowed else 0), expected


def _split(rows):
    """Return half of the rows, half of the rest and so on; two or three are taken one by one."""
    parts = []
    while len(rows) > 3:
        parts.append(rows[: len(rows) // 2])
        rows = rows[len(rows) // 2 :]
    return [*parts, rows] if parts else np.split(rows, len(rows))


def _run_parts(runner, inputs, parts, chosen, pack, options):
    """Return states and tolerances of each layer on parts of a batch; of layers without, why."""
    packed, tolerances, reasons = {name: [] for name in chosen}, {}, {}
    dtypes = {parameter.dtype for parameter in runner.module.parameters()}

    def keep(event, n_samples):
        if event.layer not in chosen:
            return
        layout = chosen[event.layer]
        if mismatch := layout.batch_axis.mismatch(event.gates, n_samples):
            reasons[event.layer] = mismatch
            return
        packed[event.layer].append(pack[event.layer](event, n_samples))
        tolerances[event.layer] = _tolerance({*dtypes, event.values.dtype}, event.values.is_cuda)
        if packed[event.layer][-1].shape[1] != layout.layer.n_bytes:
            reasons[event.layer] = "the number of its gates changes"

    for part in parts:
        rows = tree_map(lambda a, part=part: a[part.tolist()], inputs)
        report = partial(keep, n_samples=len(part))
        runner.trial(rows, report=report, wanted=chosen.__contains__, **options)
    for name in chosen.keys() - reasons.keys():
        if len(packed[name]) < len(parts):
            reasons[name] = SKIPPED
    states = {
        name: GatingStates([np.concatenate(packed[name])], [chosen[name].layer])
        for name in chosen.keys() - reasons.keys()
    }
    return states, tolerances, reasons


def _tolerance(dtypes, on_cuda):
    """Return the share of gates that rounding may flip, given the types of numbers."""
    epsilon = max((torch.finfo(t).eps for t in dtypes if t.is_floating_point), default=0)
    # convolutions in float32 run as TF32 on CUDA by default
    return LOW_TOLERANCE if epsilon > (1e-12 if on_cuda else 1e-6) else TOLERANCE
