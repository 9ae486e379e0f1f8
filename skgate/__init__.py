"""Complexity of the transformations in neural networks, in bits, as scikit-learn estimators.

The way of the data is one line, and imports point along it::

    torch module ─ capture ─▶ states ─ pairwise | densities ─▶ gates, layers ─▶ monitoring,
                                                                  training, plotting

``import skgate`` loads neither torch nor matplotlib: the names in ``_ON_USE`` come on first use.
"""

import importlib

from .exceptions import GateCaptureWarning, SaturationWarning
from .gates import (
    GatingEntropy,
    GatingMI,
    TotalCorrelation,
    entropy_curve,
    gating_entropy,
    gating_mi,
    permutation_test,
    total_correlation,
)
from .layers import (
    BinnedLayerMI,
    GibbsLayerMI,
    KDELayerMI,
    binned_layer_mi,
    gibbs_layer_mi,
    kde_layer_mi,
    sample_correlation,
)
from .states import GateLayer, GatingStates

__version__ = "0.2.0.dev0"

__all__ = [
    "BinnedLayerMI",
    "ComplexityDisplay",
    "ComplexityLoss",
    "ComplexityMonitor",
    "ComplexityRegularizedClassifier",
    "GateCaptureWarning",
    "GateExtractor",
    "GateLayer",
    "GatingEntropy",
    "GatingMI",
    "GatingStates",
    "GibbsLayerMI",
    "InformationPlaneDisplay",
    "KDELayerMI",
    "LambdaDisplay",
    "SaturationWarning",
    "TotalCorrelation",
    "binned_layer_mi",
    "entropy_curve",
    "gating_entropy",
    "gating_mi",
    "gibbs_layer_mi",
    "kde_layer_mi",
    "layer_activations",
    "permutation_test",
    "sample_correlation",
    "total_correlation",
]

#: Names that load torch, or that few need -> the module that they come from.
_ON_USE = {
    "ComplexityDisplay": "plotting",
    "ComplexityLoss": "training",
    "ComplexityMonitor": "monitoring",
    "ComplexityRegularizedClassifier": "training",
    "GateExtractor": "capture",
    "InformationPlaneDisplay": "plotting",
    "LambdaDisplay": "plotting",
    "layer_activations": "capture",
}


def __getattr__(name):
    if name in _ON_USE:
        return getattr(importlib.import_module(f"{__name__}.{_ON_USE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
