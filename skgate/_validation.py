"""Input checks, and the only place that imports scikit-learn's private validators."""

import sys
from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.base import _fit_context
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
    validate_params,
)
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import (
    _check_feature_names_in,
    _num_samples,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from ._arrays import on_device, to_numpy
from ._states import GatingStates
from .exceptions import warn_user

__all__ = [
    "MAX_SAMPLES",
    "POSITIVE",
    "HasMethods",
    "Interval",
    "RealNotInt",
    "StrOptions",
    "_check_feature_names_in",
    "_fit_context",
    "_num_samples",
    "as_layers",
    "as_states",
    "check_activations",
    "check_consistent_length",
    "check_is_fitted",
    "check_labels",
    "check_states",
    "issparse",
    "known_codes",
    "sample_rows",
    "type_of_target",
    "validate_data",
    "validate_parameter_constraints",
    "validate_params",
]

#: Constraint on a parameter that is a positive number.
POSITIVE = Interval(Real, 0, None, closed="neither")

#: Constraint on ``max_samples``, a number of samples or a share of them.
MAX_SAMPLES = [
    None,
    Interval(Integral, 1, None, closed="left"),
    Interval(RealNotInt, 0, 1, closed="right"),
]

# float32 stays what it is; anything else becomes float64
_FLOATS = [np.float64, np.float32]


def check_states(estimator, X, *, threshold, reset):
    """Return ``X`` as `GatingStates`, checked against what ``estimator`` was fitted on.

    Sets ``n_features_in_`` (and ``feature_names_in_`` for a dataframe) when ``reset``.
    """
    if isinstance(X, GatingStates):
        _require_samples(X)
        if reset:
            estimator.n_features_in_ = X.shape[1]
        else:
            _check_same_layers(estimator, X)
        return X
    if _holds_layers(X):
        raise ValueError(
            f"{type(estimator).__name__} takes one 2-D array or GatingStates; got a "
            f"{type(X).__name__} of {len(X)} arrays, which scikit-learn would split as if they "
            "were samples. Pass GatingStates.from_arrays(X), one array a layer."
        )
    if _is_stream(X):
        raise ValueError(
            f"Got a {type(X).__name__} and no model: what it yields are no gates. Pass "
            f"{type(estimator).__name__}(model=...), or states that GateExtractor made of it."
        )
    if on_device(X) and X.ndim == 2:  # where it is packed
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    else:
        X = validate_data(estimator, to_numpy(X), dtype="numeric", reset=reset)
    states = GatingStates.from_arrays(X, threshold=threshold)
    # a closed gate in the first row spares counting all of them
    suspect = reset and "float" in str(X.dtype) and len(X) > 1 and np.asarray(states[0]).all()
    if suspect and (states.activation_rates()[0] == 1).all():
        warn_user(
            f"All gates are open: every value of X exceeds threshold={threshold}. Pass "
            "pre-activations, or set a threshold between the values."
        )
    return states


def _is_stream(X):
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(X, data.Dataset | data.DataLoader)


def _holds_layers(X):
    """Whether ``X`` is a list or dict of arrays, one a layer, and not an array itself."""
    if isinstance(X, list | tuple):
        return len(X) > 0 and np.ndim(X[0]) >= 2
    return isinstance(X, dict) and not issparse(X)  # a sparse dok_array is a dict too


def _check_same_layers(estimator, states):
    fitted = estimator.states_
    if (states.layer_names, states.n_gates) != (fitted.layer_names, fitted.n_gates):
        expected = dict(zip(fitted.layer_names, fitted.n_gates, strict=True))
        got = dict(zip(states.layer_names, states.n_gates, strict=True))
        raise ValueError(
            f"X has {states.shape[1]} features in layers {got}, but {type(estimator).__name__} is "
            f"expecting {estimator.n_features_in_} features as input, in layers {expected}."
        )


def as_states(states, threshold=0.0):
    """Return states, an array, or a list or dict of arrays (one a layer) as `GatingStates`."""
    if not isinstance(states, GatingStates):
        states = GatingStates.from_arrays(states, threshold=threshold)
    _require_samples(states)
    return states


def check_activations(estimator, X, *, reset):
    """Return ``X`` as a dict of 2-D float arrays, checked against what ``estimator`` was fitted on.

    The layers of a dict are in the fitted order. Sets ``n_features_in_`` (and
    ``feature_names_in_`` for a dataframe) when ``reset``.
    """
    name = type(estimator).__name__
    if isinstance(X, list | tuple) and _holds_layers(X):
        raise ValueError(
            f"{name} takes one 2-D array or a dict of them, one a layer; got a {type(X).__name__} "
            f"of {len(X)} arrays, which scikit-learn would split as if they were samples. Pass "
            '{"layer0": X[0], "layer1": X[1], ...}.'
        )
    if _holds_layers(X):
        layers = as_layers(X)
        if reset:
            estimator.n_features_in_ = sum(array.shape[1] for array in layers.values())
            vars(estimator).pop("feature_names_in_", None)
    else:
        _refuse_no_activations(X, name)
        layers = {"layer0": validate_data(estimator, to_numpy(X), dtype=_FLOATS, reset=reset)}
    if reset:
        return layers
    widths = {key: array.shape[1] for key, array in layers.items()}
    expected = dict(zip(estimator.layer_names_, estimator.n_units_, strict=True))
    if widths != expected:
        raise ValueError(
            f"X has {sum(widths.values())} features in layers {widths}, but {name} is expecting "
            f"{estimator.n_features_in_} features as input, in layers {expected}."
        )
    return {key: layers[key] for key in expected}


def as_layers(activations):
    """Return activations, an array or a list or dict of arrays (one a layer), as a dict."""
    if not _holds_layers(activations):
        activations = [activations]
    if not isinstance(activations, dict):
        activations = {f"layer{i}": array for i, array in enumerate(activations)}
    names = [str(name) for name in activations]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "A dict of layers needs at least one 2-D array, and names that differ; got the names "
            f"{names}."
        )
    layers = {}
    for name, array in zip(names, activations.values(), strict=True):
        _refuse_no_activations(array)
        layers[name] = check_array(to_numpy(array), dtype=_FLOATS, input_name=f"Layer {name!r}")
    lengths = {name: len(array) for name, array in layers.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Layers differ in their number of samples: {lengths}.")
    return layers


def _refuse_no_activations(X, measure="GibbsLayerMI"):
    if isinstance(X, GatingStates):
        raise ValueError(
            "Got GatingStates, which hold gates, where activations are needed: arrays of real "
            f"numbers, one a layer, or raw inputs with {measure}(model=...)."
        )
    if _is_stream(X):
        raise ValueError(
            f"Got a {type(X).__name__} and no model: what it yields are no activations. Pass "
            f"{measure}(model=...), or arrays of activations, one a layer."
        )


def _require_samples(states):
    if not len(states):
        raise ValueError("Found 0 sample(s) in the gating states while a minimum of 1 is required.")


def check_labels(y, n_samples):
    """Return ``(classes, codes)`` of class labels of any type.

    Raises
    ------
    ValueError
        If ``y`` is missing, continuous, or of another length than ``n_samples``.
    """
    if y is None:
        raise ValueError(
            "This measure requires y to be passed, but the target y is None: one class label a "
            "sample, as y or from a Dataset or DataLoader that yields (inputs, label). Without "
            "labels, y=np.zeros(n_samples) gives the information about the input."
        )
    y = np.asarray(to_numpy(y))
    if y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(
            f"y should be a 1d array, got an array of shape {y.shape} instead. One-hot labels "
            "become classes by y.argmax(axis=1)."
        )
    y = column_or_1d(y, warn=True)
    check_consistent_length(range(n_samples), y)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("Input y contains NaN or infinity; it needs class labels.")
    if type_of_target(y) == "continuous":
        raise ValueError(
            "Unknown label type: continuous. A measure of information about the label needs "
            "classes; bin y first, for example with pandas.qcut(y, 10, labels=False)."
        )
    classes, codes = np.unique(y, return_inverse=True)
    return classes, codes.astype(np.int64)


def known_codes(y, n_samples, classes):
    """Return labels of new data as positions in the fitted ``classes``.

    Raises
    ------
    ValueError
        If a label was not there when the measure was fitted.
    """
    labels, codes = check_labels(y, n_samples)
    if unknown := set(labels.tolist()) - set(classes.tolist()):
        raise ValueError(
            f"y holds the labels {sorted(unknown, key=str)}, which were not in the fitted y "
            f"({classes.tolist()}); split with StratifiedKFold so that each fold has all."
        )
    return np.searchsorted(classes, labels)[codes]


def sample_rows(n_samples, max_samples, random_state):
    """Return sorted positions of ``max_samples`` rows drawn without replacement, or None for all.

    A float is a share of the rows.
    """
    if max_samples is None:
        return None
    size = (
        max_samples if isinstance(max_samples, int | np.integer) else int(max_samples * n_samples)
    )
    if size >= n_samples:
        return None
    return np.sort(check_random_state(random_state).permutation(n_samples)[: max(size, 1)])
