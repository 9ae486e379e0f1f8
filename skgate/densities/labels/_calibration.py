r"""Probabilities of classes from scores, relative to their shares.

.. math::

    \frac{q(y \mid \sigma)}{\hat p(y)}
        = (1 - \epsilon) \frac{e^{\beta \ell_y}}{\sum_m \hat p(m) e^{\beta \ell_m}} + \epsilon

:math:`\beta \ge 0` and :math:`\epsilon` are those that explain held-out labels best, with at least
one wrong label for :math:`\epsilon`. :math:`\beta = 0` gives the shares themselves, unless another
gains more than a parameter does by chance (Akaike's criterion).
"""

from dataclasses import dataclass

import numpy as np

_EPSILONS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
#: Multiples of the best slope without an epsilon.
_STEPS = (0.0, 0.7, 1.0, 1.4, 2.0, 4.0)
_NEWTON_STEPS, _LARGEST_SLOPE = 12, 50.0
_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass
class Calibration:
    """Which of several scores are taken, and what makes them probabilities.

    Attributes
    ----------
    option : int
    slope, epsilon : float
    """

    option: int
    slope: float
    epsilon: float

    @classmethod
    def fit(cls, options, y, log_shares):
        """Return the one that explains the labels of held-out rows best.

        ``options`` are scores of these rows, and ``log_shares`` those of the classes where they
        come from, each (n_rows, n_classes).
        """
        slopes = [_best_slope(scores, y, log_shares) for scores in options]
        found = [
            own_log_ratios(slope * scores, y, log_shares).mean()
            for slope, scores in zip(slopes, options, strict=True)
        ]
        option = int(np.argmax(found))
        best, slope, epsilon = 1 / len(y), 0.0, 0.0  # the shares themselves
        for step in _STEPS:
            tried = min(step * slopes[option], _LARGEST_SLOPE)
            own = own_log_ratios(tried * options[option], y, log_shares)
            for at in np.maximum(_EPSILONS, 1 / len(y)):
                value = _mixed(own, at).mean()
                if value > best:
                    best, slope, epsilon = value, tried, at
        return cls(option, slope, epsilon)

    def __call__(self, options, y, log_shares):
        """Return log q(y|sigma) / p(y) of rows, (n_rows,)."""
        scores = self.slope * options[self.option]
        return _mixed(own_log_ratios(scores, y, log_shares), self.epsilon)


def own_log_ratios(logits, y, log_shares):
    """Return the logarithm of the probability of each row's class over its share."""
    own = np.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    total = np.ascontiguousarray((logits + log_shares).T)
    largest = total.max(axis=0)
    total = np.log(np.exp(np.subtract(total, largest, out=total), out=total).sum(axis=0)) + largest
    return _rounded(own - total)


def _mixed(logs, epsilon):
    if not epsilon:
        return logs
    return np.logaddexp(logs + np.log1p(-epsilon), np.log(epsilon))


def _best_slope(scores, y, log_shares):
    """Return the slope of least log-loss, by Newton's method; the loss is convex in it."""
    places = y, np.arange(len(y))
    # sums over classes are several times as fast along the first axis
    scores, log_shares = (np.ascontiguousarray(values.T) for values in (scores, log_shares))
    shares = np.exp(log_shares)
    centred = scores - (shares * scores).sum(axis=0)
    own = centred[places]
    spread = np.sqrt(np.mean((shares * centred**2).sum(axis=0)))
    if not spread > 0:
        return 0.0
    slope = min(0.1 / spread, _LARGEST_SLOPE)
    for _ in range(_NEWTON_STEPS):
        q = slope * centred + log_shares
        q = np.exp(np.subtract(q, q.max(axis=0), out=q), out=q)
        q /= q.sum(axis=0)
        q *= centred
        means = q.sum(axis=0)
        gradient = np.mean(own - means)
        q *= centred
        curvature = np.mean(q.sum(axis=0) - means**2)
        step = gradient / max(curvature, 1e-12)
        new = min(max(slope + step, slope / 5), slope * 5, _LARGEST_SLOPE)
        converged, slope = abs(new - slope) < 1e-2 * slope, new
        if converged:
            break
    return slope


def best_weight(first, second):
    """Return the weight of the second of two log-ratios in their best mixture, of held-out rows."""
    values = [weighted(first, second, weight).mean() for weight in _WEIGHTS]
    return _WEIGHTS[int(np.argmax(values))]


def weighted(first, second, weight):
    """Return the log-ratio of a mixture of two."""
    with np.errstate(divide="ignore"):
        return _rounded(np.logaddexp(first + np.log1p(-weight), second + np.log(weight)))


def _rounded(logs):
    logs[np.abs(logs) < 1e-12] = 0.0
    return logs
