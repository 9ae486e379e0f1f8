"""Ridge regressions of gates on those before them, with a logistic curve for each gate."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import expit, logit

from ...utils.samples import Samples

_RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
_SLOPES = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_FOLDS = 5
#: Weights of the priors of a_i, around the gate's own rate, and of b_i, around one slope for all.
_PRIOR = (1.0, 0.1)
_NEWTON_STEPS = 10


class Moments:
    """Rates and second moments of columns."""

    def __init__(self, columns):
        self.rates = columns.rates()
        centred = columns.centred(self.rates)
        self.covariance = centred.T @ centred / len(columns)
        self.scale = np.mean(np.diag(self.covariance))

    def regression(self, ridge, order=None):
        """Return the `Regression` of columns in an order, by default their own."""
        own = np.arange(len(self.rates)) if order is None else order
        covariance = self.covariance[np.ix_(own, own)]
        covariance[np.diag_indices_from(covariance)] += ridge * self.scale
        factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        return Regression(self.rates, np.ascontiguousarray(factor))


@dataclass
class Regression:
    """Ridge regressions of all columns on their predecessors.

    Attributes
    ----------
    rates : ndarray of shape (n_columns,)
    factor : ndarray of shape (n_columns, n_columns)
        L, lower triangular.
    """

    rates: np.ndarray
    factor: np.ndarray

    def centred_predictions(self, columns):
        """Return the predictions less the rates, (n_rows, n_columns)."""
        centred = columns.centred(self.rates)
        whitened = solve_triangular(self.factor, centred.T, lower=True, check_finite=False)
        return centred - whitened.T * np.diag(self.factor)

    def weights(self):
        """Return the weights of the columns in each prediction, strictly lower triangular."""
        identity = np.eye(len(self.factor))
        inverse = solve_triangular(self.factor, identity, lower=True, check_finite=False)
        return np.tril(identity - np.diag(self.factor)[:, None] * inverse, -1)


@dataclass
class LinearModel:
    """Regressions with a logistic curve for each column from ``first`` on.

    Attributes
    ----------
    regression : Regression
    intercepts, slopes : ndarray of shape (n_predicted,)
    choices : tuple of float
        Ridge and common slope.
    """

    regression: Regression
    intercepts: np.ndarray
    slopes: np.ndarray
    choices: tuple

    @property
    def _first(self):
        return len(self.regression.rates) - len(self.intercepts)

    def logits(self, columns):
        """Return the logits, (n_rows, n_predicted)."""
        predictions = self.regression.centred_predictions(columns)[:, self._first :]
        return self.intercepts + self.slopes * predictions


def fit_linear(columns, groups, first=0):
    """Return the `LinearModel` of the columns from ``first`` on.

    The ridge is the best on the first fifth of the samples, whose order is random; then each fifth
    is predicted from the others, and the curves are fitted to all these predictions.
    """
    samples = Samples(groups, len(columns))
    if len(samples) < 2 * _FOLDS:
        regression = Moments(columns).regression(_RIDGES[-1])
        intercepts = logit(regression.rates[first:])
        return LinearModel(regression, intercepts, 0 * intercepts, (_RIDGES[-1], 0.0))
    judged = samples.of_rows < len(samples) // _FOLDS
    moments = Moments(columns[~judged])
    ridge, slope = _choose_ridge(moments, columns[judged], first)
    predictions = np.empty((len(columns), len(moments.rates) - first))
    for train, test in samples.folds(_FOLDS):
        part = Moments(columns[train]).regression(ridge)
        predictions[test] = part.centred_predictions(columns[test])[:, first:]
    regression = Moments(columns).regression(ridge)
    calibration = calibrate(columns, predictions, logit(regression.rates[first:]), slope)
    return LinearModel(regression, *calibration, (ridge, slope))


def _choose_ridge(moments, judged, first):
    """Return the ridge and the common slope that predict the judged columns best."""
    found, intercepts = [], logit(moments.rates[first:])
    for ridge in _RIDGES:
        predictions = moments.regression(ridge).centred_predictions(judged)[:, first:]
        for slope in _SLOPES:
            gain = judged.log_bernoulli(intercepts + slope * predictions, first).sum()
            found.append((gain, ridge, slope))
    return max(found)[1:]


def calibrate(columns, predictions, prior_intercepts, prior_slope):
    """Return the intercepts and slopes of the posterior mode, by Newton's method, gate by gate."""
    first = columns.gates.shape[1] - predictions.shape[1]
    gates = columns.gates[:, first:]
    a, b = prior_intercepts.copy(), np.full(len(prior_intercepts), prior_slope)
    for _ in range(_NEWTON_STEPS):
        p = expit(a + b * predictions)
        residuals = gates - p
        p *= 1 - p  # the weights of a Newton step
        if columns.free is not None:
            residuals *= columns.free[:, first:]
            p *= columns.free[:, first:]
        weighted = p * predictions
        ga = residuals.sum(axis=0) - _PRIOR[0] * (a - prior_intercepts)
        gb = np.einsum("ij,ij->j", residuals, predictions) - _PRIOR[1] * (b - prior_slope)
        haa = p.sum(axis=0) + _PRIOR[0]
        hab = weighted.sum(axis=0)
        hbb = np.einsum("ij,ij->j", weighted, predictions) + _PRIOR[1]
        determinant = haa * hbb - hab**2
        # full steps overshoot where a gate is nearly always open or closed
        a += np.clip((hbb * ga - hab * gb) / determinant, -2, 2)
        b += np.clip((haa * gb - hab * ga) / determinant, -5, 5)
    return a, b
