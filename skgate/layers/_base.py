"""`LayerEstimator`: base of the measures of layers, which reads and checks activations."""

import re
from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch

from ..utils.arrays import holds_inputs, sample_rows, to_numpy
from ..utils.labels import check_labels, encode_known, labels_in
from ..utils.measures import Measure
from ..utils.sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
    _num_samples,
    check_is_fitted,
)
from ._inputs import check_activations

#: Constraints on the parameters that all measures of layers share.
LAYER_CONSTRAINTS = {
    "model": [None, HasMethods("forward"), HasMethods("predict")],
    "layers": [None, str, type, re.Pattern, slice, list, tuple, Integral],
    "spatial": [StrOptions({"channels", "flatten"})],
    "base": [Interval(Real, 1, None, closed="neither")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
}


class LayerEstimator(Measure):
    """Base of the estimators that measure the activations of layers.

    Activations of a layer have the shape (n_samples, n_positions, n_units): one position, unless
    the layer is convolutional or acts along a sequence, and ``spatial="channels"``.

    A subclass has ``_fit(X, y)``, ``_transform(layers)`` and ``_score(X, y)``, in nats.
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Measure the layers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_units), dict of these, or raw inputs of ``model``
            One array is one layer; a dict holds one per layer, in the order of the network. With
            a model: an array, a tensor, a dict of these, a ``Dataset`` or a ``DataLoader``.
        y : array-like of shape (n_samples,), default=None
            Class labels; not needed if ``X`` is a dataset or loader that yields them.

        Returns
        -------
        self : LayerEstimator

        Raises
        ------
        ValueError
            If ``y`` is missing, continuous or of another length, a parameter is not as described,
            ``layers`` names none, or activations are not finite.
        RuntimeError
            If ``device="cuda"`` is not available.
        """
        self._start(X, y)
        self._fit(X, y)
        return self

    def transform(self, X):
        """Return the features of each sample that the class describes.

        Parameters
        ----------
        X : array-like, dict of these, or raw inputs of ``model``
            As in :meth:`fit`.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            The mean over the positions of a layer that has some.
        """
        check_is_fitted(self)
        if self.model is not None:
            from .. import capture

            capture.refuse_shuffling(X)
        return np.concatenate([self._transform(t) for t, _ in self._read(X, None, reset=False)])

    def score(self, X, y=None):
        """Return the held-out information of the last layer about the label.

        Parameters
        ----------
        X : array-like, dict of these, or raw inputs of ``model``
            As in :meth:`fit`.
        y : array-like of shape (n_samples,), default=None
            Class labels, all of them in ``classes_``.

        Returns
        -------
        score : float
            The mean over the samples of the term that the class describes, in units of ``base``;
            higher is better.

        Raises
        ------
        ValueError
            If a label did not occur in :meth:`fit`.
        """
        check_is_fitted(self)
        return float(self._score(X, y) / np.log(self.base))

    def _start(self, X, y):
        """Check what can be checked before a model runs."""
        vars(self).pop("activation_functions_", None)
        if self.model is None:
            if self.layers is not None:
                raise ValueError(
                    f"layers={self.layers!r} selects layers of a model, and model is None. Leave "
                    "layers out, and pass the activations of the layers to measure."
                )
            return
        if y is not None:
            check_labels(y, _num_samples(y))
        elif holds_inputs(X):
            own = labels_in(X)
            check_labels(own, 0 if own is None else len(own))
        from .. import capture

        self._reader = capture.ActivationReader(
            self.model,
            layers=self.layers,
            spatial=self.spatial,
            batch_size=self.batch_size,
            needs_labels=True,
        )

    def _read(self, X, y, *, reset, **sample):
        """Yield activations by layer, and labels, of each batch.

        Sets ``layer_names_`` and ``n_units_`` if ``reset``. A model runs on a ``sample`` of the
        data where it can be drawn beforehand.
        """
        if self.model is None:
            layers = check_activations(self, X, reset=reset)
            batches = [({name: array[:, None] for name, array in layers.items()}, y)]
        else:
            batches = self._reader.read(self, X, y, reset=reset, **sample)
        for layers, labels in batches:
            if reset:
                self.layer_names_ = list(layers)
                self.n_units_ = [array.shape[-1] for array in layers.values()]
            yield layers, labels
        if self.model is not None:
            self.activation_functions_ = self._reader.activation_functions

    def _collect(self, X, y, *, reset, max_samples=None, random_state=None):
        """Return the activations of all samples, or of some, by layer, and their labels."""
        sample = {"max_samples": max_samples, "random_state": random_state}
        parts, labels = zip(*self._read(X, y, reset=reset, **sample), strict=True)
        layers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if any(label is None for label in labels):
            check_labels(None, 0)
        labels = labels[0] if len(labels) == 1 else np.concatenate(labels)
        if max_samples is not None and (self.model is None or not self._reader.sampled):
            n = len(layers[self.layer_names_[0]])
            check_labels(labels, n)
            if (rows := sample_rows(n, **sample)) is not None:
                layers = {name: array[rows] for name, array in layers.items()}
                labels = np.asarray(to_numpy(labels))[rows]
        return layers, labels

    def _last_layer(self, X, y):
        """Return new activations of the last layer as samples, and their encoded labels."""
        layers, y = self._collect(X, y, reset=False)
        activations = layers[self.layer_names_[-1]]
        return as_samples(activations, encode_known(y, len(activations), self.classes_))

    def _set_result(self, result):
        """Set each quantity of a result as a fitted attribute."""
        for name, value in result.items():
            setattr(self, f"{name}_", value)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "layer_mi_x_")


def as_samples(activations, *labels):
    """Return (n_samples, n_positions, n_units) as (n, n_units), and labels of these rows."""
    n_positions, n_units = activations.shape[1:]
    return activations.reshape(-1, n_units), *(np.repeat(y, n_positions) for y in labels)


def as_result(fitted):
    """Return the fitted attributes of a measure, without the underscores, as a function does."""
    attributes = {k: v for k, v in vars(fitted).items() if k.endswith("_")}
    return Bunch(**{k[:-1]: v for k, v in attributes.items() if k != "n_features_in_"})
