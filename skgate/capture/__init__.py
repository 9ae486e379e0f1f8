"""The torch border: modules and raw inputs go in, gating states and activations come out.

    raw inputs ─ _inputs ─▶ batches ─ _runner ─▶ module, watched by a tracer ─▶ arrays by layer

A `Tracer` intercepts the torch functions that a module calls. Three siblings are built on it:
`_recorder` reports gates, `_activations` reports the outputs of linear layers, `_relaxation`
replaces gates by sigmoids while a network trains, also where ``_checkpointing`` has a region run
again. ``_samples`` stacks samples to batches, and ``_caster`` makes them what a module takes.
``_operations`` has the tables of torch operations, ``_substitutes`` runs those that draw random
numbers or change the module without doing so, ``_selections`` finds the comparisons and orders
whose result selects data, ``_custom_gates`` has what torch functions do not show. ``_batch_axis``
finds the samples in a tensor, ``_layout`` positions and units besides, and ``_masks`` the padding;
``_positions`` makes rows of them. ``_coverage`` chooses the layers, and ``_rows`` refuses those
whose gates of a sample depend on the others, or on padding.
"""

from ._activations import ActivationReader, layer_activations
from ._caster import InputCaster, call
from ._coverage import choose_layers
from ._extractor import GateExtractor, as_extractor
from ._inputs import is_stream, refuse_shuffling, tree_map
from ._masks import Masks, named_arguments
from ._models import copy_module, inner_module, prepare_module, require_one_device
from ._operations import THRESHOLD
from ._positions import SampleRows, without_positions
from ._recorder import GateRecorder
from ._relaxation import GateRelaxation
from ._runner import (
    TORCH_LOCK,
    ModuleRunner,
    eval_mode_without_side_effects,
    with_shapes_in_errors,
)

__all__ = [
    "THRESHOLD",
    "TORCH_LOCK",
    "ActivationReader",
    "GateExtractor",
    "GateRecorder",
    "GateRelaxation",
    "InputCaster",
    "Masks",
    "ModuleRunner",
    "SampleRows",
    "as_extractor",
    "call",
    "choose_layers",
    "copy_module",
    "eval_mode_without_side_effects",
    "inner_module",
    "is_stream",
    "layer_activations",
    "named_arguments",
    "prepare_module",
    "refuse_shuffling",
    "require_one_device",
    "tree_map",
    "with_shapes_in_errors",
    "without_positions",
]
