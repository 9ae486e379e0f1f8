"""Complexity of the transformations in neural networks, in bits, as scikit-learn estimators.

The way of the data is one line::

    torch module - nn/ -> GatingStates - pairwise/ -> row masses - _information -> attributes

``import skgate`` loads no torch; `GateExtractor` and `layer_activations` do, on first use.
"""

import importlib

from ._binned import BinnedLayerMI, binned_layer_mi
from ._correlation import sample_correlation
from ._curve import entropy_curve
from ._entropy import GatingEntropy, gating_entropy
from ._gibbs import GibbsLayerMI, gibbs_layer_mi
from ._kde import KDELayerMI, kde_layer_mi
from ._mutual_information import GatingMI, gating_mi
from ._permutation import permutation_test
from ._states import GateLayer, GatingStates
from ._total_correlation import TotalCorrelation, total_correlation
from .exceptions import GateCaptureWarning, SaturationWarning

__version__ = "0.1.0"

__all__ = [
    "ActivationRateDisplay",
    "BinnedLayerMI",
    "ComplexityDisplay",
    "ComplexityLoss",
    "ComplexityMonitor",
    "ComplexityRegularizedClassifier",
    "EntanglementDisplay",
    "FeaturesDisplay",
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
    "ActivationRateDisplay": "plotting",
    "ComplexityDisplay": "plotting",
    "ComplexityLoss": "training",
    "ComplexityMonitor": "training",
    "ComplexityRegularizedClassifier": "training",
    "EntanglementDisplay": "plotting",
    "FeaturesDisplay": "plotting",
    "GateExtractor": "nn",
    "InformationPlaneDisplay": "plotting",
    "LambdaDisplay": "plotting",
    "layer_activations": "nn",
}


def __getattr__(name):
    if name in _ON_USE:
        return getattr(importlib.import_module(f"{__name__}.{_ON_USE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
