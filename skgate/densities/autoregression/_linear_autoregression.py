"""Ridge regressions of gates on those before them, with a logistic curve for each gate."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import expit, logit

from ...utils.samples import Samples
from .._cross_fitting import largest_no_worse, pointwise_information

_RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
_SLOPES = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_FOLDS = 5
#: With more samples, one fold tells how much the label counts.
_MANY = 500
#: Weights of the priors of a_i, around the gate's own rate, and of b_i, around one slope for all.
_PRIOR = (1.0, 0.1)
_NEWTON_STEPS = 10
#: Ridges of the label, from hardly shrunk to ignored.
_LABEL_RIDGES = (0.01, 0.1, 1.0, np.inf)


class Moments:
    """Rates and second moments of columns and of the label, which precedes all columns."""

    def __init__(self, columns, y_encoded, n_classes):
        self.rates = columns.rates()
        n, n_labels = len(columns), n_classes if n_classes > 1 else 0
        self.priors = np.bincount(y_encoded, minlength=n_classes) / n
        labels = (y_encoded[:, None] == np.arange(n_labels)) - self.priors[:n_labels]
        both = np.hstack([labels, columns.centred(self.rates)])
        self.n_labels = n_labels
        self.covariance = both.T @ both / n
        self.scale = np.mean(np.diag(self.covariance)[n_labels:])

    def regression(self, ridge, label_ridge=np.inf, order=None):
        """Return the `Regression` of columns in an order, by default their own."""
        n_labels = self.n_labels if np.isfinite(label_ridge) else 0
        own = np.arange(len(self.rates)) if order is None else order
        kept = np.concatenate([np.arange(n_labels), self.n_labels + own])
        covariance = self.covariance[np.ix_(kept, kept)]
        ridges = np.repeat([label_ridge if n_labels else 0.0, ridge], [n_labels, len(own)])
        covariance[np.diag_indices_from(covariance)] += ridges * self.scale
        factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        of_columns = np.ascontiguousarray(factor[n_labels:, n_labels:])
        class_offsets = np.zeros((len(self.priors), len(own)))
        if n_labels:
            alone = np.eye(n_labels) - self.priors  # the label's columns of a sample of each class
            first = solve_triangular(factor[:n_labels, :n_labels], alone.T, lower=True)
            through = factor[n_labels:, :n_labels] @ first
            through = solve_triangular(of_columns, through, lower=True, overwrite_b=True)
            class_offsets = (np.diag(of_columns)[:, None] * through).T
        return Regression(self.rates, of_columns, class_offsets)


@dataclass
class Regression:
    """Ridge regressions of all columns on their predecessors and on the class.

    Attributes
    ----------
    rates : ndarray of shape (n_columns,)
    factor : ndarray of shape (n_columns, n_columns)
        L, lower triangular.
    class_offsets : ndarray of shape (n_classes, n_columns)
        What the class adds to a prediction.
    """

    rates: np.ndarray
    factor: np.ndarray
    class_offsets: np.ndarray

    def centred_predictions(self, columns):
        """Return the predictions less the rates, (n_rows, n_columns), without the class."""
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
        Ridge, common slope and ridge of the label.
    """

    regression: Regression
    intercepts: np.ndarray
    slopes: np.ndarray
    choices: tuple

    @property
    def _first(self):
        return len(self.regression.rates) - len(self.intercepts)

    @property
    def class_logits(self):
        return self.slopes * self.regression.class_offsets[:, self._first :]

    def logits(self, columns):
        """Return the logits without the class, (n_rows, n_predicted)."""
        predictions = self.regression.centred_predictions(columns)[:, self._first :]
        return self.intercepts + self.slopes * predictions


def fit_linear(columns, y_encoded, n_classes, groups, first=0):
    """Return the `LinearModel` of the columns from ``first`` on.

    The ridge is the best on the first fifth of the samples, whose order is random; then each fifth
    is predicted from the others, and the curves are fitted to all these predictions.
    """
    samples = Samples(groups, len(columns))
    if len(samples) < 2 * _FOLDS:
        regression = Moments(columns, y_encoded, n_classes).regression(_RIDGES[-1])
        intercepts = logit(regression.rates[first:])
        return LinearModel(regression, intercepts, 0 * intercepts, (_RIDGES[-1], 0.0, np.inf))
    judged = samples.of_rows < len(samples) // _FOLDS
    moments = Moments(columns[~judged], y_encoded[~judged], n_classes)
    ridge, slope = _choose_ridge(moments, columns[judged], first)
    folds = list(samples.folds(_FOLDS))
    label_ridge = np.inf
    if n_classes > 1:
        judged = folds[:1] if len(samples) > _MANY else folds
        labels = y_encoded, n_classes, samples
        label_ridge = _choose_label_ridge(columns, *labels, judged, first, ridge, slope)
    predictions = np.empty((len(columns), len(moments.rates) - first))
    for train, test in folds:
        part = Moments(columns[train], y_encoded[train], n_classes).regression(ridge, label_ridge)
        predictions[test] = part.centred_predictions(columns[test])[:, first:]
        predictions[test] += part.class_offsets[y_encoded[test], first:]
    regression = Moments(columns, y_encoded, n_classes).regression(ridge, label_ridge)
    calibration = calibrate(columns, predictions, logit(regression.rates[first:]), slope)
    return LinearModel(regression, *calibration, (ridge, slope, label_ridge))


def _choose_label_ridge(columns, y_encoded, n_classes, samples, folds, first, ridge, slope):
    """Return the largest ridge of the label that is about as informative as the best."""
    gains, judged = [], []
    for train, test in folds:
        moments = Moments(columns[train], y_encoded[train], n_classes)
        intercepts = logit(moments.rates[first:])
        logs = []
        for label_ridge in _LABEL_RIDGES:
            regression = moments.regression(ridge, label_ridge)
            model = LinearModel(regression, intercepts, np.full(len(intercepts), slope), ())
            logs.append(of_classes(model, columns[test]))
        gains.append(pointwise_information(np.array(logs), y_encoded[test], moments.priors))
        judged.append(samples.of_rows[test])
    gains = np.concatenate(gains, axis=1)  # (n_ridges, n_judged)
    judged = Samples(np.concatenate(judged), gains.shape[1])
    return largest_no_worse(_LABEL_RIDGES, gains, judged)


def _choose_ridge(moments, judged, first):
    """Return the ridge and the common slope that predict the judged columns best."""
    found, intercepts = [], logit(moments.rates[first:])
    for ridge in _RIDGES:
        predictions = moments.regression(ridge).centred_predictions(judged)[:, first:]
        for slope in _SLOPES:
            gain = judged.log_bernoulli(intercepts + slope * predictions, first).sum()
            found.append((gain, ridge, slope))
    return max(found)[1:]


def of_classes(model, columns):
    """Return log p of the columns that a model predicts, by class, (n_rows, n_classes)."""
    logits = model.logits(columns)
    first = columns.gates.shape[1] - logits.shape[1]
    logs = [columns.log_bernoulli(logits + x, first).sum(axis=1) for x in model.class_logits]
    return np.stack(logs, axis=-1)


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
