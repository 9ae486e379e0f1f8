"""Gating states: bits of named layers, packed; what becomes some; how they are stored."""

from ._checks import as_states, check_states
from ._folder import GrowingFolder
from ._gating_states import GateLayer, GatingStates, states_header

__all__ = [
    "GateLayer",
    "GatingStates",
    "GrowingFolder",
    "as_states",
    "check_states",
    "states_header",
]
