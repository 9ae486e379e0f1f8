"""Training networks of little complexity: the penalty on gates, and a classifier that has it.

    module --relaxed gates--> energy/ --penalty--> _net --> classifier

`ComplexityLoss` is the penalty for any training loop; `ComplexityRegularizedClassifier` brings
the loop.
"""

from ._classifier import ComplexityRegularizedClassifier
from ._loss import ComplexityLoss

__all__ = ["ComplexityLoss", "ComplexityRegularizedClassifier"]
