r"""The kernel density of independent units, in closed form: the term C of H + TC = C (Eq. 6)."""

import numpy as np

from ...states import sum_open


def independent_log_masses(states, rates, weights):
    r"""Return ``log E K(sigma_j, sigma~)`` with the units of ``sigma~`` independent.

    A unit is one gate, or the gates that encode one unit together; its marginal distribution is
    that of the activation ``rates``. A product of expectations over units has a logarithm that is
    linear in the gates, so that each layer costs one matrix product. The result is (n_weights,
    n_samples), for each row of weights ``W`` of the kernel ``exp(-sum_l W[l] D_l)``.
    """
    total = np.zeros((len(weights), len(states)))
    for index, (layer, rate) in enumerate(zip(states.layers, rates, strict=True)):
        ranges = np.flatnonzero(weights[:, index])
        if not len(ranges):
            continue
        intercepts, slopes = zip(
            *(_log_linear(rate, layer, weights[t, index]) for t in ranges), strict=True
        )
        slopes = np.stack(slopes, axis=1)  # (n_gates, n_ranges)
        sums = sum_open(states.packed[index], slopes)  # (n_samples, n_ranges)
        total[ranges] += np.asarray(intercepts)[:, None] + sums.T
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
