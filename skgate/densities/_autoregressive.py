r"""`Autoregressive`: a density that predicts each gate from all before it.

One Cholesky factor :math:`L` of the regularised covariance holds the ridge regressions of all gates
on their predecessors, and on the label if there is one: :math:`\sigma_i - \hat\sigma_i = L_{ii}
[L^{-1}(\sigma - \bar\sigma)]_i`. A logistic curve (Platt scaling), fitted to predictions of
held-out samples, makes them probabilities.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import expit, logit

from ..utils.samples import Samples
from ._cross_fitting import FittedDensity, choose_shrinkage
from ._product import Product

_RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
_SLOPES = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_FOLDS = 5
#: Weights of the priors of a_i, around the gate's own rate, and of b_i, around one slope for all.
_PRIOR = (1.0, 0.1)
_NEWTON_STEPS = 10
_BLOCK_BYTES = 1 << 24
#: Ridges of the label, from hardly shrunk to ignored.
_LABEL_RIDGES = (0.01, 0.1, 1.0, np.inf)


class Autoregressive(FittedDensity):
    r"""Gates each of which is regressed on all before it.

    .. math::

        \begin{aligned}
        p(\sigma) &= \prod_i p(\sigma_i \mid \sigma_1, \ldots, \sigma_{i-1}) \\
        p(\sigma_i = 1 \mid \cdot)
            &= \operatorname{logistic}(a_i + b_i (\hat\sigma_i - \bar\sigma_i))
        \end{aligned}

    with :math:`\hat\sigma_i` the ridge regression of gate :math:`i` on its predecessors. Fitting
    takes time with the cube of the number of gates; a few thousand are about the most.

    Attributes
    ----------
    layers_ : tuple of GateLayer

    See Also
    --------
    ChowLiu : For more gates.

    Examples
    --------
    Twenty gates that follow three numbers:

    >>> import numpy as np
    >>> from skgate import GatingEntropy
    >>> from skgate.densities import Autoregressive
    >>> rng = np.random.default_rng(0)
    >>> gates = rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 20)) > 0
    >>> measures = [GatingEntropy(density=d, random_state=0) for d in ("product", Autoregressive())]
    >>> [round(measure.fit(gates).entropy_) for measure in measures]
    [20, 8]
    """

    _covers = "prefixes"

    def _cost(self, layers, n_rows, n_fits):
        n_gates = sum(layer.n_gates for layer in layers)
        products = n_fits * (len(_RIDGES) + _FOLDS + 1) * n_gates**2 * (2 * n_rows + n_gates)
        return products / 3e10, 8 * (3 * n_gates**2 + 2 * n_rows * n_gates)

    def _fit_model(self, states, y_encoded, n_classes, seed, gpu):
        """Return an `Autoregression`, whose use of the class is chosen on held-out samples."""

        def refit(train):
            part = states[train], y_encoded[train], n_classes
            return lambda ridge: fit_autoregression(*part, ridge)

        ridge = choose_shrinkage(states, y_encoded, n_classes, refit, _LABEL_RIDGES, seed, 1)
        return fit_autoregression(states, y_encoded, n_classes, ridge)

    def independent(self):
        """Return the reference of the total correlation: independent units."""
        return Product()


@dataclass
class Regression:
    """Ridge regressions of all gates on their predecessors and on the class.

    Attributes
    ----------
    rates : ndarray of shape (n_gates,)
    factor : ndarray of shape (n_gates, n_gates)
        L, lower triangular.
    class_offsets : ndarray of shape (n_classes, n_gates)
        What the class adds to a prediction.
    """

    rates: np.ndarray
    factor: np.ndarray
    class_offsets: np.ndarray

    def centred_predictions(self, gates):
        """Return the predictions less the rates, (n_samples, n_gates), without the class."""
        centred = gates - self.rates
        whitened = solve_triangular(self.factor, centred.T, lower=True, check_finite=False)
        return centred - whitened.T * np.diag(self.factor)


def _regress(gates, y_encoded, n_classes, ridge, label_ridge):
    n, n_gates = gates.shape
    rates = (gates.sum(axis=0) + 0.5) / (n + 1)
    priors = np.bincount(y_encoded, minlength=n_classes) / n
    n_labels = n_classes if n_classes > 1 and np.isfinite(label_ridge) else 0
    labels = (y_encoded[:, None] == np.arange(n_labels)) - priors[:n_labels]
    columns = np.hstack([labels, gates - rates])  # the label precedes all gates
    covariance = columns.T @ columns / n
    scale = np.mean(rates * (1 - rates))
    ridges = np.repeat([label_ridge if n_labels else 0.0, ridge], [n_labels, n_gates])
    covariance[np.diag_indices_from(covariance)] += ridges * scale
    factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
    own = np.ascontiguousarray(factor[n_labels:, n_labels:])
    class_offsets = np.zeros((n_classes, n_gates))
    if n_labels:
        alone = np.eye(n_labels) - priors  # the label's columns of a sample of each class
        first = solve_triangular(factor[:n_labels, :n_labels], alone.T, lower=True)
        through = solve_triangular(own, factor[n_labels:, :n_labels] @ first, lower=True)
        class_offsets = (np.diag(own)[:, None] * through).T
    return Regression(rates, own, class_offsets)


@dataclass
class Autoregression:
    """Regressions with a logistic curve for each gate.

    Attributes
    ----------
    regression : Regression
    intercepts, slopes : ndarray of shape (n_gates,)
    """

    regression: Regression
    intercepts: np.ndarray
    slopes: np.ndarray

    def log_likelihoods(self, states, bounds):
        """Return log p of each range of layers, (n_ranges, n_samples, n_classes), nats.

        Ranges begin at the first layer, since a gate depends on all before it.
        """
        class_offsets, n_gates = self.regression.class_offsets, states.shape[1]
        ends = np.cumsum([0, *states.n_gates])[:-1]
        logs = np.empty((len(bounds), len(states), len(class_offsets)))
        step = max(1, _BLOCK_BYTES // (8 * n_gates))
        for start in range(0, len(states), step):
            gates = states[start : start + step].__array__(np.float64)
            predictions = self.regression.centred_predictions(gates)
            for label, offset in enumerate(class_offsets):
                values = _log_bernoulli(gates, predictions + offset, self.intercepts, self.slopes)
                sums = np.add.reduceat(values, ends, axis=1).cumsum(axis=1)  # (n_rows, n_layers)
                logs[:, start : start + step, label] = sums[:, [stop - 1 for _, stop in bounds]].T
        return logs


def _log_bernoulli(gates, predictions, intercepts, slopes):
    z = intercepts + slopes * predictions
    np.negative(z, out=z, where=gates > 0)
    return np.negative(np.logaddexp(0.0, z, out=z), out=z)


def fit_autoregression(states, y_encoded, n_classes, label_ridge=0.1):
    """Return the `Autoregression` of gates in their order.

    The ridge is the best of five on the first fifth of the samples, whose order is random; then
    each fifth is predicted from the others, and the curves are fitted to all these predictions.
    With an infinite ``label_ridge``, gates do not depend on the label.
    """
    gates = states.__array__(np.float64)
    samples = Samples(states.groups, len(states))
    if len(samples) < 2 * _FOLDS:
        regression = _regress(gates, y_encoded, n_classes, _RIDGES[-1], np.inf)
        no_slopes = np.zeros(gates.shape[1])
        return Autoregression(regression, logit(regression.rates), no_slopes)
    in_test = samples.of_rows < len(samples) // _FOLDS
    train, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)

    def predict(train, test, ridge):
        regression = _regress(gates[train], y_encoded[train], n_classes, ridge, label_ridge)
        predictions = regression.centred_predictions(gates[test])
        predictions += regression.class_offsets[y_encoded[test]]
        return predictions, logit(regression.rates)

    found = []
    for ridge in _RIDGES:
        predictions, intercepts = predict(train, test, ridge)
        for slope in _SLOPES:
            gain = _log_bernoulli(gates[test], predictions, intercepts, slope).sum()
            found.append((gain, ridge, slope))
    _, ridge, slope = max(found)
    predictions = np.empty_like(gates)
    for train, test in samples.folds(_FOLDS):
        predictions[test] = predict(train, test, ridge)[0]
    regression = _regress(gates, y_encoded, n_classes, ridge, label_ridge)
    calibration = _calibrate(gates, predictions, logit(regression.rates), slope)
    return Autoregression(regression, *calibration)


def _calibrate(gates, predictions, prior_intercepts, prior_slope):
    """Return the intercepts and slopes of the posterior mode, by Newton's method, gate by gate."""
    a, b = prior_intercepts.copy(), np.full(len(prior_intercepts), prior_slope)
    for _ in range(_NEWTON_STEPS):
        p = expit(a + b * predictions)
        residuals = gates - p
        p *= 1 - p  # the weights of a Newton step
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
