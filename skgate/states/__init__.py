"""Gating states: gates of named layers, input checks that make them, files on disk.

``_storage`` has the two forms of a layer, packed bits and positions of the open gates.
"""

from ._checks import as_states, check_states, in_groups
from ._folder import GrowingFolder
from ._gating_states import GateLayer, GatingStates, stack_rows, states_header
from ._layers_in_turn import LayersInTurn
from ._storage import (
    count_open,
    is_sparse,
    n_packed_bytes,
    n_stored_bytes,
    packed_blocks,
    smallest,
    sum_open,
    to_packed,
    to_sparse,
)

__all__ = [
    "GateLayer",
    "GatingStates",
    "GrowingFolder",
    "LayersInTurn",
    "as_states",
    "check_states",
    "count_open",
    "in_groups",
    "is_sparse",
    "n_packed_bytes",
    "n_stored_bytes",
    "packed_blocks",
    "smallest",
    "stack_rows",
    "states_header",
    "sum_open",
    "to_packed",
    "to_sparse",
]
