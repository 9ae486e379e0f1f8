"""Squared distances of samples on the CPU, a tile at a time: of bits, and of real numbers.

Both classes hold the layers of some samples, and offer the same: ``prepare`` columns once, then
``between`` rows and them, one array a layer, in memory that a task keeps in its dict ``scratch``.
"""

import copy

import numkong
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils.extmath import row_norms

from ..utils.parallel import slices

# The most that rounding may change an exponent before differences are taken one by one.
_TOLERANCE = 1e-10
# Up to this many units that costs no more than a matrix product does.
_FEW_UNITS = 16


class Bits:
    """Hamming distances of packed bits, exact integers.

    Parameters
    ----------
    packed : sequence of ndarray of shape (n_samples, n_bytes), dtype uint8

    Attributes
    ----------
    largest : list of float
        No distance in a layer exceeds this integer.
    tile_columns : int
    cost : float
        Rough nanoseconds that a pair takes.
    """

    # Measured: NumKong's best rate from 2048 gates on, and a good one below.
    tile_columns = 64

    def __init__(self, packed):
        self.packed = packed
        self.largest = [8 * bits.shape[1] for bits in packed]
        self.cost = sum(bits.shape[1] for bits in packed) / 256

    def __len__(self):
        return len(self.packed[0])

    def prepare(self, columns):
        return [numkong.hammings_pack(np.ascontiguousarray(bits[columns])) for bits in self.packed]

    def between(self, rows, prepared, scratch):
        distances = []
        for index, (bits, pack) in enumerate(zip(self.packed, prepared, strict=True)):
            own = np.ascontiguousarray(bits[rows])
            # a fresh array a tile costs as much again where memory goes back to the system at
            # once, as in the workers of a Dask cluster
            key = index, len(own), pack.width
            if key not in scratch:
                scratch[key] = numkong.empty(key[1:], dtype="uint32")
            numkong.hammings_packed(own, pack, out=scratch[key])
            distances.append(np.asarray(scratch[key]))
        return distances


class Reals:
    """Squared Euclidean distances of real numbers.

    A matrix product gives them as ``|a|^2 - 2ab + |b|^2``, around the mean of the samples, and
    loses digits where they are small beside the norms. Where that would show in an exponent, and
    for few units, differences are squared and summed instead.

    Parameters
    ----------
    layers : sequence of ndarray of shape (n_samples, n_units)
    weights : ndarray of shape (n_terms, n_layers)
        What the distances are going to be multiplied by.
    """

    tile_columns = 256

    def __init__(self, layers, weights):
        self.layers = layers
        self.largest = [np.inf] * len(layers)
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

    def of(self, layers):
        """Return other samples, whose distances to these are wanted."""
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
                product = (
                    np.column_stack([x, row_norms(x, squared=True), np.ones(len(x))]) @ columns
                )
                distances.append(np.maximum(product, 0.0, out=product))
        return distances
