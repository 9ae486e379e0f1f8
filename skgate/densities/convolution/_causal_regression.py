r"""Logistic regressions of gates on those before them, shared by all positions of a layer.

`Convolutional` has the equation. Least squares start it: one Cholesky factor :math:`L` of the
second moments of ``[window | own channels]`` holds the regressions of all channels on all before.
A logistic curve per channel makes probabilities of them. L-BFGS refines all in coordinates that the
factor whitens; the own block is triangular, and stays so.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

#: Precisions of the normal priors of intercepts, slopes of the offsets and of the predictions, and
#: their means.
_PRECISIONS, _MEANS = np.array([1.0, 1.0, 1e-2]), np.array([0.0, 1.0, 4.0])
#: Weight of the squared whitened weights, in samples.
_PENALTY = 3.0
_NEWTON_STEPS = 12
_CHUNK = 1 << 14  # rows of a matrix product


@dataclass
class Regression:
    """Weights (n_features, n_channels), intercepts and slopes of the offsets, float32."""

    weights: np.ndarray
    intercepts: np.ndarray
    slopes: np.ndarray


def whitening(moments, n_channels, ridge):
    """Return the Cholesky factor of second moments, a tensor; ``ridge`` is in mean variances."""
    import torch

    moments = torch.from_numpy(moments.astype(np.float64))
    variances = moments.diagonal()[-n_channels:]
    return torch.linalg.cholesky(moments + ridge * variances.mean() * torch.eye(len(moments)))


def least_squares(factor, n_channels):
    """Return the weights of all channels on the features before them, (n_features, n_channels)."""
    import torch

    n_window = len(factor) - n_channels
    own, across = factor[n_window:, n_window:], factor[n_window:, :n_window]
    eye = torch.eye(n_channels, dtype=factor.dtype)
    # unit lower triangular: the residual of each channel from its linear prediction
    residual = own.diagonal()[:, None] * torch.linalg.solve_triangular(own, eye, upper=False)
    of_window = torch.linalg.solve_triangular(
        factor[:n_window, :n_window].T, (residual @ across).T, upper=True
    )
    return torch.cat([of_window, eye - residual.T]).numpy().astype(np.float32)


def losses(gates, logits, free):
    """Return the mean surprisals of the gates of each channel that are free, (n_channels,)."""
    from torch.nn.functional import softplus

    return ((softplus(logits) - gates * logits) * free).mean(dim=0).double().numpy()


def fit_curves(predictions, gates, offsets, free, start=None):
    """Return intercepts, slopes of the offsets and of the predictions, and losses of channels.

    All are tensors of shape (n_places, n_channels); Newton's method. The loss of a curve allows
    for its being fitted to the same places (Akaike's criterion); a channel that the rates alone
    predict better has these.
    """
    import torch

    n_channels = gates.shape[1]
    found = np.repeat(_MEANS[:, None], n_channels, axis=1) if start is None else start.astype(float)
    columns = [torch.ones_like(offsets), offsets, predictions]
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(_curve(found, offsets, predictions))
        residuals, p = (gates - p) * free, p * (1 - p) * free
        gradient = -_PRECISIONS[:, None] * (found - _MEANS[:, None])
        hessian = np.repeat(np.diag(_PRECISIONS)[:, :, None], n_channels, axis=2)
        for i, column in enumerate(columns):
            gradient[i] += (column * residuals).sum(dim=0).numpy()
            weighted = column * p
            for j in range(i + 1):
                hessian[i, j] += (weighted * columns[j]).sum(dim=0).numpy()
                hessian[j, i] = hessian[i, j]
        step = np.linalg.solve(np.moveaxis(hessian, -1, 0), gradient.T[..., None])[..., 0].T
        found += np.clip(step, -3, 3)
        if np.abs(step).max() < 1e-2:
            break
    curves = losses(gates, _curve(found, offsets, predictions), free) + len(_MEANS) / len(gates)
    rates = losses(gates, offsets, free)
    worse = ~(curves < rates)
    found[:, worse] = np.array([[0.0], [1.0], [0.0]])
    return found.astype(np.float32), np.where(worse, rates, curves)


def _curve(found, offsets, predictions):
    import torch

    a, slopes, scales = torch.from_numpy(found.astype(np.float32))
    return (predictions * scales).add_(offsets * slopes).add_(a)


def refined(regression, factor, features, gates, offsets, free, max_iter):
    """Return the `Regression` of least logistic loss, from a start, by L-BFGS.

    Tensors of places: centred ``features``, and what `fit_curves` takes.
    """
    import torch

    n, n_channels = gates.shape
    n_window = len(factor) - n_channels
    earlier = np.ones((len(factor), n_channels), bool)
    earlier[n_window:] = np.triu(earlier[n_window:], 1)  # lower channels alone
    n_weights = int(earlier.sum())
    eye = torch.eye(len(factor), dtype=factor.dtype)
    unmix = torch.linalg.solve_triangular(factor, eye, upper=False).T.float().contiguous()

    def unpacked(values):
        whitened = np.zeros(earlier.shape, np.float32)
        whitened[earlier] = values[:n_weights]
        rest = values[n_weights:].reshape(2, n_channels).astype(np.float32)
        return torch.from_numpy(whitened), torch.from_numpy(rest)

    def loss(values):
        whitened, (intercepts, slopes) = unpacked(values)
        weights, total = unmix @ whitened, 0.0
        by_weight, by_rest = torch.zeros_like(weights), np.zeros((2, n_channels))
        for start in range(0, n, _CHUNK):
            x, g, o, f = (t[start : start + _CHUNK] for t in (features, gates, offsets, free))
            z = (x @ weights).add_(o * slopes).add_(intercepts)
            total += losses(g, z, f).sum() * len(g)
            excess = (torch.sigmoid(z) - g) * f
            by_weight += x.T @ excess
            by_rest[0] += excess.sum(dim=0).numpy()
            by_rest[1] += (excess * o).sum(dim=0).numpy()
        by_weight = unmix.T @ by_weight + _PENALTY * whitened
        gradient = np.concatenate([by_weight.numpy()[earlier], by_rest.ravel()])
        return (total + _PENALTY / 2 * float((whitened**2).sum())) / n, gradient / n

    start = (factor.T.float() @ torch.from_numpy(regression.weights)).numpy()[earlier]
    start = np.concatenate([start, regression.intercepts, regression.slopes])
    options = {"maxiter": max_iter, "maxcor": 10}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    whitened, (intercepts, slopes) = unpacked(found)
    # whitening is triangular, so that weights of later channels stay 0
    weights = (unmix @ whitened).numpy()
    weights[n_window:] = np.triu(weights[n_window:], 1)
    return Regression(weights, intercepts.numpy(), slopes.numpy())
