r"""`Convolutional`: gates with positions, each given those before it by weights that all share."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from scipy.special import logit

from ..utils.sklearn import Interval
from ._causal_regression import Regression, Sample, least_squares, rates_alone, refined
from ._cross_fitting import FittedDensity
from ._grids import Grid, rate_maps
from ._product import Product

#: Positions that are drawn to fit the weights, and the bytes that their windows may take.
_N_POSITIONS, _SAMPLE_BYTES = 200_000, 1 << 28
#: Weights with as many rows are fitted; a wider window is not tried.
_MAX_FEATURES = 3000
#: Multiplications of a refinement that are worth it.
_MAX_WORK = 4e11
_GAINS = np.linspace(0, 1.5, 7)
_INNER_SHARE = 5


class Convolutional(FittedDensity):
    r"""Gates each of which is regressed on those before it in its window.

    The order is that of rows, then columns, then channels. With :math:`\rho` the rate of a gate and
    :math:`x` the centred gates of its causal window, which are above it, to its left, or lower
    channels at the same place,

    .. math::

        \operatorname{logit} P(\sigma_{cij} = 1 \mid \text{before})
            = a_c + \gamma_c \operatorname{logit} \rho_{cij} + w_c \cdot x.

    All positions share the weights, so that a fit costs the same for any size of image.
    """

    _parameter_constraints = {
        "window": [Interval(Integral, 1, None, closed="left")],
        "given_previous": ["boolean"],
    }
    _covers = "chain"

    def __init__(self, window=5, given_previous=True):
        self.window = window
        self.given_previous = given_previous

    def _fit_model(self, states, y_encoded, n_classes, seed, gpu):
        grids = [Grid(states, index) for index in range(len(states.layers))]
        return Chain(
            [
                _fit_layer(grids, index, given, y_encoded, n_classes, self.window, seed)
                for index in range(len(grids))
                for given in ([None, index - 1] if index and self.given_previous else [None])
            ]
        )

    def independent(self):
        """Return the reference of the total correlation: independent units."""
        return Product()


@dataclass
class Windows:
    """The window of a gate: ``radius`` rows above and columns beside it, and the layer before.

    Attributes
    ----------
    radius : int
    rates, previous_rates : ndarray of shape (channels, height, width)
        That centre the gates; ``previous_rates`` is None without a layer before.
    """

    radius: int
    rates: np.ndarray
    previous_rates: np.ndarray | None = None

    @property
    def offsets(self):
        """Steps (down, right) to the earlier positions."""
        r, (_, height, width) = self.radius, self.rates.shape
        across = [0] if width == 1 else range(-r, r + 1)
        above = [(i, j) for i in range(-r, 0) for j in across] if height > 1 else []
        return above + ([(0, j) for j in range(-r, 0)] if width > 1 else [])

    @property
    def n_features(self):
        """Number of gates in the window, without those at the same place."""
        n_before = 0 if self.previous_rates is None else 9 * len(self.previous_rates)
        return len(self.rates) * len(self.offsets) + n_before

    def centred(self, gates, previous):
        """Return the layers around each place, each (n_samples, channels, height, width)."""
        r = self.radius
        own = gates.astype(np.float32) - self.rates.astype(np.float32)
        padded = np.pad(own, ((0, 0), (0, 0), (r, 0), (r, r)))
        if previous is None:
            return own, padded, None
        before = previous.astype(np.float32) - self.previous_rates.astype(np.float32)
        return own, padded, np.pad(before, ((0, 0), (0, 0), (1, 1), (1, 1)))

    def _centres(self):
        """Return the row and column of the layer before that each position lies on."""
        sizes = zip(self.rates.shape[1:], self.previous_rates.shape[1:], strict=True)
        return [np.arange(size) * before // size for size, before in sizes]

    def at(self, gates, previous, places):
        """Return the features of some places, (n_places, n_features + n_channels).

        ``places`` are the sample, row and column of each.
        """
        sample, i, j = places
        own, padded, before = self.centred(gates, previous)
        r, columns = self.radius, []
        if before is not None:
            rows, cols = (c[k] for c, k in zip(self._centres(), (i, j), strict=True))
            columns += [before[sample, :, rows + a, cols + b] for a in range(3) for b in range(3)]
        columns += [padded[sample, :, i + r + a, j + r + b] for a, b in self.offsets]
        return np.concatenate([*columns, own[sample, :, i, j]], axis=1)

    def logits(self, regression, gates, previous):
        """Return the logits of all gates, (n_samples, channels, height, width)."""
        import torch
        from torch.nn.functional import conv2d

        _, padded, before = self.centred(gates, previous)
        r, (n_channels, height, width) = self.radius, self.rates.shape
        n_own = n_channels * len(self.offsets)
        n_before = len(regression.weights) - n_own - n_channels
        before_weights, window, lower = np.split(regression.weights, [n_before, n_before + n_own])
        kernel = np.zeros((n_channels, n_channels, r + 1, 2 * r + 1), np.float32)
        for (a, b), block in zip(
            self.offsets, window.reshape(-1, n_channels, n_channels), strict=True
        ):
            kernel[:, :, r + a, r + b] = block.T
        kernel[:, :, r, r] = lower.T
        z = conv2d(torch.from_numpy(padded), torch.from_numpy(kernel)).numpy()
        if before is not None:
            rows, cols = self._centres()
            blocks = before_weights.reshape(9, -1, n_channels)
            for place, block in enumerate(blocks):
                a, b = divmod(place, 3)
                near = before[:, :, rows + a][:, :, :, cols + b]
                z += np.einsum("nphw,pc->nchw", near, block, optimize=True)
        slopes, intercepts = (v[:, None, None] for v in (regression.slopes, regression.intercepts))
        z += (slopes * logit(self.rates) + intercepts).astype(np.float32)
        return z


@dataclass
class LayerModel:
    """A layer, perhaps given the one before: `Windows`, weights, and what the classes add."""

    index: int
    given: int | None
    windows: Windows
    regression: Regression
    class_offsets: np.ndarray  # (n_classes, channels, height, width)

    def log_likelihoods(self, grids):
        """Return log p given each class, (n_samples, n_classes), nats."""
        grid = grids[self.index]
        logs = np.empty((len(grid), len(self.class_offsets)))
        start = 0
        for rows, gates in grid.blocks(np.arange(len(grid)), 16 + 4 * 9):
            previous = None if self.given is None else grids[self.given].gates(rows)
            z = self.windows.logits(self.regression, gates, previous)
            sign = np.where(gates > 0, -1.0, 1.0)
            for label, offset in enumerate(self.class_offsets):
                losses = np.logaddexp(0.0, sign * (z + offset))
                logs[start : start + len(rows), label] = -losses.sum(axis=(1, 2, 3))
            start += len(rows)
        return logs


@dataclass
class Chain:
    """Layers, each alone and each given the one before."""

    models: list

    def log_likelihoods(self, states, bounds):
        """Return log p of each range of layers, (n_ranges, n_samples, n_classes), nats."""
        grids = [Grid(states, index) for index in range(len(states.layers))]
        alone, given = {}, {}
        for model in self.models:
            of = alone if model.given is None else given
            of[model.index] = model.log_likelihoods(grids)
        return np.stack(
            [
                alone[first] + sum(given.get(i, alone[i]) for i in range(first + 1, stop))
                for first, stop in bounds
            ]
        )


def _fit_layer(grids, index, given, y_encoded, n_classes, window, seed):
    grid, before = grids[index], None if given is None else grids[given]
    rng = np.random.default_rng(seed)
    rows = np.arange(len(grid))
    radius = window // 2
    inner = rows[len(rows) // _INNER_SHARE :], rows[: len(rows) // _INNER_SHARE]
    candidates = [0, *range(1, radius + 1)]
    losses = {}
    if len(inner[1]):
        for r in candidates:
            windows, _ = _windows(grid, before, inner[0], y_encoded, n_classes, r)
            if windows.n_features + grid.n_channels > _MAX_FEATURES:
                break
            train, test = (_sample(windows, grid, before, part, rng) for part in inner)
            start, factor = least_squares(train)
            losses[r, False] = start.loss(test)
            if 160 * train.features.size * grid.n_channels < _MAX_WORK * 40:
                losses[r, True] = refined(start, factor, train).loss(test)
            losses[0, None] = rates_alone(train.features.shape[1], grid.n_channels).loss(test)
    r, refine = min(losses, key=losses.get) if losses else (0, None)
    windows, class_rates = _windows(grid, before, rows, y_encoded, n_classes, r)
    if refine is None:
        windows = Windows(0, windows.rates)
        regression = rates_alone(grid.n_channels, grid.n_channels)
    else:
        sample = _sample(windows, grid, before, rows, rng)
        regression, factor = least_squares(sample)
        if refine:
            regression = refined(regression, factor, sample)
    class_offsets = np.zeros((n_classes, *grid.shape))
    if n_classes > 1:
        class_offsets = logit(class_rates) - logit(windows.rates)
    return LayerModel(
        index, given if refine is not None else None, windows, regression, class_offsets
    )


def _windows(grid, before, rows, y_encoded, n_classes, radius):
    rates, class_rates = rate_maps(grid, rows, y_encoded, n_classes)
    previous = None if before is None else rate_maps(before, rows, y_encoded, n_classes)[0]
    return Windows(radius, rates, previous), class_rates


def _sample(windows, grid, before, rows, rng):
    """Return a `Sample` of positions of some rows."""
    n_places = grid.height * grid.width
    n_columns = windows.n_features + grid.n_channels
    n = min(_N_POSITIONS, _SAMPLE_BYTES // (4 * n_columns), len(rows) * n_places)
    drawn = np.sort(rng.permutation(len(rows) * n_places)[:n])
    sample, place = np.divmod(drawn, n_places)
    offsets = logit(windows.rates).astype(np.float32)
    features, gates, start = [], [], 0
    for block, own in grid.blocks(rows, 12):
        inside = slice(*np.searchsorted(sample, [start, start + len(block)]))
        at = sample[inside] - start, *np.divmod(place[inside], grid.width)
        previous = None if before is None else before.gates(block)
        features.append(windows.at(own, previous, at))
        gates.append(own[at[0], :, at[1], at[2]])
        start += len(block)
    i, j = np.divmod(place, grid.width)
    gates = np.concatenate(gates).astype(np.float32)
    return Sample(np.concatenate(features), gates, offsets[:, i, j].T)
