"""`InputCaster`: raw inputs as tensors that a module takes, and the call of the module."""

import inspect
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ..utils.arrays import require_real
from ..utils.labels import LABEL_KEYS, labels_in
from ._inputs import is_array, tree_map
from ._samples import as_tensor


def call(module, inputs):
    """Run a module; a mapping is passed by keyword if its keys are parameters of ``forward``.

    Labels in a mapping are passed if the module takes them.
    """
    if isinstance(inputs, tuple):
        return module(*inputs)
    if not isinstance(inputs, Mapping):
        return module(inputs)
    parameters = inspect.signature(module.forward).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return module(**inputs)
    known = {key: value for key, value in inputs.items() if key in named}
    unknown = set(inputs) - named - set(LABEL_KEYS)
    if known and unknown:
        raise ValueError(
            f"forward takes {sorted(named)}; the batch also has {sorted(unknown)}. Leave these out."
        )
    return module(**known) if known else module(inputs)


class InputCaster:
    """Casts arrays and tensors to the type of a module's parameters, on their device or another.

    Real numbers are cast. So are the integers of a single input, unless the module has an
    embedding to look them up in; several inputs may hold indices and masks.
    """

    def __init__(self, module, device=None):
        # parameters of 8 bits are quantised: no type to compute with
        parts = list(module.modules())
        floating = [p for p in parameters_of(parts) if p.is_floating_point()]
        dtypes = [p.dtype for p in floating if p.dtype.itemsize > 1]
        self.dtype = dtypes[0] if dtypes else torch.get_default_dtype()
        self.device = input_device(parts) if device is None else torch.device(device)
        embeddings = (nn.Embedding, nn.EmbeddingBag)
        self.keeps_integers = any(isinstance(m, embeddings) for m in parts)

    def __call__(self, inputs, *, check=False):
        """Return the inputs as tensors; ``check`` that they are finite."""
        alone = is_array(inputs)  # several inputs may hold masks of minus infinity

        def cast(array):
            # a copy, since a module may change its input in place; that of an array is one
            shared = isinstance(array, torch.Tensor)
            array = as_tensor(array)
            require_real(array)
            if check and (array.isnan().any() or (alone and array.isinf().any())):
                raise ValueError("Input X contains NaN or infinity; gates need finite numbers.")
            dtype = self._dtype(array, alone)
            found = array.to(self.device, dtype, copy=shared)
            if found.is_floating_point() and dtype != array.dtype:
                self._refuse_overflow(array, found, alone)
            return found

        return tree_map(cast, inputs)

    def _dtype(self, array, alone):
        if array.is_floating_point() or (alone and not self.keeps_integers):
            return self.dtype
        # embeddings take no short integers, and torch computes with few unsigned ones
        unsigned = array.dtype in (torch.uint16, torch.uint32, torch.uint64)
        short = alone and array.dtype in (torch.uint8, torch.int8, torch.int16)
        return torch.int64 if unsigned or short else array.dtype

    def _refuse_overflow(self, array, found, alone):
        overflow = found.isinf() & ~array.isinf()
        # a mask may hold the lowest number of another type
        if overflow.any() and (alone or bool((found[overflow] > 0).any())):
            raise ValueError(
                f"Input X holds values up to {array.abs().max().item():.3g}, which exceed the "
                f"largest number of the module's parameters ({self.dtype}: "
                f"{torch.finfo(self.dtype).max:.3g}). Scale X, or use the module in float32."
            )


def input_device(parts):
    """Return the device that a module takes its inputs on, given all modules inside it."""
    for part in parts:
        hook = vars(part).get("_hf_hook")  # accelerate's, which may load parameters on demand
        for each in getattr(hook, "hooks", [hook]):
            if (device := getattr(each, "execution_device", None)) is not None:
                return torch.device(device)
    devices = (p.device for p in parameters_of(parts) if p.is_floating_point())
    return next(devices, torch.device("cpu"))


def parameters_of(parts):
    """Return the parameters of modules, without those of the modules inside each.

    ``Module.parameters`` walks over all of them, which a light network would notice.
    """
    return [p for part in parts for p in part._parameters.values() if p is not None]


def without_loss(module, inputs):
    """Return inputs without the labels that a Hugging Face model takes for its loss alone.

    The loss would set fields of the model's configuration, and refuse classes other than its own.
    A model with a decoder makes the decoder's inputs from labels of tokens, and gets these.
    """
    config = getattr(module, "config", None)
    if not isinstance(inputs, Mapping) or not hasattr(config, "is_encoder_decoder"):
        return inputs
    keeps = config.is_encoder_decoder and np.ndim(labels_in(inputs)) > 1
    return {key: value for key, value in inputs.items() if keeps or key not in LABEL_KEYS}
