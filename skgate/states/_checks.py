"""Input checks that convert gates in any container to `GatingStates`."""

from copy import copy

import numpy as np

from ..exceptions import warn_user
from ..utils.arrays import (
    holds_layers,
    is_torch_data,
    on_device,
    plain_tensor,
    real_array,
)
from ..utils.groups import check_groups
from ..utils.sklearn import validate_data
from ._gating_states import GatingStates
from ._layered import Layered


def check_states(estimator, X, *, threshold, layers):
    """Return ``X`` as `GatingStates`, checked against the fitted ``layers`` of ``estimator``.

    With ``layers=None`` the estimator is being fitted: ``n_features_in_`` is set, and
    ``feature_names_in_`` for a dataframe.
    """
    reset = layers is None
    if isinstance(X, GatingStates):
        _require_samples(X)
        if reset:
            estimator.n_features_in_ = X.shape[1]
        else:
            _check_same_layers(estimator, X, layers)
        return X
    if holds_layers(X):
        raise ValueError(
            f"{type(estimator).__name__} takes one 2-D array or GatingStates; got a "
            f"{type(X).__name__} of {len(X)} arrays, which scikit-learn would split as if they "
            "were samples. Pass GatingStates.from_arrays(X), with one array per layer."
        )
    if is_torch_data(X):
        raise ValueError(
            f"Got a {type(X).__name__}, but no model to compute gates from it. Pass "
            f"{type(estimator).__name__}(model=...), or the states that a GateExtractor returns."
        )
    X = plain_tensor(X) if hasattr(X, "detach") else X
    if getattr(X, "ndim", 2) > 2:
        raise ValueError(
            f"Found array with dim {X.ndim}; {type(estimator).__name__} takes gates of shape "
            "(n_samples, n_gates). Raw inputs of a network need model=...; gates with positions "
            "become states by GatingStates.from_arrays(X)."
        )
    if on_device(X) and X.ndim == 2:  # packed there
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    else:
        options = {"dtype": "numeric", "accept_sparse": "csr", "reset": reset}
        X = validate_data(estimator, real_array(X), **options)
    states = GatingStates.from_arrays(X, threshold=threshold)
    # one closed gate in the first row makes the count of all gates unnecessary
    suspect = reset and "float" in str(X.dtype) and len(states) > 1 and np.asarray(states[0]).all()
    if suspect and (states.activation_rates()[0] == 1).all():
        warn_user(
            f"All gates are open: every value of X exceeds threshold={threshold}. Pass "
            "pre-activations, or set threshold to a value between those of X."
        )
    return states


def _check_same_layers(estimator, states, layers):
    expected = {layer.name: layer.n_gates for layer in layers}
    got = dict(zip(states.layer_names, states.n_gates, strict=True))
    if list(got.items()) != list(expected.items()):
        raise ValueError(
            f"X has {states.shape[1]} features in layers {got}, but {type(estimator).__name__} is "
            f"expecting {estimator.n_features_in_} features as input, in layers {expected}."
        )


def as_states(states, threshold=0.0):
    """Return `GatingStates` from states, an array, or a list or dict with an array per layer."""
    if not isinstance(states, Layered):
        states = GatingStates.from_arrays(states, threshold=threshold)
    _require_samples(states)
    return states


def in_groups(states, groups):
    """Return states whose rows depend on each other where they are of one group.

    Without ``groups``, these are the samples of the states. Raises if a group ends in a sample.
    """
    if groups is None:
        return states
    grouped = copy(states)
    grouped.groups = check_groups(groups, len(states), states.groups)
    return grouped


def _require_samples(states):
    if not len(states):
        raise ValueError("Found 0 sample(s) in the gating states while a minimum of 1 is required.")
