r"""Lower confidence bounds of entropies from how often rows are equal, whatever their distribution.

A state that many of :math:`n` independent rows share is probable, and states that are seen once
each have to be many. With :math:`N_\sigma` the number of rows in state :math:`\sigma`, :math:`h_j`
the harmonic numbers and :math:`\delta` half of the error that is allowed, H is at least each of two
bounds with a probability of :math:`1 - \delta`.

**A**, of few states [1]_ [2]_. A row in a state of probability :math:`p` has
:math:`E\,h_{N-1} \ge h_{n-1} + \log p`, so that the bias of the mean is negative. One row moves the
mean by at most :math:`(h_{n-1} + 1) / n`, and McDiarmid's inequality gives

.. math::

    A = h_{n-1} - \frac1n \sum_i h_{N_{\sigma_i} - 1}
        - (h_{n-1} + 1) \sqrt{\frac{\log(1/\delta)}{2n}}.

**B**, of many states. With weights of coincidences :math:`g(0) = g(1) = 0`,
:math:`g(j) = s j h_{j-1} + \eta` and :math:`G = \sum_\sigma g(N_\sigma)`,

.. math::

    \varphi(\lambda) = -\frac1\lambda \log E\,e^{-g(\mathrm{Poisson}\,\lambda)}, \qquad
    B = \min\Big\{u : \frac1K \sum_k e^{n \check\varphi_k(u) - G_k} < \frac2\delta\Big\},

where :math:`\check\varphi` is the convex minorant of :math:`u \mapsto \varphi(n e^{-u})`, and
:math:`k` goes through some :math:`(s, \eta)`. If the number of rows was Poisson distributed, counts
would be independent, and :math:`E\,e^{-G} = \prod_\sigma e^{-n p_\sigma \varphi(n p_\sigma)}
= e^{-n E \varphi(n p_X)} \le e^{-n \check\varphi(H)}` (Jensen, since :math:`H = E[-\log p_X]`). It
is at most twice as much for :math:`n` rows, since :math:`G` grows with them and a Poisson number is
at most :math:`n` in half of all cases. Markov's inequality does the rest.

No bound of this kind exceeds about :math:`2 \log n`: that many states are as good as infinitely
many, since no two rows are equal.

References
----------
.. [1] Z. Zhang, "Entropy estimation in Turing's perspective", Neural Computation, 24(5), 2012: the
   mean of A.
.. [2] T. Schürmann, "A note on entropy estimation", Neural Computation, 27(10), 2015: its form in
   harmonic numbers.
"""

from functools import lru_cache

import numpy as np
from scipy.special import gammaln, logsumexp

#: (s * sqrt(n) * log n, eta)
_WEIGHTS = ((0.0, np.inf), (3.0, 0.0), (3.0, 3.0), (10.0, 0.1), (30.0, 0.3))
#: Values of u that B is looked for at.
_N_ENTROPIES = 1000
#: Rates above are taken for this one, which makes B lower; A is then the better bound.
_MAX_RATE = 5000.0
#: Times that one row of each sample is drawn.
_MAX_DRAWS = 16


def lower_entropies(numbers, samples, error, seed):
    """Return lower bounds of entropies; each is too high with a probability of ``error``.

    Of a sample with several rows, one is drawn at random, in up to 16 ways; A is the mean of all,
    and so is what Markov's inequality is used for in B. Rows have the same chance: a sample takes
    part as often as its size is of the largest one.

    Parameters
    ----------
    numbers : list of ndarray of shape (n_rows,)
        As :func:`state_numbers` returns them.
    samples : Samples
        Those that the rows belong to, which are independent.
    error : float
    seed : int
        Of the rows that are drawn.

    Returns
    -------
    bounds : ndarray of shape (n_ranges,), nats
    """
    draws = list(_draws(samples, seed))
    grid = _entropies(len(samples))
    log_limit, found = np.log(4 / error), []
    for states in numbers:
        counts = [np.bincount(states[rows]) for rows in draws]
        few = np.mean([_bound_of_few(c[c > 0], error / 2) for c in counts])
        logs = np.concatenate([_log_evidence(c[c > 0], len(samples)) for c in counts])
        # (n_draws * n_weights, n_entropies)
        refuted = logsumexp(logs, axis=0) - np.log(len(logs)) >= log_limit
        many = grid[max(refuted.argmin() - 1, 0)]
        found.append(max(few, many, 0.0))
    return np.array(found)


