"""`GatingEstimator`, the base of the measures of gates: inputs, drawn samples, scores."""

from inspect import signature
from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target

from ..densities import NAMED, as_density
from ..exceptions import warn_user
from ..pairwise import Engine
from ..states import check_states, in_groups
from ..utils.arrays import holds_inputs, to_numpy
from ..utils.labels import check_labels, labels_in, require_classes
from ..utils.measures import Measure
from ..utils.samples import Samples
from ..utils.sklearn import (
    MAX_SAMPLES,
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
    _num_samples,
    check_is_fitted,
)

#: Constraints on the parameters that the measures and their functions share.
MEASURE_CONSTRAINTS = {
    "density": [StrOptions(set(NAMED)), HasMethods(["fit", "score_samples"])],
    "cv": [None, Interval(Integral, 2, None, closed="left")],
    "budget": [Interval(Real, 0, None, closed="neither")],
    "threshold": [Interval(Real, None, None, closed="neither")],
    "base": [Interval(Real, 1, None, closed="neither")],
    "confidence": [Interval(Real, 0, 1, closed="neither")],
    "device": [StrOptions({"auto", "cpu", "cuda"})],
    "n_jobs": [None, Integral],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
}


class GatingEstimator(Measure):
    """Base of the estimators that measure gating states."""

    _parameter_constraints = {
        "model": [None, HasMethods("forward"), HasMethods("extract"), HasMethods("predict")],
        **MEASURE_CONSTRAINTS,
        "max_samples": MAX_SAMPLES,
    }

    #: The function that measures states; each item of its result becomes a fitted attribute.
    _function = None
    #: Whether sampling inside a bare module, such as dropout, is part of what is measured.
    _sampling = "on"
    #: How the measure uses labels: "needed", "welcome" or "ignored".
    _role_of_y = "welcome"
    _needs_labels = property(lambda self: self._role_of_y == "needed")

    def __init__(
        self,
        model=None,
        *,
        density="auto",
        cv=5,
        budget=60,
        threshold=0.0,
        base=2,
        confidence=0.95,
        max_samples=None,
        device="auto",
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        self.model = model
        self.density = density
        self.cv = cv
        self.budget = budget
        self.threshold = threshold
        self.base = base
        self.confidence = confidence
        self.max_samples = max_samples
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def set_params(self, **params):
        """Set parameters, those of the density as ``density__name``.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : GatingEstimator

        Raises
        ------
        ValueError
            If a name is unknown, or ``density`` is a string, which has no parameters.
        """
        density = params.get("density", self.density)
        nested = [name for name in params if name.startswith("density__")]
        if nested and isinstance(density, str):
            kind = NAMED[density].__name__ if density in NAMED else "Kernel"
            raise ValueError(
                f"{nested[0]!r} sets a parameter of density={density!r}, a string, which has none. "
                f"Pass the density itself: density={kind}(), from skgate.densities."
            )
        return super().set_params(**params)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.model is None
        return tags

    def _engine(self):
        """Return where pairs are computed; raise if it is not available."""
        return Engine(self.device, self.n_jobs, self.verbose)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, groups=None):
        """Measure the gating states.

        Samples must be independent; ``groups`` say which are not.

        Parameters
        ----------
        X : GatingStates, array-like of shape (n_samples, n_gates), or raw inputs of ``model``
            Gates may be a sparse array of SciPy, as :meth:`GatingStates.from_arrays` describes.
            With a model: an array, a tensor, a dict of these, a ``Dataset`` or ``DataLoader``.
        y : array-like of shape (n_samples,) or (n_rows,), default=None
            Class labels. :class:`GatingMI` needs them, unless ``X`` is a dataset or loader that
            yields them; :class:`TotalCorrelation` adds the terms given the label;
            :class:`GatingEntropy` ignores them. Where rows are positions, labels of rows, or of
            samples in the order of ``np.unique(X.groups)``, which are given to all their rows; with
            a model, one for each sample, or for each position, (n_samples, height, width).
        groups : array-like of shape (n_samples,) or (n_rows,), default=None
            Samples of one group depend on each other: augmented copies, frames of a video, images
            of a patient. Folds, parts of the jackknife, permutations and standard errors keep them
            together, and ``states_.groups`` has them, as integers. One label a sample; where rows
            are positions, one a row, or a sample in the order of ``np.unique(X.groups)``; not with
            a ``DataLoader``. ``None``: samples are independent.

        Returns
        -------
        self : GatingEstimator

        Raises
        ------
        ValueError
            If a parameter, ``X``, ``y`` or ``groups`` is not as described, ``model`` has no gates,
            or a fitted density needs more memory than there is.
        RuntimeError
            If ``device="cuda"`` is not available.

        Warns
        -----
        SaturationWarning
            If an entropy of the kernel density is lower than that of the gates.
        UserWarning
            If the work takes more than an hour, or the states of all layers do not fit in memory
            and ``model`` runs several times; if more than 1% of the inputs of ``model``, and at
            least 5, equal an earlier one that is not of their group.
        """
        self._engine()
        as_density(self.density, self.budget)
        y = None if self._role_of_y == "ignored" else y
        classes, y_encoded = self._fit_states(X, y, groups)
        taken = signature(type(self)._function).parameters.keys() - {"threshold"}
        params = {
            name: value for name, value in self.get_params(deep=False).items() if name in taken
        }
        labels = [] if self._role_of_y == "ignored" else [y_encoded]
        result = type(self)._function(self.states_, *labels, **params)
        vars(self).pop("classes_", None)
        if classes is not None:
            result["classes"] = classes
        for name, value in result.items():
            setattr(self, f"{name}_", value)
        return self

    def _fit_states(self, X, y, groups):
        """Set ``states_`` and return ``(classes, y_encoded)``, each None without labels."""
        random_state = check_random_state(self.random_state)
        if self.model is None:
            states = check_states(self, X, threshold=self.threshold, layers=None)
            classes, y_encoded = self._labels(y, len(states), states.groups)
            samples = Samples(states.groups, len(states))
            states, y = in_groups(states, groups), None if classes is None else classes[y_encoded]
            rows = samples.drawn_rows(self.max_samples, random_state)
            if rows is not None:
                states, y = states[rows], None if y is None else y[rows]
        else:
            if y is not None:
                self._check_classes(y)
            elif self._needs_labels and holds_inputs(X):
                by_position = getattr(self.model, "samples", None) == "position"
                require_classes(labels_in(X), by_position=by_position)
            from ..capture import as_extractor  # which loads torch

            self.extractor_ = as_extractor(
                self.model,
                sampling=self._sampling,
                random_state=random_state,
                verbose=self.verbose,
                needs_labels=self._needs_labels,
            )
            states, labels = self.extractor_.extract(
                X, y, groups=groups, max_samples=self.max_samples, random_state=random_state
            )
            unasked = y is None and self._role_of_y == "welcome"
            y = _classes_or_none(labels) if unasked else labels
            for name in {"n_features_in_", "feature_names_in_"} & set(vars(self.extractor_)):
                setattr(self, name, getattr(self.extractor_, name))
        self.states_ = states
        self.layer_names_ = list(states.layer_names)
        return self._labels(y, len(states), states.groups)

    def _check_classes(self, y):
        """Raise for labels that cannot be used, before a model runs."""
        if y is not None and getattr(self.model, "samples", None) == "position":
            y = np.ravel(to_numpy(y))  # there may be one for each position
        self._labels(y, 0 if y is None else _num_samples(y))

    def _labels(self, y, n_rows, groups=None):
        if self._role_of_y == "ignored" or (y is None and self._role_of_y == "welcome"):
            return None, None
        return check_labels(y, n_rows, groups)

    def _new_states(self, X, y=None):
        """Return ``(states, y)`` of new data, the labels those of a loader that holds some."""
        check_is_fitted(self)
        if self.model is None:
            return check_states(self, X, threshold=self.threshold, layers=self.states_.layers), y
        return self.extractor_.extract(X, y)

    def _new_rows(self, X):
        """Return states of new data whose rows are in the order of ``X``."""
        check_is_fitted(self)
        if self.model is None:
            return self._new_states(X)[0]
        return self.extractor_.transform(X)

    def _log_marginals(self, states):
        return self.density_.log_marginals(states, self._engine()) / np.log(self.base)

    def transform(self, X):
        """Return the surprisal of each row in each layer.

        The surprisal is ``-log p(sigma_l)`` under the normalised density that was fitted; its
        mean is the cross entropy of the rows.

        Parameters
        ----------
        X : GatingStates, array-like, or raw inputs of ``model``
            As in :meth:`fit`.

        Returns
        -------
        surprisals : ndarray of shape (n_rows, n_layers)
            In units of ``base``.
        """
        states = self._new_rows(X)
        return -self._log_marginals(states)[:-1].T

    def score_samples(self, X):
        """Return the log-likelihood of each row under the joint density of all layers.

        The density is normalised over all states, so that values compare across densities. For the
        kernel density, that is Aitchison and Aitken's form of the kernel.

        Parameters
        ----------
        X : GatingStates, array-like, or raw inputs of ``model``
            As in :meth:`fit`.

        Returns
        -------
        log_likelihoods : ndarray of shape (n_rows,)
            In units of ``base``; higher is better. The kernel density gives ``-inf`` to a state
            that differs from fitted gates none of which varied.
        """
        states = self._new_rows(X)
        return self._log_marginals(states)[-1]

    def score(self, X, y=None):
        """Return the mean log-likelihood of the rows, see :meth:`score_samples`.

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
        return float(np.mean(self._log_marginals(states)[-1]))


def draw_seed(random_state):
    """Return a seed drawn from the ``random_state`` of an estimator."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def _classes_or_none(labels):
    """Return labels that came with the inputs, unasked for, if they are classes."""
    if labels is not None and type_of_target(labels) == "continuous":
        warn_user("The labels that came with X are continuous; nothing is measured given them.")
        return None
    return labels
