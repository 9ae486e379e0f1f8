"""What every case answers, and entropies in bits."""

from abc import ABC, abstractmethod

import numpy as np
from scipy.special import entr

from .stored import STORED


def bits(p):
    """Return the entropy of probabilities along the last axis."""
    return entr(p).sum(-1) / np.log(2)


def binary_entropy(p):
    """Return the entropy of a gate that is open with probability p."""
    p = np.asarray(p, dtype=float)
    return (entr(p) + entr(1 - p)) / np.log(2)


class Distribution(ABC):
    """A distribution of gates, rows of 0 and 1, and of a label where there is one.

    ``rates`` are the probabilities with which each gate is open, and ``entropy`` and ``mi_xy`` the
    true H(Σ) and I(Σ;Y). ``entropy_error`` and ``mi_xy_error`` are the standard errors of these
    true values, 0 where they are exact.
    """

    #: Rows that are drawn together are independent of one another.
    independent_rows = True
    entropy_error = 0.0
    mi_xy = None
    mi_xy_error = 0.0

    @abstractmethod
    def sample(self, n, rng):
        """Return n rows: gates (n, d), labels or None, groups or None."""

    @property
    def n_gates(self):
        return len(self.rates)

    @property
    def total_correlation(self):
        """Σ_i h(rate_i) - H."""
        return binary_entropy(self.rates).sum() - self.entropy


class Estimated(Distribution):
    """A distribution with exact likelihoods, whose entropy is their mean over many rows.

    Subclasses have ``log_joint(gates)``, log p(σ, y) in nats: one column for each value of y, or
    one column where there is no label.
    """

    def __init__(self):
        self.entropy, self.entropy_error, *mi_xy = STORED.get(repr(self), (np.nan, np.nan))
        if mi_xy:
            self.mi_xy, self.mi_xy_error = mi_xy

    def recompute(self, n=100_000, seed=0):
        """Return H and its standard error, and where there are labels I(Σ;Y) and its own."""
        rng, surprisals, informations = np.random.default_rng(seed), [], []
        for _ in range(0, n, 1000):
            gates, y, _ = self.sample(1000, rng)
            joint = self.log_joint(gates) / np.log(2)
            marginal = np.logaddexp2.reduce(joint, axis=1)
            surprisals.append(-marginal)
            if y is not None:
                posterior = np.exp2(joint - marginal[:, None])  # (1000, classes)
                informations.append(bits(self.class_rates) - bits(posterior))
        parts = [surprisals, informations] if informations else [surprisals]
        values = [np.concatenate(part) for part in parts]
        return tuple(f(v) for v in values for f in (np.mean, lambda v: np.std(v) / np.sqrt(len(v))))
