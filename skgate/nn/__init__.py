"""The torch border: modules and raw inputs go in, `GatingStates` come out.

    inputs --_inputs--> batches --_recorder--> events --_layout--> packed rows --> GatingStates

`_operations` says what each torch operation does to data, `_recorder` watches a module run,
`_layout` finds the samples in what it saw, `_coverage` chooses the layers, and `GateExtractor`
holds it all together.
"""

from ._activations import ActivationReader, layer_activations
from ._extraction import GateExtractor, as_extractor
from ._inputs import refuse_shuffling

__all__ = [
    "ActivationReader",
    "GateExtractor",
    "as_extractor",
    "layer_activations",
    "refuse_shuffling",
]
