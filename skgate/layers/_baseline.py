"""`BaselineLayerMI`: base of the estimates that count samples which a layer does not tell apart.

A layer T is a function of X. Then I(X;T) is the entropy of T, which follows from a sum for each
sample over the samples that resemble it: those in its cell, or all, weighted by a kernel.
"""

import numpy as np
from sklearn.utils import check_random_state

from ..densities import SATURATED, conditional_entropy, entropy
from ..exceptions import SaturationWarning, warn_user
from ..utils.labels import check_labels
from ._base import LayerEstimator, as_samples

_SATURATED = (
    "Saturated: within 1% of the ceiling of the estimator (n = {n} samples):\n  {lines}\n"
    "At log n, or given Y at that of the classes, each sample has a cell or a kernel of its own, "
    "and the value measures n alone: take more samples, wider bins or more noise. Below log n, "
    "the noise covers the variation: take less of it."
)


class BaselineLayerMI(LayerEstimator):
    """Base of the estimators by binning and by kernel density.

    A subclass has three methods. ``_fit_layer(activations, y_encoded, y_shuffled)`` returns a
    fitted layer, the logarithms of its sums, (3, n), over all samples, over those of the same
    class, and over those of the same shuffled label, and its ceiling in nats.
    ``_surprisals(fitted, activations)`` and ``_information(fitted, activations, y_encoded)``
    return a value in nats for each new sample.
    """

    max_samples = None  # all, unless a subclass has it as a parameter

    def _fit(self, X, y):
        random_state = check_random_state(self.random_state)
        sample = {"max_samples": self.max_samples, "random_state": random_state}
        layers, y = self._collect(X, y, reset=True, **sample)
        self.classes_, y_encoded = check_labels(y, len(next(iter(layers.values()))))
        y_shuffled = random_state.permutation(y_encoded)
        samples = [as_samples(array, y_encoded, y_shuffled) for array in layers.values()]
        found = [self._fit_layer(*sample) for sample in samples]
        self._fitted, log_sums, ceilings = zip(*found, strict=True)
        labels = [sample[1:] for sample in samples]
        self._set_result(_plane(list(layers), log_sums, labels, np.array(ceilings), self.base))

    def _transform(self, layers):
        columns = []
        for fitted, activations in zip(self._fitted, layers.values(), strict=True):
            n, n_positions, n_units = activations.shape
            surprisals = self._surprisals(fitted, activations.reshape(-1, n_units))
            columns.append(surprisals.reshape(n, n_positions).mean(axis=1))
        return np.stack(columns, axis=1) / np.log(self.base)

    def _score(self, X, y):
        return np.mean(self._information(self._fitted[-1], *self._last_layer(X, y)))


def _plane(layers, log_sums, labels, ceilings, base):
    """Return I(X;T), I(Y;T) and the ceilings of layers, from their sums; warn at a ceiling.

    Each layer has its name, its ``log_sums`` (3, n), its encoded labels and shuffled ones, both
    (n,), and its ceiling in nats.
    """
    unit = np.log(base)
    total = np.array([entropy(logs[0]) for logs in log_sums])
    pairs = zip(log_sums, labels, strict=True)
    given = [[conditional_entropy(*p) for p in zip(t[1:], ys, strict=True)] for t, ys in pairs]
    given, given_shuffled = np.transpose(given)
    within = np.array([np.mean(np.log(np.bincount(y)[y])) for y, _ in labels])
    varies = (ceilings > 0) | np.array([len(y) == 1 for y, _ in labels])
    saturated = (total >= SATURATED * ceilings) | (within > 0) & (given >= SATURATED * within)
    saturated &= varies
    if saturated.any():
        lines = "\n  ".join(
            f"{layers[i]}: I(X;T) {total[i] / unit:.2f}, ceiling {ceilings[i] / unit:.2f}; given Y "
            f"{given[i] / unit:.2f}, ceiling {within[i] / unit:.2f}"
            for i in np.flatnonzero(saturated)
        )
        warn_user(_SATURATED.format(n=len(labels[0][0]), lines=lines), SaturationWarning)
    return {
        "layer_mi_x": total / unit,
        "layer_mi_y": (total - given) / unit,
        "shuffled_layer_mi_y": (total - given_shuffled) / unit,
        "layer_ceiling": ceilings / unit,
        "layer_saturated": saturated,
    }
