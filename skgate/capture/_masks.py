"""`Masks`: finds out which positions of a batch are data, and which are padding."""

import inspect
from collections.abc import Mapping

import numpy as np
import torch

from ..utils.arrays import to_numpy

_NAMES = ("attention_mask", "decoder_attention_mask")
_OF_DECODER = ("decoder_", "tgt_")


class Masks:
    """The masks of a module's inputs, for its layers.

    Parameters
    ----------
    module : torch.nn.Module
    mask : "auto", None, str or array of shape (n_samples, *positions)
        As in :class:`~skgate.GateExtractor`.
    """

    def __init__(self, module, mask):
        self._module, self._mask = module, mask
        parts = {part for name, _ in module.named_modules() for part in name.split(".")}
        self._has_two_sides = {"encoder", "decoder"} <= parts

    def side_of(self, layer):
        """Return which of the masks a layer has: a module with encoder and decoder has two."""
        inside = self._has_two_sides and "decoder" in layer.split(".")
        return "decoder" if inside else "encoder"

    def _side_of_input(self, name):
        inside = self._has_two_sides and name.startswith(_OF_DECODER)
        return "decoder" if inside else "encoder"

    def of(self, inputs, n_samples, rows=None):
        """Return boolean masks of a batch by side, True for data, (n_samples, *positions).

        ``rows`` are those of the batch in the data, for a mask that is an array.
        """
        if self._mask is None:
            return {}
        if not isinstance(self._mask, str):
            mask = _as_mask("mask", np.asarray(to_numpy(self._mask))[rows], n_samples)
            return {"encoder": mask, "decoder": mask}
        named = dict(named_inputs(self._module, inputs))
        masks = {}
        for name in self._names(named):
            side = self._side_of_input(name)
            if side in masks:
                raise ValueError(
                    f"The inputs hold several masks, {self._names(named)}. Set mask to the name of "
                    "the one that says which positions are data."
                )
            masks[side] = _as_mask(name, to_numpy(named[name]), n_samples)
            if self._mask == "auto" and masks[side].ndim > 2:
                raise ValueError(
                    f"{name} has shape {tuple(masks[side].shape)}, and a mask of positions "
                    "(n_samples, n_positions). Set mask to such an array or to the name of another "
                    "input; mask=None counts all positions as data."
                )
        return masks

    def _names(self, named):
        if self._mask != "auto":
            if self._mask not in named:
                raise ValueError(
                    f"mask={self._mask!r} is no input of this batch; its inputs are {list(named)}. "
                    "Name one of them, or pass an array of shape (n_samples, n_positions)."
                )
            return [self._mask]
        return _usual(named)

    def are_of_one_token(self, inputs, masks):
        """Return whether integers among the inputs hold one token of padding under the masks."""
        found = []

        def look(values, mask):
            if not (values.is_floating_point() or _is_the_mask(values, mask)):
                found.append(_padding_token(values, mask))
            return values

        self.changed(inputs, masks, look)
        return any(found)

    def changed(self, inputs, masks, change):
        """Return inputs after a change by a function of each that has positions, and its mask."""
        changed = []
        for name, value in named_inputs(self._module, inputs):
            mask = masks.get(self._side_of_input(name))
            fits = hasattr(value, "shape") and mask is not None
            if fits and tuple(value.shape[: mask.ndim]) == mask.shape:
                value = change(torch.as_tensor(value), mask)
            changed.append((name, value))
        if isinstance(inputs, Mapping):
            return dict(changed)
        values = tuple(value for _, value in changed)
        return values if isinstance(inputs, tuple) else values[0]


def padding_share(module, inputs):
    """Return the share of positions that masks with the usual names say are no data."""
    named = dict(named_inputs(module, inputs))
    found = {name: np.asarray(to_numpy(named[name])) for name in _usual(named)}
    masks = [_as_mask(name, v, len(v)) for name, v in found.items() if v.ndim == 2]
    return max((1 - float(mask.double().mean()) for mask in masks), default=0.0)


def _usual(names):
    """Return those that masks are usually called."""
    usual = [n for n in names if n in _NAMES or "padding_mask" in n]
    # such a mask repeats that of the encoder
    return [n for n in usual if not n.startswith(("memory_", "cross_"))]


def named_inputs(module, inputs):
    """Return ``(name, value)`` of the inputs of a module, by the parameters of its ``forward``."""
    if isinstance(inputs, Mapping):
        return list(inputs.items())
    values = inputs if isinstance(inputs, tuple) else (inputs,)
    names = list(inspect.signature(module.forward).parameters)
    names += [f"input {i}" for i in range(len(names), len(values))]
    return list(zip(names, values, strict=False))


def _padding_token(values, mask):
    """Return whether integers have one value under a mask, which they have nowhere else."""
    under = values[~mask].unique()
    return len(under) <= 1 and not torch.isin(values[mask], under).any()


def named_arguments(module, args, kwargs):
    """Return the arguments of a call of a module by name, or those in a mapping that is alone."""
    alone = len(args) == 1 and isinstance(args[0], Mapping)
    return dict(named_inputs(module, args[0] if alone else args)) | kwargs


def _as_mask(name, values, n_samples):
    """Return a mask as a boolean tensor, True for data."""
    values = np.asarray(values)
    if values.ndim < 2 or len(values) != n_samples:
        raise ValueError(
            f"{name} has shape {values.shape}; a mask of positions needs (n_samples, n_positions), "
            f"with {n_samples} samples here. Set mask to such an array or to the name of another "
            "input; mask=None counts all positions as data."
        )
    if "padding_mask" in name:  # of torch.nn: True, or minus infinity, is padding
        return torch.from_numpy(values == 0)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"{name} holds other values than 0 and 1. A mask is 1, or True, where a position is "
            "data; an input called *padding_mask* is True where it is padding."
        )
    return torch.from_numpy(values != 0)


def _is_the_mask(values, mask):
    if values.shape != mask.shape or len(values.unique()) > 2:
        return False
    return any(torch.equal(values.cpu() != 0, m) for m in (mask, ~mask))


def other_padding(values, mask):
    """Return a tensor with its first value in the data of each sample at the positions masked."""
    if _is_the_mask(values, mask):
        return values
    values = values.clone()
    for row, data in zip(values, mask, strict=True):
        if data.any():
            row[~data] = row[data][0]
    return values
