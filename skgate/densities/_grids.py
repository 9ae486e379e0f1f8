"""`Grid`: the gates of a layer as channels on a grid of positions, and their rates."""

import numpy as np

#: Samples by which the rate of a gate is drawn to that of its channel, and that of a class to it.
_CHANNEL_SAMPLES, _CLASS_SAMPLES = 5.0, 20.0
_BLOCK_BYTES = 1 << 26


class Grid:
    """The gates of one layer as (n_rows, channels, height, width).

    Gates of a unit are channels of their own. Tokens are a grid of one row, and a layer without
    positions is a grid of one place.
    """

    def __init__(self, states, index):
        self.states, self.layer = states.select(index), states.layers[index]
        shape = self.layer.shape
        units, *sizes = shape if self.layer.spatial else (shape[-1], *shape[:-1])
        height, width = int(np.prod(sizes[:-1], dtype=int)), (sizes or [1])[-1]
        self.shape = units * self.layer.unit_size, height, width

    def __len__(self):
        return len(self.states)

    @property
    def n_channels(self):
        return self.shape[0]

    @property
    def n_places(self):
        return self.shape[1] * self.shape[2]

    def gates(self, rows):
        """Return the gates of some rows, (n_rows, channels, height, width), uint8."""
        flat = np.concatenate([block for _, block in self.states[rows].iter_unpacked(0)])
        if not self.layer.spatial:
            return flat.reshape(len(flat), *self.shape[1:], -1).transpose(0, 3, 1, 2)
        by_unit = flat.reshape(len(flat), -1, *self.shape[1:], self.layer.unit_size)
        return by_unit.transpose(0, 1, 4, 2, 3).reshape(len(flat), *self.shape)

    def blocks(self, rows, n_bytes):
        """Yield some rows and their gates, as many at a time as fit if a gate takes so many."""
        step = max(1, _BLOCK_BYTES // (n_bytes * int(np.prod(self.shape))))
        for start in range(0, len(rows), step):
            yield rows[start : start + step], self.gates(rows[start : start + step])

    def rates(self, rows, y_encoded, n_classes):
        """Return the smoothed rates of all gates, (channels, height, width), and by class."""
        counts = np.zeros((n_classes, *self.shape))
        for block, gates in self.blocks(rows, 1):
            for label in range(n_classes):
                counts[label] += gates[y_encoded[block] == label].sum(axis=0, dtype=np.int64)
        total, n = counts.sum(axis=0), len(rows)
        channels = (total.sum(axis=(1, 2), keepdims=True) + 0.5) / (n * self.n_places + 1)
        rates = (total + _CHANNEL_SAMPLES * channels) / (n + _CHANNEL_SAMPLES)
        sizes = np.bincount(y_encoded[rows], minlength=n_classes).reshape(-1, 1, 1, 1)
        return rates, (counts + _CLASS_SAMPLES * rates) / (sizes + _CLASS_SAMPLES)
