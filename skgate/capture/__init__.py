"""The torch border: modules and raw inputs go in, `GatingStates` come out.

    inputs --_inputs--> batches --_recorder--> events --_layout--> packed rows --> GatingStates

`_operations` says what each torch operation does to data, `_recorder` watches a module run,
`_layout` finds the samples in what it saw, `_coverage` chooses the layers, and `GateExtractor`
holds it all together.
"""

from ._activations import ActivationReader, layer_activations
from ._coverage import choose_layers
from ._extractor import GateExtractor, as_extractor
from ._inputs import Batches, Caster, call, first_samples, is_stream, refuse_shuffling, tree_map
from ._models import copy_module, inner_module, prepare_module
from ._operations import THRESHOLD
from ._recorder import GateRecorder, running
from ._relaxation import GateRelaxation
from ._runner import LOCK, Watcher, noted

__all__ = [
    "LOCK",
    "THRESHOLD",
    "ActivationReader",
    "Batches",
    "Caster",
    "GateExtractor",
    "GateRecorder",
    "GateRelaxation",
    "Watcher",
    "as_extractor",
    "call",
    "choose_layers",
    "copy_module",
    "first_samples",
    "inner_module",
    "is_stream",
    "layer_activations",
    "noted",
    "prepare_module",
    "refuse_shuffling",
    "running",
    "tree_map",
]
