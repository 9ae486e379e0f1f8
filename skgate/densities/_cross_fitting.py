"""`FittedDensity`: densities that score samples which they were not fitted to."""

from itertools import islice

import numpy as np
from scipy.special import logsumexp
from sklearn.base import clone
from tqdm import tqdm

from ..utils.parallel import run
from ..utils.samples import Samples
from ._base import Density, Estimate
from ._surprisals import Surprisals, mean_and_error

_INNER_FOLDS = 5


class FittedDensity(Density):
    """Base of the densities that are cross-fitted: of each layer and all together, by class.

    A subclass has ``_fit_model(states, y_encoded, n_classes, seed, gpu)``, which returns a model
    with ``log_likelihoods(states, bounds)``, (n_ranges, n_samples, n_classes).
    """

    #: Ranges that a model of all layers has: "any", those that are "prefixes", or only "all".
    _covers = "any"
    #: Whether a model is fitted on the GPU where there is work enough.
    _uses_gpu = False

    def fit_states(self, states, y_encoded, ranges, n_classes=1, seed=0, gpu=None):
        """Fit a model to each part of the layers."""
        y_encoded = np.zeros(len(states), int) if y_encoded is None else y_encoded
        self.layers_, self._ranges = states.layers, ranges
        self._parts = _parts(ranges, self._covers)
        self._priors = np.bincount(y_encoded, minlength=n_classes) / len(y_encoded)
        order = Samples(states.groups, len(states)).shuffled_rows(seed)
        states, y_encoded = states[order], y_encoded[order]
        self._models = [
            self._fit_model(states.select(layers), y_encoded, n_classes, seed, gpu)
            for layers, *_ in self._parts
        ]
        return self

    def log_likelihoods(self, states):
        """Return log p of each range given each class, (n_ranges, n_samples, n_classes), nats."""
        logs = np.empty((len(self._ranges), len(states), len(self._priors)))
        for (layers, positions, bounds), model in zip(self._parts, self._models, strict=True):
            logs[positions] = model.log_likelihoods(states.select(layers), bounds)
        return logs

    def log_marginals(self, states, engine):
        """Return log p of new states, (n_layers + 1, n_samples), that of all layers last."""
        logs = self.log_likelihoods(states)[[*self._ranges.layers, self._ranges.joint]]
        return log_p_marginal(logs, self._priors)

    def log_ratios(self, states, y_encoded, engine):
        """Return log p(sigma|y) / p(sigma) of new states, all layers together."""
        logs = self.log_likelihoods(states)[self._ranges.joint]
        return pointwise_information(logs, y_encoded, self._priors)

    def estimate(self, states, label_sets, ranges, *, cv, errors, seed, engine):
        """Return a cross-fitted `Estimate` for each set of labels."""
        ceilings = ranges.mask @ np.array(states.n_gates) * np.log(2)
        unsaturable, estimates = np.zeros(len(ranges), bool), []
        samples = Samples(states.groups, len(states))
        for y in label_sets:
            density, logs = cross_fit(self, states, y, ranges, cv=cv, seed=seed, engine=engine)
            marginal, given = Surprisals(-logs[..., 0], samples), None
            if y is not None:
                given = Surprisals(-log_p_given_y(logs, y), samples)
                gains = pointwise_information(logs, y, density._priors)
                marginal = Surprisals(given.rows + gains, samples)
            estimates.append(Estimate(marginal, given, ceilings, unsaturable, density))
        return estimates


def _parts(ranges, covers):
    """Return ``(layers, positions of ranges, their bounds among these layers)`` of each model.

    A layer has a model of its own. A model of all layers that leaves out gates gives every other
    range. One that predicts gates from those before them gives the prefixes alone, so that it is
    fitted once more in the opposite order. One that gives only all its layers is fitted to each.
    """
    n_layers, bounds = ranges.mask.shape[1], ranges.bounds
    parts = [([layer], [layer], [(0, 1)]) for layer in range(n_layers)]
    several = [r for r in range(len(bounds)) if bounds[r, 1] - bounds[r, 0] > 1]
    if covers == "chain":
        return [(list(range(n_layers)), list(range(len(bounds))), bounds)]
    if covers == "all":
        spans = {r: list(range(*bounds[r])) for r in several}
        return parts + [(layers, [r], [(0, len(layers))]) for r, layers in spans.items()]
    forward = [r for r in several if covers == "any" or bounds[r, 0] == 0]
    backward = [r for r in several if r not in forward]
    if forward:
        parts.append((list(range(n_layers)), forward, bounds[forward]))
    if backward:
        layers = list(range(n_layers))[::-1]
        parts.append((layers, backward, [(0, n_layers - start) for start in bounds[backward, 0]]))
    return parts


