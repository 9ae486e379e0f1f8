r"""From log row masses to entropies: arrays in, arrays out, natural logarithms throughout.

With :math:`m_j` the mass of row :math:`j` over all rows and :math:`m_j^{y}` its mass over the
rows of its own class (see :mod:`skgate.pairwise`), the plug-in estimates are

.. math::

    H(\Sigma) = \frac1n \sum_j \log \frac{n}{m_j}, \qquad
    H(\Sigma|Y) = \frac1n \sum_j \log \frac{n_{y_j}}{m_j^{y}}, \qquad
    C = -\frac1n \sum_j \log E_{\tilde\sigma} K(\sigma_j, \tilde\sigma).
"""

import numpy as np

__all__ = [
    "conditional_entropy",
    "entropy",
    "independent_entropy",
    "independent_log_masses",
    "jackknife_error",
    "mean_and_error",
    "sample_independent",
]


def mean_and_error(values):
    """Return means along the last axis, and their standard errors; NaN for a single value."""
    n = values.shape[-1]
    if n == 1:
        return values[..., 0], np.full(values.shape[:-1], np.nan)
    return values.mean(axis=-1), values.std(axis=-1, ddof=1) / np.sqrt(n)


def entropy(log_masses):
    """Return H in nats from log masses over all rows, along the last axis."""
    # the difference first: equal rows then give 0, not a rounding error
    return np.mean(np.log(log_masses.shape[-1]) - log_masses, axis=-1)


def conditional_entropy(own_log_masses, codes):
    """Return H(.|Y) in nats from log masses over the rows of the same class."""
    sizes = np.bincount(codes)[codes]  # n_{y_j}
    return np.mean(np.log(sizes) - own_log_masses, axis=-1)


def jackknife_error(left_out, n_samples):
    """Return the standard error of an estimate, from its values without each part (last axis)."""
    n_parts = left_out.shape[-1]
    if n_parts == 1:
        return np.full(left_out.shape[:-1], np.nan)
    size = n_samples // n_parts
    return np.sqrt((n_samples - size) / size * left_out.var(axis=-1))


def independent_entropy(log_expectations):
    """Return C in nats from ``log E K`` of each row."""
    return 0.0 - np.mean(log_expectations, axis=-1)


def independent_log_masses(states, rates, weights):
    r"""Return ``log E K(sigma_j, sigma~)`` with the units of ``sigma~`` independent.

    A unit is one gate, or the gates that encode one unit together; its marginal
    distribution is that of the ``rates``. A product of expectations over units has a
    logarithm that is linear in the gates, so that each layer costs one matrix product.

    Parameters
    ----------
    states : GatingStates
        The rows ``j``.
    rates : list of ndarray of shape (n_gates,)
        Activation rates of a sample that the rows belong to.
    weights : ndarray of shape (n_terms, n_layers)
        Exponents a unit of distance; the kernel is ``exp(-sum_l W[t, l] D_l)``.

    Returns
    -------
    log_expectations : ndarray of shape (n_terms, n_samples)
    """
    total = np.zeros((len(weights), len(states)))
    for index, (layer, rate) in enumerate(zip(states.layers, rates, strict=True)):
        terms = np.flatnonzero(weights[:, index])
        if not len(terms):
            continue
        intercepts, slopes = zip(
            *(_log_linear(rate, layer, weights[t, index]) for t in terms), strict=True
        )
        slopes = np.stack(slopes, axis=1)  # (n_gates, n_terms)
        for rows, gates in states.iter_unpacked(index):
            total[terms, rows] += np.asarray(intercepts)[:, None] + (gates @ slopes).T
    return total


def _log_linear(rates, layer, weight):
    """Return ``(a, b)`` with ``log E K = a + gates @ b`` for one layer and one weight.

    Values that no row of the sample takes get a logarithm of 0: they are never read, and
    their own would be minus infinity under a narrow kernel.
    """
    rates = rates.reshape(-1, layer.unit_size)  # (n_units, unit_size)
    if layer.one_hot:
        # two one-hot codes differ in no gate or in two
        expected = rates + np.exp(-2 * weight) * (1 - rates)
        return 0.0, np.log(expected, out=np.zeros_like(rates), where=rates > 0).ravel()
    # A unit with g thresholds takes the values 0..g, and the distance of two is their difference.
    edge = np.ones((len(rates), 1))
    at_least = np.hstack([edge, rates, 0 * edge])
    shares = at_least[:, :-1] - at_least[:, 1:]  # (n_units, g + 1)
    steps = np.arange(shares.shape[1])
    expected = shares @ np.exp(-weight * np.abs(steps[:, None] - steps))
    logs = np.log(expected, out=np.zeros_like(expected), where=shares > 0)
    return logs[:, 0].sum(), np.diff(logs, axis=1).ravel()


def sample_independent(states, rates, n_synthetic, random_state):
    """Return packed states whose units are drawn independently at the given rates.

    Returns
    -------
    packed : list of ndarray of shape (n_synthetic, n_bytes), dtype uint8
    """
    packed = []
    for layer, rate in zip(states.layers, rates, strict=True):
        rate = rate.reshape(-1, layer.unit_size)  # (n_units, unit_size)
        bits = np.empty((n_synthetic, layer.n_bytes), np.uint8)
        step = max(1, (1 << 21) // layer.n_gates)
        for start in range(0, n_synthetic, step):
            block = bits[start : start + step]
            draws = random_state.random_sample((len(block), len(rate), 1))
            if layer.one_hot:
                upper = np.cumsum(rate, axis=1)
                gates = (draws < upper) & (draws >= upper - rate)
            else:
                gates = draws < rate
            block[:] = np.packbits(gates.reshape(len(block), -1), axis=1)
        packed.append(bits)
    return packed
