"""`Window`: the gates that come before a gate, near it in its layer and in the layer before."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np


def places_before(size, n_before):
    """Return the position of the layer before that each of ``size`` positions lies on.

    That of a convolution or pooling with a stride, if there is one that fits; else the nearest.
    """
    at = np.arange(size)
    stride = max(1, round(n_before / size))
    margin = n_before - 1 - stride * (size - 1)
    if margin >= 0:
        return margin // 2 + stride * at
    return at * n_before // size


def related(shape, before):
    """Return whether the positions of a layer lie on those of the layer before."""
    return all((n == 1) == (m == 1) for n, m in zip(shape[1:], before[1:], strict=True))


@dataclass(frozen=True)
class Window:
    """Gates that a gate may depend on. The order is that of rows, then columns, then channels.

    Attributes
    ----------
    shape : tuple
        (channels, height, width) of the layer.
    before : tuple or None
        The same of the layer before; a gate has 3 x 3 positions of it.
    radius : int
        Number of rows above, and of columns on either side.
    rank : int or None
        Components of the channels at each other position; None: the channels themselves.
    """

    shape: tuple
    before: tuple | None
    radius: int
    rank: int | None = None

    @cached_property
    def rings(self):
        """Steps (down, right) to the earlier positions at each distance, the nearest first."""
        _, height, width = self.shape
        r = self.radius
        beside = range(-r, r + 1) if width > 1 else [0]
        above = [(down, right) for down in range(-r, 0) for right in beside] if height > 1 else []
        steps = above + ([(0, right) for right in range(-r, 0)] if width > 1 else [])
        return [[s for s in steps if max(map(abs, s)) == ring] for ring in range(1, r + 1)]

    @property
    def steps(self):
        return [step for ring in self.rings for step in ring]

    @cached_property
    def steps_before(self):
        """Steps (down, right) to positions of the layer before: 3 x 3, or 3 of a line."""
        if self.before is None:
            return []
        return list(product(*(range(-1, 2) if n > 1 else [0] for n in self.before[1:])))

    @property
    def n_components(self):
        """Features of a position of the layer, and of the layer before."""
        sizes = self.shape[0], self.before[0] if self.before else 0
        return sizes if self.rank is None else [min(self.rank, size) for size in sizes]

    @property
    def n_before(self):
        return self.n_components[1] * len(self.steps_before)

    @property
    def n_features(self):
        """Number of features: of the layer before, of the window, the gates of the same place."""
        return self.n_before + self.n_components[0] * len(self.steps) + self.shape[0]

    @property
    def n_gates(self):
        """Number of gates that the features are made of."""
        return replace(self, rank=None).n_features

    def columns(self, radius, given):
        """Return the features of a smaller window, or of one without the layer before."""
        n_near = self.n_components[0] * sum(map(len, self.rings[:radius]))
        first = np.arange(0 if given else self.n_before, self.n_before + n_near)
        return np.concatenate([first, np.arange(self.n_features - self.shape[0], self.n_features)])

    @cached_property
    def lies_on(self):
        """Row of the layer before that each row lies on, and the same of columns."""
        return [places_before(*n) for n in zip(self.shape[1:], self.before[1:], strict=True)]

    def features(self, gates, before, i, j):
        """Return the window at some positions of all rows, (n_rows, n_places, n_gates).

        ``gates`` and ``before`` are (n_rows, channels, height, width); outside of them, all is 0.
        """
        r, found = self.radius, []
        if before is not None:
            down, right = self.lies_on[0][i], self.lies_on[1][j]
            around = np.pad(before, ((0, 0), (0, 0), (1, 1), (1, 1)))
            near = [(1 + a, 1 + b) for a, b in self.steps_before]
            found += [around[:, :, down + a, right + b] for a, b in near]
        around = np.pad(gates, ((0, 0), (0, 0), (r, 0), (r, r)))
        steps = [*self.steps, (0, 0)]
        found += [around[:, :, i + r + down, j + r + right] for down, right in steps]
        return np.concatenate(found, axis=1).transpose(0, 2, 1)
