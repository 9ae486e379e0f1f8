"""Densities of other libraries, or of a user: anything with ``fit(X)`` and ``score_samples(X)``."""

import itertools

import numpy as np
from scipy.special import logsumexp
from sklearn.base import clone

from ..utils.samples import Samples
from ._cross_fitting import FittedDensity, largest_no_worse, pointwise_information
from .forests._product import Product

#: Weights of the density of all samples in that of a class, from none to all of it.
_SHRINKAGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_INNER_FOLDS = 5
_PROBED_GATES = 3


class ForeignDensity(FittedDensity):
    """An estimator of another library or of a user, fitted for each range of layers and class.

    Parameters
    ----------
    estimator : object with ``fit`` and ``score_samples``
        Fitted to float64 arrays of 0 and 1; ``score_samples`` returns the natural logarithm of the
        probability of each row.
    """

    _covers = "all"

    def __init__(self, estimator):
        self.estimator = estimator

    def estimate(self, states, label_sets, ranges, **options):
        self._require_probabilities(states)
        return super().estimate(states, label_sets, ranges, **options)

    def _require_probabilities(self, states):
        """Raise for a density of real numbers, whose values are no probabilities of gates."""
        gates = _gates(states)[:, :_PROBED_GATES]
        possible = np.array(list(itertools.product([0.0, 1.0], repeat=gates.shape[1])))
        logs = np.asarray(clone(self.estimator, safe=False).fit(gates).score_samples(possible))
        if logs.shape != (len(possible),):
            raise ValueError(
                f"density={self.estimator!r}: score_samples returned shape {logs.shape} for "
                f"{len(possible)} rows; need one log-probability per row, {(len(possible),)}."
            )
        total = np.exp(logsumexp(logs))
        if not abs(total - 1) < 1e-6:
            raise ValueError(
                f"density={self.estimator!r} is not a density of gates: fitted to "
                f"{gates.shape[1]} of them, the exponentials of its score_samples sum to "
                f"{total:.4g} over their {len(possible)} states, and need to sum to 1. A density "
                "of real numbers, such as KernelDensity or GaussianMixture, has no probabilities "
                "of single states. Use a density of binary data, or skgate.densities.Kernel."
            )

    def _fit_model(self, states, y_encoded, n_classes, seed, gpu):
        def refit(rows):
            gates, labels = _gates(states[rows]), y_encoded[rows]
            pooled = clone(self.estimator, safe=False).fit(gates)
            of_class = [
                clone(self.estimator, safe=False).fit(gates[labels == c])
                if n_classes > 1 and (labels == c).any()
                else pooled
                for c in range(n_classes)
            ]
            return lambda weight: _Mixtures(pooled, of_class, weight)

        weight = _choose_weight(states, y_encoded, n_classes, refit, seed)
        return refit(np.arange(len(states)))(weight)

    def independent(self):
        """Return the reference of the total correlation: independent units."""
        return Product()


def _choose_weight(states, y_encoded, n_classes, refit, seed):
    """Return the largest weight about as informative as the best, on a fifth that is held out.

    ``refit`` takes training rows and returns a function from weights to models.
    """
    samples = Samples(states.groups, len(states))
    if n_classes == 1 or len(samples) < 2 * _INNER_FOLDS:
        return _SHRINKAGES[-1]
    train, test = next(samples.folds(_INNER_FOLDS, seed))
    model, unseen, joint = refit(train), states[test], np.array([(0, len(states.layers))])
    logs = np.array([model(s).log_likelihoods(unseen, joint)[0] for s in _SHRINKAGES])
    priors = np.bincount(y_encoded, minlength=n_classes) / len(states)
    gains = pointwise_information(logs, y_encoded[test], priors)  # (n_weights, n_judged)
    return largest_no_worse(_SHRINKAGES, gains, Samples(samples.of_rows[test], len(test)))


class _Mixtures:
    """For each class, a mixture of its own density with that of all samples."""

    def __init__(self, pooled, of_class, weight):
        self.pooled, self.of_class, self.weight = pooled, of_class, weight

    def log_likelihoods(self, states, bounds):
        """Return log p given each class, (1, n_samples, n_classes), nats."""
        if not len(states):
            return np.empty((1, 0, len(self.of_class)))
        gates = _gates(states)
        with np.errstate(divide="ignore"):
            log_weight, log_rest = np.log(self.weight), np.log1p(-self.weight)
        pooled = self.pooled.score_samples(gates)
        logs = [
            np.logaddexp(log_weight + pooled, log_rest + density.score_samples(gates))
            for density in self.of_class
        ]
        if not np.isfinite(logs).all():
            raise ValueError(
                f"{self.pooled!r} gives a probability of 0, or NaN, to a sample that it was not "
                "fitted to, so that the entropy is not finite. Smooth its rates."
            )
        return np.stack(logs, axis=1)[None]


def _gates(states):
    # float64, since arithmetic on booleans or bytes wraps around
    return states.__array__(np.float64)
