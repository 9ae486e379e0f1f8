"""Raw inputs of a module, in arrays, tensors, datasets or loaders, as batches of tensors."""

import inspect
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.sparse import issparse
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, Subset

from ..states import GatingStates
from ..utils.arrays import sample_rows, to_numpy
from ..utils.sklearn import validate_data

_LABEL_KEYS = ("labels", "label")  # of datasets that yield mappings


def is_stream(X):
    """Return whether ``X`` yields samples, perhaps with labels, instead of holding arrays."""
    # skorch's SliceDataset is a sequence with a dataset inside
    return isinstance(X, Dataset | DataLoader) or (
        isinstance(X, Sequence) and hasattr(X, "dataset")
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
    return function(inputs) if hasattr(inputs, "shape") else inputs


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
            self.X, self.rows = DataLoader(taken, batch_size=batch_size), None
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
            yield tree_map(lambda a, rows=rows: a[rows], self.X), None


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
        return batch, next((batch[key] for key in _LABEL_KEYS if key in batch), None)
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
    unknown = set(inputs) - named - set(_LABEL_KEYS)
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
        parameters = [p for p in module.parameters() if p.is_floating_point()]
        self.dtype = parameters[0].dtype if parameters else torch.get_default_dtype()
        self.device = parameters[0].device if parameters else torch.device("cpu")
        self.device = self.device if device is None else torch.device(device)
        embeddings = (nn.Embedding, nn.EmbeddingBag)
        self.keeps_integers = any(isinstance(m, embeddings) for m in module.modules())

    def __call__(self, inputs, *, check=False):
        """Return the inputs as tensors; ``check`` that they are finite."""
        alone = hasattr(inputs, "shape")  # several inputs may hold masks of minus infinity
        single = alone and not self.keeps_integers

        def cast(array):
            # a copy, since a module may change its input in place; torch.tensor makes one itself
            shared = isinstance(array, torch.Tensor)
            array = array if shared else torch.tensor(np.ascontiguousarray(array))
            floating = single or array.is_floating_point()
            if check and (array.isnan().any() or (alone and array.isinf().any())):
                raise ValueError("Input X contains NaN or infinity; gates need finite numbers.")
            return array.to(self.device, self.dtype if floating else array.dtype, copy=shared)

        return tree_map(cast, inputs)


def check_inputs(estimator, X, *, reset):
    """Return raw inputs of a module, arrays as scikit-learn checks them."""
    _refuse_others(X)
    if is_stream(X):
        return X
    if isinstance(X, Mapping | tuple) and not issparse(X):
        return _check_parts(X)
    checked = validate_data(estimator, to_numpy(X), reset=reset, allow_nd=True)
    # a tensor keeps its type and device
    return X.detach() if isinstance(X, torch.Tensor) else checked


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
    checked = tree_map(_check_part, X)
    lengths = _lengths(checked)
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            f"All inputs need the same number of samples, 1 or more; got {lengths} in a "
            f"{type(X).__name__} of {len(X)}."
        )
    return checked


def _check_part(array):
    if isinstance(array, torch.Tensor):
        array, has_nan = array.detach(), array.isnan().any()
    else:
        array = np.asarray(array)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"Inputs need real numbers or booleans; got dtype {array.dtype}.")
        has_nan = array.dtype.kind == "f" and np.isnan(array).any()
    if has_nan:
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
