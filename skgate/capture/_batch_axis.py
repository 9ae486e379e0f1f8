"""Where the samples are in the gates that an operation has, and what its layer looks like."""

from dataclasses import dataclass

from ..states import GateLayer
from ..utils.arrays import pack_rows

__all__ = ["CONSTANT", "Layout", "find_layout"]

#: Why a function of parameters alone is no layer.
CONSTANT = "its input does not depend on the batch"


@dataclass(frozen=True)
class Layout:
    """How to turn the gates of one event into one row a sample.

    ``axis`` holds the samples, each ``repeats`` times: in blocks (``sample_major``, as
    ``x.reshape(n * t, d)`` leaves them) or in turn.
    """

    axis: int
    repeats: int
    sample_major: bool

    def rows(self, tensor):
        """Return gates, or values, with the samples on the first axis."""
        if self.repeats == 1:
            return tensor.movedim(self.axis, 0)
        n = tensor.shape[self.axis] // self.repeats
        sizes = (n, self.repeats) if self.sample_major else (self.repeats, n)
        return tensor.unflatten(self.axis, sizes).movedim(self.axis + (not self.sample_major), 0)

    def packed(self, gates):
        """Return gates as packed bits, (n_samples, n_bytes)."""
        rows = self.rows(gates)
        return pack_rows(rows.reshape(len(rows), -1))

    def layer(self, event):
        """Return the record of the layer whose gates an event holds."""
        rows = self.rows(event.gates)  # (n_samples, ..., unit_size)
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
    """Return the `Layout` of an event seen with two and with three samples, or why there is none.

    Axes are told by their sizes, since networks put their samples first, second, or merged
    with positions; merged ones are told by the values that both runs share.

    Parameters
    ----------
    two, three : Event
        The same operation on samples (a, b), and on (a, b, c).

    Returns
    -------
    layout : Layout or None
    reason : str
    """
    a, b = two.values, three.values
    if a.ndim != b.ndim:
        return None, "its number of axes depends on the batch"
    grown = [axis for axis in range(a.ndim) if a.shape[axis] != b.shape[axis]]
    if not grown:
        return None, CONSTANT
    if len(grown) > 1:
        return None, "more than one of its axes grows with the batch"
    (axis,) = grown
    repeats, rest = divmod(a.shape[axis], 2)
    if rest or b.shape[axis] != 3 * repeats or not a.numel():
        return None, "its axes do not grow in proportion to the batch"
    layouts = [Layout(axis, repeats, sample_major) for sample_major in (True, False)]
    gaps = [(way.rows(a) - way.rows(b)[:2]).abs().nansum() for way in layouts]
    return layouts[int(gaps[1] < gaps[0])], ""
