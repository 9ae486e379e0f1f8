"""Mutual information of pairs of units given the class, from counts.

A row has n times the information of a unit and all units. `GateRows` are those of gates,
`UnitRows` those of units of several gates too, and `StoredRows` those of gates with many classes:
they are computed beforehand, tile by tile, and exactly only where they may exceed chance.
"""

from functools import partial

import numkong
import numpy as np
from scipy.stats import chi2

from ...utils.arrays import to_numpy
from ...utils.parallel import slices
from .._units import are_gates, n_units, n_values, pair_counts, value_counts

_TILE = 256
_MAX_STORED_BYTES = 1 << 28
# Counts up to which products of three of them are precise enough in single precision.
_MAX_SINGLE = 1 << 11


def chance_information(n_units, degrees=1):
    """Return n times the information of pairs, in nats, below which an edge may be chance.

    The pairs of independent gates have an empirical information of up to about the logarithm of
    their number, divided by that of the samples. Twice n times the information of one pair has a
    chi-squared distribution; units of ``k`` and ``k'`` values have ``(k - 1) (k' - 1)`` degrees of
    freedom, and more information by chance.
    """
    n_pairs = n_units * (n_units - 1) / 2
    quantile, of_gates = chi2.isf(1 / (n_pairs + 1), [degrees, 1])
    return np.log(n_pairs) + (quantile - of_gates) / 2


def information_rows(columns, sizes, layers, gpu):
    """Return rows, as a function of a unit, and what an entry must exceed to be an edge."""
    classes = [(c.bits, n) for c, n in zip(columns, sizes.tolist(), strict=True) if n]
    if not are_gates(layers):
        return UnitRows(classes, layers, gpu), 0.0
    n_gates = len(classes[0][0])
    least = chance_information(n_gates)
    if len(classes) > 1 and gpu is None and 8 * n_gates**2 <= _MAX_STORED_BYTES:
        return StoredRows(classes, least), least
    return GateRows(classes, gpu), least


class _Gates:
    """How often the gates of a class are open, alone and with another one."""

    def __init__(self, bits, n, gpu):
        xp = np if gpu is None else gpu.xp
        self.n, self.terms = n, xp.asarray(_terms(n))
        self.open = xp.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))
        self.own = self.terms[self.open] + self.terms[n - self.open]  # c log c of both states
        self.bits = bits if gpu is None else gpu.words(bits)
        self.both = self._both if gpu is None else partial(gpu.open_in_both, self.bits)
        self.packed = numkong.hammings_pack(bits) if gpu is None else None

    def _both(self, gate):
        distances = np.asarray(numkong.hammings_packed(self.bits[gate : gate + 1], self.packed))
        return (self.open[gate] + self.open - distances[0].astype(np.int64)) >> 1

    def information(self, gate):
        n_open, terms, both = self.open[gate], self.terms, self.both(gate)
        # n I is the sum of c log c over the four cells, less that over each gate's, plus n log n
        information = terms[both]
        information += terms[n_open - both]
        information += terms[self.open - both]
        information += terms[self.n - n_open - self.open + both]
        information += terms[self.n] - self.own[gate] - self.own
        return to_numpy(information)


def _terms(n):
    """Return c log c of the counts up to n."""
    counts = np.arange(1, n + 1)
    return np.concatenate([[0.0], counts * np.log(counts)])


class GateRows:
    """Rows of gates, computed when they are asked for."""

    def __init__(self, classes, gpu):
        self._classes = [_Gates(bits, n, gpu) for bits, n in classes]
        self.n_units = len(classes[0][0])

    def __call__(self, gate):
        return sum(own.information(gate) for own in self._classes)