def _draws(samples, seed):
    """Yield rows that are independent of each other."""
    if samples.are_rows:
        yield np.arange(len(samples))
        return
    rng, largest = np.random.default_rng(seed), samples.sizes.max()
    by_sample = np.argsort(samples.of_rows, kind="stable")
    starts = np.cumsum(samples.sizes) - samples.sizes
    for _ in range(min(largest, _MAX_DRAWS)):
        places = rng.integers(largest, size=len(samples))
        taken = places < samples.sizes
        yield by_sample[(starts + places)[taken]]


def _harmonic(n):
    """Return the harmonic numbers up to that of n."""
    return np.r_[0.0, np.cumsum(1 / np.arange(1, n + 1))]


def _bound_of_few(counts, error):
    """Return A; the one of fewer than two rows is 0."""
    n = counts.sum()
    if n < 2:
        return 0.0
    harmonic = _harmonic(n - 1)
    mean = harmonic[-1] - counts @ harmonic[counts - 1] / n
    return mean - (harmonic[-1] + 1) * np.sqrt(-np.log(error) / (2 * n))


def _log_evidence(counts, n_samples):
    """Return the logarithms of the terms of B against each entropy, (n_weights, n_entropies)."""
    n = int(counts.sum())
    if n < 2:
        return np.zeros((len(_WEIGHTS), _N_ENTROPIES))
    totals = np.array([_coincidence(counts, *weight).sum() for weight in _weights(n)])
    return n * _minorants(n, n_samples) - totals[:, None]


def _weights(n):
    return [(scale / (np.sqrt(n) * np.log(n)), eta) for scale, eta in _WEIGHTS]


def _coincidence(counts, s, eta):
    """Return g."""
    harmonic = _harmonic(counts.max())
    return np.where(counts > 1, s * counts * harmonic[np.maximum(counts, 1) - 1] + eta, 0.0)


def _entropies(n_samples):
    return np.linspace(0, 2 * np.log(n_samples) + 5, _N_ENTROPIES)


@lru_cache(maxsize=64)
def _minorants(n, n_samples):
    """Return functions that are nowhere above the convex minorants, (n_weights, n_entropies).

    Each value stands for all entropies from its own to the next one; the functions decrease.
    """
    grid = _entropies(n_samples)
    rates = np.minimum(n * np.exp(-grid[1:]), _MAX_RATE)
    sizes = np.ceil(rates + 8 * np.sqrt(rates) + 30).astype(int)
    starts = np.cumsum(sizes) - sizes
    counts = np.arange(sizes.sum()) - np.repeat(starts, sizes)
    each = np.repeat(rates, sizes)
    log_poisson = counts * np.log(each) - each - gammaln(counts + 1)
    found = []
    for weight in _weights(n):
        logs = log_poisson - _coincidence(counts, *weight)
        most = np.maximum.reduceat(logs, starts)
        sums = np.add.reduceat(np.exp(logs - np.repeat(most, sizes)), starts)
        exponents = -(most + np.log(sums)) / rates
        found.append(_convex_minorant(grid, np.r_[exponents, 0.0]))
    return np.array(found)


def _convex_minorant(x, y):
    corners = []
    for i in range(len(x)):
        while len(corners) > 1:
            a, b = corners[-2:]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            corners.pop()
        corners.append(i)
    return np.interp(x, x[corners], y[corners])
