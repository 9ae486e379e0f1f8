"""Which of the operations that ran become layers, and a record of what became of each."""

import difflib
import fnmatch
import re
from typing import NamedTuple

from ..exceptions import GateCaptureWarning, warn_user
from ._batch_axis import CONSTANT, find_layout

__all__ = ["Coverage", "choose_layers", "select", "warn_missed"]


class Coverage(NamedTuple):
    """What became of one non-linear operation: captured, or why not."""

    layer: str
    operation: str
    kind: str
    n_gates: int
    captured: bool
    reason: str

    @staticmethod
    def table(records):
        """Return the records as lines of text."""
        lines = [
            f"  {r.layer}: {r.operation} ({r.kind}), "
            + (f"{r.n_gates} gates" if r.captured else f"not captured: {r.reason}")
            for r in records
        ]
        return "\n".join(lines) or "  (no non-linear operation ran)"


def choose_layers(two, three, layers):
    """Return the layers that were asked for among the events of two runs.

    Parameters
    ----------
    two, three : list of Event
        What ran on two samples, and on three.
    layers : as of `GateExtractor`

    Returns
    -------
    chosen : dict of str to (GateLayer, Layout)
        In the order of the network.
    coverage : list of Coverage
        A record an event.
    """
    found = [
        find_layout(a, b) if b.gates is not None else (None, b.reason)
        for a, b in zip(two, three, strict=True)
    ]
    gating = [event for event, (layout, _) in zip(three, found, strict=True) if layout]
    wanted = select(gating, layers) if gating else set()
    chosen, coverage = {}, []
    for event, (layout, reason) in zip(three, found, strict=True):
        layer = layout and layout.layer(event)
        captured = event.layer in wanted
        if captured:
            chosen[event.layer] = layer, layout
        elif layer:
            reason = "not selected by layers"
        n_gates = layer.n_gates if layer else 0
        coverage.append(
            Coverage(event.layer, event.operation, event.kind, n_gates, captured, reason)
        )
    return chosen, coverage


def select(events, layers):
    """Return the names of the events that ``layers`` asks for.

    Raises
    ------
    ValueError
        If it asks for none, or names one that there is not; the error lists what there is.
    """
    names = [event.layer for event in events]
    if layers is None:
        return set(names)
    asked = layers
    if isinstance(layers, slice):
        layers = names[layers]
    selected = set()
    for item in layers if isinstance(layers, list | tuple) else [layers]:
        matched = {e.layer for i, e in enumerate(events) if _matches(item, e, i, len(events))}
        if not matched:
            near = difflib.get_close_matches(str(item), names, n=3, cutoff=0.3) or names[:10]
            raise ValueError(
                f"No layer matches {item!r}; of {len(names)}, the nearest are {near}. A pattern "
                "with * selects several."
            )
        selected |= matched
    if not selected:
        raise ValueError(f"layers={asked!r} selects none of the {len(names)} layers {names}.")
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
    """Warn of the operations that may gate the data and are not captured, naming them."""
    missed = [
        r
        for r in coverage
        if not r.captured
        and r.n_gates == 0
        and r.reason != CONSTANT
        and r.kind in ("hidden", "smooth activation", "threshold", "max pooling", "dropout")
    ]
    if missed:
        warn_user(f"Not among the gating states:\n{Coverage.table(missed)}", GateCaptureWarning)
