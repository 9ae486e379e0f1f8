"""Ranges of neighbouring layers whose joint densities are estimated."""

import numpy as np


class LayerRanges:
    """Each layer, perhaps its prefix and suffix, and all layers together.

    Parameters
    ----------
    n_layers : int
    prefixes : bool, default=False
        Whether the layers up to each one, and from each one on, are among the ranges.

    Attributes
    ----------
    bounds : ndarray of shape (n_ranges, 2)
        First layer, and the one after the last.
    mask : ndarray of shape (n_ranges, n_layers), dtype bool
    layers, prefixes, suffixes : ndarray of shape (n_layers,)
        Positions of the ranges of one layer, of the layers up to one, and from one on.
    joint : int
        Position of the range of all layers.
    """

    def __init__(self, n_layers, prefixes=False):
        bounds = [(i, i + 1) for i in range(n_layers)]
        if prefixes:
            bounds += [(0, i) for i in range(2, n_layers)]
            bounds += [(i, n_layers) for i in range(1, n_layers - 1)]
        bounds += [(0, n_layers)] if n_layers > 1 else []
        position = {bound: i for i, bound in enumerate(bounds)}
        self.layers = np.arange(n_layers)
        self.joint = position[0, n_layers]
        firsts = self.layers if prefixes else []
        self.prefixes = np.array([position[0, i + 1] for i in firsts], dtype=int)
        self.suffixes = np.array([position[i, n_layers] for i in firsts], dtype=int)
        self.bounds = np.array(bounds)
        self.mask = (self.bounds[:, :1] <= self.layers) & (self.layers < self.bounds[:, 1:])

    def __len__(self):
        return len(self.bounds)

    def named(self, quantity, values, prefixes=("", "layer_")):
        """Return values of all ranges, on the last axis, by the names that results give them."""
        positions = {
            "": self.joint,
            "layer_": self.layers,
            "prefix_": self.prefixes,
            "suffix_": self.suffixes,
        }
        found = {f"{prefix}{quantity}": values[..., positions[prefix]] for prefix in prefixes}
        return {name: v.item() if v.ndim == 0 else v for name, v in found.items()}

    def named_intervals(self, quantity, ends, prefixes=("", "layer_")):
        """Return the same of intervals, whose ends are on the first axis, and then on the last."""
        found = self.named(quantity, ends, prefixes)
        return {name: np.moveaxis(values, 0, -1) for name, values in found.items()}
