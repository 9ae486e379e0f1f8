"""Correlation of the activations of two samples: `sample_correlation`."""

import numpy as np
from sklearn.utils import Bunch, gen_batches

from ..exceptions import warn_user
from ..utils.labels import check_labels
from ..utils.sklearn import validate_params
from ._inputs import as_layers

_CHUNK = 1024


@validate_params({"return_matrices": ["boolean"]}, prefer_skip_nested_validation=True)
def sample_correlation(activations, y, *, return_matrices=False):
    r"""Return the mean correlation of the activation vectors of two samples.

    For two samples of the same class, and of different classes, the mean of

    .. math::

        R(t_j, t_k) = \frac{\sum_n (t_{jn} - \bar t_j)(t_{kn} - \bar t_k)}
            {\sqrt{\sum_n (t_{jn} - \bar t_j)^2 \sum_n (t_{kn} - \bar t_k)^2}}, \qquad
        \bar t_j = \frac1N \sum_n t_{jn}, \qquad j \ne k,

    and of its absolute value. The published means are absolute; signed ones of different classes
    are near 0 or below, since correlations of both signs cancel.

    Parameters
    ----------
    activations : array-like of shape (n_samples, n_units), or list or dict of these
        Activation vectors, one array per layer, as :func:`layer_activations` returns them.
    y : array-like of shape (n_samples,)
        Class labels.
    return_matrices : bool, default=False
        Whether to return R itself.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        - ``same``, ``different``: ndarray of shape (n_layers,), the signed means; NaN without
          such pairs.
        - ``abs_same``, ``abs_different``: ndarray of shape (n_layers,), the absolute ones.
        - ``layer_names``: list of str.
        - ``matrices``: list of ndarray of shape (n_samples, n_samples), rows and columns sorted by
          class; with ``return_matrices``.
        - ``order``: ndarray of shape (n_samples,), the samples of these rows; likewise.

    Raises
    ------
    ValueError
        If the activations are not finite, layers differ in their number of samples, or ``y`` is
        missing, continuous or of another length.

    Warns
    -----
    UserWarning
        If samples are left out because all their units have the same activation.

    References
    ----------
    .. [1] "A Probabilistic Representation for Deep Learning: Delving into The Information
       Bottleneck Principle", submitted to NeurIPS 2021, Eq. 66 and Fig. 14.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import sample_correlation
    >>> y = np.arange(200) % 2
    >>> activations = np.random.default_rng(0).normal(size=(200, 30)) + np.linspace(-2, 2, 30)
    >>> activations[y == 1] *= -1
    >>> result = sample_correlation(activations, y)
    >>> result.same.round(2), result.different.round(2), result.abs_different.round(2)
    (array([0.6]), array([-0.6]), array([0.6]))
    """
    layers = as_layers(activations)
    _, y_encoded = check_labels(y, len(next(iter(layers.values()))))
    means = np.array([_means(array, y_encoded, name) for name, array in layers.items()])
    names = ("same", "different", "abs_same", "abs_different")
    result = Bunch(**dict(zip(names, means.T, strict=True)), layer_names=list(layers))
    if return_matrices:
        order = np.argsort(y_encoded, kind="stable")
        units = [_standardised(array)[order] for array in layers.values()]
        result.update(matrices=[u @ u.T for u in units], order=order)
    return result


def _standardised(activations):
    """Return vectors of mean 0 and norm 1; NaN for those that do not vary."""
    centred = activations - activations.mean(axis=1, keepdims=True, dtype=np.float64)
    # a mean that is rounded must not make a constant vector vary
    centred[np.ptp(activations, axis=1) == 0] = 0.0
    with np.errstate(invalid="ignore"):
        return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _means(activations, y_encoded, name):
    """Return the means of R and |R| over pairs of the same and of different classes."""
    units = _standardised(activations)
    varies = np.isfinite(units[:, 0])
    if not varies.all():
        warn_user(
            f"Layer {name!r}: {np.sum(~varies)} of {len(varies)} samples have the same activation "
            "in all units and correlate with nothing. They are left out."
        )
    units, y_encoded = units[varies], y_encoded[varies]
    n, sums = len(units), np.zeros(4)
    for rows in gen_batches(n, _CHUNK):
        R = units[rows] @ units.T  # (n_rows, n)
        same = y_encoded[rows, None] == y_encoded
        np.fill_diagonal(R[:, rows], 0.0)
        absolute = np.abs(R)
        sums += [R[same].sum(), R[~same].sum(), absolute[same].sum(), absolute[~same].sum()]
    n_same = np.sum(np.bincount(y_encoded) ** 2) - n
    pairs = np.array([n_same, n * n - n - n_same] * 2)
    return np.divide(sums, pairs, out=np.full(4, np.nan), where=pairs > 0)
