"""Training networks of little complexity: the penalty on gates, and a classifier that has it.

    module --_relaxation--> relaxed gates --_energy, _samplers--> penalty --_net--> classifier

`ComplexityLoss` is the penalty for any training loop; `ComplexityRegularizedClassifier` brings
the loop. `ComplexityMonitor` measures what is trained, in either.
"""

from ._classifier import ComplexityRegularizedClassifier
from ._loss import ComplexityLoss
from ._monitor import ComplexityMonitor

__all__ = ["ComplexityLoss", "ComplexityMonitor", "ComplexityRegularizedClassifier"]
