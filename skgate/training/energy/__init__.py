"""Energy models of gates: densities that learn while a network trains, and their samplers."""

from ._densities import GateDensities

__all__ = ["GateDensities"]
