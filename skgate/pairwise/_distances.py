"""Squared distances of samples on the CPU, one tile at a time: of bits, and of real numbers.

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

from ..utils.parallel import slices

# Largest rounding error of an exponent that a matrix product may cause.
_TOLERANCE = 1e-10
# With at most this many units, exact differences cost no more than a matrix product.
_FEW_UNITS = 16


class HammingDistances:
    """Hamming distances of packed bits, exact integers."""

    # Measured: the fastest width of NumKong from 2048 gates, and a good one for fewer gates.
    tile_columns = 64

    def __init__(self, packed):
        self.packed = packed
        self.max_distances = [8 * bits.shape[1] for bits in packed]
        self.cost = sum(bits.shape[1] for bits in packed) / 256

    def __len__(self):
        return len(self.packed[0])

    def prepare(self, columns):
        return [numkong.hammings_pack(np.ascontiguousarray(bits[columns])) for bits in self.packed]

    def between(self, rows, prepared, scratch):
        distances = []
        for index, (bits, pack) in enumerate(zip(self.packed, prepared, strict=True)):
            row_bits = np.ascontiguousarray(bits[rows])
            # a new array per tile doubles the time if freed memory is returned to the system at
            # once, as in the workers of a Dask cluster
            key = index, len(row_bits), pack.width
            if key not in scratch:
                scratch[key] = numkong.empty(key[1:], dtype="uint32")
            numkong.hammings_packed(row_bits, pack, out=scratch[key])
            distances.append(np.asarray(scratch[key]))
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
