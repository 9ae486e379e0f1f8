"""Training networks of low complexity: a penalty on gates, and a classifier that trains with it.

module ─ _penalized_layers ─▶ relaxed gates ─ energy/ ─▶ `ComplexityLoss`, for any training loop
`ComplexityRegularizedClassifier` ─ _setup ─▶ `PenalizedNet` ─ state_dict ─▶ _checkpoint
"""

from ._classifier import ComplexityRegularizedClassifier
from ._loss import ComplexityLoss

__all__ = ["ComplexityLoss", "ComplexityRegularizedClassifier"]
