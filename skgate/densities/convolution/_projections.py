"""`Projection`: the channels at other positions of a window, on their principal components."""

from dataclasses import dataclass

import numpy as np

from ._windows import Window

_ITERATIONS, _EXTRA = 6, 16


@dataclass
class Projection:
    """Components of the channels of a layer and of the one before, tensors; None: the channels.

    Attributes
    ----------
    window : Window
    own, before : Tensor of shape (n_channels, n_components) or None
    """

    window: Window
    own: object
    before: object

    @classmethod
    def of_moments(cls, window, moments):
        """Return that of the largest second moments of ``[channels before | own channels]``."""
        n_before = len(moments) - window.shape[0]
        own, before = moments[n_before:, n_before:], moments[:n_before, :n_before]
        n_own, n_near = window.n_components
        return cls(window, _leading(own, n_own), _leading(before, n_near) if n_before else None)

    def __call__(self, gates):
        """Return the features of windows, (n_places, n_features), from centred gates."""
        import torch

        n, n_near = len(gates), self.window.n_components[1]
        n_before = len(self.window.steps_before) * (self.before.shape[0] if n_near else 0)
        near, window, own = torch.split(
            gates, [n_before, gates.shape[1] - n_before - len(self.own), len(self.own)], dim=1
        )
        parts = [own]
        if window.shape[1]:
            parts.insert(0, (window.reshape(-1, len(self.own)) @ self.own).reshape(n, -1))
        if n_near:
            parts.insert(0, (near.reshape(-1, len(self.before)) @ self.before).reshape(n, -1))
        return torch.cat(parts, dim=1)


def _leading(moments, n_components):
    """Return the leading eigenvectors of a matrix, by subspace iterations."""
    import torch

    moments = torch.from_numpy(np.ascontiguousarray(moments, dtype=np.float32))
    if n_components == len(moments):
        return torch.eye(n_components)
    start = np.random.default_rng(0).normal(size=(len(moments), n_components + _EXTRA))
    basis = torch.from_numpy(start.astype(np.float32))
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(moments @ basis)[0]
    vectors = torch.linalg.eigh(basis.T @ moments @ basis)[1]  # ascending
    return (basis @ vectors.flip(1)[:, :n_components]).contiguous()
