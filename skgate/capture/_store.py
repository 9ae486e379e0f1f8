"""`Store`: packed rows, their samples and labels, of a pass over batches."""

import numpy as np

from ..states import is_sparse, smallest, to_packed


class Store:
    """Packed rows that grow by a batch; ``n_rows`` is their number if that is known."""

    def __init__(self, layers, n_rows):
        self.layers, self.n_rows = layers, 0
        self.rows = [_Rows(layer, n_rows) for layer in layers]
        self.groups, self.labels = [], []

    def add(self, packed, groups, labels):
        """Append the rows of a batch, one array per layer, their samples and labels or None."""
        n_new = len(next(iter(packed)))
        for layer, rows, new in zip(self.layers, self.rows, packed, strict=True):
            if new.shape != (n_new, layer.n_bytes):
                raise ValueError(
                    f"Layer {layer.name!r} gave packed gates of shape {new.shape}; need "
                    f"{(n_new, layer.n_bytes)}. Samples must all have one shape."
                )
            rows.add(new)
        self.groups.append(groups)
        self.labels.append(labels)
        self.n_rows += n_new

    def finish(self):
        """Return ``(packed, groups, labels)``; labels are None unless each row has one."""
        groups = None if self.groups[0] is None else np.concatenate(self.groups)
        labels = None
        if all(label is not None for label in self.labels):
            labels = np.concatenate([np.atleast_1d(np.asarray(label)) for label in self.labels])
            labels = labels.ravel() if labels.size == self.n_rows else None
        # layer by layer, so that only one of them is in memory twice
        return [self.rows.pop(0).finish() for _ in self.layers], groups, labels


class _Rows:
    """Rows of one layer, in the form of fewer bytes.

    Packed rows are allocated once if their number is known, with the first batch that is not
    sparse.
    """

    def __init__(self, layer, n_rows):
        self._layer, self._n_known, self._n = layer, n_rows, 0
        self._parts, self._whole = [], None

    def add(self, bits):
        if self._whole is None:
            part = smallest([bits], self._layer.n_gates)
            if is_sparse(part) or self._n_known is None:
                self._parts.append(part)
                return
            self._whole = np.empty((self._n_known, self._layer.n_bytes), np.uint8)
            for earlier in self._parts:
                self._fill(to_packed(earlier))
            self._parts = []
        self._fill(bits)

    def _fill(self, bits):
        self._whole[self._n : self._n + len(bits)] = bits
        self._n += len(bits)

    def finish(self):
        parts = self._parts if self._whole is None else [self._whole[: self._n]]
        return smallest(parts, self._layer.n_gates)
