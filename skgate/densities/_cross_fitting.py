"""Fitted densities of gating states, and likelihoods of samples that a density has not seen."""

from itertools import islice

import numpy as np
from scipy.special import logsumexp
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state
from tqdm import tqdm

from ..utils.parallel import run
from ._autoregressive import fit_autoregression
from ._forest import count, spanning_forest, transposed, unit_forest
from ._information import mean_and_error

__all__ = ["FittedDensity", "cross_fit", "draw_seed", "information", "mixture", "own_class"]

#: How strongly the classes of a density are drawn together, from hardly to entirely.
_SHRINKAGES = {
    "forest": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, np.inf),
    "autoregressive": (0.01, 0.1, 1.0, np.inf),
}
_INNER_FOLDS = 5


class FittedDensity:
    """Densities of each layer and of all layers together, given each class.

    Parameters
    ----------
    states : GatingStates
    codes : ndarray of shape (n_samples,), dtype int
        Labels.
    n_classes : int
    spans : Spans
        The terms of which likelihoods are wanted.
    kind : {"product", "chow-liu", "autoregressive", "units"}
        ``"product"``: units are independent. ``"units"``: likewise, and the gates inside one are
        on a tree.
    seed : int
        Of the split by which the shrinkage of classes is chosen.
    gpu : Gpu, default=None
        Where a tree is found; None for the CPU.
    """

    def __init__(self, states, codes, n_classes, spans, kind, seed, gpu=None):
        self.spans, self.parts = spans, _parts(spans, kind)
        self.priors = np.bincount(codes, minlength=n_classes) / len(codes)
        order = np.random.default_rng(seed).permutation(len(states))
        states, codes = states[order], codes[order]
        fit = _fit_autoregressive if kind == "autoregressive" else _fit_forest
        self.models = [
            fit(states.select(layers), codes, n_classes, kind, seed, gpu)
            for layers, *_ in self.parts
        ]

    def log_likelihoods(self, states):
        """Return log p of each term, (n_terms, n_samples, n_classes), nats."""
        logs = np.empty((len(self.spans.edges), len(states), len(self.priors)))
        for (layers, terms, spans), model in zip(self.parts, self.models, strict=True):
            logs[terms] = model.log_likelihoods(states.select(layers), spans)
        return logs


def _parts(spans, kind):
    """Return ``(layers, terms, spans among these layers)`` of the models that are fitted.

    A layer has a model of its own. Of all layers a forest gives every other term, by leaving out
    gates. What predicts gates from those before them gives the prefixes alone, and so it is fitted
    once more in the opposite order.
    """
    n_layers, edges = spans.support.shape[1], spans.edges
    parts = [([layer], [layer], [(0, 1)]) for layer in range(n_layers)]
    several = [term for term in range(len(edges)) if edges[term, 1] - edges[term, 0] > 1]
    forward = [t for t in several if kind != "autoregressive" or edges[t, 0] == 0]
    backward = [t for t in several if t not in forward]
    if forward:
        parts.append((list(range(n_layers)), forward, edges[forward]))
    if backward:
        layers = list(range(n_layers))[::-1]
        parts.append((layers, backward, [(0, n_layers - start) for start in edges[backward, 0]]))
    return parts


def _fit_forest(states, codes, n_classes, kind, seed, gpu):
    """Return a `Forest`, its classes shrunk as much as serves unseen samples."""

    def refit(rows):
        bits, sizes = _by_class(states, codes, n_classes, rows)
        edges = np.zeros((2, 0), np.int64)
        if kind == "chow-liu":
            edges = spanning_forest(bits, sizes, gpu)
        elif kind == "units":
            edges = unit_forest(states, bits, sizes)
        return count(states, bits, *edges, sizes).forest

    # a tree for each fold and class takes its time
    n_folds = 2 if kind == "chow-liu" else _INNER_FOLDS
    strength = _choose(states, codes, n_classes, refit, _SHRINKAGES["forest"], seed, n_folds)
    return refit(np.arange(len(states)))(strength)


def _fit_autoregressive(states, codes, n_classes, kind, seed, gpu):
    """Return an `Autoregression`, which heeds the class as much as serves unseen samples."""

    def refit(train):
        part = states[train], codes[train], n_classes
        return lambda strength: fit_autoregression(*part, strength)

    strength = _choose(states, codes, n_classes, refit, _SHRINKAGES[kind], seed, 1)
    return fit_autoregression(states, codes, n_classes, strength)


