"""Densities."""

from ._information import conditional_entropy, entropy
from ._kernel import SATURATED, kernel_weights

__all__ = ["SATURATED", "conditional_entropy", "entropy", "kernel_weights"]
