"""Sums over samples from which the Gibbs information of a layer follows; see `GibbsLayerMI`."""

import numpy as np
from scipy.sparse import csc_array
from scipy.special import entr

from ..densities import SATURATED
from ..utils.parallel import run, slices

#: I(Y;T) is not informative if shuffled labels have more than these shares of its value, and of its
#: ceiling: on flattened feature maps, such values fell by 12 to 43% with 4 to 16 times the samples.
_CHANCE_OF_VALUE, _CHANCE_OF_CEILING = 0.25, 0.1
_ROUNDING = 1e-12  # of values that are 0, such as those of one class or of one unit
_BLOCK = 1 << 18  # activations that are float64 at once
_TASKS = 16


class GibbsSums:
    """Sums over the samples of each class: of 1, of H(T|X=x) in nats, and of P(T|x) by unit.

    ``shuffled`` has the last of them over the samples of each shuffled label.
    """

    def __init__(self, n_units, n_classes=0):
        self.counts, self.entropies = np.zeros(n_classes), np.zeros(n_classes)
        self.probabilities = np.zeros((n_classes, n_units))
        self.shuffled = np.zeros((n_classes, n_units))

    def reorder(self, positions, n_classes):
        """Put the classes at new positions among ``n_classes``."""
        for name, sums in list(vars(self).items()):
            grown = np.zeros((n_classes, *sums.shape[1:]))
            grown[positions] = sums
            setattr(self, name, grown)

    def add(self, activations, y_encoded, y_shuffled, n_jobs):
        """Add samples, (n_samples, n_units), of the classes ``y_encoded``."""
        (n, n_units), n_classes = activations.shape, len(self.counts)
        self.counts += np.bincount(y_encoded, minlength=n_classes)
        step = max(-(-n // _TASKS), _BLOCK // n_units)
        tasks = [(activations[r], y_encoded[r], y_shuffled[r]) for r in slices(0, n, step)]
        for entropies, *sums in run(_sums, (n_classes,), tasks, n_jobs, activations.size):
            self.entropies += entropies
            self.probabilities += sums[0]
            self.shuffled += sums[1]

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

    def shuffled_information(self, class_weight):
        """Return I(Y;T) of the shuffled labels in nats."""
        weights, given = self.class_weights(class_weight), self.shuffled / self.counts[:, None]
        return entr(weights @ given).sum() - weights @ entr(given).sum(axis=1)

    def entropies_of_samples(self, class_weight):
        """Return the entropies of the samples, all of them different, and of the label, in nats."""
        weights = self.class_weights(class_weight)
        label = entr(weights).sum()
        return label + weights @ np.log(self.counts), label


def _sums(n_classes, activations, y_encoded, y_shuffled):
    """Return the sums of H(T|x), (n_classes,), and those of P(T|x), (n_classes, n_units), twice.

    The latter are over the samples of a class, and over those of a shuffled label.
    """
    n, n_units = activations.shape
    height = max(1, _BLOCK // n_units)
    buffers = np.empty((2, min(n, height), n_units))
    entropies, probabilities = np.zeros(n_classes), np.zeros((2 * n_classes, n_units))
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
        # two entries a sample: its class, and below these its shuffled label
        members = np.column_stack([y, y_shuffled[rows] + n_classes]).ravel()
        starts, shape = np.arange(0, 2 * len(y) + 1, 2), (2 * n_classes, len(y))
        probabilities += csc_array((np.repeat(1 / z, 2), members, starts), shape=shape) @ values
    return entropies, probabilities[:n_classes], probabilities[n_classes:]


def information_plane(sums, class_weight, base, mixed):
    """Return the information of each layer and of the network, from the sums of each layer.

    A layer is saturated if I(X;T) is within 1% of the entropy of the samples, where more units
    leave it, or if I(Y;T) of shuffled labels exceeds a quarter of its value and a tenth of its
    ceiling. That of shuffled labels is NaN unless shuffling ``mixed`` the classes.
    """
    values = np.array([layer.information(class_weight) for layer in sums])
    shuffled = np.array([layer.shuffled_information(class_weight) for layer in sums])
    if not mixed:
        shuffled[:] = np.nan
    samples, label = np.transpose([layer.entropies_of_samples(class_weight) for layer in sums])
    units = np.log([layer.probabilities.shape[1] for layer in sums])  # (n_layers,)
    ceilings = np.minimum(units, samples)
    saturated = (samples <= units) & (values[:, 0] >= SATURATED * samples)
    chance = np.maximum(
        _CHANCE_OF_VALUE * values[:, 1], _CHANCE_OF_CEILING * np.minimum(units, label)
    )
    saturated |= shuffled > chance
    layer_mi_x, layer_mi_y, layer_mi_xbar = (values / np.log(base)).T
    shuffled = shuffled / np.log(base)
    return {
        "layer_mi_x": layer_mi_x,
        "layer_mi_y": layer_mi_y,
        "layer_mi_xbar": layer_mi_xbar,
        "shuffled_layer_mi_y": shuffled,
        "layer_ceiling": ceilings / np.log(base),
        "layer_saturated": saturated,
        "mi_x": float(layer_mi_xbar[0] + layer_mi_y[-1]),
        "mi_y": float(layer_mi_y[-1]),
        "shuffled_mi_y": float(shuffled[-1]),
        "saturated": bool(saturated[[0, -1]].any()),
    }
