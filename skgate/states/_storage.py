"""How the gates of a layer are stored: packed bits, or the positions of the open gates.

Packed bits are an array of uint8, (n_rows, n_bytes). Of a wide layer with few open gates, their
positions take fewer bytes: a `scipy.sparse.csr_array` of bool, (n_rows, n_gates), in canonical
format. `smallest` chooses; the other functions take gates in either form.
"""

import numpy as np
from scipy.sparse import csr_array, get_index_dtype, issparse, vstack

from ..utils.parallel import slices

#: Bits of fewer gates take less time to compare than positions do.
MIN_SPARSE_GATES = 8192
_BLOCK_BYTES = 1 << 21


def is_sparse(gates):
    """Return whether the gates of a layer are stored as positions."""
    return issparse(gates)


def n_packed_bytes(gates):
    """Return the bytes that a row of a layer takes when packed."""
    return -(-gates.shape[1] // 8) if is_sparse(gates) else gates.shape[1]


def n_stored_bytes(gates):
    """Return the bytes that the gates of a layer take."""
    if is_sparse(gates):
        return gates.data.nbytes + gates.indices.nbytes + gates.indptr.nbytes
    return gates.nbytes


def smallest(parts, n_gates):
    """Return the rows of parts of a layer, one after the other, in the form of fewer bytes."""
    n_rows = sum(part.shape[0] for part in parts)
    as_positions = False
    if n_gates >= MIN_SPARSE_GATES:
        n_open = sum(_n_open(part) for part in parts)
        index_bytes = 4 if max(n_open, n_gates) < 2**31 else 8
        as_positions = n_open * (1 + index_bytes) + n_rows * index_bytes < n_rows * n_gates // 8
    parts = [to_sparse(part, n_gates) if as_positions else to_packed(part) for part in parts]
    if len(parts) == 1:
        return parts[0]
    return vstack(parts, format="csr") if is_sparse(parts[0]) else np.concatenate(parts)


def _n_open(gates):
    if is_sparse(gates):
        return gates.nnz
    return sum(int(np.bitwise_count(bits).sum(dtype=np.int64)) for _, bits in packed_blocks(gates))


def to_sparse(gates, n_gates):
    """Return the gates of a layer as positions."""
    if is_sparse(gates):
        return gates
    positions, n_open = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
    for _, bits in packed_blocks(gates):
        rows, places = np.nonzero(bits)
        found, bit = np.nonzero(np.unpackbits(bits[rows, places, None], axis=1))
        positions.append((8 * places[found] + bit).astype(np.int32))
        n_open.append(np.bincount(rows[found], minlength=len(bits)))
    indptr = np.concatenate(n_open).cumsum()
    return from_positions(np.concatenate(positions), indptr, n_gates)


def from_positions(positions, indptr, n_gates):
    """Return the gates of a layer from the open ones, row by row, and where each row starts."""
    kind = get_index_dtype(maxval=max(len(positions), n_gates))
    positions, indptr = (a.astype(kind, copy=False) for a in (positions, indptr))
    open_ = np.ones(len(positions), bool)
    return csr_array((open_, positions, indptr), shape=(len(indptr) - 1, n_gates))


def to_packed(gates):
    """Return the gates of a layer as packed bits."""
    if not is_sparse(gates):
        return gates
    bits = np.empty((gates.shape[0], n_packed_bytes(gates)), np.uint8)
    for rows, block in packed_blocks(gates):
        bits[rows] = block
    return bits


def packed_blocks(gates):
    """Yield ``(rows, bits)``, the packed bits of a layer, a block of rows at a time."""
    step = max(1, _BLOCK_BYTES // (8 * n_packed_bytes(gates)))
    for rows in slices(0, gates.shape[0], step):
        block = gates[rows]
        yield rows, np.packbits(block.toarray(), axis=1) if is_sparse(gates) else block


def dense_blocks(gates, n_gates):
    """Yield ``(rows, gates)``, a byte each, a block of rows at a time."""
    step = max(1, _BLOCK_BYTES // (8 * n_packed_bytes(gates)))
    for rows in slices(0, gates.shape[0], step):
        if is_sparse(gates):
            yield rows, gates[rows].toarray().view(np.uint8)
        else:
            yield rows, np.unpackbits(gates[rows], axis=1, count=n_gates)


def take_rows(gates, rows):
    """Return some rows of a layer."""
    return gates[rows] if is_sparse(gates) else np.ascontiguousarray(gates[rows])


def equal(a, b):
    """Return whether two layers of the same gates are equal, in whatever form."""
    if not (is_sparse(a) or is_sparse(b)):
        return np.array_equal(a, b)
    if a.shape[0] != b.shape[0]:
        return False
    if is_sparse(a) and is_sparse(b):
        return np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)
    rest, packed = (a, b) if is_sparse(a) else (b, a)
    return all(np.array_equal(bits, packed[rows]) for rows, bits in packed_blocks(rest))


def count_open(gates, n_gates):
    """Return the number of rows in which each gate of a layer is open."""
    if is_sparse(gates):
        return np.bincount(gates.indices, minlength=n_gates)
    counts = np.zeros(n_gates, dtype=np.int64)
    # sums of 255 rows fit in uint8, the fastest type for NumPy to add up
    for rows in slices(0, len(gates), 255):
        block = np.unpackbits(gates[rows], axis=1, count=n_gates)
        counts += np.add.reduce(block, axis=0, dtype=np.uint8)
    return counts


def sum_open(gates, weights):
    """Return the sums of the weights, (n_gates, n_columns), of each row's open gates."""
    if is_sparse(gates):
        return gates @ weights
    sums = np.empty((len(gates), weights.shape[1]))
    for rows, block in dense_blocks(gates, len(weights)):
        sums[rows] = block @ weights
    return sums
