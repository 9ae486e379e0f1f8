"""What a row is: `SampleRows`, one a sample, or `PositionRows`, one a position of a sample."""

from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from ..exceptions import GateCaptureWarning, warn_user
from ..utils.arrays import pack_rows, to_numpy
from ._inputs import tree_map
from ._layout import sizes


def without_positions(layouts, masks, found, by_position):
    """Return, by layer, why its positions are not known.

    ``found`` are the masks of a batch. If rows are positions, raises unless the others all have the
    same positions.
    """
    reasons, by_positions = {}, {}
    for name, layout in layouts.items():
        side = masks.side_of(name)
        mask = found.get(side)
        pads = mask is not None and (by_position or not mask.all())
        if by_position and not layout.grid:
            reasons[name] = "it has one row a sample, and rows are positions"
        elif pads and not layout.fits(mask, layout.grid):
            shapes = f"{sizes(layout.grid)}, and those of the mask {sizes(mask.shape[1:])}"
            reasons[name] = f"padding cannot be told from data: its positions are {shapes}"
        elif by_position:
            by_positions.setdefault((layout.grid, side), []).append(name)
    if len(by_positions) > 1:
        table = "\n".join(
            f"  {sizes(grid)} ({side}): {names}" for (grid, side), names in by_positions.items()
        )
        raise ValueError(
            "With samples='position' all layers need the same positions. Choose layers of one of "
            f"these by layers=...:\n{table}"
        )
    return reasons


class SampleRows:
    """One row a sample: its positions are gates, which are closed under a mask."""

    def __init__(self, layouts, masks):
        self.layers = [layout.layer for layout in layouts.values()]
        self._layouts, self._masks = layouts, masks
        self.n_positions, self.n_masked = 0, 0

    def converters(self, inputs, found):
        """Return functions of (event, n_samples) that pack the rows, by layer, given masks."""
        self.count(found)
        return _for_each(self._packed, self._layouts, self._masks, inputs, found)

    def count(self, found):
        """Count the masked positions, of one mask for each that has layers."""
        with_positions = {self._masks.side_of(n) for n, lay in self._layouts.items() if lay.grid}
        for side in with_positions & found.keys():
            self.n_positions += found[side].numel()
            self.n_masked += int((~found[side]).sum())

    @staticmethod
    def _packed(layout, lengths, mask, event, n_samples):
        gates = layout.gates(event.gates, n_samples, lengths)
        grid = tuple(gates.shape[1:-2])
        if grid != layout.grid:
            raise ValueError(
                f"Layer {event.layer!r} has {sizes(grid)} positions in this batch and had "
                f"{sizes(layout.grid)} in the first: samples of different lengths have no gates "
                "in common. Set samples='position', so that a row is a position, or pad all "
                "samples to one length."
            )
        return pack_rows(layout.by_sample(layout.masked(gates, mask)))

    def collect(self, arrays, labels):
        """Return the packed rows of a batch, their samples (None: each is one), and labels."""
        return list(arrays.values()), None, labels

    @staticmethod
    def n_rows(n_samples):
        """Return how many rows so many samples have, None if that is not known."""
        return n_samples

    def n_bytes(self, n_samples):
        """Return the bytes of each layer of so many samples, None if these are not known."""
        return None if n_samples is None else [n_samples * layer.n_bytes for layer in self.layers]

    def warn(self):
        """Warn if gates were closed under masks."""
        if self.n_masked:
            warn_user(
                f"{self.n_masked / self.n_positions:.0%} of the positions are under a mask. Their "
                "gates are closed, so that the length of a sample is part of its states. Set "
                "samples='position' to leave these positions out.",
                GateCaptureWarning,
            )


class PositionRows:
    """One row a position that is not masked, those of a sample together."""

    def __init__(self, layouts, masks):
        self.layers = []
        for layout in layouts.values():
            size = layout.layer.shape[0 if layout.layer.spatial else -1]
            record = {"n_gates": size * layout.layer.unit_size, "shape": (size,), "spatial": False}
            self.layers.append(replace(layout.layer, **record))
        self._layouts, self._masks = layouts, masks

    def converters(self, inputs, found):
        """Return functions of (event, n_samples) that pack the rows, by layer, given masks."""
        return _for_each(self._packed, self._layouts, self._masks, inputs, found)

    @staticmethod
    def _packed(layout, lengths, mask, event, n_samples):
        """Return packed rows, and which of the positions they are, (n_samples, *positions)."""
        gates = layout.gates(event.gates, n_samples, lengths)
        grid = tuple(gates.shape[1:-2])
        kept = layout.kept(gates, mask)
        if mask is None and grid != layout.grid and grid[0] not in lengths:
            raise ValueError(
                f"Layer {event.layer!r} has {sizes(grid)} positions in this batch and had "
                f"{sizes(layout.grid)} in the first, which are not those of the inputs."
            )
        rows = gates.flatten(-2)[kept.to(gates.device)]  # (n_rows, n_units * unit_size)
        return pack_rows(rows), kept.numpy()

    def collect(self, arrays, labels):
        """Return the packed rows of a batch, the sample that each is of, and its label."""
        packed, kept = zip(*arrays.values(), strict=True)
        if len({k.shape for k in kept}) > 1:
            shapes = {name: k.shape[1:] for name, k in zip(arrays, kept, strict=True)}
            raise ValueError(f"Layers have different positions in this batch: {shapes}.")
        samples = np.nonzero(kept[0])[0]  # (n_rows,)
        return packed, samples, None if labels is None else _row_labels(labels, kept[0], samples)

    @staticmethod
    def n_rows(n_samples):
        """Return None: masks and lengths decide."""

    def n_bytes(self, n_samples):
        """Return the bytes of each layer if samples have as many positions as in the first batch.

        None if the number of samples is not known.
        """
        if n_samples is None:
            return None
        n_positions = [prod(layout.grid) for layout in self._layouts.values()]
        return [
            n_samples * n * layer.n_bytes for n, layer in zip(n_positions, self.layers, strict=True)
        ]

    def warn(self):
        """Do nothing: positions under a mask are no rows."""


def _for_each(pack, layouts, masks, inputs, found):
    lengths = set()
    tree_map(lambda a: lengths.update(a.shape[1:2]), inputs)
    return {
        name: partial(pack, layout, lengths, found.get(masks.side_of(name)))
        for name, layout in layouts.items()
    }


def _row_labels(labels, kept, samples):
    labels = np.asarray(to_numpy(labels))
    if labels.shape == kept.shape:
        return labels[kept]
    if labels.size == len(kept):
        return labels.ravel()[samples]
    raise ValueError(
        f"Labels of shape {labels.shape} came with {len(kept)} samples of positions "
        f"{kept.shape[1:]}; need one label a sample, or one a position."
    )
