r"""Rates of gates, with a prior that all gates of a layer have in common (empirical Bayes).

A gate that is open in :math:`k` of :math:`n` samples has the rate

.. math::

    p = \frac{k + a}{n + a + b},

the posterior mean under a Beta(a, b) prior of rates. The prior is fitted to the layer: where most
gates are constant, :math:`a` or :math:`b` is small, so that constant gates cost next to nothing;
where gates are alike, it is strong, and draws each gate to the rate of all.
"""

from itertools import starmap

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import digamma, expit, gammaln

#: Of a and b; counts and sums of ``gammaln`` remain exact enough within it.
_LOG_BOUND = 20.0
#: Pairs of units that the prior of conditional rates is fitted to.
_MAX_PAIRS = 1024


def beta_prior(n_open, n):
    r"""Return ``(a, b)``, the Beta prior of the rates of gates that explains their counts best.

    It maximises the beta-binomial likelihood of the counts, times a broad hyperprior (log-logistic
    with a median of one sample, for each of the two) that keeps both finite and above 0:

    .. math::

        \frac{a b}{(1 + a)^2 (1 + b)^2} \prod_i \frac{B(k_i + a, n_i - k_i + b)}{B(a, b)}

    Parameters
    ----------
    n_open : ndarray of int, of any shape
        Number of samples in which each gate is open.
    n : int or ndarray of int
        Number of samples of each gate; it may be 0.

    Returns
    -------
    a, b : float
    """
    n_open = np.asarray(n_open)
    n = np.broadcast_to(n, n_open.shape)
    # (counts that differ, number of gates with each), of open, of closed, of both
    histograms = [_histogram(c) for c in (n_open, n - n_open, n)]

    def cost(logs):
        a, b = np.exp(logs)
        value, slopes = 0.0, np.zeros(3)  # slopes: with respect to a, b and a + b
        for i, (own, sign) in enumerate([(a, 1), (b, 1), (a + b, -1)]):
            counts, weights = histograms[i]
            value += sign * (weights @ (gammaln(counts + own) - gammaln(own)))
            slopes[i] = sign * (weights @ (digamma(counts + own) - digamma(own)))
        value -= np.sum(np.logaddexp(0, logs) + np.logaddexp(0, -logs))
        slopes = np.array([a, b]) * (slopes[:2] + slopes[2]) + 1 - 2 * expit(logs)
        return -value, -slopes

    options = {"ftol": 1e-12, "gtol": 1e-5}
    bounds = [(-_LOG_BOUND, _LOG_BOUND)] * 2
    found = minimize(cost, np.zeros(2), jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    a, b = np.exp(found.x)
    return float(a), float(b)


def _histogram(counts):
    """Return the counts that differ, and how many there are of each."""
    if counts.size < 2 or counts.max() > counts.size:
        return np.unique(counts, return_counts=True)
    weights = np.bincount(counts.ravel())
    found = np.flatnonzero(weights)
    return found, weights[found]


def value_priors(counts):
    """Return the priors of the values of units but the last, from counts (n_units, n_values).

    Values come one after the other (stick breaking): the share of a value among those that are
    left has a `beta_prior` that all units have in common.
    """
    return list(starmap(beta_prior, _sticks(counts)))


def value_rates(counts, priors):
    """Return smoothed shares of the values of units, (n_units, n_values)."""
    shares, rest = np.empty(counts.shape), np.ones(len(counts))
    for value, ((own, left), (a, b)) in enumerate(zip(_sticks(counts), priors, strict=True)):
        shares[:, value] = rest * (own + a) / (left + a + b)
        rest = rest * (left - own + b) / (left + a + b)
    shares[:, -1] = rest
    return shares


def _sticks(counts):
    """Yield how often each value but the last occurs, and it or a later one."""
    left = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    return zip(counts.T[:-1], left.T[:-1], strict=True)


def conditional_strength(counts, rates):
    r"""Return the number of samples by which rates given another unit are drawn to a unit's own.

    With :math:`c_{vw}` the samples in which a unit has the value :math:`v` and the other one
    :math:`w`, and :math:`p_v` the unit's own rates, the rates given the other one are

    .. math::

        p_{v \mid w} = \frac{c_{vw} + \kappa p_v}{c_w + \kappa},

    the posterior mean under a Dirichlet prior. :math:`\kappa` maximises the likelihood of the
    counts of all pairs, times :math:`\kappa / (1 + \kappa)^2`.

    Parameters
    ----------
    counts : ndarray of int of shape (n_pairs, n_values, n_values_of_other)
    rates : ndarray of shape (n_pairs, n_values)

    Returns
    -------
    kappa : float
    """
    judged = slice(None, None, -(-len(counts) // _MAX_PAIRS) or 1)
    counts, rates = counts[judged], rates[judged, :, None]
    given = counts.sum(axis=1)

    def cost(log):
        kappa = np.exp(log)
        value = np.sum(gammaln(counts + kappa * rates) - gammaln(kappa * rates))
        value -= np.sum(gammaln(given + kappa) - gammaln(kappa))
        return np.logaddexp(0, log) + np.logaddexp(0, -log) - value

    bounds, options = (-_LOG_BOUND, _LOG_BOUND), {"xatol": 0.01}
    return np.exp(minimize_scalar(cost, bounds=bounds, method="bounded", options=options).x)


def conditional_rates(counts, rates, kappa):
    """Return the rates given the other unit; they sum to 1 over the second axis of ``counts``."""
    return (counts + kappa * rates[:, :, None]) / (counts.sum(axis=1, keepdims=True) + kappa)