def choose_shrinkage(states, y_encoded, n_classes, refit, strengths, seed, n_folds):
    """Return the largest strength no worse by a standard error than the best, on held-out folds.

    ``refit`` takes training rows and returns a function from strengths to models. With the last
    strength, classes are shrunk entirely towards all samples. ``n_folds`` of five folds are judged.
    """
    samples = Samples(states.groups, len(states))
    if n_classes == 1 or len(samples) < 2 * _INNER_FOLDS:
        return strengths[-1]
    joint = np.array([(0, len(states.layers))])
    priors = np.bincount(y_encoded, minlength=n_classes) / len(states)
    gains, judged = [], []
    for train, test in islice(samples.folds(_INNER_FOLDS, seed), n_folds):
        model, unseen = refit(train), states[test]
        logs = [model(s).log_likelihoods(unseen, joint)[0] for s in strengths]
        gains.append(pointwise_information(np.array(logs), y_encoded[test], priors))
        judged.append(samples.of_rows[test])
    gains = np.concatenate(gains, axis=1)  # (n_strengths, n_judged)
    judged = Samples(np.concatenate(judged), gains.shape[1])
    means, errors = mean_and_error(gains[gains.mean(axis=1).argmax()] - gains, judged)
    return max(s for s, m, e in zip(strengths, means, errors, strict=True) if m <= e or m == 0)


def pointwise_information(logs, y_encoded, priors):
    """Return log p(sigma|y) / p(sigma) of each sample, from log p by class, (..., n, n_classes).

    The density of all samples is the mixture of those of the classes, so that the mean cannot
    exceed the entropy of the label.
    """
    gains = log_p_given_y(logs, y_encoded) - log_p_marginal(logs, priors)
    gains[np.abs(gains) < 1e-12] = 0.0  # rounding: classes that share one density do not differ
    return gains


def log_p_given_y(logs, y_encoded):
    """Return log p of each sample given its own class, (..., n)."""
    return logs[..., np.arange(len(y_encoded)), y_encoded]


def log_p_marginal(logs, priors):
    """Return the marginal log p of each sample, (..., n)."""
    with np.errstate(divide="ignore"):
        return logsumexp(logs + np.log(priors), axis=-1)


def cross_fit(density, states, y_encoded, ranges, *, cv, seed, engine):
    """Return a density of all samples, and log-likelihoods of each under a density without it.

    These are (n_ranges, n_samples, n_classes), nats; with ``cv=None``, under the density of all.
    """
    n, n_classes = len(states), 1 if y_encoded is None else int(y_encoded.max()) + 1
    samples = Samples(states.groups, n)
    if cv is not None and len(samples) < cv:
        raise ValueError(
            f"cv={cv} folds need at least as many samples; got n_samples={len(samples)}. "
            "Pass more samples, or cv=None for the in-sample value, which is too low."
        )
    y_encoded = np.zeros(n, int) if y_encoded is None else y_encoded
    all_rows = np.arange(n)
    folds = [(all_rows, all_rows[:0] if cv else all_rows)]
    if cv:
        folds += samples.folds(cv, seed)
    sizes = [*states.n_gates, sum(states.n_gates)]
    work = sum(d**2 for d in sizes) * (n / 100 + 5) * len(folds)
    gpu = engine.gpu(work) if density._uses_gpu else None
    shared = density, states, y_encoded, n_classes, ranges, seed, gpu
    logs, fitted = np.empty((len(ranges), n, n_classes)), None
    results = run(_fold, shared, folds, engine.n_jobs, work)
    shown = tqdm(results, total=len(folds), unit=" folds", disable=not engine.verbose)
    for (_, test), (of_fold, values) in zip(folds, shown, strict=True):
        fitted = fitted or of_fold  # the densities of the folds are not kept
        logs[:, test] = values
    return fitted, logs


def _fold(density, states, y_encoded, n_classes, ranges, seed, gpu, train, test):
    fitted = clone(density).fit_states(
        states[train], y_encoded[train], ranges, n_classes, seed, gpu
    )
    return fitted, fitted.log_likelihoods(states[test])
