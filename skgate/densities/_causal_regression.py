r"""Logistic regressions of gates on those before them, shared by all positions of a layer.

`Convolutional` has the equation. Least squares start it: one Cholesky factor :math:`L` of the
second moments of ``[window | own channels]`` holds the regressions of all channels on all before.
L-BFGS refines it in coordinates that the factor whitens; the own block is triangular, and stays so.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

#: Ridge of the second moments, in units of the mean variance of a gate.
_RIDGE = 1e-3
#: Weight of the squared whitened weights, in samples.
_PENALTY = 3.0
_NEWTON_STEPS, _REFINEMENTS = 12, 40
_CHUNK = 1 << 14  # rows of a matrix product


@dataclass
class Sample:
    """Positions drawn at random, in float32.

    Attributes
    ----------
    features : ndarray of shape (n_positions, n_features + n_channels)
        Centred gates of the window, and of the position itself.
    gates : ndarray of shape (n_positions, n_channels)
    offsets : ndarray of shape (n_positions, n_channels)
        logit of the rates.
    """

    features: np.ndarray
    gates: np.ndarray
    offsets: np.ndarray

    def chunks(self):
        """Yield slices of the rows."""
        for start in range(0, len(self.gates), _CHUNK):
            yield slice(start, start + _CHUNK)


@dataclass
class Regression:
    """Weights (n_features + n_channels, n_channels), intercepts and slopes of the offsets."""

    weights: np.ndarray
    intercepts: np.ndarray
    slopes: np.ndarray

    def logits(self, sample, rows):
        """Return the logits of a slice of a sample, (n_rows, n_channels)."""
        z = sample.features[rows] @ self.weights
        z += self.slopes * sample.offsets[rows]
        z += self.intercepts
        return z

    def loss(self, sample):
        """Return the mean surprisal of a gate, nats."""
        total = sum(
            _surprisals(sample.gates[rows], self.logits(sample, rows)).sum(dtype=np.float64)
            for rows in sample.chunks()
        )
        return total / sample.gates.size


def _surprisals(gates, logits):
    return np.logaddexp(0, np.where(gates > 0, -logits, logits))


def rates_alone(n_weights, n_channels):
    """Return the regression that ignores the window: independent gates."""
    zeros = np.zeros((n_weights, n_channels), np.float32)
    return Regression(zeros, np.zeros(n_channels), np.ones(n_channels))


def least_squares(sample):
    """Return the `Regression` by least squares and a logistic curve a channel, and the factor."""
    n_channels = sample.gates.shape[1]
    n_window = sample.features.shape[1] - n_channels
    moments = np.zeros((n_window + n_channels,) * 2)
    for rows in sample.chunks():
        moments += sample.features[rows].T @ sample.features[rows]
    moments /= len(sample.gates)
    moments[np.diag_indices_from(moments)] += _RIDGE * np.diag(moments)[n_window:].mean()
    factor = cholesky(moments, lower=True, check_finite=False)
    own, across = factor[n_window:, n_window:], factor[n_window:, :n_window]
    # unit lower triangular: the residual of each channel from its linear prediction
    residual = np.diag(own)[:, None] * solve_triangular(own, np.eye(n_channels), lower=True)
    weights = np.eye(n_window + n_channels, n_channels, -n_window)
    weights[n_window:] -= residual.T
    if n_window:
        weights[:n_window] = solve_triangular(
            factor[:n_window, :n_window].T, (residual @ across).T, lower=False
        )
    a, slopes, scales = _curves(sample, weights.astype(np.float32))
    return Regression((weights * scales).astype(np.float32), a, slopes), factor


def _curves(sample, weights):
    """Return intercepts, slopes of the offsets and of the predictions, by Newton's method."""
    n_channels = weights.shape[1]
    found = np.stack([np.zeros(n_channels), np.ones(n_channels), np.full(n_channels, 4.0)])
    for _ in range(_NEWTON_STEPS):
        gradient = 1e-3 * (np.array([[0.0], [1.0], [4.0]]) - found)
        hessian = np.zeros((3, 3, n_channels)) + 1e-3 * np.eye(3)[:, :, None]
        for rows in sample.chunks():
            offsets = sample.offsets[rows].astype(np.float64)
            columns = [np.ones_like(offsets), offsets, sample.features[rows] @ weights]
            p = expit(sum(f * c for f, c in zip(found, columns, strict=True)))
            residuals, p = sample.gates[rows] - p, p * (1 - p)
            for i, column in enumerate(columns):
                gradient[i] += np.einsum("nc,nc->c", column, residuals)
                for j in range(i + 1):
                    hessian[i, j] += np.einsum("nc,nc,nc->c", column, columns[j], p)
                    hessian[j, i] = hessian[i, j]
        step = np.linalg.solve(np.moveaxis(hessian, -1, 0), gradient.T[..., None])[..., 0].T
        found += np.clip(step, -3, 3)
        if np.abs(step).max() < 1e-4:
            break
    return found


def refined(regression, factor, sample):
    """Return the `Regression` of least logistic loss, from a start, by L-BFGS."""
    n, n_channels = sample.gates.shape
    n_window = len(factor) - n_channels
    inverse = solve_triangular(factor, np.eye(len(factor)), lower=True, overwrite_b=True)
    unmix = np.ascontiguousarray(inverse.T, dtype=np.float32)
    free = np.ones((len(factor), n_channels), bool)
    free[n_window:] = np.triu(free[n_window:], 1)  # lower channels alone
    whitened = Sample(sample.features @ unmix, sample.gates, sample.offsets)
    n_free = int(free.sum())

    def unpacked(values):
        weights = np.zeros(free.shape)
        weights[free] = values[:n_free]
        return weights, *values[n_free:].reshape(2, n_channels)

    def loss(values):
        weights, intercepts, slopes = unpacked(values)
        at = Regression(*(v.astype(np.float32) for v in (weights, intercepts, slopes)))
        total, by_weight = 0.0, np.zeros(free.shape)
        by_intercept, by_slope = np.zeros((2, n_channels))
        for rows in whitened.chunks():
            z, gates = at.logits(whitened, rows), whitened.gates[rows]
            total += _surprisals(gates, z).sum(dtype=np.float64)
            excess = expit(z) - gates
            by_weight += whitened.features[rows].T @ excess
            by_intercept += excess.sum(axis=0)
            by_slope += np.einsum("nc,nc->c", excess, whitened.offsets[rows])
        by_weight += _PENALTY * weights
        gradient = np.concatenate([by_weight[free], by_intercept, by_slope])
        return (total + _PENALTY / 2 * np.sum(weights**2)) / n, gradient / n

    start = (factor.T @ regression.weights)[free]
    start = np.concatenate([start, regression.intercepts, regression.slopes])
    options = {"maxiter": _REFINEMENTS, "maxcor": 10}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    weights, intercepts, slopes = unpacked(found)
    # whitening is triangular, so that weights of later channels stay 0
    weights = (inverse.T @ weights).astype(np.float32)
    weights[n_window:] = np.triu(weights[n_window:], 1)
    return Regression(weights, intercepts, slopes)
