"""Chooses which of the operations that ran become layers, and records the outcome for each."""

import difflib
import fnmatch
import re
from typing import NamedTuple

from ..exceptions import GateCaptureWarning, warn_user
from . import _operations as ops
from ._batch_axis import CONSTANT, find_batch_axis
from ._layout import Layout

EXCLUDED = "excluded"
#: Layers whose names differ in numbers only, and that share a line of a table.
MANY = 4
#: Why a layer is refused.
DEPENDENT = "its gates of a row depend on the other rows of the batch"
MOVED = f"{DEPENDENT}: the data choose or sort the rows that it runs on, or choose its weights"
#: Said of a layer that is captured all the same.
UNCHECKED = "rows not compared between batches: in the first batch all have equal gates"

#: Kinds of operations that may gate the data.
MAY_GATE = ("comparison", "custom", "dropout", "hidden", "max pooling", "smooth activation",
            "threshold", "top-k")  # fmt: skip


class Coverage(NamedTuple):
    """Whether one non-linear operation was captured, or the reason why not."""

    layer: str
    operation: str
    kind: str
    n_gates: int
    captured: bool
    reason: str

    @staticmethod
    def table(records):
        """Return the records as lines of text, one for those of many blocks that are alike."""
        alike = {}
        for record in records:
            key = re.sub(r"\d+", "*", record.layer), *record[1:]
            alike.setdefault(key, []).append(record)
        lines = []
        for group in alike.values():
            _, operation, kind, n_gates, captured, reason = group[0]
            names = [record.layer for record in group]
            if len(names) >= MANY:
                names = [f"{_pattern(names)} ({len(names)} of these)"]
            outcome = f"{n_gates} gates" if captured else f"not captured: {reason}"
            lines += [f"  {name}: {operation} ({kind}), {outcome}" for name in names]
        return "\n".join(lines) or "  (no non-linear operation ran)"


def _pattern(names):
    """Return names that differ in numbers only as one, with * for the numbers that differ."""
    parts = zip(*(re.split(r"(\d+)", name) for name in names), strict=True)
    return "".join(part[0] if len(set(part)) == 1 else "*" for part in parts)


def choose_layers(two, three, layers, exclude=None):
    """Return the selected layers among the events of runs on two samples and on three.

    They are a dict of `Layout` by name, in the order of the network. Returns besides a `Coverage`
    for each event.
    """
    found = [_find(a, b) for a, b in zip(two, three, strict=True)]
    gating = [event for event, (axis, _) in zip(three, found, strict=True) if axis]
    excluded = select(three, exclude) if exclude else set()
    reasons = {e.layer: why for e, (axis, why) in zip(three, found, strict=True) if not axis}
    wanted = select(gating, layers, (three, reasons)) - excluded if gating else set()
    chosen, coverage = {}, []
    for event, (axis, reason) in zip(three, found, strict=True):
        layout = axis and Layout.of(event, axis)
        captured = event.layer in wanted
        if event.layer in excluded:
            reason = EXCLUDED
        elif captured:
            chosen[event.layer] = layout
        elif layout:
            reason = "not selected by layers"
        n_gates = layout.layer.n_gates if layout else 0
        coverage.append(
            Coverage(event.layer, event.operation, event.kind, n_gates, captured, reason)
        )
    return chosen, coverage


def _find(two, three):
    """Return the batch axis of the gates of two events, or None and why they are no layer."""
    if three.gates is None:
        return None, three.reason
    if three.moved:  # in these few samples, they may be in order by chance
        return None, MOVED
    return find_batch_axis(two, three)


def refuse_layers(chosen, coverage, reasons, unchecked=()):
    """Return the result of `choose_layers`, less the layers for which there are reasons."""
    records = []
    for record in coverage:
        if record.captured and record.layer in reasons:
            record = record._replace(n_gates=0, captured=False, reason=reasons[record.layer])
        elif record.captured and record.layer in unchecked:
            record = record._replace(reason=UNCHECKED)
        records.append(record)
    return {name: layout for name, layout in chosen.items() if name not in reasons}, records


def select(events, layers, refused=((), {})):
    """Return the names of the events that ``layers`` selects; raise if an item matches none.

    ``refused`` are events and, by layer, why some of these are none to select from.
    """
    names = [event.layer for event in events]
    if layers is None:
        return set(names)
    items = names[layers] if isinstance(layers, slice) else layers
    selected = set()
    for item in items if isinstance(items, list | tuple) else [items]:
        matched = {e.layer for i, e in enumerate(events) if _matches(item, e, i, len(events))}
        if not matched:
            others, reasons = refused
            ran = [
                f"{e.layer}: {reasons[e.layer]}"
                for e in others
                if e.layer in reasons and not isinstance(item, int) and _matches(item, e, 0, 0)
            ]
            if ran:
                lines = "\n  ".join(ran[:10])
                raise ValueError(f"What matches layers={item!r} cannot be captured:\n  {lines}")
            near = difflib.get_close_matches(str(item), names, n=3, cutoff=0.3) or names[:10]
            raise ValueError(
                f"No layer matches {item!r}; of {len(names)}, the nearest are {near}. A pattern "
                "with * selects several."
            )
        selected |= matched
    if not selected:
        raise ValueError(f"layers={layers!r} selects none of the {len(names)} layers {names}.")
    return selected


def _matches(item, event, position, n_events):
    if isinstance(item, str):
        return event.layer == item or fnmatch.fnmatchcase(event.layer, item)
    if isinstance(item, re.Pattern):
        return item.fullmatch(event.layer) is not None
    if isinstance(item, type):
        return isinstance(event.module, item)
    return item in (position, position - n_events)


def warn_missed(coverage):
    """Warn about the operations that may gate the data and are not captured."""
    missed = [
        r
        for r in coverage
        if not r.captured
        and r.n_gates == 0
        and r.reason not in (EXCLUDED, ops.SELECTS_NOTHING, ops.READ_BY_FUNCTION)
        and (r.reason != CONSTANT or r.kind == "custom")
        and not r.reason.startswith(ops.DROPS_NOTHING)
        and r.kind in MAY_GATE
    ]
    if missed:
        warn_user(f"Not among the gating states:\n{Coverage.table(missed)}", GateCaptureWarning)


def check_layers(name, chosen, coverage, layers):
    """Raise unless a module has layers to measure, with what to do about it.

    Gates that are drawn count only if ``layers`` asks for them.
    """
    drawn = chosen and all(layout.layer.kind in ops.DROPOUT for layout in chosen.values())
    if chosen and not (drawn and layers is None):
        return
    message = f"{name} has no gating layer that could be captured"
    if drawn:
        message = f"{name} has no gates but those that dropout draws, whatever the network computes"
    remedies = []
    missed = [record for record in coverage if not record.captured]
    if any(r.reason.startswith(DEPENDENT) for r in missed):
        remedies.append("Choose layers whose gates of a row depend on that row alone.")
    if drawn or any(r.reason == ops.IS_SMOOTH for r in missed):
        remedies.append("Set smooth=True of GateExtractor to read input > 0 of smooth activations.")
    if drawn:
        remedies.append(f"Set layers={list(chosen)} to measure the drawn gates all the same.")
    else:
        remedies.append("Set gates= to read gates that a kernel or a custom function hides.")
    raise ValueError(
        f"{message}. {' '.join(remedies)} These operations ran:\n{Coverage.table(coverage)}"
    )
