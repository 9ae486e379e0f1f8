r"""Confidence intervals of entropies and total correlations, for samples that are independent.

The lower end of an entropy counts equal rows (:mod:`._coincidences`), and holds for every
distribution. The upper end is a bound on the mean surprisal under a density that was not fitted to
the row, which is H at least (:mod:`._betting`). For it, the density is mixed with the uniform one,
so that a surprisal is at most :math:`\log S + \log(n + 1)` nats, with :math:`S` the number of
states. That is exact for a density that is fitted to other samples. Folds are fitted to each
other's, and that the end holds for them is known from simulations.

TC is C less H, where C is the sum of the entropies of the units. With :math:`q` their product, each
unit's rates from folds of which the row is none, plus half a sample for each value (Krichevsky and
Trofimov), :math:`E[-\log q]` is C at least. :math:`\hat C`, the entropy that the units have by
their counts, is at most :math:`-\frac1n \sum_j \log p(\sigma_j)` under any product, that of the
true rates too. Hence

.. math::

    TC \ge E \log \frac{\hat p}{q} - (E[-\log q] - C), \qquad
    E[-\log q] - C \lesssim -\frac1n \sum_j \log q(\sigma_j) - \hat C,

the first term bounded by bets, with :math:`\hat p` mixed with :math:`q`, so that a ratio is
:math:`1 / (n + 1)` at least. The upper end is that of C less the lower one of H.
"""

import numpy as np
from scipy.special import xlogy

from ..states import count_open, sum_open
from ..utils.samples import Samples
from ._betting import upper_means
from ._coincidences import lower_entropies
from ._state_numbers import state_numbers
from ._units import log_n_states, n_units, n_values, value_counts

#: Folds of the rates of independent units.
_N_FOLDS = 10


class Intervals:
    """Confidence intervals, with half of the error at each end.

    Parameters
    ----------
    estimate : Estimate
        Where it is not held out, nothing bounds an entropy from above but the number of states, and
        the lower end of a total correlation is 0.
    states : GatingStates or LayersInTurn
    ranges : LayerRanges
    confidence : float
    seed : int
    """

    def __init__(self, estimate, states, ranges, confidence, seed):
        self.estimate, self.states, self.ranges = estimate, states, ranges
        self.error, self.seed = (1 - confidence) / 2, seed
        self._numbers = state_numbers(states, ranges)
        self._highest = ranges.mask @ log_n_states(states.layers)

    def entropy(self):
        """Return the ends of the intervals of H, (2, ..., n_ranges), nats."""
        surprisals, n = self.estimate.marginal.rows, len(self.states)
        lower, upper = self._lower_entropies(self.error), self._highest
        if self.estimate.held_out:
            values = -_mixed(-surprisals, -upper[:, None], n)
            upper = np.minimum(upper, self._upper_means(values, upper + np.log1p(n), self.error))
        ends = np.broadcast_arrays(lower, upper, surprisals[..., 0])[:2]
        # ends that cross are refuted by samples that depend on each other: both are then inside
        return np.sort(ends, axis=0)

    def total_correlation(self):
        """Return the ends of the intervals of TC, (2, n_ranges), nats."""
        n, error = len(self.states), self.error
        units = _IndependentUnits(self.states, self.ranges, self.seed)
        upper = self._upper_means(units.surprisals, units.limits, error / 2)
        upper = np.minimum(upper, self._highest) - self._lower_entropies(error / 2)
        largest = [np.log(n_values(layer)) for layer in self.states.layers]
        # H is at least the entropy of any one unit
        upper = np.minimum(upper, self._highest - np.max(self.ranges.mask * largest, axis=1))
        lower = np.zeros_like(upper)
        if self.estimate.held_out:
            losses = -_mixed(units.surprisals - self.estimate.marginal.rows, 0.0, n)
            limits = np.full(len(losses), np.log1p(n))
            lower = -self._upper_means(losses, limits, error) - units.excess
        return np.sort(np.maximum([lower, upper], 0), axis=0)

    def _lower_entropies(self, error):
        samples = self.estimate.marginal.samples
        return np.minimum(lower_entropies(self._numbers, samples, error, self.seed), self._highest)

    def _upper_means(self, values, limits, error):
        return upper_means(values, limits, self.estimate.marginal.samples, error, self.seed)


def _mixed(log_p, log_other, n):
    """Return the logarithm of a density, a share of 1 / (n + 1) of which is another one."""
    return np.logaddexp(log_p - np.log1p(1 / n), log_other - np.log1p(n))


class _IndependentUnits:
    """Independent units, each with rates from folds of which a row is none.

    Attributes
    ----------
    surprisals : ndarray of shape (n_ranges, n_rows), nats
    limits : ndarray of shape (n_ranges,), nats
        What no surprisal can exceed.
    excess : ndarray of shape (n_ranges,), nats
        Mean surprisals less the entropies that units have by their counts.
    """

    def __init__(self, states, ranges, seed):
        rows, samples = np.arange(len(states)), Samples(states.groups, len(states))
        folds = [(rows[:0], rows)]
        if len(samples) > 1:
            folds = list(samples.folds(min(_N_FOLDS, len(samples)), seed))
        surprisals, plug_in = np.empty((len(states.layers), len(states))), []
        for index, layer in enumerate(states.layers):
            own = states.select([index])
            counts = _counts(own, layer)
            plug_in.append(-xlogy(counts, counts / len(states)).sum() / len(states))
            for train, test in folds:
                held_out = own[test]
                seen = counts - _counts(held_out, layer) + 0.5
                costs = np.log(len(train) + n_values(layer) / 2) - np.log(seen)
                surprisals[index, test] = _sums(held_out, costs, layer)
        limits = [n_units(a) * np.log(2 * len(states) + n_values(a)) for a in states.layers]
        self.surprisals, self.limits = ranges.mask @ surprisals, ranges.mask @ limits
        self.excess = self.surprisals.mean(axis=1) - ranges.mask @ plug_in


def _counts(states, layer):
    """Return how often each unit of the only layer has each value, (n_units, n_values)."""
    n_open = count_open(states.packed[0], layer.n_gates).reshape(-1, layer.unit_size)
    return value_counts(n_open, len(states), layer)


def _sums(states, costs, layer):
    """Return the sum of the costs of the values that units have in each row."""
    if layer.one_hot:
        return sum_open(states.packed[0], costs.reshape(-1, 1))[:, 0]
    # gates of a unit open in order: each adds the difference to the next value
    weights = np.diff(costs, axis=1).reshape(-1, 1)
    return costs[:, 0].sum() + sum_open(states.packed[0], weights)[:, 0]
