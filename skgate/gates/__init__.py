"""Measures of gating states, an estimator and a function each."""

from ._base import GatingEstimator
from ._curve import entropy_curve
from ._entropy import GatingEntropy, gating_entropy
from ._mutual_information import GatingMI, gating_mi
from ._permutation import permutation_test
from ._total_correlation import TotalCorrelation, total_correlation

__all__ = [
    "GatingEntropy",
    "GatingEstimator",
    "GatingMI",
    "TotalCorrelation",
    "entropy_curve",
    "gating_entropy",
    "gating_mi",
    "permutation_test",
    "total_correlation",
]
