"""What the estimators of gating states share: input, rows drawn from it, surprisals, scores."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.multiclass import type_of_target

from ..densities._cross_fitting import mixture
from ..densities._kernel import kernel_weights, log_densities
from ..exceptions import warn_user
from ..pairwise import Engine, kernel_masses
from ..states import check_states
from ..utils.arrays import sample_rows
from ..utils.labels import check_labels
from ..utils.sklearn import (
    MAX_SAMPLES,
    POSITIVE,
    HasMethods,
    Interval,
    StrOptions,
    _check_feature_names_in,
    _num_samples,
    check_is_fitted,
)

#: Constraints on the parameters of the kernel density.
KERNEL_CONSTRAINTS = {
    "alpha": [StrOptions({"auto"}), POSITIVE],
    "bandwidth": [StrOptions({"variance", "n_gates"}), POSITIVE],
    "bound": [StrOptions({"upper", "lower"})],
    "joint": [StrOptions({"concatenated", "product"})],
    "threshold": [Interval(Real, None, None, closed="neither")],
    "base": [Interval(Real, 1, None, closed="neither")],
    "device": [StrOptions({"auto", "cpu", "cuda"})],
    "n_jobs": [None, Integral],
    "verbose": ["verbose"],
}

#: Constraints on the parameters that the measures and their function twins share.
DENSITY_CONSTRAINTS = {
    "density": [StrOptions({"kde", "product", "chow-liu", "autoregressive"})],
    "cv": [None, Interval(Integral, 2, None, closed="left")],
    **KERNEL_CONSTRAINTS,
}


class GatingEstimator(TransformerMixin, BaseEstimator):
    """Base of the estimators that measure gating states."""

    _parameter_constraints = {
        "model": [None, HasMethods("forward"), HasMethods("extract"), HasMethods("predict")],
        **DENSITY_CONSTRAINTS,
        "max_samples": MAX_SAMPLES,
        "random_state": ["random_state"],
    }

    #: Whether sampling inside a bare module, such as dropout, is part of what is measured.
    _sampling = "on"
    #: What labels are to the measure: "needed", "welcome" or "ignored".
    _role_of_y = "welcome"

    def __init__(
        self,
        model=None,
        *,
        density="kde",
        cv=5,
        alpha="auto",
        bandwidth="variance",
        bound="upper",
        joint="concatenated",
        threshold=0.0,
        base=2,
        max_samples=None,
        device="auto",
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        self.model = model
        self.density = density
        self.cv = cv
        self.alpha = alpha
        self.bandwidth = bandwidth
        self.bound = bound
        self.joint = joint
        self.threshold = threshold
        self.base = base
        self.max_samples = max_samples
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def _engine(self):
        """Return where pairs are computed; raise if that cannot be had."""
        return Engine(self.device, self.n_jobs, self.verbose)

    def _kernel_params(self):
        return {name: getattr(self, name) for name in DENSITY_CONSTRAINTS if name != "threshold"}

    def _fit_states(self, X, y):
        """Set ``states_`` and return ``(classes, codes)`` of the labels, or ``(None, None)``."""
        self._engine()
        random_state = check_random_state(self.random_state)
        if self.model is None:
            states = check_states(self, X, threshold=self.threshold, reset=True)
            self._labels(y, len(states))
            rows = sample_rows(len(states), self.max_samples, random_state)
            states, y = (states, y) if rows is None else (states[rows], _take(y, rows))
        else:
            if y is not None:
                self._labels(y, _num_samples(y))  # before the model runs
            elif hasattr(X, "shape") or isinstance(X, dict | tuple):
                self._labels(None, 0)  # nothing that could bring labels of its own
            self.extractor_ = as_extractor(self.model, self._sampling, random_state, self.verbose)
            states, labels = self.extractor_.extract(
                X, y, max_samples=self.max_samples, random_state=random_state
            )
            unasked = y is None and self._role_of_y == "welcome"
            y = _classes_or_none(labels) if unasked else labels
            for name in {"n_features_in_", "feature_names_in_"} & set(vars(self.extractor_)):
                setattr(self, name, getattr(self.extractor_, name))
        self.states_ = states
        self.layer_names_ = list(states.layer_names)
        return self._labels(y, len(states))

    def _labels(self, y, n_samples):
        if self._role_of_y == "ignored" or (y is None and self._role_of_y == "welcome"):
            return None, None
        return check_labels(y, n_samples)

    def _new_states(self, X, y=None):
        """Return ``(states, y)`` of new data, the labels those of a loader that holds some."""
        check_is_fitted(self)
        if self.model is None:
            return check_states(self, X, threshold=self.threshold, reset=False), y
        return self.extractor_.extract(X, y)

    def _new_rows(self, X):
        """Return states of new data whose rows are in the order of ``X``."""
        check_is_fitted(self)
        if self.model is None:
            return self._new_states(X)[0]
        return self.extractor_.transform(X)

    def _kernel(self):
        """Return ``(weights, support)`` of the layers and, last, of all of them jointly."""
        n_layers = len(self.layer_names_)
        support = np.vstack([np.eye(n_layers, dtype=bool), np.ones((1, n_layers), dtype=bool)])
        bandwidths = np.vstack([np.diag(self.bandwidths_), np.full((1, n_layers), self.bandwidth_)])
        if self.joint == "product":
            bandwidths[-1] = self.bandwidths_
        return kernel_weights(bandwidths, self.bound), support

    def _log_likelihoods(self, states):
        """Return log densities of each layer and of all jointly, (n_layers + 1, n), nats."""
        if self.density_ is not None:
            logs = self.density_.log_likelihoods(states)[[*self.density_.spans.layers, -1]]
            return mixture(logs, self.density_.priors)
        weights, support = self._kernel()
        masses = kernel_masses(self.states_, weights, queries=states, engine=self._engine())[:, 0]
        return log_densities(masses, weights, support, len(self.states_), self.states_, states)

    def transform(self, X):
        """Return the surprisal of each sample in each layer.

        The surprisal is ``-log p(sigma_l)`` under the normalised density that was fitted; its
        mean is the cross entropy of the samples.

        Parameters
        ----------
        X : GatingStates, array-like, or raw inputs of ``model``
            As in :meth:`fit`.

        Returns
        -------
        surprisals : ndarray of shape (n_samples, n_layers)
            In units of ``base``.
        """
        states = self._new_rows(X)
        return -self._log_likelihoods(states)[:-1].T / np.log(self.base)

    def score_samples(self, X):
        r"""Return the log-likelihood of each sample under the joint density of all layers.

        Of the kernel density, that is

        .. math::

            \log \hat p(\sigma) = \log \frac1n \sum_k K(\sigma, \sigma_k)
                - \sum_l d_l \log(1 + e^{-1/2\sigma_0^2})

        Aitchison and Aitken's form of the kernel, which sums to 1 over all states, so that
        values compare across bandwidths.

        Parameters
        ----------
        X : GatingStates, array-like, or raw inputs of ``model``
            As in :meth:`fit`.

        Returns
        -------
        log_likelihoods : ndarray of shape (n_samples,)
            In units of ``base``; higher is better. Of the kernel density, ``-inf`` for a state
            that differs from fitted gates none of which varied.
        """
        states = self._new_rows(X)
        return self._log_likelihoods(states)[-1] / np.log(self.base)

    def score(self, X, y=None):
        """Return the mean log-likelihood of the samples, see :meth:`score_samples`.

        Parameters
        ----------
        X : GatingStates, array-like, or raw inputs of ``model``
            As in :meth:`fit`.
        y : Ignored

        Returns
        -------
        score : float
            In units of ``base``; higher is better.
        """
        states, _ = self._new_states(X)
        return float(np.mean(self._log_likelihoods(states)[-1]) / np.log(self.base))

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of :meth:`transform`: those of the layers.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Checked against the fitted names and otherwise ignored.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        return np.asarray(self.layer_names_, dtype=object)

    @property
    def _n_features_out(self):
        return len(self.layer_names_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self._role_of_y == "needed"
        tags.input_tags.three_d_array = self.model is not None
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _set_result(self, result):
        """Set each item of a function twin's result as a fitted attribute, in place of all others.

        ``density_`` is the fitted density, None for that of the kernel, which is ``states_``.
        """
        for name in ("bandwidth_", "bandwidths_", "density_"):
            vars(self).pop(name, None)
        for name, value in result.items():
            setattr(self, f"{name}_", value)


def as_extractor(model, sampling, random_state, verbose):
    """Return a new extractor for ``model``, which may be one itself; loads torch."""
    from .. import capture

    return capture.as_extractor(
        model, sampling=sampling, random_state=random_state, verbose=verbose
    )


def _classes_or_none(labels):
    """Return labels that came with the inputs, unasked for, if they are classes."""
    if labels is not None and type_of_target(labels) == "continuous":
        warn_user("The labels that came with X are continuous; nothing is measured given them.")
        return None
    return labels


def _take(y, rows):
    return None if y is None else _safe_indexing(y, rows)
