"""Distributions over few states, whose values are sums over all of them."""

from itertools import pairwise

import numpy as np

from ._base import Distribution, binary_entropy, bits


def all_states(n):
    """Return the 2^n rows of n gates."""
    return np.arange(2**n)[:, None] >> np.arange(n) & 1 == 1


class Codes(Distribution):
    """State k with probability p_k: H = -Σ_k p_k log2 p_k for states that differ."""

    def __init__(self, states, probabilities):
        self.states = states
        self.probabilities = probabilities / probabilities.sum()
        self.rates = self.probabilities @ states
        self.entropy = bits(self.probabilities)

    @classmethod
    def _random(cls, probabilities, n_gates, seed):
        states = np.random.default_rng(seed).random((len(probabilities), n_gates)) < 0.5
        assert len(np.unique(states, axis=0)) == len(states)
        return cls(states, probabilities)

    @classmethod
    def equal(cls, n_states, n_gates, seed=0):
        """Random codes, all equally likely: H = log2 n_states."""
        return cls._random(np.ones(n_states), n_gates, seed)

    @classmethod
    def zipf(cls, n_states, n_gates, seed=0):
        """Random codes, the k-th with probability in proportion to 1/k."""
        return cls._random(1 / np.arange(1, n_states + 1), n_gates, seed)

    def sample(self, n, rng):
        return self.states[rng.choice(len(self.states), n, p=self.probabilities)], None, None


class Ising(Codes):
    """p(s) ∝ exp(Σ_{i<j} J_ij s_i s_j + Σ_i b_i s_i) with s = ±1, all 2^d states enumerated.

    J_ij ~ N(0, (2/√d)²) and b_i ~ N(0, 0.3²), drawn once.
    """

    def __init__(self, n_gates, seed=0):
        rng = np.random.default_rng(seed)
        coupling = np.triu(rng.normal(scale=2 / np.sqrt(n_gates), size=(n_gates, n_gates)), 1)
        states = all_states(n_gates)
        spins = 2 * states - 1  # (2^d, d)
        energy = ((spins @ coupling) * spins).sum(1) + spins @ rng.normal(scale=0.3, size=n_gates)
        super().__init__(states, np.exp(energy - energy.max()))


class DeterministicNet(Distribution):
    """The ReLU gates of a random network of 10 coins, all 1024 inputs enumerated, with a label.

    Gates are a function of the input: H is that of the distinct states, and at most 10 bits.
    The label is that of a random hyperplane through the inputs, flipped with probability 0.1:
    I(Σ;Y) = H(Y) - Σ_σ p(σ) h(P(y|σ)).
    """

    def __init__(self, widths, n_inputs=10, flip=0.1, seed=0):
        rng = np.random.default_rng(seed)
        inputs = all_states(n_inputs)
        values, layers = 2.0 * inputs - 1, []
        for n_in, n_out in pairwise([n_inputs, *widths]):
            values = values @ rng.normal(size=(n_in, n_out)) / np.sqrt(n_in)
            values += 0.3 * rng.normal(size=n_out)
            layers.append(values > 0)
            values = np.maximum(values, 0)
        side = (2 * inputs - 1) @ rng.normal(size=n_inputs) > 0
        self.states, self.flip, self.side = np.hstack(layers), flip, side
        self.rates = self.states.mean(axis=0)
        _, number, counts = np.unique(self.states, axis=0, return_inverse=True, return_counts=True)
        self.entropy = bits(counts / len(inputs))
        p_label = np.where(side, 1 - flip, flip)  # (1024,)
        given = np.bincount(number.ravel(), p_label) / counts  # P(y = 1 | σ), (distinct states,)
        conditional = (counts * binary_entropy(given)).sum() / len(inputs)
        self.mi_xy = binary_entropy(p_label.mean()) - conditional

    def sample(self, n, rng):
        rows = rng.integers(len(self.states), size=n)
        y = self.side[rows] ^ (rng.random(n) < self.flip)
        return self.states[rows], y.astype(int), None
