"""`Layered`: names, sizes and numbers of layers and their rows, which need no gates."""

from fnmatch import fnmatchcase

import numpy as np


class Layered:
    """Base of what has ``layers``, ``groups`` and a length, the number of rows."""

    @property
    def n_samples(self):
        return len(self) if self.groups is None else len(np.unique(self.groups))

    @property
    def layer_names(self):
        return tuple(layer.name for layer in self.layers)

    @property
    def n_gates(self):
        return tuple(layer.n_gates for layer in self.layers)

    @property
    def kinds(self):
        return tuple(layer.kind for layer in self.layers)

    @property
    def shape(self):
        return len(self), sum(self.n_gates)

    @property
    def ndim(self):
        return 2

    def __repr__(self):
        layers = dict(zip(self.layer_names, self.n_gates, strict=True))
        n_rows = "" if self.groups is None else f"n_rows={len(self)}, "
        return f"{type(self).__name__}({n_rows}n_samples={self.n_samples}, layers={layers})"

    def _chosen(self, layers):
        """Return the indices of layers that are given by name, pattern, index or slice."""
        if isinstance(layers, slice):
            return list(range(len(self.layers))[layers])
        wanted = [layers] if isinstance(layers, str | int | np.integer) else layers
        return [index for layer in wanted for index in self._indices(layer)]

    def _indices(self, layer):
        if not isinstance(layer, str):
            return [range(len(self.layers))[layer]]
        names = self.layer_names
        found = [i for i, name in enumerate(names) if name == layer or fnmatchcase(name, layer)]
        if not found:
            raise KeyError(f"There is no layer {layer!r}; the layers are {list(names)}.")
        return found
