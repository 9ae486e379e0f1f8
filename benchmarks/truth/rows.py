"""Rows that are not independent: their distribution is known all the same."""

import numpy as np

from ._base import Distribution
from .closed import Independent
from .enumerated import all_states


class Augmented(Distribution):
    """Each row of independent gates several times, every copy with flips of its own; groups.

    A flip with probability f turns the rate a_i into a_i (1 - f) + (1 - a_i) f and leaves the gates
    of a row independent, so that H = Σ_i h of these rates. Copies share a label, a coin, which
    the gates do not depend on: I(Σ;Y) = 0. Without flips the rows are repeated.
    """

    independent_rows = False
    mi_xy = 0.0

    def __init__(self, independent, times, flip=0.0):
        self.independent, self.times, self.flip = independent, times, flip
        flipped = Independent(independent.rates * (1 - 2 * flip) + flip)
        self.rates, self.entropy = flipped.rates, flipped.entropy

    def sample(self, n, rng):
        groups = np.arange(n) // self.times
        gates = self.independent.sample(groups[-1] + 1, rng)[0][groups]
        y = rng.integers(2, size=groups[-1] + 1)[groups]
        return gates ^ (rng.random(gates.shape) < self.flip), y, groups


class Clustered(Distribution):
    """Rows of a `DichotomisedGaussian` in clusters that share the hidden factor; groups.

    The distribution of a row is that of independent rows, and so are H and TC. Clusters share a
    label, a coin, which the gates do not depend on: I(Σ;Y) = 0.
    """

    independent_rows = False
    mi_xy = 0.0

    def __init__(self, gaussian, size):
        self.gaussian, self.size, self.rates = gaussian, size, gaussian.rates
        self.entropy, self.entropy_error = gaussian.entropy, gaussian.entropy_error

    def sample(self, n, rng):
        groups = np.arange(n) // self.size
        z, y = rng.normal(size=groups[-1] + 1), rng.integers(2, size=groups[-1] + 1)
        return self.gaussian.given_factor(z[groups], rng), y[groups], groups


class AllStatesOnce(Distribution):
    """All 2^d states in random order, and over again: H = d of one row drawn from them, TC = 0.

    The entropy of the n rows themselves is log2 n for n up to 2^d: it grows a bit a doubling.
    """

    independent_rows = False

    def __init__(self, n_gates):
        self.rates, self.entropy = np.full(n_gates, 0.5), float(n_gates)

    def sample(self, n, rng):
        states = all_states(self.n_gates)
        order = [rng.permutation(len(states)) for _ in range(0, n, len(states))]
        return states[np.concatenate(order)[:n]], None, None
