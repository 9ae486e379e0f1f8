r"""Scores of classes by linear discriminants, at several strengths of regularisation.

With :math:`z` the coordinates of a row and :math:`m_y` the mean of a class,

.. math::

    \ell_y = z^\top W^{-1} m_y - \tfrac12 m_y^\top W^{-1} m_y, \qquad
    W = T + \lambda \bar t - \gamma \sum_y p_y m_y m_y^\top,

:math:`T` the variances of all rows, with mean :math:`\bar t`. Calibration turns the scores into
probabilities, so that neither a normal distribution nor equal covariances are assumed.
"""

import numpy as np

_RIDGES = (0.003, 0.03, 0.3, 3.0, 30.0)
#: Shares of the variance between classes that are not within them; of two, both tell the same.
_BETWEEN = (0.0, 0.5, 0.9)
#: Scores of a row at most.
N_OPTIONS = len(_RIDGES) * len(_BETWEEN)


def discriminant_scores(coordinates, folds, indicators):
    """Return scores of the rows that each model has to score, by model and part.

    Parameters
    ----------
    coordinates : Coordinates
    folds : LabelFolds
    indicators : ndarray of shape (n_rows, n_classes)

    Returns
    -------
    scores : dict of (tuple, int) to list of ndarray of shape (n_rows_of_part, n_classes)
        One array for each choice of the regularisation.
    """
    z, variances = coordinates.values, coordinates.variances
    parts = map(folds.rows, range(folds.n_parts))
    totals = np.stack(
        [indicators[p].T @ z[p] for p in parts]
    )  # (n_parts, n_classes, n_coordinates)
    counts = folds.sums(indicators)
    scores = {(model, part): [] for model in folds.models for part in folds.scored(model)}
    between = _BETWEEN if indicators.shape[1] > 2 else _BETWEEN[:1]
    mean_variance = variances.mean() if len(variances) else 1.0
    for ridge in _RIDGES:
        whitened = z / (variances + ridge * mean_variance)
        for model in folds.models:
            sizes = folds.without(counts, model)
            means = folds.without(totals, model) / np.maximum(sizes, 1)[:, None]
            of_means = (means / (variances + ridge * mean_variance)) @ means.T
            shares = sizes / max(sizes.sum(), 1)
            for part in folds.scored(model):
                of_rows = whitened[folds.rows(part)] @ means.T
                scores[model, part] += [_scores(of_rows, of_means, shares, b) for b in between]
    return scores


def _scores(of_rows, of_means, shares, between):
    """Return the scores from products with the class means, of rows and of the means."""
    # Woodbury: the variance between classes is that of a few directions
    inner = (
        between
        * shares[:, None]
        * np.linalg.pinv(np.eye(len(shares)) - between * of_means * shares)
    )
    of_means_within = of_means + of_means @ inner @ of_means
    return of_rows + of_rows @ inner @ of_means - np.diag(of_means_within) / 2
