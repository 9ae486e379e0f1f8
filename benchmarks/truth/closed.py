"""Distributions whose entropy is a closed form."""

from math import comb, log2

import numpy as np

from ._base import Distribution, binary_entropy


class Independent(Distribution):
    """Independent gates: H = Σ_i h(a_i) with rates a_i, and TC = 0."""

    def __init__(self, rates):
        self.rates = np.asarray(rates, dtype=float)
        self.entropy = binary_entropy(self.rates).sum()

    def sample(self, n, rng):
        return rng.random((n, self.n_gates)) < self.rates, None, None


class Tree(Distribution):
    """A gate depends on one before it, its parent, alone.

    Gate i is open with probability b_i after an open parent and c_i after a closed one, so that its
    rate is a_i = a_pa b_i + (1 - a_pa) c_i and H = h(a_0) + Σ_i [a_pa h(b_i) + (1 - a_pa) h(c_i)].
    """

    def __init__(self, parents, after_closed, after_open):
        self.parents, self.after = parents, np.stack([after_closed, after_open])  # (2, d)
        self.rates = np.full(len(parents), 0.5)
        for i, parent in enumerate(parents):
            if parent is not None:
                self.rates[i] = np.interp(self.rates[parent], [0, 1], self.after[:, i])
        self.entropy = sum(
            1.0 if parent is None else self._given(i, self.rates[parent])
            for i, parent in enumerate(parents)
        )

    def _given(self, i, rate):
        after_closed, after_open = binary_entropy(self.after[:, i])
        return (1 - rate) * after_closed + rate * after_open

    @classmethod
    def chain(cls, n_gates, flip=0.1):
        """A Markov chain that starts with a coin and flips with the same probability."""
        parents = [None, *range(n_gates - 1)]
        return cls(parents, np.full(n_gates, flip), np.full(n_gates, 1 - flip))

    @classmethod
    def random(cls, n_gates, seed=0):
        """A random tree with random probabilities; the root is a coin."""
        rng = np.random.default_rng(seed)
        parents = [None, *(int(rng.integers(i)) for i in range(1, n_gates))]
        return cls(parents, rng.uniform(0.02, 0.4, n_gates), rng.uniform(0.6, 0.98, n_gates))

    def sample(self, n, rng):
        gates = rng.random((n, self.n_gates)) < 0.5
        for i, parent in enumerate(self.parents):
            if parent is not None:
                gates[:, i] = rng.random(n) < self.after[gates[:, parent].astype(int), i]
        return gates, None, None


class KHot(Distribution):
    """Exactly k of d gates are open, all choices equally likely: H = log2 (d choose k)."""

    def __init__(self, k, n_gates):
        self.k, self.rates = k, np.full(n_gates, k / n_gates)
        self.entropy = log2(comb(n_gates, k))

    def sample(self, n, rng):
        return rng.random((n, self.n_gates)).argsort(axis=1) < self.k, None, None


class XorTriples(Distribution):
    """Triples of two coins and their XOR: H = 2 bits and TC = 1 bit a triple.

    All pairs of gates are independent. The first gates of all triples come first, then the second
    ones, then the XORs.
    """

    def __init__(self, n_triples):
        self.rates = np.full(3 * n_triples, 0.5)
        self.entropy = 2.0 * n_triples

    def sample(self, n, rng):
        a, b = rng.random((2, n, self.n_gates // 3)) < 0.5
        return np.hstack([a, b, a ^ b]), None, None


class HalfConstant(Distribution):
    """Half of the rows are closed throughout, the others d coins.

    H = 1 + d/2, but for terms of the order of d 2^-d; the rates are 1/4.
    """

    def __init__(self, n_gates):
        self.rates = np.full(n_gates, 0.25)
        self.entropy = 1 + n_gates / 2

    def sample(self, n, rng):
        return (rng.random((n, self.n_gates)) < 0.5) & (rng.random((n, 1)) < 0.5), None, None
