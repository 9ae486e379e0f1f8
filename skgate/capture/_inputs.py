"""Raw inputs of a module, in arrays, tensors, datasets or loaders, as batches of tensors."""

import inspect
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.sparse import issparse
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, Subset

from ..states import GatingStates
from ..utils.arrays import (
    holds_mappings,
    keep_integers,
    numbers,
    plain_tensor,
    real_array,
    require_real,
    sample_rows,
    to_numpy,
)
from ..utils.labels import LABEL_KEYS, labels_in
from ..utils.sklearn import validate_data
from ._samples import as_tensor, holds_numbers, stack


def is_stream(X):
    """Return whether ``X`` yields samples, perhaps with labels, instead of holding arrays."""
    # skorch's SliceDataset is a sequence with a dataset inside; that of Hugging Face fetches lists
    return (
        isinstance(X, Dataset | DataLoader)
        or (isinstance(X, Sequence) and hasattr(X, "dataset"))
        or hasattr(X, "__getitems__")
    )


def refuse_shuffling(X):
    """Raise for a loader that yields its samples in another order each time."""
    if not isinstance(X, DataLoader) or isinstance(X.dataset, torch.utils.data.IterableDataset):
        return
    sampler = X.sampler if X.batch_sampler is None else getattr(X.batch_sampler, "sampler", None)
    if not isinstance(sampler, SequentialSampler):
        raise ValueError(
            "A shuffling DataLoader was received: its order is lost, so that rows cannot be "
            "matched with labels. Use shuffle=False. (Methods that take labels from the same pass "
            "accept any order: fit and score of a measure, extract of a GateExtractor.)"
        )