def _by_class(states, codes, n_classes, rows):
    """Return the transposed bits, and the number, of some samples of each class."""
    members = [rows[codes[rows] == c] for c in range(n_classes)]
    return [transposed(states, m) for m in members], np.array([len(m) for m in members])


def _choose(states, codes, n_classes, refit, strengths, seed, n_folds):
    """Return the largest strength no worse by a standard error than the best, on held-out folds.

    ``refit`` takes training rows and returns a function from strengths to densities; ``n_folds`` of
    five folds are judged.
    """
    n, whole = len(states), np.array([(0, len(states.layers))])
    if n_classes == 1 or n < 2 * _INNER_FOLDS:
        return np.inf
    priors = np.bincount(codes, minlength=n_classes) / n
    gains = []
    for train, test in islice(
        KFold(_INNER_FOLDS, shuffle=True, random_state=seed).split(codes), n_folds
    ):
        model, unseen = refit(train), states[test]
        logs = [model(s).log_likelihoods(unseen, whole)[0] for s in strengths]
        gains.append(information(np.array(logs), codes[test], priors))
    gains = np.concatenate(gains, axis=1)  # (n_strengths, n_judged)
    means, errors = mean_and_error(gains[gains.mean(axis=1).argmax()] - gains)
    return max(s for s, m, e in zip(strengths, means, errors, strict=True) if m <= e or m == 0)


def information(logs, codes, priors):
    """Return log p(sigma|y) / p(sigma) of each sample, from log p by class, (..., n, n_classes).

    The density of all samples is the mixture of those of the classes, so that the mean cannot
    exceed the entropy of the label.
    """
    gains = own_class(logs, codes) - mixture(logs, priors)
    gains[np.abs(gains) < 1e-12] = 0.0  # classes drawn together entirely tell nothing, to rounding
    return gains


def own_class(logs, codes):
    """Return log p of each sample given its own class, (..., n)."""
    return logs[..., np.arange(len(codes)), codes]


def mixture(logs, priors):
    """Return log p of each sample whatever its class, (..., n)."""
    with np.errstate(divide="ignore"):
        return logsumexp(logs + np.log(priors), axis=-1)


def draw_seed(random_state):
    """Return a seed drawn from whatever an estimator was given as ``random_state``."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def cross_fit(states, codes, spans, *, kind, cv, seed, engine):
    """Return a density of all samples, and log-likelihoods of samples under ones without them.

    Parameters
    ----------
    states : GatingStates
    codes : ndarray of shape (n_samples,), dtype int
    spans : Spans
    kind : as of `FittedDensity`
    cv : int or None
        Number of folds; None for likelihoods under the density of all samples.
    seed : int
        Of the folds; the same seed gives the same ones.
    engine : Engine
        Whose threads fit the folds, and whose GPU finds trees.

    Returns
    -------
    fitted : FittedDensity
    logs : ndarray of shape (n_terms, n_samples, n_classes)
        Nats.
    """
    n, n_classes = len(states), int(codes.max()) + 1
    if cv is not None and n < cv:
        raise ValueError(
            f"cv={cv} folds need at least as many samples; got n_samples={n}. Pass more samples, "
            "or cv=None for the in-sample value, which is too low."
        )
    everyone = np.arange(n)
    folds = [(everyone, everyone[:0] if cv else everyone)]
    if cv:
        folds += KFold(cv, shuffle=True, random_state=seed).split(everyone)
    sizes = [*states.n_gates, sum(states.n_gates)]
    work = sum(d**2 for d in sizes) * (n / 100 + 5) * len(folds)
    gpu = engine.gpu(work) if kind == "chow-liu" else None
    shared = states, codes, n_classes, spans, kind, seed, gpu
    logs, density = np.empty((len(spans.edges), n, n_classes)), None
    results = run(_fold, shared, folds, engine.n_jobs, work)
    shown = tqdm(results, total=len(folds), unit=" folds", disable=not engine.verbose)
    for (_, test), (fitted, values) in zip(folds, shown, strict=True):
        density = density or fitted  # those of the folds are not kept
        logs[:, test] = values
    return density, logs


def _fold(states, codes, n_classes, spans, kind, seed, gpu, train, test):
    density = FittedDensity(states[train], codes[train], n_classes, spans, kind, seed, gpu)
    return density, density.log_likelihoods(states[test])
