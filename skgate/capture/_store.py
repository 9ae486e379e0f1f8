"""`Store`: packed rows, their samples and labels, of a pass over batches."""

from zlib import crc32

import numpy as np

from ..states import is_sparse, n_stored_bytes, smallest, to_packed


class Store:
    """Packed rows that grow by a batch; ``n_rows`` is their number if that is known.

    Of layers whose indices are not in ``kept``, only a checksum is left, as of all if some are not.
    """

    def __init__(self, layers, n_rows, kept=None):
        self.layers, self.n_rows = layers, 0
        self._rows = {
            index: _Rows(layer, n_rows)
            for index, layer in enumerate(layers)
            if kept is None or index in kept
        }
        self.checksums = None if kept is None else [0] * len(layers)
        self._groups, self._labels = [], []

    @property
    def n_bytes(self):
        """Bytes of the rows, of which there is one array a batch if their number is not known."""
        return sum(rows.n_bytes for rows in self._rows.values())

    def add(self, packed, groups=None, labels=None):
        """Append the rows of a batch, one array per layer, their samples and labels or None."""
        n_new = len(next(iter(packed)))
        for index, (layer, new) in enumerate(zip(self.layers, packed, strict=True)):
            if new.shape != (n_new, layer.n_bytes):
                raise ValueError(
                    f"Layer {layer.name!r} gave packed gates of shape {new.shape}; need "
                    f"{(n_new, layer.n_bytes)}. Samples must all have one shape."
                )
            if index in self._rows:
                self._rows[index].add(new)
            if self.checksums is not None:
                self.checksums[index] = crc32(np.ascontiguousarray(new), self.checksums[index])
        self._groups.append(groups)
        self._labels.append(labels)
        self.n_rows += n_new

    def groups_and_labels(self):
        """Return the sample of each row or None, and the labels, None unless each row has one."""
        groups = None if self._groups[0] is None else np.concatenate(self._groups)
        labels = None
        if all(label is not None for label in self._labels):
            labels = np.concatenate([np.atleast_1d(np.asarray(label)) for label in self._labels])
            labels = labels.ravel() if labels.size == self.n_rows else None
        return groups, labels

    def finish(self):
        """Return the gates of the layers that are kept, by index."""
        # layer by layer, so that only one of them is in memory twice
        return {index: self._rows.pop(index).finish() for index in list(self._rows)}


class _Rows:
    """Rows of one layer, in the form of fewer bytes.

    Packed rows are allocated once if their number is known, with the first batch that is not
    sparse.
    """

    def __init__(self, layer, n_rows):
        self._layer, self._n_known, self._n = layer, n_rows, 0
        self._parts, self._whole, self.n_bytes = [], None, 0

    def add(self, bits):
        if self._whole is None:
            part = smallest([bits], self._layer.n_gates)
            if is_sparse(part) or self._n_known is None:
                self._parts.append(part)
                self.n_bytes += n_stored_bytes(part)
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
