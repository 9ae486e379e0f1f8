"""`GatingStates`: the only type that passes between torch and the measures.

Longer than other modules because the docstrings of its public methods are half of it.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, issparse

from ..utils.arrays import numbers, on_device, pack_rows, plain_tensor, require_real, to_numpy
from . import _storage
from ._archive import map_members, read_members, write_members
from ._folder import map_folder
from ._layered import Layered

_FORMAT = "skgate-states-1"


@dataclass(frozen=True)
class GateLayer:
    """Metadata of one gating layer.

    Parameters
    ----------
    name : str
        Name of the layer, unique within its states.
    n_gates : int
        Number of gates, ``d_l``.
    kind : str, default="gates"
        Operation that the gates were read from, such as ``"relu"``.
    unit_size : int, default=1
        Number of neighbouring gates that encode one unit: 2 for an operation with two
        thresholds, the window size for max pooling.
    one_hot : bool, default=False
        Whether exactly one gate of a unit is open (max pooling). Otherwise the gates
        of a unit open in order (a thermometer code).
    spatial : bool, default=False
        Whether the gates have spatial positions, such as those of a convolution.
    shape : tuple of int, default=(n_gates / unit_size,)
        Axes of the units: (channels, height, width), or as many axes of positions as there are,
        if the layer is ``spatial``; (tokens, units) or (units,) otherwise.

    See Also
    --------
    GatingStates : The bits of one or more layers.

    Examples
    --------
    Max pooling has one gate per position, and exactly one gate is open in each window:

    >>> import torch
    >>> from skgate import GateExtractor
    >>> pooled = GateExtractor(torch.nn.MaxPool1d(2)).fit_transform(torch.randn(10, 3, 8))
    >>> pooled.layers[0].shape, pooled.layers[0].unit_size, pooled.layers[0].one_hot
    ((3, 4), 2, True)
    """

    name: str
    n_gates: int
    kind: str = "gates"
    unit_size: int = 1
    one_hot: bool = False
    spatial: bool = False
    shape: tuple = ()

    def __post_init__(self):
        if self.n_gates < 1 or self.unit_size < 1 or self.n_gates % self.unit_size:
            raise ValueError(
                f"Layer {self.name!r} has n_gates={self.n_gates} and unit_size={self.unit_size}; "
                "n_gates must be a positive multiple of unit_size."
            )
        n_units = self.n_gates // self.unit_size
        object.__setattr__(self, "shape", tuple(self.shape) or (n_units,))
        if prod(self.shape) != n_units:
            raise ValueError(
                f"Layer {self.name!r} has shape={self.shape}, with {prod(self.shape)} units; its "
                f"n_gates={self.n_gates} and unit_size={self.unit_size} make {n_units}."
            )

    @property
    def n_bytes(self):
        """Number of bytes of a packed row."""
        return -(-self.n_gates // 8)


class GatingStates(Layered):
    """Bit-packed gating states of named layers, one row per sample or per position of one.

    Built by :meth:`from_arrays`, by :class:`~skgate.GateExtractor` or by :meth:`load`.
    Rows are indexed as in an array, so that scikit-learn's splitters and pipelines accept
    the states without conversion; ``np.asarray(states)`` unpacks them.

    A layer of 8192 gates or more is stored as the positions of its open gates, about 5 bytes each,
    where these take fewer bytes than its bits: if fewer than one gate in forty is open. Values do
    not depend on the form, but for rounding.

    Parameters
    ----------
    packed : sequence of ndarray of shape (n_rows, ceil(n_gates / 8)), or csr_array
        Each layer: bits, dtype uint8, as ``np.packbits(gates, axis=1)`` returns them, the unused
        bits of the last byte 0; or open gates, a :class:`scipy.sparse.csr_array` of True of shape
        (n_rows, n_gates), in canonical format.
    layers : sequence of GateLayer
        Metadata of each layer, in the order of the network.
    groups : array-like of int of shape (n_rows,), default=None
        Sample that each row belongs to, if rows are positions, such as the tokens of a text or the
        pixels of an image, or group of samples, as in the ``fit`` of :class:`GatingEntropy`; rows
        of one depend on each other. ``None``: each row is an independent sample.

    Attributes
    ----------
    groups : ndarray of shape (n_rows,), or None
    n_samples : int
    layer_names : tuple of str
    n_gates : tuple of int
        Number of gates of each layer.
    kinds : tuple of str
        Operation of each layer.
    shape : tuple of int
        ``(n_rows, total number of gates)``.

    Raises
    ------
    ValueError
        If the arrays and the layers do not match.

    See Also
    --------
    GateExtractor : Computes the states of a torch module from its inputs.
    GateLayer : Metadata of each layer.

    Examples
    --------
    >>> import numpy as np
    >>> from skgate import GatingStates
    >>> states = GatingStates.from_arrays({"a": [[1, 0], [1, 1], [0, 1]], "b": [[1], [0], [1]]})
    >>> states
    GatingStates(n_samples=3, layers={'a': 2, 'b': 1})
    >>> states[1:].shape
    (2, 3)
    >>> np.asarray(states[0]).astype(int)
    array([1, 0, 1])
    """

    def __init__(self, packed, layers, groups=None):
        self.packed = tuple(packed)
        self.layers = tuple(layers)
        if not self.layers or len(self.packed) != len(self.layers):
            raise ValueError(
                f"Got {len(self.packed)} packed arrays for {len(self.layers)} layers; "
                "pass one array per layer, and at least one layer."
            )
        if len(set(self.layer_names)) < len(self.layers):
            raise ValueError(f"Layer names must differ; got {list(self.layer_names)}.")
        n = self.packed[0].shape[0]
        for gates, layer in zip(self.packed, self.layers, strict=True):
            _check_gates(gates, layer, n)
        self.groups = None if groups is None else _checked_groups(groups, n)

    @classmethod
    def from_arrays(cls, arrays, *, threshold=0.0, groups=None):
        """Pack gates, or pre-activations that are compared with a threshold.

        Parameters
        ----------
        arrays : array-like, list of array-like, or dict of str to array-like
            One array, or one per layer, each of shape (n_samples, n_units), (n_samples, tokens,
            n_units), or, for a ``spatial`` layer, (n_samples, channels, height, width).
            The members of a list are layers if they have two axes or more. A layer of two axes may
            be a sparse array or matrix of SciPy.
        threshold : float, default=0.0
            A gate is open where ``array > threshold``; not negative for sparse arrays.
        groups : array-like of int of shape (n_rows,), default=None
            Sample that each row belongs to, as described above.

        Returns
        -------
        states : GatingStates

        Raises
        ------
        ValueError
            If an array is empty, has one axis, or holds NaN, infinity or complex
            numbers, or if the layers differ in their number of samples.
        """
        # a sparse dok_array is a dict too
        if isinstance(arrays, Mapping) and not issparse(arrays):
            named = arrays.items()
        elif isinstance(arrays, list | tuple) and arrays and np.ndim(arrays[0]) >= 2:
            named = ((f"layer{i}", array) for i, array in enumerate(arrays))
        else:
            named = [("layer0", arrays)]
        packed, layers = [], []
        for name, array in named:
            gates = _as_gates(array, threshold, name)
            shape, n_gates = tuple(gates.shape[1:]), prod(gates.shape[1:])
            if not issparse(gates):
                gates = pack_rows(gates.reshape(len(gates), -1))
            packed.append(_storage.smallest([gates], n_gates))
            layers.append(GateLayer(str(name), n_gates, spatial=len(shape) > 2, shape=shape))
        lengths = {layer.name: bits.shape[0] for layer, bits in zip(layers, packed, strict=True)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Layers differ in their number of samples: {lengths}.")
        return cls(packed, layers, groups)

    @property
    def nbytes(self):
        """Bytes that the stored states take."""
        return sum(_storage.n_stored_bytes(gates) for gates in self.packed)

    def __len__(self):
        return self.packed[0].shape[0]

    def __sizeof__(self):
        return object.__sizeof__(self) + self.nbytes

    def __getitem__(self, rows):
        # scikit-learn also indexes rows as X[rows, ...]
        if isinstance(rows, tuple):
            if len(rows) != 2 or rows[1] is not Ellipsis:
                raise IndexError(
                    "GatingStates are indexed by rows alone; use select(...) for layers and "
                    "np.asarray(states) for individual gates."
                )
            rows = rows[0]
        if isinstance(rows, str):
            raise IndexError(f"Rows are indexed by position; select({rows!r}) returns a layer.")
        if np.ndim(rows) == 0 and not isinstance(rows, slice):
            row = int(rows)
            if not -len(self) <= row < len(self):
                raise IndexError(f"row {row} is out of range for {len(self)} samples")
            return np.asarray(self[row : row + 1 or None])[0]
        packed = [_storage.take_rows(gates, rows) for gates in self.packed]
        return GatingStates(packed, self.layers, None if self.groups is None else self.groups[rows])

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("Unpacking GatingStates always makes a new array; pass copy=True.")
        gates = np.empty(self.shape, dtype=bool if dtype is None else dtype)
        bounds = np.cumsum([0, *self.n_gates])
        for index, (start, stop) in enumerate(pairwise(bounds)):
            for block, bits in self.iter_unpacked(index):
                gates[block, start:stop] = bits
        return gates

    def __eq__(self, other):
        if not isinstance(other, GatingStates):
            return NotImplemented
        same_groups = (self.groups is None) == (other.groups is None) and (
            self.groups is None or np.array_equal(self.groups, other.groups)
        )
        return (
            same_groups
            and self.layers == other.layers
            and all(map(_storage.equal, self.packed, other.packed))
        )

    __hash__ = None

    def select(self, layers):
        """Return the states of selected layers.

        Parameters
        ----------
        layers : str, int, slice, or sequence of str or int
            Names, patterns with ``*`` and ``?``, or indices of layers. The bits are shared,
            not copied.

        Returns
        -------
        states : GatingStates

        Raises
        ------
        KeyError
            If a name is unknown; the error lists the known names.
        """
        indices = self._chosen(layers)
        packed, layers = [self.packed[i] for i in indices], [self.layers[i] for i in indices]
        return GatingStates(packed, layers, self.groups)

    def iter_unpacked(self, index):
        """Yield ``(rows, gates)`` of one layer, one block of rows at a time.

        Parameters
        ----------
        index : int
            Index of the layer.

        Yields
        ------
        rows : slice
        gates : ndarray of shape (n_rows, n_gates), dtype uint8
        """
        yield from _storage.dense_blocks(self.packed[index], self.layers[index].n_gates)

    def activation_rates(self, rows=None):
        """Return the fraction of rows in which each gate is open.

        Parameters
        ----------
        rows : slice or array-like, default=None
            Rows to count; all by default.

        Returns
        -------
        rates : list of ndarray of shape (n_gates,)
            One array per layer, float64.
        """
        states = self if rows is None else self[rows]
        n_open = map(_storage.count_open, states.packed, states.n_gates)
        return [counts / len(states) for counts in n_open]

    def save(self, path):
        """Write the states to an npz file, without pickle.

        The write is atomic: a temporary file in the same folder is renamed to ``path``.

        Parameters
        ----------
        path : str or path-like
            File to write. No suffix is added to its name.
        """
        header = states_header(self.layers)
        members = {}
        for i, gates in enumerate(self.packed):
            if _storage.is_sparse(gates):
                members |= {f"layer{i}_open": gates.indices, f"layer{i}_starts": gates.indptr}
            else:
                members[f"layer{i}"] = gates
        if self.groups is not None:
            members["groups"] = self.groups
        members["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        write_members(path, members)

    @classmethod
    def load(cls, path, *, mmap=False):
        """Read states that :meth:`save` or :meth:`GateExtractor.transform_to` wrote.

        Parameters
        ----------
        path : str or path-like
            A file, or a folder.
        mmap : bool, default=False
            Map the bits from the file, read only, instead of reading them into memory.

        Returns
        -------
        states : GatingStates

        Raises
        ------
        ValueError
            If the file is truncated, is not a file of states, or holds pickled content.
        """
        is_folder = Path(path).is_dir()
        try:
            if is_folder:
                members, header = map_folder(path)
                members = members if mmap else {k: np.array(v) for k, v in members.items()}
            else:
                members = map_members(path) if mmap else read_members(path)
                header = json.loads(bytes(members["header"]))
            if header["format"] != _FORMAT:
                raise ValueError(f"its format is {header['format']!r}, not {_FORMAT!r}")
            known = {field.name for field in fields(GateLayer)}
            layers = [GateLayer(**_only(record, known)) for record in header["layers"]]
            packed = [_member(members, i, layer) for i, layer in enumerate(layers)]
            return cls(packed, layers, members.get("groups"))
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            kind = "folder" if is_folder else "file"
            writer = "GateExtractor.transform_to" if is_folder else "GatingStates.save"
            raise ValueError(
                f"{os.fspath(path)!r} is not a complete {kind} of gating states ({error}). "
                f"Write it again with {writer}."
            ) from error


def stack_rows(first, second):
    """Return the rows of two GatingStates of the same layers, one after the other; no groups."""
    parts = zip(first.packed, second.packed, first.n_gates, strict=True)
    return GatingStates([_storage.smallest([a, b], d) for a, b, d in parts], first.layers)


def states_header(layers):
    """Return the metadata that is stored with states."""
    return {"format": _FORMAT, "layers": [asdict(layer) for layer in layers]}


def _member(members, index, layer):
    """Return the gates of a layer from the arrays of a file."""
    if f"layer{index}" in members:
        return members[f"layer{index}"]
    positions, starts = members[f"layer{index}_open"], members[f"layer{index}_starts"]
    gates = _storage.from_positions(positions, starts, layer.n_gates)
    gates.check_format(full_check=True)  # no position may lie outside the layer
    return gates


def _check_gates(gates, layer, n_rows):
    """Raise unless an array has the gates of a layer, in either form."""
    if not issparse(gates):
        if gates.dtype != np.uint8 or gates.shape != (n_rows, layer.n_bytes):
            raise ValueError(
                f"Layer {layer.name!r} needs packed bits of shape {(n_rows, layer.n_bytes)} and "
                f"dtype uint8; got {gates.shape} and {gates.dtype}."
            )
        return
    is_csr = isinstance(gates, csr_array) and gates.dtype == bool
    if not is_csr or gates.shape != (n_rows, layer.n_gates):
        raise ValueError(
            f"Layer {layer.name!r} needs a csr_array of shape {(n_rows, layer.n_gates)} and dtype "
            f"bool; got a {type(gates).__name__} of shape {gates.shape} and dtype {gates.dtype}. "
            "GatingStates.from_arrays takes any sparse array."
        )
    if not (gates.has_canonical_format and gates.data.all()):
        raise ValueError(
            f"Layer {layer.name!r} needs a csr_array in canonical format whose entries are True; "
            "got entries that are unsorted, there twice, or False. GatingStates.from_arrays takes "
            "any sparse array."
        )


def _as_gates(array, threshold, name):
    """Return the gates of an array, on its device, or of a sparse array as a csr_array."""
    label = f"Layer {name!r}"
    if issparse(array):
        array = array.tocsr(copy=True)
    else:
        array = plain_tensor(array) if hasattr(array, "detach") else array
        array = array if on_device(array) else numbers(array, label)
    require_real(array, label)
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(
            f"{label} needs an array of shape (n_samples, n_gates) with at least one "
            f"sample and one gate; got shape {tuple(array.shape)}."
        )
    dtype = str(array.dtype).removeprefix("torch.")
    values = array.data if issparse(array) else array
    if "float" in dtype and not bool((abs(values) < np.inf).all()):  # of NumPy, CuPy or torch
        raise ValueError(f"{label} contains NaN or infinity; gates cannot be read from it.")
    if issparse(array):
        return _open_entries(array, threshold, name)
    return array if dtype == "bool" else array > threshold


def _open_entries(array, threshold, name):
    """Return the entries above the threshold of a sparse array in CSR format."""
    if threshold < 0:
        raise ValueError(
            f"Layer {name!r} is sparse, and threshold={threshold} would open every gate that it "
            "does not store. Pass a threshold of 0 or more, or a dense array."
        )
    array.sum_duplicates()
    array.data = array.data if array.dtype == bool else array.data > threshold
    array.eliminate_zeros()
    return _storage.from_positions(array.indices, array.indptr, array.shape[1])


def _checked_groups(groups, n_rows):
    groups = np.asarray(to_numpy(groups))
    if groups.shape != (n_rows,) or groups.dtype.kind not in "iu":
        raise ValueError(
            f"groups needs an integer for each of {n_rows} rows, the sample that it belongs to; "
            f"got shape {groups.shape} and dtype {groups.dtype}."
        )
    return groups


def _only(record, known):
    if unknown := set(record) - known:
        raise ValueError(f"unknown fields {sorted(unknown)} in its header")
    return record
