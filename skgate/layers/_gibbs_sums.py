"""Sums over samples from which the Gibbs information of a layer follows; see `GibbsLayerMI`."""

import numpy as np
from scipy.sparse import csc_array
from scipy.special import entr

from ..utils.parallel import run, slices

_BLOCK = 1 << 18  # activations that are float64 at once
_TASKS = 16


class GibbsSums:
    """Sums over the samples of each class: of 1, of H(T|X=x) in nats, and of P(T|x) by unit."""

    def __init__(self, n_units, n_classes=0):
        self.counts, self.entropies = np.zeros(n_classes), np.zeros(n_classes)
        self.probabilities = np.zeros((n_classes, n_units))

    def reorder(self, positions, n_classes):
        """Put the classes at new positions among ``n_classes``."""
        for name, sums in list(vars(self).items()):
            grown = np.zeros((n_classes, *sums.shape[1:]))
            grown[positions] = sums
            setattr(self, name, grown)

    def add(self, activations, y_encoded, n_jobs):
        """Add samples, (n_samples, n_units), of the classes ``y_encoded``."""
        (n, n_units), n_classes = activations.shape, len(self.counts)
        self.counts += np.bincount(y_encoded, minlength=n_classes)
        step = max(-(-n // _TASKS), _BLOCK // n_units)
        tasks = [(activations[r], y_encoded[r]) for r in slices(0, n, step)]
        for entropies, probabilities in run(_sums, (n_classes,), tasks, n_jobs, activations.size):
            self.entropies += entropies
            self.probabilities += probabilities

    def given_class(self):
        """Return P(T|Y), (n_classes, n_units)."""
        return self.probabilities / self.counts[:, None]

    def class_weights(self, class_weight):
        """Return p_m, the shares of the classes or the same for all."""
        if class_weight == "uniform":
            return np.full(len(self.counts), 1 / len(self.counts))
        return self.counts / self.counts.sum()

    def information(self, class_weight):
        """Return I(X;T), I(Y;T) and I(X_bar;T) in nats."""
        weights, given = self.class_weights(class_weight), self.given_class()
        total = entr(weights @ given).sum()
        given_y = weights @ entr(given).sum(axis=1)
        given_x = weights @ (self.entropies / self.counts)
        return total - given_x, total - given_y, given_y - given_x


def _sums(n_classes, activations, y_encoded):
    """Return the sums of H(T|x), (n_classes,), and of P(T|x), (n_classes, n_units)."""
    n, n_units = activations.shape
    height = max(1, _BLOCK // n_units)
    buffers = np.empty((2, min(n, height), n_units))
    entropies, probabilities = np.zeros(n_classes), np.zeros((n_classes, n_units))
    for rows in slices(0, n, height):
        shifted, values = buffers[:, : rows.stop - rows.start]
        shifted[:] = activations[rows]
        with np.errstate(over="ignore"):
            shifted -= shifted.max(axis=1, keepdims=True)
        if not np.isfinite(shifted.min()):  # the difference of two of the largest numbers
            np.maximum(shifted, np.finfo(np.float64).min, out=shifted)
        np.exp(shifted, out=values)
        z = values.sum(axis=1)  # (n_rows,)
        # H = -sum p log p with log p = shifted - log z; no term changes sign
        entropy = np.log(z) - np.vecdot(values, shifted) / z
        y = y_encoded[rows]
        entropies += np.bincount(y, entropy, n_classes)
        membership = csc_array((1 / z, y, np.arange(len(y) + 1)), shape=(n_classes, len(y)))
        probabilities += membership @ values
    return entropies, probabilities


def information_plane(sums, class_weight, base):
    """Return the information of each layer and of the network, from the sums of each layer."""
    values = np.array([layer.information(class_weight) for layer in sums]) / np.log(base)
    layer_mi_x, layer_mi_y, layer_mi_xbar = values.T
    return {
        "layer_mi_x": layer_mi_x,
        "layer_mi_y": layer_mi_y,
        "layer_mi_xbar": layer_mi_xbar,
        "mi_x": float(layer_mi_xbar[0] + layer_mi_y[-1]),
        "mi_y": float(layer_mi_y[-1]),
    }
