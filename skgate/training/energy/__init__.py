"""Energy models of gates, learned while a network trains, and their samplers."""

from ._gate_densities import GateDensities

__all__ = ["GateDensities"]
