"""Densities of gates, learned while a network trains: `ProductModel` and `EnergyModel`.

All layers of one shape are batched in one model, so that small networks do not pay per layer. Gates
are tensors (n_layers, n_samples, *shape), where the shape is (n_gates,), or (channels, height,
width) if gates have positions; values of models are (n_layers, n_samples), in nats.
"""

import copy
import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

leaky_relu_backward = torch.ops.aten.leaky_relu_backward

#: Rates of gates are kept this far from 0 and 1: means over some batches are no more precise.
MIN_RATE = 1e-3
#: Weight of the past in the running mean of a rate.
MOMENTUM = 0.9
#: Channels within the network of an energy model, by the number of axes of a shape.
CHANNELS = {1: 32, 3: 24}
NEGATIVE_SLOPE = 0.2


class ProductModel(nn.Module):
    """Independent gates, q of Eq. 31, whose rates are running means over batches.

    ``shape`` is that of the gates of a sample; the generator is on the device of the gates.
    """

    def __init__(self, n_layers, shape, *, dtype, generator):
        super().__init__()
        self.n_layers, self.shape = n_layers, shape
        self._options = {"dtype": dtype, "device": generator.device}
        self.register_buffer("rates", torch.full((n_layers, *shape), 0.5, **self._options))
        self.register_buffer("n_batches", torch.tensor(0, device=generator.device))

    @property
    def p(self):
        """Activation rates, (n_layers, 1, *shape), away from 0 and 1."""
        return self.rates.clamp(MIN_RATE, 1 - MIN_RATE).unsqueeze(1)

    @torch.no_grad()
    def update_rates(self, gates):
        """Move the rates towards those of a batch; the first batch sets them."""
        share = 1 - MOMENTUM if self.n_batches else 1
        self.rates += share * (gates.mean(1) - self.rates)
        self.n_batches += 1

    def with_rates(self, rates):
        """Return the same density with other rates, (n_layers, *shape); f is shared."""
        other = copy.copy(self)
        other._buffers = {**self._buffers, "rates": rates.to(self.rates.dtype)}
        return other

    def log_prior(self, gates):
        """Return log q of gates between 0 and 1 (Eq. 41)."""
        p = self.p
        return torch.addcmul(-p, gates, 2 * p - 1).log1p().flatten(2).sum(-1)

    def draw_prior(self, n_samples, generator):
        """Return samples of q."""
        return torch.bernoulli(self.p.expand(-1, n_samples, *self.shape), generator=generator)

    def f(self, gates):
        """Return the log of the unnormalised density over that of independent gates: 0."""
        return gates.new_zeros(gates.shape[:2])


class EnergyModel(ProductModel):
    """``exp f(gates) q(gates) / Z`` (Eq. 10), with a network of six convolutional layers as f.

    Gates with positions go through 3 x 3 convolutions, with stride 2 while an axis has more than
    four positions; other gates through 1 x 1 convolutions on a single position, which are matrix
    products. Initially f is 0.
    """

    def __init__(self, n_layers, shape, *, dtype, generator):
        super().__init__(n_layers, shape, dtype=dtype, generator=generator)
        self.weights, self.biases, self._strides = nn.ParameterList(), nn.ParameterList(), []
        size = min(shape[1:], default=1)
        for n_in, n_out in pairwise([shape[0], *[CHANNELS[len(shape)]] * 5, 1]):
            self._strides.append(2 if size > 4 else 1)
            size = -(-size // self._strides[-1])
            extents = (n_in, n_out) if len(shape) == 1 else (n_out, n_in, 3, 3)
            n_inputs = n_in * math.prod(extents[2:])
            scale = math.sqrt(2 / (1 + NEGATIVE_SLOPE**2) / n_inputs) if n_out > 1 else 0.0
            weight = torch.randn(n_layers, *extents, generator=generator, **self._options) * scale
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(weight.new_zeros(n_layers, n_out)))
        self.requires_grad_(False)  # except in its own training step
        # looking parameters up takes longer than small layers do
        self._layers = list(zip(self.weights, self.biases, strict=True))

    def f(self, gates):
        if len(self.shape) > 1:
            return self._convolutions(gates)
        return self._products(gates)[-1].squeeze(-1)

    def f_and_gradient(self, gates):
        """Return f and its gradient by the gates, (n_layers, n_samples, *shape)."""
        if len(self.shape) > 1:
            with torch.enable_grad():
                gates = gates.detach().requires_grad_()
                f = self._convolutions(gates)
                return f.detach(), torch.autograd.grad(f.sum(), gates)[0]
        # by hand, since autograd takes twice as long on these small products
        with torch.no_grad():
            hidden = self._products(gates)
            gradient = self._layers[-1][0].mT.expand(-1, gates.shape[1], -1)
            for (weight, _), h in zip(self._layers[-2::-1], hidden[-2::-1], strict=True):
                gradient = leaky_relu_backward(gradient, h, NEGATIVE_SLOPE, False)
                gradient = torch.bmm(gradient, weight.mT)
            return hidden[-1].squeeze(-1), gradient

    def _products(self, x):
        """Return the output of each layer, before its activation function."""
        hidden = []
        for weight, bias in self._layers:
            x = F.leaky_relu(hidden[-1], NEGATIVE_SLOPE) if hidden else x
            hidden.append(torch.baddbmm(bias.unsqueeze(1), x, weight))
        return hidden

    def _convolutions(self, x):
        x = x.transpose(0, 1).flatten(1, 2)  # (n_samples, n_layers * channels, height, width)
        for i, stride in enumerate(self._strides):
            x = F.leaky_relu(x, NEGATIVE_SLOPE) if i else x
            weight, bias = (parameter.flatten(0, 1) for parameter in self._layers[i])
            x = F.conv2d(x, weight, bias, stride, padding=1, groups=self.n_layers)
        return x.sum((-2, -1)).T
