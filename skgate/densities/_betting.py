r"""Upper confidence bounds of means from bets, whatever the distribution of the values.

Values :math:`x_t \le b` of samples come in random order. Someone who holds that their mean is at
most :math:`m` starts with a capital of 1 and stakes part of it on each value in turn:

.. math::

    K_t(m) = \prod_{i \le t} \big(1 + \lambda_i(m) (m - x_i)\big), \qquad
    0 \le \lambda_i(m) = \min\Big(\lambda_i, \frac{c}{b - m}\Big), \quad c < 1,

where :math:`\lambda_i` depends on earlier values alone. If the mean is :math:`m` or more, capital
is a non-negative supermartingale, which ever reaches :math:`1 / \delta` with probability at most
:math:`\delta` (Ville). The bound is the least :math:`m` with which it is reached; :math:`K_t`
increases with :math:`m`, so that bisection finds it [1]_. For a number of samples :math:`n` that is
known beforehand, :math:`\lambda_i = \sqrt{2 \log(1/\delta) / (n \hat\sigma^2_{i-1})}` is close to
the best stake, and the bound close to that of a normal distribution where :math:`n` is large.

A sample of :math:`n_g` rows that sum to :math:`s_g` is one observation. It pays
:math:`m n_g - s_g`, whose mean is 0 where :math:`m` is the mean of the rows, that is
:math:`E s / E n`.

References
----------
.. [1] I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting",
   Journal of the Royal Statistical Society B, 86(1), 2024.
"""

import numpy as np

#: Share of the capital that one value can take at most.
_MAX_STAKE = 0.9
#: Standard deviation that is assumed before the first sample, as a share of the limit.
_FIRST_GUESS = 0.1
_N_BISECTIONS = 36


def upper_means(values, limits, samples, error, seed):
    """Return upper bounds of the means of rows; each is too low with a probability of ``error``.

    Parameters
    ----------
    values : ndarray of shape (n_ranges, n_rows)
    limits : ndarray of shape (n_ranges,), above 0
        No value of a range can exceed its limit, neither here nor in other samples.
    samples : Samples
        Those that the rows belong to, which are independent. None has more rows than the largest
        of these.
    error : float
    seed : int
        Of the order of the samples.

    Returns
    -------
    bounds : ndarray of shape (n_ranges,)
        Between the mean and the limit.
    """
    order = np.random.default_rng(seed).permutation(len(samples))
    shares = samples.sizes[order] / samples.sizes.max()
    sums = samples.sums(values)[:, order] / samples.sizes.max()  # (n_ranges, n_samples)
    found = [_upper_mean(s, shares, b, error) for s, b in zip(sums, limits, strict=True)]
    return np.array(found)


def _upper_mean(sums, shares, limit, error):
    """Return the bound from the sums of samples, and from their sizes, at most 1."""
    counts = np.arange(1, len(sums) + 1)
    means = sums.cumsum() / shares.cumsum()
    guess = (_FIRST_GUESS * limit) ** 2
    variances = (guess + np.cumsum((sums - means * shares) ** 2)) / counts
    earlier = np.r_[guess, variances[:-1]]
    stakes = np.sqrt(-2 * np.log(error) / (len(sums) * earlier))
    low, high = means[-1], limit
    for _ in range(_N_BISECTIONS):
        middle = (low + high) / 2
        if middle >= limit:  # all values are at the limit
            return limit
        pays = np.minimum(stakes, _MAX_STAKE / (limit - middle)) * (middle * shares - sums)
        reached = np.log1p(pays).cumsum().max() >= -np.log(error)
        low, high = (low, middle) if reached else (middle, high)
    return high
