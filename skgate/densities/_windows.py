"""`Windows`: the gates that come before a gate, near it in its layer and in the layer before."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from ._causal_regression import Sample

#: Bytes that the windows of drawn places may take.
_SAMPLE_BYTES = 1 << 28


@dataclass
class Windows:
    """The causal window of a gate, and 3 x 3 positions of the layer before.

    The order is that of rows, then columns, then channels.

    Attributes
    ----------
    radius : int
        Number of rows above, and of columns on either side.
    rates : ndarray of shape (channels, height, width)
        Those of the gates, which they are centred at.
    rates_before : ndarray of shape (channels, height, width), or None
        Those of the layer before; its positions may be a multiple in number.
    """

    radius: int
    rates: np.ndarray
    rates_before: np.ndarray | None = None

    @property
    def steps(self):
        """Steps (down, right) to the earlier positions."""
        r, (_, height, width) = self.radius, self.rates.shape
        beside = range(-r, r + 1) if width > 1 else [0]
        above = [(down, right) for down in range(-r, 0) for right in beside] if height > 1 else []
        return above + ([(0, right) for right in range(-r, 0)] if width > 1 else [])

    @property
    def n_features(self):
        """Number of gates in the window, those at the same place included."""
        n_before = 0 if self.rates_before is None else 9 * len(self.rates_before)
        return n_before + len(self.rates) * (len(self.steps) + 1)

    def _centred(self, gates, before):
        """Return the layer, and it and the layer before with zeros around, less their rates."""
        r = self.radius
        own = gates.astype(np.float32) - self.rates.astype(np.float32)
        around = np.pad(own, ((0, 0), (0, 0), (r, 0), (r, r)))
        if before is None:
            return own, around, None
        before = before.astype(np.float32) - self.rates_before.astype(np.float32)
        return own, around, np.pad(before, ((0, 0), (0, 0), (1, 1), (1, 1)))

    def _places_before(self):
        """Return the row of the layer before that each row lies on, and the same of columns."""
        sizes = zip(self.rates.shape[1:], self.rates_before.shape[1:], strict=True)
        return [np.arange(size) * n_before // size for size, n_before in sizes]

    def sample(self, grid, grid_before, rows, n_places, rng):
        """Return a `Sample` of at most so many places of some rows."""
        n = min(n_places, _SAMPLE_BYTES // (4 * self.n_features), len(rows) * grid.n_places)
        drawn = np.sort(rng.permutation(len(rows) * grid.n_places)[:n])
        of_row, place = np.divmod(drawn, grid.n_places)
        i, j = np.divmod(place, grid.shape[2])
        features, gates, start = [], [], 0
        for block, own in grid.blocks(rows, 12):
            inside = slice(*np.searchsorted(of_row, [start, start + len(block)]))
            at = of_row[inside] - start, i[inside], j[inside]
            before = None if grid_before is None else grid_before.gates(block)
            features.append(self._features(own, before, *at))
            gates.append(own[at[0], :, at[1], at[2]])
            start += len(block)
        offsets = logit(self.rates[:, i, j]).T.astype(np.float32)
        return Sample(np.concatenate(features), np.concatenate(gates).astype(np.float32), offsets)

    def _features(self, gates, before, row, i, j):
        """Return the windows of some places, (n_places, n_features)."""
        own, around, before = self._centred(gates, before)
        columns = []
        if before is not None:
            down, right = (at[k] for at, k in zip(self._places_before(), (i, j), strict=True))
            columns += [before[row, :, down + a, right + b] for a in range(3) for b in range(3)]
        r = self.radius
        columns += [around[row, :, i + r + down, j + r + right] for down, right in self.steps]
        return np.concatenate([*columns, own[row, :, i, j]], axis=1)

    def logits(self, regression, gates, before):
        """Return the logits of all gates, (n_rows, channels, height, width), by a convolution."""
        import torch

        _, around, before = self._centred(gates, before)
        r, n_channels = self.radius, len(self.rates)
        n_own = n_channels * len(self.steps)
        blocks = np.split(regression.weights, [-n_own - n_channels, -n_channels])
        from_before, from_window, from_place = blocks
        kernel = np.zeros((n_channels, n_channels, r + 1, 2 * r + 1), np.float32)
        weights = from_window.reshape(-1, n_channels, n_channels)
        for (down, right), block in zip(self.steps, weights, strict=True):
            kernel[:, :, r + down, r + right] = block.T
        kernel[:, :, r, r] = from_place.T
        around, kernel = torch.from_numpy(around), torch.from_numpy(kernel)
        z = torch.nn.functional.conv2d(around, kernel).numpy()
        if before is not None:
            down, right = self._places_before()
            for place, block in enumerate(from_before.reshape(9, -1, n_channels)):
                a, b = divmod(place, 3)
                near = before[:, :, down + a][:, :, :, right + b]
                z += np.einsum("nphw,pc->nchw", near, block, optimize=True)
        slopes, intercepts = regression.slopes[:, None, None], regression.intercepts[:, None, None]
        z += (slopes * logit(self.rates) + intercepts).astype(np.float32)
        return z
