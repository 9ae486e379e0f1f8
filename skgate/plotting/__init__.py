"""Displays of measures, after scikit-learn's: ``from_estimator`` or ``from_history`` draws one.

matplotlib is loaded when something is drawn. A new plot is a file with a class that has ``plot``.
"""

from ._complexity import ComplexityDisplay
from ._lambda import LambdaDisplay
from ._plane import InformationPlaneDisplay

__all__ = ["ComplexityDisplay", "InformationPlaneDisplay", "LambdaDisplay"]
