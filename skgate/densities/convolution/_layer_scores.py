"""`LayerModel`: logits of all gates of a layer by a masked convolution, and log-likelihoods."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ._causal_regression import Regression
from ._projections import Projection
from ._windows import Window

#: Bytes that a gate takes while its layer is scored.
_GATE_BYTES = 24


@dataclass
class LayerModel:
    """A layer, perhaps given the one before.

    Attributes
    ----------
    window : Window
        Of the channels that vary.
    channels : list of ndarray
        Those that vary, in the layer and in the one before.
    centres : list of ndarray of shape (n_channels, height, width)
        Rates that the gates of the windows are centred at.
    offsets : ndarray of shape (channels, height, width)
        Logits of the rates.
    regression : Regression or None
        None: independent gates.
    projection : Projection or None
        None: the features of a window are its gates.
    """

    window: Window
    channels: list
    centres: list
    offsets: np.ndarray
    regression: Regression | None
    projection: Projection | None = None

    def logits(self, gates, before=None):
        """Return the logits of gates, a tensor of shape (n_rows, channels, height, width)."""
        import torch

        bias = torch.from_numpy(self.offsets)
        if self.regression is None:
            return bias.expand(gates.shape)
        own = self.channels[0]
        found = self._convolved(gates, before) + self._bias
        if len(own) == len(bias):
            return found
        z = bias.repeat(len(gates), 1, 1, 1)
        z[:, own] = found
        return z

    @cached_property
    def _bias(self):
        """What does not depend on the gates: intercepts, rates, and that windows are centred."""
        import torch

        own, regression = self.channels[0], self.regression
        rates = torch.from_numpy(self.offsets[own])
        slopes, intercepts = (
            torch.from_numpy(v)[:, None, None] for v in (regression.slopes, regression.intercepts)
        )
        centres = (torch.from_numpy(c.astype(np.float32))[None] for c in self.centres)
        return slopes * rates + intercepts - self._of_windows(*centres)[0]

    def _convolved(self, gates, before):
        import torch

        layers = [gates] if self.window.before is None else [gates, before]
        layers = [
            torch.from_numpy(np.ascontiguousarray(g if len(c) == g.shape[1] else g[:, c]))
            for g, c in zip(layers, self.channels, strict=False)
        ]
        return self._of_windows(*(g.float() for g in layers))

    def _of_windows(self, own, before=None):
        """Return the weighted sums of the windows, by convolutions with masked kernels."""
        from torch.nn.functional import conv2d, pad

        of_place, of_window, (top, left, right), of_before = self._kernels
        own = _channels_last(own)
        z = conv2d(own, of_place)
        if self.window.steps:
            around = (
                own if self.projection is None else conv2d(own, _pointwise(self.projection.own))
            )
            z += conv2d(_channels_last(pad(around, (left, right, top, 0))), of_window)
        if self.window.before is None:
            return z
        if self.projection is not None:
            before = conv2d(_channels_last(before), _pointwise(self.projection.before))
        rows, columns = self.window.lies_on
        around = pad(before, (1, 1, 1, 1))
        strides = [_stride(at) for at in (rows, columns)]
        if None not in strides:
            around = around[:, :, rows[0] : rows[-1] + 3, columns[0] : columns[-1] + 3]
        else:
            rows, columns = ((at[:, None] + np.arange(3)).ravel() for at in (rows, columns))
            around, strides = around[:, :, rows][:, :, :, columns], (3, 3)
        return z.add_(conv2d(_channels_last(around), of_before, stride=strides))

    @cached_property
    def _kernels(self):
        """Return kernels of the place, of the window and its padding, and of the layer before."""
        import torch

        window, weights = self.window, self.regression.weights
        (n_channels, height, width), (n_own, n_near) = window.shape, window.n_components
        of_before, of_window, of_place = np.split(weights, [window.n_before, -n_channels])
        r = window.radius
        top, left, right = r * (height > 1), r * (width > 1), r * (width > 1 and height > 1)
        kernel = np.zeros((n_channels, n_own, top + 1, left + right + 1), np.float32)
        blocks = of_window.reshape(-1, n_own, n_channels)
        for (down, side), block in zip(window.steps, blocks, strict=True):
            kernel[:, :, top + down, left + side] = block.T
        near = np.zeros((n_channels, n_near, 3, 3), np.float32)
        if window.before:
            blocks = of_before.reshape(-1, n_near, n_channels)
            for (down, side), block in zip(window.steps_before, blocks, strict=True):
                near[:, :, 1 + down, 1 + side] = block.T
        kernel, near = (_channels_last(torch.from_numpy(k)) for k in (kernel, near))
        return _pointwise(torch.from_numpy(of_place)), kernel, (top, left, right), near


def _pointwise(weights):
    """Return the kernel of a product with weights (n_in, n_out) at each position."""
    return weights.T.contiguous()[:, :, None, None]


def _channels_last(tensor):
    import torch

    return tensor.contiguous(memory_format=torch.channels_last) if tensor.numel() else tensor


def _stride(at):
    """Return the step of equidistant positions, or None."""
    if len(at) == 1:
        return 1
    steps = np.unique(np.diff(at))
    return int(steps[0]) if len(steps) == 1 and steps[0] > 0 else None


def _scored(models, grids, rows):
    """Yield of some rows which they are, the gates, those that are free, and logits of terms."""
    import torch

    start = 0
    for block, gates in grids[0].blocks(rows, _GATE_BYTES):
        mask = grids[0].undetermined(gates)
        free = None if mask is None else torch.from_numpy(mask).flatten(1)
        before = grids[1].gates(block) if len(grids) > 1 else None
        opened = torch.from_numpy(np.ascontiguousarray(gates)).flatten(1).float()
        logits = (model.logits(gates, before).flatten(1) for model in models)
        yield slice(start, start + len(block)), opened, free, logits
        start += len(block)


def log_likelihoods(models, grids, rows):
    """Return log p of some rows of a layer, alone and perhaps given the one before.

    The result is (n_terms, n_rows), nats; ``models`` are those of the terms.
    """
    import torch
    from torch.nn.functional import softplus

    logs = np.empty((len(models), len(rows)))
    for inside, opened, free, logits in _scored(models, grids, rows):
        for values, z in zip(logs, logits, strict=True):
            terms = softplus(z).addcmul_(opened, z, value=-1)
            if free is not None:
                terms *= free
            values[inside] = -terms.sum(dim=1, dtype=torch.float64).numpy()
    return logs
