"""`GateDensities`: what learns the gates of the penalised layers, batch by batch."""

import copy
import math

import numpy as np
import torch

from ._models import EnergyModel, ProductModel
from ._samplers import Flips, Langevin, log_partition

__all__ = ["GateDensities"]

#: Weight of the mean square of f, over the number of gates. Without it f grows without bound.
DAMPING = 0.5
#: Of Adam, for f: chains make its gradients hang together over time, and more inertia overshoots.
BETAS = (0.5, 0.999)


class Group:
    """The layers of one shape, their density, and the sampler that it learns from."""

    def __init__(self, names, shape, model, sampler):
        self.names, self.shape, self.model, self.sampler = names, shape, model, sampler
        self.n_positions = math.prod(shape[1:])

    def contrast(self, gates, generator):
        """Return the loss that teaches f: Eq. 37, and a pull of f towards 0."""
        drawn = self.sampler.draw(self.model, gates, generator)
        f = self.model.requires_grad_(True).f(torch.cat([gates, drawn], 1))
        data, samples = f.split([gates.shape[1], drawn.shape[1]], 1)
        squares = data.square().mean(1) + samples.square().mean(1)
        damping = DAMPING / math.prod(self.shape)
        return (samples.mean(1) - data.mean(1) + damping * squares).sum()

    def energies(self, gates):
        """Return -f - log q, (n_layers, n_samples)."""
        return -self.model.f(gates) - self.model.log_prior(gates)


class GateDensities:
    """Densities of the gates of some layers, which learn from batches.

    Gates come and go as lists with a tensor (n_layers, n_samples, *shape) for each shape;
    what is said of layers is in the order of ``shapes``.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Shape of the gates of each layer.
    penalty : {"ebm", "product"}
    sampler : {"flips", "langevin"}
    n_steps : int
        Of the sampler.
    step_size : float
        Of Langevin steps.
    lr : float
    seed : int
    dtype : torch.dtype
    device : torch.device
    """

    def __init__(self, shapes, *, penalty, sampler, n_steps, step_size, lr, seed, dtype, device):
        self.dtype, self.lr = dtype, lr
        self.generator = torch.Generator(device)
        self.generator.manual_seed(seed)
        self.groups = []
        for shape in dict.fromkeys(shapes.values()):
            names = [name for name in shapes if shapes[name] == shape]
            kind = EnergyModel if penalty == "ebm" else ProductModel
            model = kind(len(names), shape, dtype=dtype, generator=self.generator)
            drawing = None
            if penalty == "ebm":
                flips = sampler == "flips"
                drawing = Flips(model, n_steps) if flips else Langevin(n_steps, step_size)
            self.groups.append(Group(names, shape, model, drawing))
        names = [name for group in self.groups for name in group.names]
        self._order = [names.index(name) for name in shapes]
        weights = [weight for group in self.groups for weight in group.model.parameters()]
        self.optimizer = None
        if weights:
            self.optimizer = torch.optim.Adam(weights, lr=lr, betas=BETAS, fused=True)

    @property
    def n_batches(self):
        """Number of batches that were learned from."""
        return int(self.groups[0].model.n_batches)

    def whole(self, gates):
        """Return relaxed gates as 0 and 1."""
        return [(states > 0.5).to(self.dtype) for states in gates]

    def learn(self, gates):
        """Take a step towards the density of whole gates; return its loss."""
        for group, states in zip(self.groups, gates, strict=True):
            group.model.observe(states)
        if self.optimizer is None:
            return 0.0
        try:
            with torch.enable_grad():
                losses = [
                    group.contrast(states, self.generator)
                    for group, states in zip(self.groups, gates, strict=True)
                ]
                total = sum(losses)
                self.optimizer.zero_grad()
                total.backward()
        finally:
            for group in self.groups:
                group.model.requires_grad_(False)
        for group, loss in zip(self.groups, losses, strict=True):
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"The energy of layers {group.names} is {loss.item()}. Lower energy_lr "
                    f"(now {self.lr})."
                )
        self.optimizer.step()
        return total.item()

    def penalties(self, gates):
        """Return the mean of -f - log q over samples and positions, (n_layers,), nats."""
        means = [
            group.energies(states).mean(1) / group.n_positions
            for group, states in zip(self.groups, gates, strict=True)
        ]
        return torch.cat(means)[self._order]

    @torch.no_grad()
    def entropies(self, gates, n_particles):
        """Return the entropy of each layer from whole gates, and its standard error, nats."""
        values, errors = [], []
        for group, states in zip(self.groups, gates, strict=True):
            energies = group.energies(states).double()
            log_z = error = energies.new_zeros(len(group.names))
            if group.sampler is not None:
                log_z, error = log_partition(group.model, n_particles, self.generator)
            values.append(energies.mean(1) + log_z)
            n_samples = energies.shape[1]
            spread = np.nan if n_samples == 1 else energies.var(1, correction=1) / n_samples
            errors.append(torch.sqrt(spread + error**2))
        return torch.cat(values)[self._order], torch.cat(errors)[self._order]

    def state_dict(self):
        """Return all that learning goes on from."""
        return {
            "groups": [
                {
                    "model": group.model.state_dict(),
                    "sampler": group.sampler.state_dict() if group.sampler else {},
                }
                for group in self.groups
            ],
            "optimizer": self.optimizer.state_dict() if self.optimizer else {},
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state):
        """Go on from a state that `state_dict` returned."""
        for group, saved in zip(self.groups, state["groups"], strict=True):
            group.model.load_state_dict(saved["model"])
            if group.sampler:
                group.sampler.load_state_dict(saved["sampler"])
        if self.optimizer:
            # torch would share the moments with whoever the state is of
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.generator.set_state(state["generator"])
