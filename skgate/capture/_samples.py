"""Samples one by one, of a dataset or a list, as batches of tensors."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.utils.data import default_collate

from ..utils.arrays import numbers, plain_tensor


def stack(samples):
    """Return samples as a batch: those of a Dataset, or mappings in a list.

    Unlike torch's, a list of numbers is an array, not several inputs.
    """
    # the parts of a sample may be in a list: [inputs, label]
    samples = [[*map(_as_arrays, s)] if isinstance(s, list) else _as_arrays(s) for s in samples]
    _require_same(samples, "")
    return default_collate(samples)


def _as_arrays(sample):
    """Return a sample with tensors in the place of arrays and of lists of numbers."""
    if isinstance(sample, Mapping):
        return {key: _as_arrays(value) for key, value in sample.items()}
    if isinstance(sample, tuple):
        return tuple(_as_arrays(value) for value in sample)
    if isinstance(sample, list) and not holds_numbers(sample):
        return [_as_arrays(value) for value in sample]
    return as_tensor(sample) if isinstance(sample, torch.Tensor | np.ndarray | list) else sample


def holds_numbers(values):
    """Return whether a list, perhaps of lists, holds numbers."""
    while isinstance(values, list) and values:
        values = values[0]
    return isinstance(values, int | float) and not isinstance(values, np.generic)


def as_tensor(array):
    """Return a tensor, an array or a list of numbers as a tensor of a type that torch takes."""
    if isinstance(array, torch.Tensor):
        return plain_tensor(array)
    array = numbers(array)
    array = array.astype(np.float64) if array.dtype == np.longdouble else array
    return torch.tensor(array.copy() if min(array.strides, default=0) < 0 else array)


def _require_same(samples, name):
    """Raise unless all samples have the same parts, each of one shape."""
    first = samples[0]
    label = f"Input {name}" if name else "The input"
    if first is None or len({_kind(sample) for sample in samples}) > 1:
        raise ValueError(f"{label} of a sample is missing (None), or not always of one type.")
    if isinstance(first, Mapping):
        if others := [list(s) for s in samples if s.keys() != first.keys()]:
            raise ValueError(f"Samples have different keys: {list(first)} and {others[0]}.")
        for key in first:
            _require_same([sample[key] for sample in samples], repr(key))
    elif isinstance(first, tuple | list):
        if len({len(sample) for sample in samples}) > 1:
            raise ValueError(f"{label} has different numbers of parts in the samples.")
        for position in range(len(first)):
            _require_same([sample[position] for sample in samples], f"part {position}")
    elif len(shapes := list(dict.fromkeys(tuple(np.shape(s)) for s in samples))) > 1:
        lengths = ", ".join(str(s[0] if len(s) == 1 else s) for s in shapes[:5])
        raise ValueError(
            f"{label} has samples of different lengths or shapes: {lengths}"
            + ", ..." * (len(shapes) > 5)
            + ". Pad them to one, for example with tokenizer(..., padding=True), or pass a "
            "DataLoader whose collate_fn pads each batch."
        )


def _kind(sample):
    kinds = (Mapping, tuple, list, str, type(None))
    return next((kind for kind in kinds if isinstance(sample, kind)), object)
