"""`FeaturesDisplay`: what the units of the first layer respond to, as images."""

import math

import numpy as np

from ..utils.arrays import to_numpy
from ._drawing import WIDTH, drawing

__all__ = ["FeaturesDisplay"]


class FeaturesDisplay:
    """Weights of the units of a layer as images, one beside the other.

    Each has its own scale, symmetric about 0: only signs and shapes compare.

    Parameters
    ----------
    features : array-like of shape (n_units, height, width) or (n_units, height, width, 3)

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    image_ : ndarray of shape (height, width) or (height, width, 3)
        What is drawn: the features in rows, NaN in between; of colours, from 0 to 1.

    See Also
    --------
    GibbsLayerMI : The probability of the features.

    Examples
    --------
    >>> from torch import nn
    >>> from skgate import FeaturesDisplay
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    >>> FeaturesDisplay.from_module(net).image_.shape
    (26, 35)
    """

    def __init__(self, features):
        self.features = features

    @classmethod
    def from_estimator(cls, estimator, shape=None, *, layer=None, n_features=16, ax=None):
        """Draw the features of the network that an estimator measured, or trained.

        Parameters
        ----------
        estimator : estimator with a ``model``, or with a ``module_``
        shape, layer, n_features, ax
            As in :meth:`from_module`.

        Returns
        -------
        display : FeaturesDisplay
        """
        model = getattr(estimator, "model", None)
        model = estimator if model is None else model
        if not hasattr(model, "module_"):
            model = getattr(model, "module", model)  # of an extractor
        return cls.from_module(model, shape, layer=layer, n_features=n_features, ax=ax)

    @classmethod
    def from_module(cls, module, shape=None, *, layer=None, n_features=16, ax=None):
        """Draw the features of a linear or convolutional layer.

        Parameters
        ----------
        module : torch.nn.Module or fitted estimator with one in ``module_``
        shape : tuple of int, default=None
            Height and width of the inputs of a linear layer, and 3 after them for colours that come
            last; a square by default. A convolution has its own.
        layer : str, default=None
            Name of the layer; the first one with a weight of two axes or more by default.
        n_features : int, default=16
            Units to draw at most, the first ones.
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.

        Returns
        -------
        display : FeaturesDisplay

        Raises
        ------
        ValueError
            If there is no such layer, or its weights are no images of ``shape``.
        """
        from ..capture import inner_module

        weights = {
            name: to_numpy(part.weight)
            for name, part in inner_module(module).named_modules()
            if getattr(getattr(part, "weight", None), "ndim", 0) >= 2
        }
        if not weights or (layer is not None and layer not in weights):
            raise ValueError(
                f"layer={layer!r} is none with a weight of two axes or more; these are "
                f"{list(weights)}."
            )
        name = next(iter(weights)) if layer is None else layer
        return cls(_images(weights[name][:n_features], shape, name)).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the features.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            A new figure by default.

        Returns
        -------
        display : FeaturesDisplay
        """
        features = np.asarray(self.features, dtype=float)
        if features.ndim not in (3, 4) or not features.size:
            raise ValueError(
                f"Got features of shape {features.shape}; need (n_units, height, width), or "
                "(n_units, height, width, 3) for colours."
            )
        most = np.abs(features).max(axis=tuple(range(1, features.ndim)), keepdims=True)
        scaled = features / np.where(most > 0, most, 1.0)
        n, height, width, *colors = features.shape
        columns = math.ceil(math.sqrt(n))
        rows = -(-n // columns)
        self.image_ = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *colors), np.nan)
        for i, feature in enumerate(scaled):
            top, left = i // columns * (height + 1), i % columns * (width + 1)
            self.image_[top : top + height, left : left + width] = feature
        if colors:
            self.image_ = np.where(np.isnan(self.image_), 1.0, (self.image_ + 1) / 2)
        aspect = self.image_.shape[0] / self.image_.shape[1]
        with drawing(ax, height=WIDTH * aspect) as (self.figure_, (self.ax_,)):
            self.ax_.imshow(self.image_, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
            self.ax_.set_axis_off()
        return self


def _images(weight, shape, name):
    """Return weights (n_units, ...) as images."""
    if weight.ndim == 4 and weight.shape[1] in (1, 3):
        return np.moveaxis(weight, 1, -1) if weight.shape[1] == 3 else weight[:, 0]
    if weight.ndim != 2:
        raise ValueError(
            f"Layer {name!r} has a weight of shape {weight.shape}, which is no image of 1 or 3 "
            "colours for each unit. Choose layer=... of those next to the input."
        )
    n_inputs = weight.shape[1]
    side = math.isqrt(n_inputs)
    shape = (side, side) if shape is None else tuple(shape)
    if math.prod(shape) != n_inputs or len(shape) not in (2, 3) or (*shape, 3)[2] != 3:
        raise ValueError(
            f"Layer {name!r} has {n_inputs} inputs, which are no image of shape {shape}. Give "
            "shape=(height, width), or (height, width, 3)."
        )
    return weight.reshape(-1, *shape)
