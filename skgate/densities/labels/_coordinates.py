"""Coordinates in which all samples, whatever their labels, have variances and no correlations.

Layers of few gates have principal components. Of the others, the gates enter by their products with
those of some samples, the landmarks (the Nyström method), exactly if these are all.
"""

from dataclasses import dataclass

import numkong
import numpy as np

from ...states import to_packed
from ...utils.parallel import slices

#: Gates, and landmarks, at most.
_MAX_WIDTH = 1000
_TINY = 1e-9
_BLOCK_BYTES = 1 << 24


class Features:
    """What ranges of layers need of each layer, rows in the order of the folds.

    Parameters
    ----------
    n_gates : sequence of int
        Of all layers.
    fitted : slice
        Rows that determine the coordinates.
    seed : int
    """

    def __init__(self, n_gates, fitted, seed):
        self._n_gates, self._fitted = np.array(n_gates), fitted
        landmarks = np.random.default_rng(seed).permutation(fitted.stop)[:_MAX_WIDTH]
        self._landmarks = np.sort(landmarks)
        self._gates, self._products = {}, {}

    def add(self, index, layer, ranges):
        """Keep the gates of a layer, or add their products to those of the wide ranges it is in."""
        if self._is_narrow([index]):
            self._gates[index] = np.asarray(layer).astype(float)
        wide = [key for key, layers in ranges if not self._is_narrow(layers)]
        if wide:
            found = _products(layer, self._landmarks)
            for key in wide:
                self._products[key] = self._products.get(key, 0.0) + found

    def coordinates(self, key, layers):
        """Return the `Coordinates` of a range of layers."""
        if self._is_narrow(layers):
            features = np.hstack([self._gates[index] for index in layers])
        else:
            features = _features(self._products.pop(key), self._landmarks)
        return Coordinates.of(features, self._fitted)

    def _is_narrow(self, layers):
        return self._n_gates[layers].sum() <= _MAX_WIDTH


@dataclass
class Coordinates:
    """Centred coordinates and their variances.

    Attributes
    ----------
    values : ndarray of shape (n_rows, n_coordinates)
    variances : ndarray of shape (n_coordinates,)
    """

    values: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, features, fitted):
        """Return those of features, from some of the rows."""
        centred = features - features[fitted].mean(axis=0)
        own = centred[fitted]
        variances, axes = np.linalg.eigh(own.T @ own / len(own))
        kept = variances > _TINY * max(variances[-1], _TINY)
        return cls(centred @ axes[:, kept], variances[kept])


def _products(layer, landmarks):
    """Return how many gates are open both in each row and in each landmark."""
    (gates,) = layer.packed
    reference = to_packed(gates[landmarks])
    packed = numkong.hammings_pack(reference)
    n_open = np.bitwise_count(reference).sum(axis=1, dtype=np.int64)
    found = np.empty((len(layer), len(landmarks)))
    for rows in slices(0, len(layer), max(1, _BLOCK_BYTES // reference.shape[1])):
        bits = np.ascontiguousarray(to_packed(gates[rows]))
        distances = np.asarray(numkong.hammings_packed(bits, packed)).astype(np.int64)
        own = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        found[rows] = (own[:, None] + n_open - distances) / 2
    return found


def _features(products, landmarks):
    """Return features whose products are those with the landmarks, as nearly as these allow."""
    centred = products - products[landmarks].mean(axis=0)
    centred -= centred.mean(axis=1, keepdims=True)
    own = centred[landmarks]
    values, axes = np.linalg.eigh((own + own.T) / 2)
    kept = values > _TINY * max(values[-1], _TINY)
    return centred @ (axes[:, kept] / np.sqrt(values[kept]))