def tree_map(function, inputs):
    """Apply ``function`` to each tensor or array in nested tuples, lists and mappings."""
    if isinstance(inputs, Mapping):
        return {key: tree_map(function, value) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(tree_map(function, value) for value in inputs)
    return function(inputs) if _is_array(inputs) else inputs


def _is_array(X):
    # a nested tensor has no shape
    return isinstance(X, torch.Tensor) or hasattr(X, "shape")


def n_samples_in(inputs):
    """Return the number of samples of a batch."""
    return _lengths(inputs)[0]


def _lengths(inputs):
    lengths = []
    tree_map(lambda a: lengths.append(len(a)), inputs)
    return lengths


class Batches:
    """Batches of ``(inputs, labels)`` from anything that holds samples, or from ``rows`` of it.

    A loader keeps its own batch size, and all its rows.
    """

    def __init__(self, X, batch_size, rows=None):
        self.X, self.batch_size, self.rows = X, batch_size, rows
        if is_stream(X) and not isinstance(X, DataLoader):
            # a sequence is read by position only, as a plain Subset does
            taken = X if rows is None else Subset(X, rows.tolist())
            self.X = DataLoader(taken, batch_size=batch_size, collate_fn=stack)
            self.rows = None
        self.holds = not isinstance(self.X, DataLoader)

    @property
    def n_batches(self):
        """Number of batches, None if it is not known before the end."""
        if self.holds:
            return -(-self.n_samples // self.batch_size)
        try:
            return len(self.X)
        except TypeError:  # an iterable dataset
            return None

    @property
    def n_samples(self):
        """Number of samples, None if it is not known before the end."""
        if self.holds:
            return len(self.rows) if self.rows is not None else _lengths(self.X)[0]
        try:
            plain = type(self.X.batch_sampler) is BatchSampler and not self.X.drop_last
            return len(self.X.batch_sampler.sampler) if plain else None
        except TypeError:
            return None

    def rows_of(self, start, stop):
        """Return the rows of ``X`` that come at these places; a loader's are counted."""
        rows = np.arange(start, stop)
        return rows if not self.holds or self.rows is None else self.rows[rows]

    def __iter__(self):
        if not self.holds:
            yield from map(_split, self.X)
            return
        for start in range(0, self.n_samples, self.batch_size):
            rows = slice(start, start + self.batch_size)
            rows = rows if self.rows is None else self.rows[rows]
            inputs = tree_map(lambda a, rows=rows: a[rows], self.X)
            yield _split(inputs) if isinstance(inputs, Mapping) else (inputs, None)


def sampled_batches(X, y, batch_size, max_samples, random_state):
    """Return batches of ``max_samples`` drawn at random, or of all samples, and their labels.

    The third value is whether samples could be drawn: they are not from a loader, nor if their
    number is not known before the end.
    """
    n_samples = Batches(X, 1).n_samples
    y = _check_targets(X, y, n_samples)
    can_sample = n_samples is not None and not isinstance(X, DataLoader)
    rows = sample_rows(n_samples, max_samples, random_state) if can_sample else None
    y = y if y is None or rows is None else y[rows]
    return Batches(X, batch_size, rows), y, can_sample


def _split(batch):
    if isinstance(batch, Mapping):
        labels = labels_in(batch)
        _require_arrays({key: batch[key] for key in batch if key not in LABEL_KEYS})
        if np.asarray(to_numpy(labels)).dtype.kind in "biuf":  # which a module may take
            return batch, labels
        return {key: batch[key] for key in batch if key not in LABEL_KEYS}, labels
    if not isinstance(batch, tuple | list):
        return batch, None
    if len(batch) > 2:
        raise ValueError(
            f"A batch of {len(batch)} parts was received; need (inputs,) or (inputs, labels). "
            "Yield several inputs as one tuple or dict: ((a, b), label)."
        )
    return batch[0], (batch[1] if len(batch) == 2 else None)


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
        floating = [p for p in module.parameters() if p.is_floating_point()]
        dtypes = [p.dtype for p in floating if p.dtype.itemsize > 1]
        self.module = module
        self.dtype = dtypes[0] if dtypes else torch.get_default_dtype()
        self.device = input_device(module) if device is None else torch.device(device)
        embeddings = (nn.Embedding, nn.EmbeddingBag)
        self.keeps_integers = any(isinstance(m, embeddings) for m in module.modules())

    def __call__(self, inputs, *, check=False):
        """Return the inputs as tensors; ``check`` that they are finite."""
        alone = _is_array(inputs)  # several inputs may hold masks of minus infinity

        def cast(array):
            # a copy, since a module may change its input in place; as_tensor makes one itself
            shared = isinstance(array, torch.Tensor)
            array = plain_tensor(array) if shared else as_tensor(array)
            require_real(array)
            if check and (array.isnan().any() or (alone and array.isinf().any())):
                raise ValueError("Input X contains NaN or infinity; gates need finite numbers.")
            dtype = self._dtype(array, alone)
            found = array.to(self.device, dtype, copy=shared)
            if found.is_floating_point() and dtype != array.dtype:
                self._refuse_overflow(array, found, alone)
            return found

        return tree_map(cast, _without_labels_for_a_loss(self.module, inputs))

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


def input_device(module):
    """Return the device that a module takes its inputs on."""
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)  # accelerate's, which may load parameters on demand
        for each in getattr(hook, "hooks", [hook]):
            if (device := getattr(each, "execution_device", None)) is not None:
                return torch.device(device)
    devices = [p.device for p in module.parameters() if p.is_floating_point()]
    return devices[0] if devices else torch.device("cpu")


def _without_labels_for_a_loss(module, inputs):
    """Leave out the labels that a Hugging Face model takes for its loss alone.

    The loss would set fields of the model's configuration, and refuse classes other than its own.
    A model with a decoder makes the decoder's inputs from labels of tokens, and gets these.
    """
    config = getattr(module, "config", None)
    if not isinstance(inputs, Mapping) or not hasattr(config, "is_encoder_decoder"):
        return inputs
    keeps = config.is_encoder_decoder and np.ndim(labels_in(inputs)) > 1
    return {key: value for key, value in inputs.items() if keeps or key not in LABEL_KEYS}


def check_inputs(estimator, X, *, reset):
    """Return raw inputs of a module, arrays as scikit-learn checks them."""
    _refuse_others(X)
    if is_stream(X):
        return X
    if holds_mappings(X):
        X = stack(X)
    if isinstance(X, Mapping | tuple) and not issparse(X):
        return _check_parts(X)
    checked = validate_data(estimator, real_array(X), reset=reset, allow_nd=True)
    require_real(checked)
    if isinstance(X, torch.Tensor):  # which keeps its type and device
        return plain_tensor(X)
    return keep_integers(X, checked)


def _refuse_others(X):
    """Raise for objects that are easily mistaken for inputs of a module."""
    if isinstance(X, GatingStates):
        raise ValueError(
            "Got GatingStates where a module takes its inputs. Pass raw inputs, or leave the "
            "model out: GatingEntropy().fit(states)."
        )
    if isinstance(X, Iterator):
        raise ValueError(
            f"Got an iterator ({type(X).__name__}), which can be read only once. Pass the "
            "DataLoader or Dataset itself."
        )
    if isinstance(X, list) and X and isinstance(X[0], tuple) and len(X[0]) == 2:
        raise ValueError(
            "A list of tuples was received, which could be samples with labels or rows of an "
            "array. Pass arrays X and y, a torch Dataset, or skorch's SliceDataset."
        )


def _check_parts(X):
    """Return several inputs, in a mapping or tuple, checked one by one and against each other."""
    labels = {key: X[key] for key in LABEL_KEYS if key in X} if isinstance(X, Mapping) else {}
    inputs = {key: X[key] for key in X if key not in labels} if labels else X
    checked = tree_map(_check_part, _plain(inputs))
    labels = {key: np.asarray(to_numpy(value)) for key, value in labels.items()}
    if isinstance(X, Mapping):
        _require_arrays(checked)
    lengths = _lengths((checked, labels))
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            f"All inputs need the same number of samples, 1 or more; got {lengths} in a "
            f"{type(X).__name__} of {len(X)}."
        )
    return {**checked, **labels} if labels else checked


