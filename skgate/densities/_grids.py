"""`Grid`: the gates of a layer as channels on a grid, and their causal windows."""


import numpy as np

from ..states import GatingStates

#: Samples by which the rates of a gate are drawn to those of its channel.
_CHANNEL_SAMPLES = 5.0
#: Samples by which those of a class are drawn to the gate's own.
_CLASS_SAMPLES = 20.0
_BLOCK_BYTES = 1 << 26


class Grid:
    """The gates of one layer as (n_samples, channels, height, width).

    Gates of a unit are channels of their own. Tokens are on a grid of one row, and a layer without
    positions is a grid of one place.
    """

    def __init__(self, states, index):
        layer = states.layers[index]
        self.states, self.index, self._layer = states, index, layer
        units, *grid = layer.shape if layer.spatial else (layer.shape[-1], *layer.shape[:-1])
        self.height = int(np.prod(grid[:-1], dtype=int)) if grid else 1
        self.width = grid[-1] if grid else 1
        self.n_channels = units * layer.unit_size

    def __len__(self):
        return len(self.states)

    @property
    def shape(self):
        return self.n_channels, self.height, self.width

    def gates(self, rows):
        """Return the gates of some rows, (n_rows, channels, height, width), uint8."""
        part = GatingStates([self.states.packed[self.index][rows]], [self._layer])
        flat = np.concatenate([block for _, block in part.iter_unpacked(0)])
        unit_size, (_, height, width) = self._layer.unit_size, self.shape
        if self._layer.spatial:
            by_unit = flat.reshape(len(flat), -1, height, width, unit_size).transpose(0, 1, 4, 2, 3)
        else:
            by_unit = flat.reshape(len(flat), height, width, -1).transpose(0, 3, 1, 2)
        return by_unit.reshape(len(flat), *self.shape)

    def blocks(self, rows, n_bytes=4):
        """Yield some rows and their gates, a block at a time; a gate takes so many bytes later."""
        step = max(1, _BLOCK_BYTES // (n_bytes * int(np.prod(self.shape))))
        for start in range(0, len(rows), step):
            yield rows[start : start + step], self.gates(rows[start : start + step])


def rate_maps(grid, rows, y_encoded, n_classes):
    """Return the rates of all gates, (channels, height, width), and those of each class."""
    counts = np.zeros((n_classes, *grid.shape))
    sizes = np.bincount(y_encoded[rows], minlength=n_classes).reshape(-1, 1, 1, 1)
    for block, gates in grid.blocks(rows, 1):
        for label in range(n_classes):
            counts[label] += gates[y_encoded[block] == label].sum(axis=0, dtype=np.int64)
    total, n = counts.sum(axis=0), len(rows)
    channel = (total.sum(axis=(1, 2), keepdims=True) + 0.5) / (n * total[0].size + 1)
    rates = (total + _CHANNEL_SAMPLES * channel) / (n + _CHANNEL_SAMPLES)
    return rates, (counts + _CLASS_SAMPLES * rates) / (sizes + _CLASS_SAMPLES)
