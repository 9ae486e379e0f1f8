"""What the estimators of layer information share: where activations come from, what is checked."""

import re
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Bunch

from ..densities import SATURATED, conditional_entropy, entropy
from ..exceptions import SaturationWarning, warn_user
from ..utils.arrays import to_numpy
from ..utils.labels import check_labels, encode_known
from ..utils.sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _check_feature_names_in,
    _num_samples,
    check_is_fitted,
)
from ._inputs import check_activations

__all__ = ["LAYER_CONSTRAINTS", "LayerEstimator", "as_samples", "plane_of_masses"]

_SATURATED = (
    "Saturated: within 1% of the ceiling of the estimator (n = {n} samples):\n  {lines}\n"
    "At log n, or given Y at that of the classes, each sample has a cell or a kernel of its own, "
    "and the value says nothing but n: take more samples, wider bins or more noise. Below log n, "
    "the noise covers what varies: take less of it."
)

#: Constraints on the parameters that all measures of layers share.
LAYER_CONSTRAINTS = {
    "model": [None, HasMethods("forward"), HasMethods("predict")],
    "layers": [None, str, type, re.Pattern, slice, list, tuple, Integral],
    "spatial": [StrOptions({"channels", "flatten"})],
    "base": [Interval(Real, 1, None, closed="neither")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
}


class LayerEstimator(TransformerMixin, BaseEstimator):
    """Base of the estimators that measure the activations of layers.

    Activations of a layer have the shape (n_samples, n_positions, n_units): one position, unless
    the layer is convolutional or acts along a sequence, and ``spatial="channels"``.
    """

    def _start(self, X, y):
        """Check what can be checked before a model runs."""
        vars(self).pop("activation_functions_", None)
        if self.model is None:
            if self.layers is not None:
                raise ValueError(
                    f"layers={self.layers!r} selects layers of a model, and model is None. Leave "
                    "layers out, and pass the activations of those layers that you want."
                )
            return
        if y is not None:
            check_labels(y, _num_samples(y))
        elif hasattr(X, "shape") or isinstance(X, dict | tuple):
            check_labels(None, 0)  # nothing that could bring labels of its own
        from .. import capture

        self._reader = capture.ActivationReader(
            self.model, layers=self.layers, spatial=self.spatial, batch_size=self.batch_size
        )

    def _read(self, X, y, consume, *, reset, draw=None):
        """Call ``consume(layers, labels)`` with activations of a batch, by name, and their labels.

        Returns whether only the rows that ``draw`` gives for a number of samples were read. Sets
        ``layer_names_`` and ``n_units_`` when ``reset``.
        """

        def named(layers, labels):
            if reset:
                self.layer_names_ = list(layers)
                self.n_units_ = [array.shape[-1] for array in layers.values()]
            consume(layers, labels)

        if self.model is None:
            layers = check_activations(self, X, reset=reset)
            named({name: array[:, None] for name, array in layers.items()}, y)
            return False
        drawn = self._reader.read(self, X, y, named, reset=reset, draw=draw)
        self.activation_functions_ = self._reader.activation_functions
        return drawn

    def _read_rows(self, X, function):
        """Return ``function(layers)``, rows of features, of all batches of new data in order."""
        check_is_fitted(self)
        if self.model is not None:
            from .. import capture

            capture.refuse_shuffling(X)
        parts = []
        self._read(X, None, lambda layers, _: parts.append(function(layers)), reset=False)
        return np.concatenate(parts)

    def _collect(self, X, y, *, reset, draw=None):
        """Return the activations of all samples by name, and their labels.

        ``draw`` takes a number of samples and returns the rows to keep, or None for all. A model
        runs on these alone, unless a loader tells the number only in the end.
        """
        batches = []
        drawn = self._read(X, y, lambda *batch: batches.append(batch), reset=reset, draw=draw)
        parts, labels = zip(*batches, strict=True)
        layers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if any(label is None for label in labels):
            check_labels(None, 0)
        labels = labels[0] if len(labels) == 1 else np.concatenate(labels)
        if draw is not None and not drawn:
            n = len(layers[self.layer_names_[0]])
            check_labels(labels, n)
            if (rows := draw(n)) is not None:
                layers = {name: array[rows] for name, array in layers.items()}
                labels = np.asarray(to_numpy(labels))[rows]
        return layers, labels

    def _last_layer(self, X, y):
        """Return new activations of the last layer as samples, and their labels as codes."""
        check_is_fitted(self)
        layers, y = self._collect(X, y, reset=False)
        activations = layers[self.layer_names_[-1]]
        return as_samples(activations, encode_known(y, len(activations), self.classes_))

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of :meth:`transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Checked against the fitted names and otherwise ignored.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        return np.asarray(self._columns(), dtype=object)

    def _columns(self):
        return self.layer_names_

    def _set_result(self, result):
        """Set each item of a function twin's result as a fitted attribute."""
        for name, value in result.items():
            setattr(self, f"{name}_", value)

    @property
    def _n_features_out(self):
        return len(self._columns())

    def __sklearn_is_fitted__(self):
        return hasattr(self, "mi_x_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = self.model is not None
        tags.transformer_tags.preserves_dtype = []
        return tags


def as_samples(activations, *labelings):
    """Return (n_samples, n_positions, n_units) as (n, n_units), and labels of these rows."""
    n_positions, n_units = activations.shape[1:]
    return activations.reshape(-1, n_units), *(np.repeat(codes, n_positions) for codes in labelings)


def plane_of_masses(layers, log_masses, codes, null_codes, ceilings, base):
    """Return I(X;T) and I(Y;T) of deterministic layers from row masses, and flag ceilings.

    A mass is the number of samples that look like one: those of its cell, or the sum of its kernel
    values. A layer is a function of X, so that I(X;T) is the entropy of what can be told apart.

    Parameters
    ----------
    layers : list of str
    log_masses : list of ndarray of shape (3, n)
        Over all samples, over those of the same class, and over those of the same shuffled label,
        one array a layer.
    codes, null_codes : list of ndarray of shape (n,)
        Labels, and shuffled labels, of the samples that each layer has.
    ceilings : ndarray of shape (n_layers,), nats
    base : float

    Returns
    -------
    result : Bunch
        ``mi_x``, ``mi_y``, ``null_mi_y``, ``ceilings``, ``saturated`` and ``layer_names``.
    """
    unit = np.log(base)
    total = np.array([entropy(masses[0]) for masses in log_masses])
    rows = list(zip(log_masses, codes, null_codes, strict=True))
    given = np.array([conditional_entropy(masses[1], own) for masses, own, _ in rows])
    given_null = np.array([conditional_entropy(masses[2], null) for masses, _, null in rows])
    within = np.array([np.mean(np.log(np.bincount(own)[own])) for own in codes])
    varies = (ceilings > 0) | np.array([len(own) == 1 for own in codes])
    saturated = varies & (
        (total >= SATURATED * ceilings) | (within > 0) & (given >= SATURATED * within)
    )
    if saturated.any():
        lines = "\n  ".join(
            f"{name}: I(X;T) {value / unit:.2f}, ceiling {ceiling / unit:.2f}; given Y "
            f"{rest / unit:.2f}, ceiling {most / unit:.2f}"
            for name, value, ceiling, rest, most, flag in zip(
                layers, total, ceilings, given, within, saturated, strict=True
            )
            if flag
        )
        warn_user(_SATURATED.format(n=len(codes[0]), lines=lines), SaturationWarning)
    return Bunch(
        mi_x=total / unit,
        mi_y=(total - given) / unit,
        null_mi_y=(total - given_null) / unit,
        ceilings=ceilings / unit,
        saturated=saturated,
        layer_names=layers,
    )
