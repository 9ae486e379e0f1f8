"""The gates of all samples, gate by gate: which are open, and which two of them together.

`BitColumns` hold bits, and `SparseColumns` the positions of open gates; both have the same
interface. ``open`` counts the samples, of ``n``, in which each gate is open, and ``both`` those in
which two are. `OpenCounts` have only the former.
"""

import numpy as np
from scipy.sparse import csr_array, hstack

from ...states import count_open, is_sparse, to_packed, to_sparse
from .._units import are_gates

_BLOCK_BYTES = 1 << 21


def has_sparse(states):
    """Return whether some layer is stored as the positions of its open gates."""
    return any(map(is_sparse, states.packed))


def columns_of(states):
    """Return the gates of all samples, of the kind that suits how the layers are stored.

    Units of several gates take bits.
    """
    if has_sparse(states) and are_gates(states.layers):
        return SparseColumns(open_gates(states))
    return BitColumns(_transposed(states), len(states))


def open_gates(states):
    """Return the gates of all layers side by side, a csr_array of shape (n_samples, n_gates)."""
    layers = [to_sparse(g, d) for g, d in zip(states.packed, states.n_gates, strict=True)]
    return layers[0] if len(layers) == 1 else hstack(layers, format="csr")


def _transposed(states):
    """Return the bits of all gates over all samples, (n_gates, ceil(n_rows / 8)), uint8."""
    bits = np.empty((states.shape[1], -(-len(states) // 8)), np.uint8)
    step = max(8, _BLOCK_BYTES // max(len(states), 1) // 8 * 8)
    first = 0
    for layer, d in zip(states.packed, states.n_gates, strict=True):
        packed = to_packed(layer)
        for start in range(0, d, step):
            width = min(step, d - start)
            columns = packed[:, start // 8 : -(-(start + width) // 8)]
            gates = np.unpackbits(columns, axis=1, count=width)  # (n_rows, width)
            bits[first + start : first + start + width] = np.packbits(gates.T, axis=1)
        first += d
    return bits


class OpenCounts:
    """How often each gate is open, no more."""

    def __init__(self, states):
        layers, self.n = zip(states.packed, states.n_gates, strict=True), len(states)
        self.open = np.concatenate([count_open(gates, d) for gates, d in layers])


class BitColumns:
    """Bits, (n_gates, n_bytes)."""

    def __init__(self, bits, n):
        self.bits, self.n = bits, n
        self.open = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)

    def both(self, children, parents):
        counts = np.empty(len(children), np.int64)
        step = max(1, _BLOCK_BYTES // max(self.bits.shape[1], 1))
        for start in range(0, len(children), step):
            pairs = slice(start, start + step)
            together = self.bits[children[pairs]] & self.bits[parents[pairs]]
            counts[pairs] = np.bitwise_count(together).sum(axis=1, dtype=np.int64)
        return counts


class SparseColumns:
    """Positions of open gates, ``by_row`` a csr_array of shape (n_samples, n_gates)."""

    def __init__(self, by_row):
        self.by_row, self.by_gate, self.n = by_row, by_row.T.tocsr(), by_row.shape[0]
        self.open = np.diff(self.by_gate.indptr).astype(np.int64)

    def both(self, children, parents):
        swap = self.open[children] > self.open[parents]
        fewer, more = np.where(swap, parents, children), np.where(swap, children, parents)
        lengths = self.open[fewer]
        rows = self.by_gate[fewer].indices  # samples in which the gate open in fewer is
        together = contains(self.by_row, rows, np.repeat(more, lengths))
        edges = np.repeat(np.arange(len(fewer)), lengths)
        return np.bincount(edges[together], minlength=len(fewer))


def contains(gates, rows, columns):
    """Return whether each of some entries of a csr_array is there."""
    if not gates.nnz:
        return np.zeros(len(rows), bool)
    present = _keys(_row_of_entries(gates), gates.indices, gates.shape[1])  # sorted
    wanted = _keys(rows, columns, gates.shape[1])
    place = np.searchsorted(present, wanted)
    return present[np.minimum(place, len(present) - 1)] == wanted


def with_open_partners(gates, partners):
    """Return the open gates whose partner is open too, as 1.0; a partner of -1 never is."""
    own = partners[gates.indices]
    kept = contains(gates, _row_of_entries(gates), own) & (own >= 0)
    starts = np.concatenate([[0], np.cumsum(kept)])[gates.indptr]
    found = gates.indices[kept]
    return csr_array((np.ones(len(found)), found, starts), shape=gates.shape)


def _row_of_entries(gates):
    return np.repeat(np.arange(gates.shape[0]), np.diff(gates.indptr))


def _keys(rows, columns, n_columns):
    return rows.astype(np.int64) * n_columns + columns
