"""Flat records of what a fitted measure found, for tables, files and plots."""

import re

import numpy as np

__all__ = ["records_of"]


def records_of(fitted, *, step=0, name=None):
    """Return the records of a fitted measure: what it has of each layer, and of all of them.

    Parameters
    ----------
    fitted : GatingEstimator or LayerEstimator
    step : int, default=0
    name : str, default=None
        Of the measure; that of its class by default.

    Returns
    -------
    records : list of dict
        ``step``, ``measure``, ``layer``, ``base``, and fitted attributes that are a float or a
        flag, or an array of one a layer. The last one has ``layer`` None, if there is one.
    """
    layers, name = fitted.layer_names_, name or type(fitted).__name__
    whole, rows = {}, [{} for _ in layers]
    for attribute, value in vars(fitted).items():
        if not attribute.endswith("_") or attribute == "classes_":  # there may be one a layer
            continue
        per_layer = isinstance(value, np.ndarray) and value.shape == (len(layers),)
        if isinstance(value, bool | float):
            whole[_column(attribute)] = value
        elif per_layer and value.dtype in (bool, float):
            for row, number in zip(rows, value.tolist(), strict=True):
                row[_column(attribute)] = number
    for key, value in rows[0].items():
        if key.startswith("suffix_"):  # the first of which is the whole network
            whole.setdefault(key.removeprefix("suffix_"), value)
    return [
        {"step": step, "measure": name, "layer": layer, "base": float(fitted.base), **values}
        for layer, values in [*zip(layers, rows, strict=True), (None, whole)]
        if values
    ]


def _column(attribute):
    """Return the name of a quantity: ``layer_entropies_se_`` has ``entropy_se``."""
    name = attribute.removesuffix("_").removeprefix("layer_").removeprefix("network_")
    name = name.replace("shuffled_layer_", "shuffled_")
    return re.sub(r"(?<!s)s(_se)?$", r"\1", re.sub(r"ies(_se)?$", r"y\1", name))
