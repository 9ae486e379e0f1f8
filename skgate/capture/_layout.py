"""`Layout`: where the samples, positions and units are in the gates of a layer."""

from dataclasses import dataclass

import torch

from ..states import GateLayer
from ..utils.arrays import pack_rows
from ._batch_axis import BatchAxis
from ._pooling import POOLING


@dataclass(frozen=True)
class Layout:
    """The axes of a layer's gates.

    Attributes
    ----------
    layer : GateLayer
        The layer, with the gates of a whole sample.
    batch_axis : BatchAxis
    units_axis : int or None
        Axis of the units among those of a sample; the others are positions. None if a sample has
        one position.
    """

    layer: GateLayer
    batch_axis: BatchAxis
    units_axis: int | None

    @classmethod
    def of(cls, event, batch_axis):
        """Return the layout of an event."""
        *axes, unit_size = batch_axis.rows(event.gates).shape[1:]
        units_axis = _units_axis(event, axes)
        pooled = event.operation in POOLING
        shape, spatial = (torch.Size(axes).numel(),), pooled
        if units_axis is not None:
            grid = [size for axis, size in enumerate(axes) if axis != units_axis]
            spatial = pooled or event.after_convolution or len(grid) > 1
            shape = (axes[units_axis], *grid) if spatial else (*grid, axes[units_axis])
        layer = GateLayer(
            name=event.layer,
            n_gates=torch.Size(axes).numel() * unit_size,
            kind=event.operation,
            unit_size=unit_size,
            one_hot=event.one_hot,
            spatial=spatial,
            shape=shape,
        )
        return cls(layer, batch_axis, units_axis)

    @property
    def grid(self):
        """Numbers of positions by axis; () if a sample has one position."""
        if self.units_axis is None:
            return ()
        return self.layer.shape[1:] if self.layer.spatial else self.layer.shape[:-1]

    def gates(self, tensor, n_samples, lengths=()):
        """Return gates of a batch as (n_samples, *positions, n_units, unit_size).

        A batch may have another number of positions than the first, if its inputs have it: if it is
        one of ``lengths``.
        """
        batch_axis = self.batch_axis.of_batch(tensor, n_samples)
        if batch_axis.repeats not in lengths:
            batch_axis = self.batch_axis
        rows = batch_axis.checked_rows(self.layer.name, tensor, n_samples)
        if self.units_axis is None:
            # a sample may have one number, and a batch no sample
            return rows.flatten(1, -2) if rows.ndim > 2 else rows.unsqueeze(1)
        return rows.movedim(1 + self.units_axis, -2)

    def fits(self, mask, grid):
        """Return whether these positions are those that a mask is about, or there are none."""
        return not self.grid or tuple(grid[: mask.ndim - 1]) == tuple(mask.shape[1:])

    def kept(self, gates, mask):
        """Return which positions of gates by position are data, (n_samples, *positions)."""
        kept = torch.ones(gates.shape[:-2], dtype=torch.bool)
        return kept if mask is None else kept & self._broadcast(mask, gates)[..., 0, 0].cpu()

    def masked(self, gates, mask):
        """Return gates by position, closed where the mask, if there is one, is False."""
        if mask is None or not self.grid or mask.all():
            return gates
        return gates * self._broadcast(mask, gates)

    def _broadcast(self, mask, gates):
        """Return a mask with as many axes as gates by position, on their device."""
        grid = gates.shape[1:-2]
        if not self.fits(mask, grid):
            raise ValueError(
                f"Layer {self.layer.name!r} has {sizes(grid)} positions in this batch, and the "
                f"mask has {sizes(mask.shape[1:])}, so that padding cannot be told from data. "
                "Leave the layer out with exclude=..., or set mask=None to count all positions as "
                "data."
            )
        return mask.reshape(*mask.shape, *[1] * (gates.ndim - mask.ndim)).to(gates.device)

    def by_sample(self, gates):
        """Return gates by position as (n_samples, n_gates), in the order of the layer's shape."""
        if self.units_axis is not None and self.layer.spatial:
            gates = gates.movedim(-2, 1)
        return gates.flatten(1)

    def packed(self, event, n_samples):
        """Return the gates of an event as packed bits, (n_samples, n_bytes)."""
        return pack_rows(self.by_sample(self.gates(event.gates, n_samples)))


def sizes(grid):
    """Return numbers of positions by axis as text."""
    return "x".join(map(str, grid))


def _units_axis(event, axes):
    """Return which axis of a sample has the units; None if there are no others to tell apart.

    It is that of the linear operation before, by its place or by its size. Without one, units come
    first on three axes and more, and last on two.
    """
    if event.operation in POOLING:
        return len(axes) - POOLING[event.operation] - 1
    if len(axes) < 2:
        return None
    place, n_units = event.after or (-len(axes) if len(axes) > 2 else -1, None)
    if event.after_convolution and torch.Size(axes).numel() == n_units:
        return None  # channels alone, as after global pooling
    place = max(len(axes) + place, 0)
    of_size = [axis for axis, size in enumerate(axes) if size == n_units]
    # of a fused linear operation, one half is gated
    if place + 1 == len(axes) and 2 * axes[place] == n_units and not event.after_convolution:
        return place
    if place not in of_size and len(of_size) == 1:
        (place,) = of_size
    return place
