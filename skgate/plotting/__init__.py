"""Plots of what the measures find, as displays in scikit-learn's way.

A display takes its data, and ``plot`` draws them; ``from_estimator`` and ``from_history`` do both.
Nothing here loads matplotlib before something is drawn.
"""

from ._complexity import ComplexityDisplay
from ._features import FeaturesDisplay
from ._lambda import LambdaDisplay
from ._plane import EntanglementDisplay, InformationPlaneDisplay
from ._rates import ActivationRateDisplay

__all__ = [
    "ActivationRateDisplay",
    "ComplexityDisplay",
    "EntanglementDisplay",
    "FeaturesDisplay",
    "InformationPlaneDisplay",
    "LambdaDisplay",
]
