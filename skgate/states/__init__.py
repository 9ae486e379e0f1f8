"""Gating states: packed bits of named layers, input checks that make them, files on disk."""

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