class UnitRows:
    """Rows of units, less what may be chance."""

    def __init__(self, classes, layers, gpu):
        self._classes = [_Gates(bits, n, gpu) for bits, n in classes]
        self._layers, self.n_units = layers, sum(map(n_units, layers))
        ends = np.cumsum([layer.n_gates for layer in layers])
        self._gates = [slice(e - layer.n_gates, e) for e, layer in zip(ends, layers, strict=True)]
        self._layer_of = np.repeat(np.arange(len(layers)), list(map(n_units, layers)))
        self._first = np.searchsorted(self._layer_of, np.arange(len(layers)))
        k = np.array(list(map(n_values, layers))) - 1
        degrees = np.unique(np.outer(k, k))
        chance = {f: chance_information(self.n_units, f) for f in degrees.tolist()}
        self._chance = [[chance[a * b] for b in k.tolist()] for a in k.tolist()]
        self._open = [to_numpy(c.open) for c in self._classes]
        self._own = [self._sums(c, o) for c, o in zip(self._classes, self._open, strict=True)]

    def _sums(self, own, n_open):
        """Return the sums of c log c over the values of all units of each layer."""
        terms = _terms(own.n)
        units = zip(self._gates, self._layers, strict=True)
        return [
            terms[value_counts(n_open[g].reshape(-1, layer.unit_size), own.n, layer)].sum(axis=1)
            for g, layer in units
        ]

    def __call__(self, unit):
        index = self._layer_of[unit]
        place, layer = unit - self._first[index], self._layers[index]
        start = self._gates[index].start + place * layer.unit_size
        gates = range(start, start + layer.unit_size)
        found = [np.full(n_units(other), -c) for other, c in
                 zip(self._layers, self._chance[index], strict=True)]  # fmt: skip
        for own, n_open, sums in zip(self._classes, self._open, self._own, strict=True):
            both = np.stack([to_numpy(own.both(gate)) for gate in gates])  # (unit_size, n_gates)
            terms = _terms(own.n)
            for at, (of_layer, other) in enumerate(zip(self._gates, self._layers, strict=True)):
                pairs = both[:, of_layer].reshape(layer.unit_size, -1, other.unit_size)
                others = n_open[of_layer].reshape(-1, other.unit_size)
                unit_open = np.broadcast_to(n_open[gates], (len(others), layer.unit_size))
                cells = pair_counts(
                    pairs.swapaxes(0, 1), unit_open, others, own.n, (layer, other)
                )  # (n_units, n_values, n_values_of_other)
                found[at] += terms[cells].sum(axis=(1, 2)) + own.n * np.log(own.n)
                found[at] -= sums[index][place] + sums[at]
        return np.concatenate(found)


class StoredRows:
    r"""All rows of gates, 0 where they cannot exceed ``least``.

    Of a pair with correlation :math:`\phi`, :math:`I \le \log(1 + \phi^2) \le \phi^2`, since the
    information is a divergence and :math:`\phi^2` that of chi-squared.
    """

    def __init__(self, classes, least):
        self.n_units = len(classes[0][0])
        self._least = least
        self._terms = _terms(max(n for _, n in classes))
        self._classes = [_CorrelatedGates(bits, n) for bits, n in classes]
        self._open = np.stack([c.open for c in self._classes])
        self._sizes = np.array([[c.n] for c in self._classes])
        own = self._terms[self._open] + self._terms[self._sizes - self._open]
        self._own = own.sum(axis=0)
        self._matrix = np.zeros((self.n_units, self.n_units))
        tiles = slices(0, self.n_units, _TILE)
        for at, columns in enumerate(tiles):
            packed = [numkong.hammings_pack(bits[columns]) for bits, _ in classes]
            for rows in tiles[at:]:
                self._fill(rows, columns, packed)

    def __call__(self, gate):
        return self._matrix[gate]

    def _fill(self, rows, columns, packed):
        """Compute a tile of the matrix, and the one opposite."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        distances = np.empty((len(packed), *shape), np.uint32)
        bounds = np.zeros(shape)
        for own, tile, to in zip(self._classes, packed, distances, strict=True):
            to[...] = numkong.hammings_packed(own.bits[rows], tile)
            bounds += own.bounds(rows, columns, to)
        places = np.flatnonzero(bounds > 0.97 * self._least)  # less, for rounding
        row, column = np.divmod(places, shape[1])
        row, column = row + rows.start, column + columns.start
        a, b = self._open.take(row, axis=1), self._open.take(column, axis=1)
        both = (a + b - distances.reshape(len(packed), -1).take(places, axis=1)) >> 1
        found = self._terms.take(both)  # (n_classes, n_pairs)
        for cell in (a - both, b - both, self._sizes - a - b + both):
            found += self._terms.take(cell)
        found = (
            found.sum(axis=0) + self._terms[self._sizes].sum() - self._own[row] - self._own[column]
        )
        self._matrix[row, column] = self._matrix[column, row] = found


class _CorrelatedGates:
    """Bounds on n times the information of gates of a class, from correlations."""

    def __init__(self, bits, n):
        self.bits, self.n = bits, n
        self.open = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        dtype = np.float32 if n <= _MAX_SINGLE else np.float64
        # with d samples in which two gates differ, of which a and b are open in so many,
        # n phi^2 = n (b (n - 2 a) + n a - n d)^2 / (4 a (n - a) b (n - b))
        spread = self.open * (n - self.open)
        scale = np.divide(1, np.sqrt(spread), out=np.zeros(len(bits)), where=spread > 0)
        rows = scale * np.sqrt(n) / 2
        factors = np.stack([rows * (n - 2 * self.open), rows * n * self.open], axis=1)
        self._rows, self._factors = (rows * n)[:, None].astype(dtype), factors.astype(dtype)
        self._columns = scale.astype(dtype)
        self._others = np.stack([scale * self.open, scale]).astype(dtype)

    def bounds(self, rows, columns, distances):
        values = distances * (self._rows[rows] * self._columns[columns])
        values -= self._factors[rows] @ self._others[:, columns]
        values *= values
        return values
