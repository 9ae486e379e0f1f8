"""Densities of other libraries, or of a user: anything with ``fit(X)`` and ``score_samples(X)``."""

import itertools

import numpy as np
from scipy.special import logsumexp
from sklearn.base import clone

from ._cross_fitting import FittedDensity

_PROBED_GATES = 3


class ForeignDensity(FittedDensity):
    """An estimator of another library or of a user, fitted for each range of layers.

    Parameters
    ----------
    estimator : object with ``fit`` and ``score_samples``
        Fitted to float64 arrays of 0 and 1; ``score_samples`` returns the natural logarithm of the
        probability of each row.
    """

    _covers = "all"

    def __init__(self, estimator):
        self.estimator = estimator

    def estimate(self, states, *args, **options):
        self._require_probabilities(states)
        return super().estimate(states, *args, **options)

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

    def _fit_model(self, states, seed, gpu):
        return _ForeignModel(clone(self.estimator, safe=False).fit(_gates(states)))


class _ForeignModel:
    """A fitted estimator, of one range of layers."""

    def __init__(self, estimator):
        self._estimator = estimator

    def log_likelihoods(self, states, bounds):
        """Return log p, (1, n_samples), nats."""
        if not len(states):
            return np.empty((1, 0))
        logs = np.asarray(self._estimator.score_samples(_gates(states)), float)
        if not np.isfinite(logs).all():
            raise ValueError(
                f"{self._estimator!r} gives a probability of 0, or NaN, to a sample that it was "
                "not fitted to, so that the entropy is not finite. Smooth its rates."
            )
        return logs[None]


def _gates(states):
    # float64, since arithmetic on booleans or bytes wraps around
    return states.__array__(np.float64)
