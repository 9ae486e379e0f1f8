"""Squared distances of samples on the CPU, one tile at a time: of gates, and of real numbers.

Both classes hold the layers of samples and have the same interface. ``prepare`` takes columns, and
``between`` returns their distances from rows, one array per layer; a task passes the same dict
``scratch`` to each call, for arrays that are reused. ``max_distances`` has a bound per layer,
infinite if distances are not integers, and ``cost`` roughly the nanoseconds per pair.
"""

import copy

import numkong
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils.extmath import row_norms

from ..states import count_open, is_sparse, to_packed, to_sparse
from ..utils.parallel import slices

# Largest rounding error of an exponent that a matrix product may cause.
_TOLERANCE = 1e-10
# A gate that is open in more than one row of so many is compared as a bit: 0.5 ps per pair, where
# each pair of rows that it is open in takes about 4 ns.
_OFTEN = 64
# With at most this many units, exact differences cost no more than a matrix product.
_FEW_UNITS = 16


class HammingDistances:
    """Hamming distances of gates, exact integers."""

    def __init__(self, packed):
        self.packed = packed
        kinds = [_SparseGates if is_sparse(gates) else _PackedGates for gates in packed]
        self._layers = [kind(gates) for kind, gates in zip(kinds, packed, strict=True)]
        self.tile_columns = max(layer.tile_columns for layer in self._layers)
        self.max_distances = [layer.max_distance for layer in self._layers]
        self.cost = sum(layer.cost for layer in self._layers)

    def with_layers(self, packed):
        """Return the distances of other samples, as rows, from these."""
        other = copy.copy(self)
        pairs = zip(self._layers, packed, strict=True)
        other.packed, other._layers = packed, [own.with_gates(gates) for own, gates in pairs]
        return other

    def __len__(self):
        return self.packed[0].shape[0]

    def prepare(self, columns):
        return [layer.prepare(columns) for layer in self._layers]

    def between(self, rows, prepared, scratch):
        return [
            layer.between(rows, columns, scratch.setdefault(index, {}))
            for index, (layer, columns) in enumerate(zip(self._layers, prepared, strict=True))
        ]


class _PackedGates:
    """Distances in one layer of packed bits, which are compared."""

    # Measured: the fastest width of NumKong from 2048 gates, and a good one for fewer gates.
    tile_columns = 64

    def __init__(self, bits):
        self._bits = bits
        self.max_distance = 8 * bits.shape[1]
        self.cost = bits.shape[1] / 256

    def with_gates(self, gates):
        return _PackedGates(to_packed(gates))

    def prepare(self, columns):
        return numkong.hammings_pack(np.ascontiguousarray(self._bits[columns]))

    def between(self, rows, pack, scratch):
        bits = np.ascontiguousarray(self._bits[rows])
        # a new array per tile doubles the time if freed memory is returned to the system at once,
        # as in the workers of a Dask cluster
        key = len(bits), pack.width
        if key not in scratch:
            scratch[key] = numkong.empty(key, dtype="uint32")
        numkong.hammings_packed(bits, pack, out=scratch[key])
        return np.asarray(scratch[key])


class _SparseGates:
    """Distances in one layer few of whose gates are open: ``|a| + |b| - 2 a.b``.

    A product of sparse arrays has ``a.b`` of all pairs of rows, for the cost of the gates that are
    open in both. The gates that are open in many rows are compared as bits instead, so that no
    layer costs much more than its bits would.
    """

    # Measured: a call of SciPy takes as long as some ten thousand pairs.
    tile_columns = 512

    def __init__(self, gates, often=None):
        n_rows, n_open = gates.shape[0], count_open(gates, gates.shape[1])
        self._often = n_open * _OFTEN > n_rows if often is None else often
        self._bits, self._rare = None, gates
        if self._often.any():
            self._bits = _PackedGates(to_packed(gates[:, np.flatnonzero(self._often)]))
            self._rare = gates[:, np.flatnonzero(~self._often)]
        self._n_open = np.diff(self._rare.indptr).astype(np.int32)
        most = int(np.diff(gates.indptr).max(initial=0))
        self.max_distance = min(2 * most, gates.shape[1])
        overlap = np.sum((n_open[~self._often] / max(n_rows, 1)) ** 2)
        self.cost = 2 + 4 * overlap + (self._bits.cost if self._bits else 0)

    def with_gates(self, gates):
        return _SparseGates(to_sparse(gates, len(self._often)), self._often)

    def prepare(self, columns):
        by_gate = self._rare[columns].T.tocsr().astype(np.int32)
        by_gate.data[:] = -2
        return by_gate, self._n_open[columns], self._bits and self._bits.prepare(columns)

    def between(self, rows, prepared, scratch):
        by_gate, n_open, bits = prepared
        key = rows.stop - rows.start, len(n_open)
        if key not in scratch:
            scratch[key] = np.empty(key, np.int32)
        distances = (self._rare[rows] @ by_gate).toarray(out=scratch[key])
        distances += self._n_open[rows, None]
        distances += n_open
        if bits is not None:
            in_bits = self._bits.between(rows, bits, scratch.setdefault("bits", {}))
            distances += in_bits.view(np.int32)
        return distances


class SquaredEuclideanDistances:
    """Squared Euclidean distances of real numbers.

    A matrix product computes them as ``|a|^2 - 2ab + |b|^2``, with samples centred at their mean,
    and loses digits if they are small relative to the norms. Differences are squared and summed
    instead if that would change an exponent, a distance times one of ``weights``, or if there are
    few units.
    """

    tile_columns = 256

    def __init__(self, layers, weights):
        self.layers = layers
        self.max_distances = [np.inf] * len(layers)
        self.cost = sum(layer.shape[1] for layer in layers) / 16
        self.centres = [layer.mean(axis=0, dtype=np.float64) for layer in layers]
        self.exact = [
            layer.shape[1] <= _FEW_UNITS or self._loses_digits(index, weights[:, index].max())
            for index, layer in enumerate(layers)
        ]

    def _loses_digits(self, index, weight):
        rows = slices(0, len(self), self.tile_columns)
        norm = max(row_norms(self._centred(index, r), squared=True).max() for r in rows)
        return 4 * np.finfo(np.float64).eps * norm * weight > _TOLERANCE

    def _centred(self, index, rows):
        return self.layers[index][rows] - self.centres[index]

    def with_layers(self, layers):
        """Return the same settings, such as centres, with the layers of other samples."""
        other = copy.copy(self)
        other.layers = layers
        return other

    def __len__(self):
        return len(self.layers[0])

    def prepare(self, columns):
        prepared = []
        for index, exact in enumerate(self.exact):
            x = self._centred(index, columns)
            if not exact:
                x = np.column_stack([-2 * x, np.ones(len(x)), row_norms(x, squared=True)]).T
            prepared.append(x)
        return prepared

    def between(self, rows, prepared, scratch):
        distances = []
        for index, (exact, columns) in enumerate(zip(self.exact, prepared, strict=True)):
            x = self._centred(index, rows)
            if exact:
                distances.append(cdist(x, columns, "sqeuclidean"))
            else:
                x = np.column_stack([x, row_norms(x, squared=True), np.ones(len(x))])
                product = x @ columns
                distances.append(np.maximum(product, 0.0, out=product))
        return distances