def _plain(X, name="Each input"):
    """Return inputs with arrays in the place of frames and lists of numbers."""
    if isinstance(X, Mapping):
        return {key: _plain(value, f"Input {key!r}") for key, value in X.items()}
    if isinstance(X, tuple):
        return tuple(_plain(value, name) for value in X)
    listed = isinstance(X, list) and holds_numbers(X)
    return numbers(X, name) if listed or _is_frame(X) else X


def _require_arrays(inputs):
    """Raise unless a mapping has arrays of inputs, none of them taken apart by a loader."""
    if not _lengths(inputs):
        raise ValueError(
            f"Got a mapping with the keys {list(inputs)} and no array of inputs among them. Text "
            "needs a tokenizer first."
        )
    for key, value in inputs.items():
        if isinstance(value, list) and value and all(getattr(v, "ndim", 0) == 1 for v in value):
            raise ValueError(
                f"Input {key!r} is a list of {len(value)} tensors of {len(value[0])} numbers: a "
                "DataLoader makes one of each position in lists of numbers. Let its dataset yield "
                "arrays or tensors; several inputs under one name are a tuple."
            )


def _is_frame(X):
    return hasattr(X, "columns") and hasattr(X, "to_numpy")


def _check_part(array):
    if isinstance(array, torch.Tensor):
        array = plain_tensor(array)
        require_real(array, "Each input")
    else:
        array = numbers(array, "Each input")
    if not array.ndim:
        raise ValueError(
            f"Got a number, {array.item()!r}, as one of several inputs; each needs an array with "
            "an axis of samples. Stack rows to one array."
        )
    if bool((array != array).any()):
        raise ValueError("One of the inputs contains NaN.")
    return array


def _check_targets(X, y, n_samples):
    """Return labels that were passed with ``X`` as an array, checked against its length."""
    if y is None:
        return None
    if isinstance(X, DataLoader):
        raise ValueError(
            "Labels y came together with a DataLoader, whose order may be another. Let its "
            "dataset yield (inputs, label) and leave y out."
        )
    y = np.asarray(to_numpy(y))
    if n_samples is not None and len(y) != n_samples:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_samples}, "
            f"y has {len(y)}."
        )
    return y


def first_samples(inputs, n):
    """Return the first ``n`` samples of a batch that differ, repeated if there are fewer."""
    n_samples, chosen = n_samples_in(inputs), []
    for row in range(n_samples):
        if not any(_same_sample(inputs, row, other) for other in chosen):
            chosen.append(row)
        if len(chosen) == n:
            break
    rows = [chosen[i % len(chosen)] for i in range(n)]
    return tree_map(lambda a: a[rows], inputs)


def _same_sample(inputs, row, other):
    same = []
    tree_map(lambda a: same.append(bool((a[row] == a[other]).all())), inputs)
    return all(same)
