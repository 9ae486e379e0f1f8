r"""Rates of gates, with a prior that all gates of a layer have in common (empirical Bayes).

A gate that is open in :math:`k` of :math:`n` samples has the rate

.. math::

    p = \frac{k + a}{n + a + b},

the posterior mean under a Beta(a, b) prior of rates. The prior is fitted to the layer: where most
gates are constant, :math:`a` or :math:`b` is small, so that constant gates cost next to nothing;
where gates are alike, it is strong, and draws each gate to the rate of all.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, expit, gammaln

#: Of a and b; counts and sums of ``gammaln`` remain exact enough within it.
_LOG_BOUND = 20.0


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
    histograms = [np.unique(c, return_counts=True) for c in (n_open, n - n_open, n)]

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

    options = {"ftol": 1e-13, "gtol": 1e-6}
    bounds = [(-_LOG_BOUND, _LOG_BOUND)] * 2
    found = minimize(cost, np.zeros(2), jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    a, b = np.exp(found.x)
    return float(a), float(b)
