"""`LinkFitter`: a layer, alone and given the one before, fitted to any parts of its rows.

Rows are divided into parts, of which a training set is any number. Gates are counted, and windows
drawn and multiplied, once for each part; a training set has the sums over its parts.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import takewhile

import numpy as np

from ...exceptions import warn_user
from ._causal_regression import (
    Regression,
    fit_curves,
    least_squares,
    losses,
    refined,
    whitening,
)
from ._grids import Grid
from ._layer_scores import LayerModel
from ._places import Moments, draw_places
from ._projections import Projection
from ._windows import Window, related

#: Ridges of the second moments that are tried one after the other, in mean variances of a gate.
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
#: Features of a regression at most, and channels; components of the channels where there are more.
_MAX_FEATURES, _MAX_CHANNELS, _RANK = 3000, 4096, 48
#: Places that judge the choices.
N_JUDGED, JUDGED_GATES = 4096, 1 << 19
#: Places that refine: bytes of their windows for an iteration, as more iterations overfit fewer.
_BYTES_AN_ITERATION, _PLACES_A_FEATURE = 27 << 20, 600


def largest_window(shapes, max_radius):
    """Return the largest window for a layer, and perhaps the one before; None if there is none.

    Where the window has too many gates, their principal components replace them.
    """
    if not 0 < shapes[0][0] <= _MAX_CHANNELS:
        return None
    before = shapes[1] if len(shapes) > 1 and shapes[1][0] else None
    max_radius = max_radius if shapes[0][1] * shapes[0][2] > 1 else 0
    windows = [Window(shapes[0], before, radius) for radius in range(max_radius + 1)]
    allowed = [w for w in windows if w.n_features <= _MAX_FEATURES]
    if len(allowed) < min(2, len(windows)):  # not even the positions next to a gate
        return Window(shapes[0], before, max_radius, _RANK)
    return allowed[-1]


@dataclass(frozen=True)
class Settings:
    """Radius of the window, ridge, and whether least squares are refined."""

    radius: int
    ridge: float
    refine: bool = False


def n_refined(n_features, max_iter):
    """Return how many places refine the weights: more would hardly change their loss."""
    n_bytes = max_iter * _BYTES_AN_ITERATION
    return min(n_bytes // (4 * n_features), _PLACES_A_FEATURE * n_features)


@dataclass
class Choice:
    """Settings (None: rates alone) and curves of a term, and the model that was judged."""

    loss: float
    settings: Settings | None
    curves: np.ndarray | None
    regression: Regression | None


class LinkFitter:
    """Fits a layer, and the layer given the one before, to parts of the rows."""

    def __init__(self, states, parts, n_parts, max_radius, max_iter, seed):
        self.grids = [Grid(states, index) for index in range(len(states.layers))][::-1]
        self.n_terms = len(self.grids)
        self.parts, self.max_iter = parts, max_iter
        self.sizes = np.bincount(parts, minlength=n_parts)
        self.counts = [grid.counts(parts, n_parts) for grid in self.grids]
        self.channels = [self._varying(counts) for counts in self.counts]
        if self.n_terms == 2 and not (
            related(*(g.shape for g in self.grids)) and len(self.channels[1])
        ):
            for of_layers in (self.grids, self.counts, self.channels):
                of_layers.pop()  # the layer before does not help
        self.window = self._largest_window(max_radius)
        if len(self.channels[0]) > _MAX_CHANNELS:
            warn_user(
                f"{len(self.channels[0])} channels of layer {states.layer_names[-1]!r} vary, more "
                f"than the {_MAX_CHANNELS} that a window can have: its gates count as independent."
            )
        self.moments = None
        if self.window is not None:
            rng = np.random.default_rng(seed)
            places = draw_places(self.window, self.grids, self.channels, parts, n_parts, rng)
            self.places, self.moments = places, Moments(places, self._shared_columns(), n_parts)
        self._training_sets = {}

    def _varying(self, counts):
        """Return the channels with gates that are not constant."""
        total = counts.sum(axis=0)
        return np.flatnonzero(((total > 0) & (total < self.sizes.sum())).any(axis=(1, 2)))

    def _largest_window(self, max_radius):
        """Return the largest window that a regression can have, or None if there is none."""
        shapes = [(len(c), *g.shape[1:]) for c, g in zip(self.channels, self.grids, strict=True)]
        return largest_window(shapes, max_radius)

    def _shared_columns(self):
        """Return the gates of the windows whose second moments all training sets share."""
        window = self.window
        every = np.arange(window.n_gates)
        if window.rank is None:
            return every
        own, near = every[-window.shape[0] :], every[:0]
        if window.before:
            middle = window.steps_before.index((0, 0)) * window.before[0]
            near = every[middle : middle + window.before[0]]
        return np.concatenate([near, own])

    def fit(self, excluded, judging):
        """Return models of the terms, fitted to all parts but some.

        The judging parts choose the settings, for a fit to the rest.
        """
        inner = self.training_set(sorted({*excluded, *judging}))
        full = self.training_set(sorted(excluded))
        full.inner = inner
        models, start = [], None
        for given in range(self.n_terms):
            choice = self._choose(inner, judging, given, start)
            start = choice.settings
            regression = full.regression(choice, given)
            models.append(self._model(full, choice.settings, regression, given))
        return models

    def training_set(self, excluded):
        """Return the `TrainingSet` of all parts but some; the last few are kept."""
        key = tuple(excluded)
        training = self._training_sets.pop(key, None)
        if training is None:
            training = TrainingSet(self, np.setdiff1d(np.arange(len(self.sizes)), excluded))
        self._training_sets[key] = training
        if len(self._training_sets) > 2:
            del self._training_sets[next(iter(self._training_sets))]
        return training

    def _choose(self, inner, judging, given, start):
        """Return the best `Choice` on judging parts; rates alone are the last resort.

        From the smallest window on; or, given the layer before, from the settings without it.
        """
        if self.moments is None or not self.sizes[inner.parts].sum():
            return Choice(np.inf, None, None, None)
        rows = self.places.rows_of(judging)
        n_places = self.places.n_places
        n_judged = min(N_JUDGED, JUDGED_GATES // self.places.n_channels)
        rows = rows[:: max(1, len(rows) * n_places // n_judged)]
        if not len(rows):
            return Choice(np.inf, None, None, None)
        best = Choice(losses(*inner.targets(rows)).mean(), None, None, None)

        def try_(settings):
            nonlocal best
            choice = inner.judge(settings, rows, given, best.curves)
            improves = choice.loss < best.loss
            best = choice if improves else best
            return improves

        radii, ridge = range(self.window.radius + 1), 1
        if start is not None:
            radii, ridge = radii[start.radius :: -1], _RIDGES.index(start.ridge)
        for radius in radii:
            if not try_(Settings(radius, _RIDGES[ridge])):
                break
        radius = best.settings.radius if best.settings else 0
        for steps in (_RIDGES[ridge + 1 :], _RIDGES[:ridge][::-1]):
            n_better = sum(takewhile(bool, (try_(Settings(radius, at)) for at in steps)))
            if n_better:
                break
        if best.settings and self.max_iter:
            try_(Settings(best.settings.radius, best.settings.ridge, True))
        return best

    def _model(self, training, settings, regression, given):
        window, n = self.window, 1
        if settings is not None:
            before = window.before if given else None
            window = replace(window, before=before, radius=settings.radius)
            n = 1 if before is None else 2
        own = [rates.all[c] for rates, c in zip(training.rates, self.channels, strict=True)]
        projection = training.projection if settings is not None else None
        return LayerModel(
            window, self.channels[:n], own[:n], training.offsets, regression, projection
        )


class TrainingSet:
    """What is fitted to some parts of the rows."""

    def __init__(self, fitter, parts):
        self.fitter, self.parts = fitter, parts
        self.n_rows = int(fitter.sizes[parts].sum())
        self.rates = [
            grid.rates(counts[parts].sum(axis=0), self.n_rows)
            for grid, counts in zip(fitter.grids, fitter.counts, strict=True)
        ]
        self.offsets = self.rates[0].offsets
        self.weights = cache(self._weights)
        self._judged_rows = None
        self.inner = None  # the training set of the choices, a subset, whose projection it has

    @cached_property
    def centres(self):
        """Rates of the windows that were drawn."""
        rates = [r.all[c] for r, c in zip(self.rates, self.fitter.channels, strict=True)]
        before = rates[1] if self.fitter.window.before else None
        return self.fitter.places.centres(rates[0], before)

    @cached_property
    def _shared_moments(self):
        return self.fitter.moments.centred(self.parts, self.centres)

    @cached_property
    def projection(self):
        """The `Projection` of the windows, or None."""
        if self.fitter.window.rank is None:
            return None
        if self.inner is not None:
            return self.inner.projection
        return Projection.of_moments(self.fitter.window, self._shared_moments)

    @cached_property
    def _moments(self):
        """Second moments of the features."""
        if self.projection is None:
            return self._shared_moments
        places, parts, known = self.fitter.places, self.parts, 0.0
        n_own, n = places.n_channels, self.fitter.window.n_features
        n_places = len(places.rows_of(parts)) * places.n_places
        if self.inner is not None:
            parts = np.setdiff1d(parts, self.inner.parts)
            n_known = len(places.rows_of(self.inner.parts)) * places.n_places
            known = n_known / n_places * self.inner._moments[: n - n_own]
        moments = np.zeros((n, n), np.float32)
        for chunk in places.chunks(places.rows_of(parts)):
            features = self._features(chunk).numpy()
            moments[: n - n_own] += features[:, :-n_own].T @ features / n_places
        moments[: n - n_own] += known
        moments[n - n_own :, : n - n_own] = moments[: n - n_own, n - n_own :].T
        moments[n - n_own :, n - n_own :] = self._shared_moments[-n_own:, -n_own:]
        return moments

    def _columns(self, radius, given):
        return self.fitter.window.columns(radius, given)

    def _factor(self, radius, ridge, given):
        columns = self._columns(radius, given)
        moments = self._moments[np.ix_(columns, columns)]
        return whitening(moments, self.fitter.places.n_channels, ridge)

    def _weights(self, radius, ridge, given):
        """Return the weights by least squares."""
        factor = self._factor(radius, ridge, given)
        return least_squares(factor, self.fitter.places.n_channels)

    def targets(self, rows):
        """Return gates, offsets and whether they are free at drawn places, tensors."""
        import torch

        offsets = self.offsets[self.fitter.channels[0]]
        gates, offsets, free = self.fitter.places.targets(rows, offsets)
        return [torch.from_numpy(v).float() for v in (gates, offsets, free)]

    def _judged(self, rows):
        """Return all features of places that judge, and their targets, tensors; kept."""
        if self._judged_rows is None or not np.array_equal(self._judged_rows[0], rows):
            self._judged_rows = rows, self._features(rows), self.targets(rows)
        return self._judged_rows[1:]

    def _features(self, rows, columns=slice(None)):
        """Return some features of the places of some rows, a tensor."""
        import torch

        found = []
        for chunk in self.fitter.places.chunks(rows):
            gates = torch.from_numpy(self.fitter.places.centred(chunk, self.centres))
            found.append((self.projection(gates) if self.projection else gates)[:, columns])
        return torch.cat(found)

    def judge(self, settings, rows, given, start):
        """Return the `Choice` of settings, with curves that are fitted to unseen places."""
        import torch

        features, (gates, offsets, free) = self._judged(rows)
        columns = self._columns(settings.radius, given)

        def predictions(weights):
            parts = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)  # no copies
            blocks = np.split(weights, np.cumsum([len(part) for part in parts])[:-1])
            return sum(
                features[:, part[0] : part[-1] + 1] @ torch.from_numpy(block)
                for part, block in zip(parts, blocks, strict=True)
            )

        weights = self.weights(settings.radius, settings.ridge, given)
        curves, found = fit_curves(predictions(weights), gates, offsets, free, start)
        regression = _calibrated(weights, curves)
        if settings.refine:
            regression = self._refined(regression, settings, given, self.fitter.max_iter)
            slopes, intercepts = map(torch.from_numpy, (regression.slopes, regression.intercepts))
            logits = predictions(regression.weights) + offsets * slopes + intercepts
            found = losses(gates, logits, free)
        return Choice(found.mean(), settings, curves, regression)

    def regression(self, choice, given):
        """Return the regression with the settings and curves of a choice, or None."""
        settings = choice.settings
        if settings is None:
            return None
        if settings.refine:
            # the choice was fitted to fewer of the same parts, and is nearly there
            max_iter = -(-self.fitter.max_iter // 4)
            return self._refined(choice.regression, settings, given, max_iter)
        weights = self.weights(settings.radius, settings.ridge, given)
        return _calibrated(weights, choice.curves)

    def _refined(self, regression, settings, given, max_iter):
        factor = self._factor(settings.radius, settings.ridge, given)
        rows, n_places = self.fitter.places.rows_of(self.parts), self.fitter.places.n_places
        n_rows = max(1, n_refined(len(factor), self.fitter.max_iter) // n_places)
        rows = rows[:: -(-len(rows) // n_rows)]
        features = self._features(rows, self._columns(settings.radius, given))
        return refined(regression, factor, features, *self.targets(rows), max_iter)


def _calibrated(weights, curves):
    return Regression(weights * curves[2], curves[0], curves[1])
