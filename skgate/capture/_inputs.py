"""Raw inputs of a module, in arrays, tensors, datasets or loaders, as batches of tensors."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.sparse import issparse
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, Subset

from ..states import GatingStates
from ..utils.arrays import (
    fetches_lists,
    holds_mappings,
    keep_integers,
    numbers,
    plain_tensor,
    real_array,
    require_real,
    sample_rows,
    to_numpy,
)
from ..utils.groups import check_groups
from ..utils.labels import LABEL_KEYS, labels_in
from ..utils.sklearn import validate_data
from ._samples import as_tensor, holds_numbers, stack


def is_stream(X):
    """Return whether ``X`` yields samples, perhaps with labels, instead of holding arrays."""
    # skorch's SliceDataset is a sequence with a dataset inside
    return (
        isinstance(X, Dataset | DataLoader)
        or (isinstance(X, Sequence) and hasattr(X, "dataset"))
        or fetches_lists(X)
    )


def is_shuffling(X):
    """Return whether ``X`` is a loader that yields its samples in another order each time."""
    if not isinstance(X, DataLoader) or isinstance(X.dataset, torch.utils.data.IterableDataset):
        return False
    sampler = X.sampler if X.batch_sampler is None else getattr(X.batch_sampler, "sampler", None)
    return not isinstance(sampler, SequentialSampler)


def refuse_shuffling(X):
    """Raise for a loader that yields its samples in another order each time."""
    if is_shuffling(X):
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
    return function(inputs) if is_array(inputs) else inputs


def is_array(X):
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
            yield _labelled(inputs) if isinstance(inputs, Mapping) else (inputs, None)


def sampled_batches(X, y, groups, batch_size, max_samples, random_state):
    """Return batches of ``max_samples`` drawn at random, or of all samples.

    With them come their labels, their groups, and whether samples could be drawn: they are not
    from a loader, nor if their number is not known before the end.
    """
    n_samples = Batches(X, 1).n_samples
    y, groups = _check_targets(X, y, n_samples), _check_groups(X, groups, n_samples)
    can_sample = n_samples is not None and not isinstance(X, DataLoader)
    rows = sample_rows(n_samples, max_samples, random_state) if can_sample else None
    if rows is not None:
        y, groups = (None if values is None else values[rows] for values in (y, groups))
    return Batches(X, batch_size, rows), y, groups, can_sample


def _split(batch):
    """Return ``(inputs, labels)`` of a batch that a loader yields, the inputs as tensors."""
    if isinstance(batch, Mapping):
        inputs, labels = _labelled(batch)
    elif not isinstance(batch, tuple | list):
        inputs, labels = batch, None
    elif len(batch) > 2:
        raise ValueError(
            f"A batch of {len(batch)} parts was received; need (inputs,) or (inputs, labels). "
            "Yield several inputs as one tuple or dict: ((a, b), label)."
        )
    else:
        inputs, labels = batch[0], (batch[1] if len(batch) == 2 else None)
    _refuse_columns(inputs)
    inputs = tree_map(as_tensor, _plain(inputs))
    _require_arrays(inputs)
    return inputs, labels


def _labelled(batch):
    """Return a mapping and its labels, which stay in it if a module may take them."""
    labels = labels_in(batch)
    if np.asarray(to_numpy(labels)).dtype.kind in "biuf":
        return batch, labels
    return {key: batch[key] for key in batch if key not in LABEL_KEYS}, labels


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
    """Raise unless there are arrays among inputs."""
    has_keys = isinstance(inputs, Mapping)
    parts = [inputs[key] for key in inputs if key not in LABEL_KEYS] if has_keys else [inputs]
    if not _lengths(parts):
        kind = f"keys {list(inputs)}" if has_keys else type(inputs).__name__
        raise ValueError(
            f"Got inputs without an array among them ({kind}). Text needs a tokenizer, images need "
            "to become tensors."
        )


def _refuse_columns(inputs):
    """Raise if a loader has made a tensor of each position in lists of numbers."""
    for key, value in inputs.items() if isinstance(inputs, Mapping) else ():
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


def _check_groups(X, groups, n_samples):
    """Return groups that were passed with ``X`` as integers, checked against its length."""
    if groups is None:
        return None
    if isinstance(X, DataLoader) or n_samples is None:
        raise ValueError(
            f"groups came together with a {type(X).__name__}, whose order may be another, or whose "
            "number of samples is not known. Pass arrays, or a Dataset with a length."
        )
    return check_groups(groups, n_samples)


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
