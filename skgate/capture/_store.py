"""`Store`: packed rows, their samples and labels, of a pass over batches."""

import numpy as np


class Store:
    """Packed rows that grow by a batch; allocated once if their number ``n_rows`` is known."""

    def __init__(self, layers, n_rows):
        self.layers, self.n_rows = layers, 0
        self.known = n_rows is not None
        self.rows = [
            np.empty((n_rows, layer.n_bytes), np.uint8) if self.known else [] for layer in layers
        ]
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
            if self.known:
                rows[self.n_rows : self.n_rows + n_new] = new
            else:
                rows.append(new)
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
        if self.known:
            return [rows[: self.n_rows] for rows in self.rows], groups, labels
        # layer by layer, so that only one of them is in memory twice
        return [np.concatenate(self.rows.pop(0)) for _ in self.layers], groups, labels
