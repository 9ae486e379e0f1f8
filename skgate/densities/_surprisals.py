r"""Surprisals of rows, :math:`-\log p(\sigma_j)`: their means are entropies, with standard errors.

With :math:`m_j` the mass of row :math:`j` over all rows and :math:`m_j^{y}` its mass over the
rows of its own class (see :mod:`skgate.pairwise`), the kernel estimates are

.. math::

    H(\Sigma) = \frac1n \sum_j \log \frac{n}{m_j}, \qquad
    H(\Sigma|Y) = \frac1n \sum_j \log \frac{n_{y_j}}{m_j^{y}}.
"""

from dataclasses import dataclass

import numpy as np

from ..utils.samples import Samples


@dataclass
class Surprisals:
    """Surprisal of each row in each range of layers; a difference is that of two estimates.

    Attributes
    ----------
    rows : ndarray of shape (..., n_ranges, n_rows), nats
    samples : Samples
        Those that the rows belong to.
    left_out : ndarray of shape (..., n_ranges, n_blocks) or None
        Means without each block of the samples, for estimates in which samples depend on each
        other. None where they are independent; with no block there is no standard error.
    """

    rows: np.ndarray
    samples: Samples
    left_out: np.ndarray | None = None

    def __sub__(self, other):
        left_out = None if self.left_out is None else self.left_out - other.left_out
        return Surprisals(self.rows - other.rows, self.samples, left_out)

    def mean(self):
        """Return the entropy of each range, (..., n_ranges)."""
        return self.rows.mean(axis=-1)

    def standard_error(self):
        """Return the standard error of each mean; NaN where it cannot be estimated."""
        n = len(self.samples)
        if self.left_out is None:
            return mean_and_error(self.rows, self.samples)[1]
        n_blocks = self.left_out.shape[-1]
        if n_blocks < 2:
            return np.full(self.left_out.shape[:-1], np.nan)
        size = n // n_blocks
        return np.sqrt((n - size) / size * self.left_out.var(axis=-1))

    def corrected(self):
        """Return means less their bias of order 1/n, by the jackknife over the blocks.

        NaN where there are no blocks.
        """
        means, n_blocks = self.mean(), 0 if self.left_out is None else self.left_out.shape[-1]
        if n_blocks < 2:
            return np.full(means.shape, np.nan)
        n, size = len(self.samples), len(self.samples) // n_blocks
        return means + (n - size) / size * (means - self.left_out.mean(axis=-1))


def mean_and_error(values, samples):
    r"""Return means along the last axis, and their standard errors; NaN for a single sample.

    The rows of a sample depend on each other. With :math:`s_g` the sum over the :math:`n_g` rows of
    sample :math:`g` of :math:`G`, of :math:`n` rows in all,

    .. math::

        \mathrm{se}^2 = \frac{G}{G - 1} \frac1{n^2} \sum_g (s_g - n_g \bar v)^2
    """
    n, means = len(samples), values.mean(axis=-1)
    if n == 1:
        return means, np.full(means.shape, np.nan)
    if samples.are_rows:
        return means, values.std(axis=-1, ddof=1) / np.sqrt(n)
    deviations = samples.sums(values - means[..., None])
    squares = np.sum(deviations**2, axis=-1) * n / (n - 1)
    return means, np.sqrt(squares) / values.shape[-1]


def marginal(log_masses):
    """Return surprisals from log masses over all rows."""
    # the difference first: equal rows then give 0, not a rounding error
    return np.log(log_masses.shape[-1]) - log_masses


def given_label(own_log_masses, y_encoded):
    """Return surprisals given the label, from log masses over the rows of the same class."""
    return np.log(np.bincount(y_encoded)[y_encoded]) - own_log_masses


def entropy(log_masses):
    """Return H in nats from log masses over all rows, along the last axis."""
    return np.mean(marginal(log_masses), axis=-1)


def conditional_entropy(own_log_masses, y_encoded):
    """Return H(.|Y) in nats from log masses over the rows of the same class."""
    return np.mean(given_label(own_log_masses, y_encoded), axis=-1)
