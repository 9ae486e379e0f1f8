"""The CUDA engine: matrix products of samples, and the sums of kernel values made from them.

Distances are ``a + b - 2 P`` of norms and products: of bits, numbers of open gates and of those
open in both, exact in int8 on tensor cores. What differs from device to device, and all that needs
one, is in `_cupy.Gpu`.
"""

import numpy as np

from ..utils.arrays import to_numpy
from ..utils.parallel import slices
from ._distances import Bits
from ._tiles import block_slices, length, pair_bar

_MOST_ROWS = 16384
_FEWEST_ROWS = 64
# What a tile takes at the most; beyond, matrix products do not get faster.
_TILE_BYTES = 4 << 30
_ALIGNED = 16


class _Samples:
    """Samples on the device, from where strips are taken as factors of matrix products.

    Parameters
    ----------
    points : Bits or Reals
    label_sets : sequence of ndarray of shape (n_samples,), dtype int
    gpu : Gpu
    """

    def __init__(self, points, label_sets, gpu):
        self._points, self._gpu = points, gpu
        self.is_bits = isinstance(points, Bits)
        layers = points.packed if self.is_bits else points.layers
        self._layers = [self._moved(layer) for layer in layers]
        self._labels = np.array(label_sets, np.int32).reshape(len(label_sets), len(points))
        self.forget()

    def _moved(self, layer):
        try:
            return self._gpu.xp.asarray(layer)
        except self._gpu.out_of_memory:  # strips are copied when they are wanted
            self._gpu.release()
            return layer

    def forget(self):
        self._held = None, None

    def strip(self, rows, *, keep=False):
        """Return factors of products of some rows, and ``(norms, labels)``, a column a row.

        One strip is kept on the device until another one is to be.
        """
        if self._held[0] == rows:
            return self._held[1]
        if keep:
            self.forget()  # before memory is asked for
        xp, factor = self._gpu.xp, self._gates if self.is_bits else self._centred
        factors, norms = zip(*(factor(i, rows) for i in range(len(self._layers))), strict=True)
        labels = xp.asarray(np.ascontiguousarray(self._labels[:, rows]))
        strip = factors, (xp.stack(norms), labels)
        if keep:
            self._held = rows, strip
        return strip

    def _gates(self, index, rows):
        xp, bits = self._gpu.xp, self._gpu.xp.asarray(self._layers[index][rows])
        n_rows, n_bytes = bits.shape
        padded = xp.zeros((_up(n_rows, _ALIGNED), _up(n_bytes, _ALIGNED // 8)), np.uint8)
        padded[:n_rows, :n_bytes] = bits
        gates = xp.unpackbits(padded.ravel()).reshape(len(padded), -1).view(np.int8)
        return gates, gates[:n_rows].sum(axis=1, dtype=np.float64)

    def _centred(self, index, rows):
        xp, points = self._gpu.xp, self._points
        x = xp.asarray(self._layers[index][rows]) - xp.asarray(points.centres[index])
        exact = points.exact[index]
        return x, xp.zeros(len(x)) if exact else xp.einsum("ij,ij->i", x, x)

    def products(self, factors, others):
        """Return the products of two strips, (n_layers, n_rows, n_columns), ends padded."""
        shape = len(factors), len(factors[0]), len(others[0])
        out = self._gpu.xp.empty(shape, np.int32 if self.is_bits else np.float64)
        for index, (a, b, into) in enumerate(zip(factors, others, out, strict=True)):
            if not self.is_bits and self._points.exact[index]:
                into[...] = 0.0
                for unit in range(a.shape[1]):
                    into -= (a[:, unit, None] - b[:, unit]) ** 2
                into /= 2  # so that with norms of 0 these are the distances
            else:
                self._gpu.multiply(a, b, into)
        return out

    def tile_rows(self):
        """Return the height and width of tiles that fit into memory."""
        budget = min(self._gpu.free_bytes() / 2, _TILE_BYTES)
        if self.is_bits:
            product_bytes, row_bytes = 4, sum(8 * bits.shape[1] for bits in self._layers)
        else:
            product_bytes, row_bytes = 8, sum(8 * layer.shape[1] for layer in self._layers)
        rows = _MOST_ROWS
        while rows > _FEWEST_ROWS:
            if rows * (product_bytes * len(self._layers) * rows + 3 * row_bytes) <= budget:
                break
            rows //= 2
        return rows


def _up(n, multiple):
    return -(-n // multiple) * multiple


def _sparse(weights, xp):
    """Return where each term's weights start, their layers, and the weights that are not 0."""
    terms, layers = np.nonzero(weights)
    starts = np.searchsorted(terms, np.arange(len(weights) + 1))
    arrays = starts.astype(np.int32), layers.astype(np.int32), weights[terms, layers]
    return [xp.asarray(array) for array in arrays]


class _Sums:
    """Sums over one side of a tile, as least exponents and what is relative to them."""

    def __init__(self, weights, n_groups, gpu):
        self._shape, self._gpu = (len(weights), n_groups), gpu
        self._terms = _sparse(weights, gpu.xp)

    def __call__(self, products, items, others, *, by_rows):
        """Return log sums of the items, (n_terms, n_groups, n_items), float64 on the host.

        Parameters
        ----------
        products : array of shape (n_layers, n_rows, n_columns), or more
        items, others : tuple of (norms, labels)
        by_rows : bool
            Whether the items are rows, and not columns.
        """
        xp = self._gpu.xp
        height, width = products.shape[1:]
        steps = (height * width, width, 1) if by_rows else (height * width, 1, width)
        n_items, n_others = items[0].shape[1], others[0].shape[1]
        leasts, sums = xp.empty((2, *self._shape, n_items))
        self._gpu.masses(
            products, steps, items, others, self._terms, (n_items, n_others), leasts, sums
        )
        return _logs(np.stack([to_numpy(leasts), to_numpy(sums)]))


def _logs(leasts_and_sums):
    leasts, sums = leasts_and_sums
    with np.errstate(divide="ignore"):
        return np.where(sums > 0, np.log(sums) - leasts, -np.inf)


def _cut(tiles, height):
    """Cut tiles to a height and width, without what lies below the diagonal of square ones."""
    return [
        (r, c, square and r == c)
        for rows, columns, square in tiles
        for c in slices(columns.start, columns.stop, height)
        for r in slices(rows.start, rows.stop, height)
        if not square or r.start <= c.start
    ]


def _each_tile(tiles, columns_of, compute, gpu, verbose):
    """Yield ``(rows, columns, compute(rows, columns))``; tiles halve where memory runs out.

    Parameters
    ----------
    tiles : list of (rows, columns, square)
        ``square``: that the rows are the columns, and each pair is wanted once.
    columns_of : _Samples
        Whose strips are kept.
    compute : callable
    gpu : Gpu
    verbose : int
    """
    height = columns_of.tile_rows()
    pending = _cut(tiles, height)
    n_pairs = sum(length(r) * length(c) for r, c, _ in pending)
    with pair_bar(n_pairs, verbose) as bar:
        while pending:
            rows, columns, _ = pending[0]
            try:
                result = compute(rows, columns)
            except gpu.out_of_memory:
                columns_of.forget()
                gpu.release()
                if height <= _FEWEST_ROWS:
                    raise
                height //= 2
                pending = _cut(pending, height)
                continue
            yield rows, columns, result
            bar.update(length(rows) * length(columns))
            pending.pop(0)


def symmetric_masses(points, weights, label_sets, blocks, gpu, verbose):
    """Return the masses of each row over the rows of each block, each pair computed once.

    As `_cpu.symmetric_masses` does, up to rounding.
    """
    samples = _Samples(points, label_sets, gpu)
    sums = _Sums(weights, 1 + len(label_sets), gpu)

    def compute(rows, columns):
        factors, column_side = samples.strip(columns, keep=True)
        own_factors, row_side = samples.strip(rows)
        products = samples.products(own_factors, factors)
        to_rows = sums(products, row_side, column_side, by_rows=True)
        if rows == columns:
            return to_rows, None
        return to_rows, sums(products, column_side, row_side, by_rows=False)

    of_block = block_slices(blocks)
    tiles = [(r, c, r == c) for c in of_block for r in of_block if r.start <= c.start]
    masses = np.zeros((len(weights), 1 + len(label_sets), blocks[-1] + 1, len(points)))
    for rows, columns, (to_rows, to_columns) in _each_tile(tiles, samples, compute, gpu, verbose):
        masses[:, :, blocks[columns.start], rows] += np.exp(to_rows)
        if to_columns is not None:
            masses[:, :, blocks[rows.start], columns] += np.exp(to_columns)
    return masses


def cross_masses(queries, points, weights, query_label_sets, label_sets, gpu, verbose):
    """Return the log masses of each query over all rows; no query need be among them."""
    samples = _Samples(points, label_sets, gpu)
    others = _Samples(queries, query_label_sets, gpu)
    sums = _Sums(weights, 1 + len(label_sets), gpu)

    def compute(rows, columns):
        factors, column_side = samples.strip(columns, keep=True)
        own_factors, row_side = others.strip(rows)
        products = samples.products(own_factors, factors)
        return sums(products, row_side, column_side, by_rows=True)

    tiles = [(slice(0, len(queries)), slice(0, len(points)), False)]
    masses = np.full((len(weights), 1 + len(label_sets), len(queries)), -np.inf)
    for rows, _, logs in _each_tile(tiles, samples, compute, gpu, verbose):
        masses[..., rows] = np.logaddexp(masses[..., rows], logs)
    return masses
