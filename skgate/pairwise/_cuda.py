"""The CUDA engine: matrix products of samples, and sums of kernel values computed from them.

Distances are ``a + b - 2 P`` of norms and products. For bits, a norm counts the open gates of a
sample and a product those open in both; int8 tensor cores compute them exactly. All code that needs
a device is in `_cupy.Gpu`.
"""

import numpy as np

from ..states import is_sparse, n_packed_bytes, packed_blocks, to_packed
from ..utils.arrays import to_numpy
from ..utils.parallel import slices
from ._distances import HammingDistances
from ._tiles import block_slices, length, pair_bar

_MAX_ROWS = 16384
_MIN_ROWS = 64
# Largest tile; matrix products of larger ones are not faster.
_TILE_BYTES = 4 << 30
_ALIGNMENT = 16


class _Samples:
    """Samples on the device, and strips of their rows as factors of matrix products."""

    def __init__(self, points, label_sets, gpu):
        self._points, self._gpu = points, gpu
        self.is_bits = isinstance(points, HammingDistances)
        layers = points.packed if self.is_bits else points.layers
        self._layers = [self._to_device(layer) for layer in layers]
        self._labels = np.array(label_sets, np.int32).reshape(len(label_sets), len(points))
        self.clear_cache()

    def _to_device(self, layer):
        try:
            return self._packed(layer) if is_sparse(layer) else self._gpu.xp.asarray(layer)
        except self._gpu.out_of_memory:  # `strip` copies the rows it needs
            self._gpu.release()
            return layer

    def _packed(self, gates):
        """Return the bits of a sparse layer, which are never on the host as a whole."""
        bits = self._gpu.xp.empty((gates.shape[0], n_packed_bytes(gates)), np.uint8)
        for rows, block in packed_blocks(gates):
            bits[rows] = self._gpu.xp.asarray(block)
        return bits

    def clear_cache(self):
        self._cached_rows, self._cached_strip = None, None

    def strip(self, rows, *, keep=False):
        """Return the factors of rows, one per layer, and their ``(norms, labels)``.

        ``keep`` caches the strip on the device in place of the one before it.
        """
        if self._cached_rows == rows:
            return self._cached_strip
        if keep:
            self.clear_cache()  # before new memory is allocated
        xp, factor = self._gpu.xp, self._gates if self.is_bits else self._centred
        factors, norms = zip(*(factor(i, rows) for i in range(len(self._layers))), strict=True)
        labels = xp.asarray(np.ascontiguousarray(self._labels[:, rows]))
        strip = factors, (xp.stack(norms), labels)
        if keep:
            self._cached_rows, self._cached_strip = rows, strip
        return strip

    def _gates(self, index, rows):
        layer, xp = self._layers[index], self._gpu.xp
        bits = xp.asarray(to_packed(layer[rows]) if is_sparse(layer) else layer[rows])
        n_rows, n_bytes = bits.shape
        shape = _round_up(n_rows, _ALIGNMENT), _round_up(n_bytes, _ALIGNMENT // 8)
        padded = xp.zeros(shape, np.uint8)
        padded[:n_rows, :n_bytes] = bits
        gates = xp.unpackbits(padded.ravel()).reshape(len(padded), -1).view(np.int8)
        return gates, gates[:n_rows].sum(axis=1, dtype=np.float64)

    def _centred(self, index, rows):
        xp, points = self._gpu.xp, self._points
        x = xp.asarray(self._layers[index][rows]) - xp.asarray(points.centres[index])
        exact = points.exact[index]
        return x, xp.zeros(len(x)) if exact else xp.einsum("ij,ij->i", x, x)

    def products(self, factors, others):
        """Return the products of two strips, (n_layers, n_rows, n_columns), with padding."""
        shape = len(factors), len(factors[0]), len(others[0])
        out = self._gpu.xp.empty(shape, np.int32 if self.is_bits else np.float64)
        for index, (a, b, into) in enumerate(zip(factors, others, out, strict=True)):
            if not self.is_bits and self._points.exact[index]:
                into[...] = 0.0
                for unit in range(a.shape[1]):
                    into -= (a[:, unit, None] - b[:, unit]) ** 2
                into /= 2  # so that a + b - 2 P, with norms of 0, is the distance
            else:
                self._gpu.multiply(a, b, into)
        return out

    def tile_rows(self):
        """Return the height of square tiles that fit in memory."""
        budget = min(self._gpu.free_bytes() / 2, _TILE_BYTES)
        if self.is_bits:
            product_bytes, row_bytes = 4, sum(8 * n_packed_bytes(gates) for gates in self._layers)
        else:
            product_bytes, row_bytes = 8, sum(8 * layer.shape[1] for layer in self._layers)
        rows = _MAX_ROWS
        while rows > _MIN_ROWS:
            if rows * (product_bytes * len(self._layers) * rows + 3 * row_bytes) <= budget:
                break
            rows //= 2
        return rows


def _round_up(n, multiple):
    return -(-n // multiple) * multiple


def _sparse(weights, xp):
    """Return the weights that are not 0 in CSR format: starts of terms, layers, weights."""
    terms, layers = np.nonzero(weights)
    starts = np.searchsorted(terms, np.arange(len(weights) + 1))
    arrays = starts.astype(np.int32), layers.astype(np.int32), weights[terms, layers]
    return [xp.asarray(array) for array in arrays]


class _Sums:
    """Log sums of kernel values over one side of a tile."""

    def __init__(self, weights, n_groups, gpu):
        self._shape, self._gpu = (len(weights), n_groups), gpu
        self._terms = _sparse(weights, gpu.xp)

    def __call__(self, products, items, others, *, by_rows):
        """Return log sums of the items, (n_terms, n_groups, n_items), float64 on the host.

        ``items`` and ``others`` are ``(norms, labels)``; the items are the rows of ``products`` if
        ``by_rows``, and its columns otherwise.
        """
        xp = self._gpu.xp
        height, width = products.shape[1:]
        steps = (height * width, width, 1) if by_rows else (height * width, 1, width)
        n_items, n_others = items[0].shape[1], others[0].shape[1]
        minima, sums = xp.empty((2, *self._shape, n_items))
        self._gpu.masses(
            products, steps, items, others, self._terms, (n_items, n_others), minima, sums
        )
        return _log_sums(to_numpy(minima), to_numpy(sums))


def _log_sums(minima, sums):
    """Return logs of sums that are relative to the smallest exponents."""
    with np.errstate(divide="ignore"):
        return np.where(sums > 0, np.log(sums) - minima, -np.inf)


def _cut(tiles, height):
    """Cut tiles to a height and width; drop those below the diagonal of square tiles."""
    return [
        (r, c, square and r == c)
        for rows, columns, square in tiles
        for c in slices(columns.start, columns.stop, height)
        for r in slices(rows.start, rows.stop, height)
        if not square or r.start <= c.start
    ]


def _each_tile(tiles, samples, compute, gpu, verbose):
    """Yield ``(rows, columns, compute(rows, columns))``; halve tiles when memory runs out.

    ``tiles`` are ``(rows, columns, square)``; in a square tile, each pair is computed once.
    ``compute`` caches strips of ``samples``, which are dropped when memory runs out.
    """
    height = samples.tile_rows()
    pending = _cut(tiles, height)
    n_pairs = sum(length(r) * length(c) for r, c, _ in pending)
    with pair_bar(n_pairs, verbose) as bar:
        while pending:
            rows, columns, _ = pending[0]
            try:
                result = compute(rows, columns)
            except gpu.out_of_memory:
                samples.clear_cache()
                gpu.release()
                if height <= _MIN_ROWS:
                    raise
                height //= 2
                pending = _cut(pending, height)
                continue
            yield rows, columns, result
            bar.update(length(rows) * length(columns))
            pending.pop(0)


def symmetric_masses(points, weights, label_sets, blocks, gpu, verbose):
    """Return the masses of `_cpu.symmetric_masses`, up to rounding."""
    samples = _Samples(points, label_sets, gpu)
    sums = _Sums(weights, 1 + len(label_sets), gpu)

    def compute(rows, columns):
        column_factors, column_side = samples.strip(columns, keep=True)
        row_factors, row_side = samples.strip(rows)
        products = samples.products(row_factors, column_factors)
        to_rows = sums(products, row_side, column_side, by_rows=True)
        if rows == columns:
            return to_rows, None
        return to_rows, sums(products, column_side, row_side, by_rows=False)

    ranges = block_slices(blocks)
    tiles = [(r, c, r == c) for c in ranges for r in ranges if r.start <= c.start]
    masses = np.zeros((len(weights), 1 + len(label_sets), blocks[-1] + 1, len(points)))
    for rows, columns, (to_rows, to_columns) in _each_tile(tiles, samples, compute, gpu, verbose):
        masses[:, :, blocks[columns.start], rows] += np.exp(to_rows)
        if to_columns is not None:
            masses[:, :, blocks[rows.start], columns] += np.exp(to_columns)
    return masses


def cross_masses(queries, points, weights, query_label_sets, label_sets, gpu, verbose):
    """Return the log masses of `_cpu.cross_masses`, up to rounding."""
    samples = _Samples(points, label_sets, gpu)
    query_samples = _Samples(queries, query_label_sets, gpu)
    sums = _Sums(weights, 1 + len(label_sets), gpu)

    def compute(rows, columns):
        column_factors, column_side = samples.strip(columns, keep=True)
        row_factors, row_side = query_samples.strip(rows)
        products = samples.products(row_factors, column_factors)
        return sums(products, row_side, column_side, by_rows=True)

    tiles = [(slice(0, len(queries)), slice(0, len(points)), False)]
    masses = np.full((len(weights), 1 + len(label_sets), len(queries)), -np.inf)
    for rows, _, logs in _each_tile(tiles, samples, compute, gpu, verbose):
        masses[..., rows] = np.logaddexp(masses[..., rows], logs)
    return masses
