"""Where the samples are in the gates that an operation has, and what its layer looks like."""

from dataclasses import dataclass

import numpy as np
import torch

from .._states import GateLayer

__all__ = ["Layout", "find_layout"]


@dataclass(frozen=True)
class Layout:
    """How to turn the gates of one event into one row a sample.

    ``axis`` holds the samples, each ``repeats`` times: in blocks (``sample_major``, as
    ``x.reshape(n * t, d)`` leaves them) or in turn.
    """

    axis: int
    repeats: int
    sample_major: bool

    def rows(self, gates):
        """Return gates as (n_samples, ..., unit_size)."""
        if self.repeats == 1:
            return gates.movedim(self.axis, 0)
        n = gates.shape[self.axis] // self.repeats
        sizes = (n, self.repeats) if self.sample_major else (self.repeats, n)
        return gates.unflatten(self.axis, sizes).movedim(self.axis + (not self.sample_major), 0)

    def packed(self, gates):
        """Return gates as packed bits, (n_samples, n_bytes)."""
        rows = self.rows(gates)
        return np.packbits(rows.reshape(len(rows), -1).cpu().numpy(), axis=1)

    def layer(self, event):
        """Return the record of the layer whose gates an event holds."""
        rows = self.rows(event.gates)
        extents = [size for size in rows.shape[1:-1] if size > 1]
        return GateLayer(
            name=event.layer,
            n_gates=rows[0].numel(),
            kind=event.operation,
            unit_size=rows.shape[-1],
            one_hot=event.one_hot,
            spatial=len(extents) > 1 or event.one_hot,
        )


def find_layout(two, three):
    """Return the `Layout` of gates seen with two and with three samples, or why there is none.

    Axes are told by their sizes, since networks put their samples first, second, or merged
    with positions; merged ones are told by the rows that both runs share.

    Parameters
    ----------
    two, three : Tensor
        Gates of the same event for samples (a, b) and (a, b, c).

    Returns
    -------
    layout : Layout or None
    reason : str
    """
    sizes = list(zip(two.shape, three.shape, strict=False))
    grown = [axis for axis, (a, b) in enumerate(sizes) if a != b]
    if two.ndim != three.ndim or len(grown) > 1:
        return None, "more than one of its axes grows with the batch"
    if not grown:
        return None, "its input does not depend on the batch"
    (axis,) = grown
    repeats, rest = divmod(two.shape[axis], 2)
    if rest or three.shape[axis] != 3 * repeats or not two.numel():
        return None, "its axes do not grow in proportion to the batch"
    layouts = [Layout(axis, repeats, sample_major) for sample_major in (True, False)]
    differing = [torch.count_nonzero(a.rows(two) ^ a.rows(three)[:2]).item() for a in layouts]
    return layouts[differing[1] < differing[0]], ""
