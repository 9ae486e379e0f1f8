"""Measures of the activations of layers, an estimator and its function each."""

from ._base import LayerEstimator
from ._binned import BinnedLayerMI, binned_layer_mi
from ._correlation import sample_correlation
from ._gibbs import GibbsLayerMI, gibbs_layer_mi
from ._kde import KDELayerMI, kde_layer_mi

__all__ = [
    "BinnedLayerMI",
    "GibbsLayerMI",
    "KDELayerMI",
    "LayerEstimator",
    "binned_layer_mi",
    "gibbs_layer_mi",
    "kde_layer_mi",
    "sample_correlation",
]
