"""`EqualRows`: what the counts of equal rows tell about an entropy, without a kernel."""

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from .._state_numbers import numbered_pairs

#: Growth a doubling of the samples, as a share of the entropy, above which these are too few.
_GROWTH = 0.025
#: Number of states from which on counts that are all multiples of a number are no coincidence:
#: 20 counts of independent rows are all even once in a million times.
_MANY = 20


@dataclass
class EqualRows:
    """Entropy of the states that rows are in, from their counts.

    Attributes
    ----------
    entropy : float, nats
        The plug-in value, which no kernel entropy of the same rows exceeds.
    growth : float, nats
        What it grows by with a doubling of the samples, from the values without each sample;
        infinite for a single sample.
    alone : float
        Share of the rows whose state no other sample has.
    copies : int
        The largest number that all counts are multiples of; 1 where that may be a coincidence, or
        samples have several rows.
    """

    entropy: float
    growth: float
    alone: float
    copies: int = 1

    @classmethod
    def of(cls, numbers, samples):
        """Count the rows of each state, by their numbers, from 0 on."""
        counts, n = np.bincount(numbers), len(numbers)
        # the states of each sample, and how many of its rows are in each
        pairs, own = np.unique(samples.of_rows * len(counts) + numbers, return_counts=True)
        owners, states = np.divmod(pairs, len(counts))
        alone = counts[np.bincount(states) == 1].sum() / n
        total = xlogy(counts, counts).sum()
        entropy = np.log(n) - total / n
        if len(samples) == 1:
            return cls(entropy, np.inf, alone)
        rest, sizes = counts[states] - own, n - samples.sizes
        falls = xlogy(counts[states], counts[states]) - xlogy(rest, rest)
        without = np.log(sizes) - (total - np.bincount(owners, falls)) / sizes
        # the slope over the logarithm of the number of samples
        growth = (len(samples) - 1) * (entropy - without.mean()) * np.log(2)
        has_copies = samples.are_rows and len(counts) >= _MANY
        return cls(entropy, growth, alone, np.gcd.reduce(counts) if has_copies else 1)

    @classmethod
    def given_label(cls, numbers, y_encoded, samples):
        """Count the rows of each state by class, for the entropy given the label."""
        both = cls.of(numbered_pairs(numbers, y_encoded), samples)
        label = cls.of(y_encoded, samples)
        growth = both.growth - label.growth if len(samples) > 1 else np.inf
        return cls(both.entropy - label.entropy, growth, both.alone)

    @property
    def grows(self):
        """Whether there are too few samples."""
        return self.growth > _GROWTH * self.entropy + 1e-12
