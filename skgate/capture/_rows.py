"""Whether the gates of a row depend on its data alone, not on other rows or on padding."""

from functools import partial

import numpy as np
import torch

from ..states import GatingStates
from ._batch_axis import SKIPPED
from ._coverage import DEPENDENT
from ._inputs import n_samples_in, tree_map
from ._masks import other_padding
from ._positions import PositionRows, SampleRows

#: Rows that run: enough to see experts, a top-k or statistics that span the batch.
MAX_ROWS = 64
#: Rows that run at once even if they are large.
MIN_COMPARED = 4
#: Share of gates that rounding may flip, of those that differ between two rows drawn at random:
#: in float64 and in float32 on a CPU, and in lower precision. Measured on 64 and 256 rows of an MLP
#: and a convolutional network on a CPU, it flips none; statistics of the batch change 4% to 15%.
TOLERANCE, LOW_TOLERANCE = 0.001, 0.02
#: Samples that run alone, without their padding.
MAX_ALONE = 32
#: Gates that may flip in any case, because a share of few gates is no measure.
ALWAYS_ALLOWED = 1


def compare_rows(runner, inputs, chosen, n_at_once, **options):
    """Compare the gates of rows in one batch with theirs in batches of other sizes and orders.

    Returns by layer how the gates of its rows depend on the other rows of the batch, and the names
    of the layers with equal gates in all rows, in which nothing could show. ``options`` are those
    of the recorder.
    """
    rng = np.random.RandomState(0)
    rows = np.sort(rng.permutation(n_samples_in(inputs))[: min(n_at_once, MAX_ROWS)])
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


def compare_padding(runner, inputs, chosen, masks, found, n_at_once, **options):
    """Compare the gates of rows with theirs after a change of the inputs under the masks.

    Returns by layer how gates depend on padding. ``found`` are the masks of the batch.
    """
    rows = np.arange(min(n_samples_in(inputs), n_at_once, MAX_ROWS))
    found = {side: mask[: len(rows)] for side, mask in found.items()}
    if all(mask.all() for mask in found.values()):
        return {}
    inputs = tree_map(lambda a: a[: len(rows)], inputs)
    convert = SampleRows(chosen, masks).converters(inputs, found)
    before, tolerances, reasons = _run_parts(runner, inputs, [rows], chosen, convert, options)
    changed = masks.changed(inputs, found, other_padding)
    after, _, more_reasons = _run_parts(runner, changed, [rows], chosen, convert, options)
    reasons = {**more_reasons, **reasons}
    for name in chosen.keys() - reasons.keys():
        share, _ = _difference(before[name], after[name], tolerances[name])
        if share:
            reasons[name] = f"{share:.2g} of its bits change with the inputs under the mask"
    harmless = set()
    if reasons and masks.are_of_one_token(inputs, found):
        # a network may infer from this token alone how many positions are padding
        given = {name: chosen[name] for name in reasons if name in tolerances}, masks, found
        harmless = _same_without_padding(runner, inputs, *given, tolerances, options)
    return {
        name: f"its gates depend on padding: {reason}"
        for name, reason in reasons.items()
        if name not in harmless
    }


def _same_without_padding(runner, inputs, chosen, masks, found, tolerances, options):
    """Return the layers whose gates are the same where samples run alone, without padding."""
    whole = _gates_of_data(runner, inputs, chosen, masks, found, options)
    differing, n_bytes = dict.fromkeys(chosen, 0), dict.fromkeys(chosen, 0)
    padded = [
        row
        for row in range(n_samples_in(inputs))
        if all(_is_run(mask[row]) for mask in found.values())
    ]
    for row in padded[:MAX_ALONE]:
        own = {side: mask[row : row + 1] for side, mask in found.items()}
        alone = tree_map(lambda a, row=row: a[row : row + 1], inputs)
        alone = masks.changed(alone, own, lambda values, mask: values[:, mask[0]])
        own = {side: mask[:, mask[0]] for side, mask in own.items()}
        gates = _gates_of_data(runner, alone, chosen, masks, own, options)
        for name in chosen:
            a, (b,) = whole[name][row], gates[name]
            differing[name] += np.bitwise_count(a ^ b).sum() if a.shape == b.shape else np.inf
            n_bytes[name] += a.size
    return {  # of rows drawn at random, up to half of the bits differ
        name
        for name in chosen
        if padded and differing[name] <= tolerances[name] * 4 * n_bytes[name]
    }


def _is_run(mask):
    """Return whether the data of a sample are neighbouring positions, fewer than all."""
    (data,) = np.nonzero(mask.numpy()) if mask.ndim == 1 else ((),)
    return 0 < len(data) < len(mask) and data[-1] - data[0] + 1 == len(data)


def _gates_of_data(runner, inputs, chosen, masks, found, options):
    """Return by layer the packed gates of each sample where it has data, (n_rows, n_bytes)."""
    n_samples, gates = n_samples_in(inputs), {}
    with_positions = {name: layout for name, layout in chosen.items() if layout.grid}
    rows_of = PositionRows(with_positions, masks).converters(inputs, found)

    def keep(event):
        if event.layer in with_positions:
            packed, kept = rows_of[event.layer](event, n_samples)
            samples = np.nonzero(kept)[0]
            gates[event.layer] = [packed[samples == sample] for sample in range(n_samples)]
        elif event.layer in chosen:
            gates[event.layer] = chosen[event.layer].packed(event, n_samples)[:, None]

    if chosen:
        runner.trial(inputs, report=keep, wanted=chosen.__contains__, **options)
    return gates


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
