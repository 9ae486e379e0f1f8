"""Input checks of the measures of layers: activations become a dict of arrays, one per layer."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils import check_array

from ..states import GatingStates
from ..utils.arrays import holds_layers, is_torch_data, real_array
from ..utils.sklearn import validate_data

# float32 is kept, other types are converted to float64
_FLOATS = [np.float64, np.float32]


def check_activations(estimator, X, *, reset):
    """Return ``X`` as a dict of 2-D float arrays, checked against the fitted ``estimator``.

    The layers of a dict are returned in the fitted order. Sets ``n_features_in_`` (and
    ``feature_names_in_`` for a dataframe) if ``reset``.
    """
    name = type(estimator).__name__
    if isinstance(X, list | tuple) and holds_layers(X):
        raise ValueError(
            f"{name} takes one 2-D array or a dict of them, one per layer; got a "
            f"{type(X).__name__} of {len(X)} arrays, which scikit-learn would split as if they "
            'were samples. Pass {"layer0": X[0], "layer1": X[1], ...}.'
        )
    if holds_layers(X):
        layers = as_layers(X, name)
        if reset:
            estimator.n_features_in_ = sum(array.shape[1] for array in layers.values())
            vars(estimator).pop("feature_names_in_", None)
    else:
        _refuse_no_activations(X, name)
        layers = {"layer0": validate_data(estimator, real_array(X), dtype=_FLOATS, reset=reset)}
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


def name_layers(activations):
    """Return activations, an array or a list or dict of arrays (one per layer), as a dict."""
    layers = activations if holds_layers(activations) else [activations]
    return layers if isinstance(layers, Mapping) else {f"layer{i}": t for i, t in enumerate(layers)}


def as_layers(activations, measure="GibbsLayerMI"):
    """Return activations, as `name_layers` does, as checked arrays."""
    activations = name_layers(activations)
    names = [str(name) for name in activations]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "A dict of layers needs at least one 2-D array, and distinct names; got the names "
            f"{names}."
        )
    layers = {}
    for name, array in zip(names, activations.values(), strict=True):
        _refuse_no_activations(array, measure)
        label = f"Layer {name!r}"
        layers[name] = check_array(real_array(array, label), dtype=_FLOATS, input_name=label)
    lengths = {name: len(array) for name, array in layers.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Layers differ in their number of samples: {lengths}.")
    return layers


def _refuse_no_activations(X, measure):
    if isinstance(X, GatingStates):
        raise ValueError(
            "Got GatingStates, which hold gates, where activations are needed: arrays of real "
            f"numbers, one per layer, or raw inputs with {measure}(model=...)."
        )
    if is_torch_data(X):
        raise ValueError(
            f"Got a {type(X).__name__} and no model to compute activations from it. Pass "
            f"{measure}(model=...), or arrays of activations, one per layer."
        )
