"""`GateDensities`: densities of the gates of the penalised layers, updated batch by batch."""

import copy
import math

import numpy as np
import torch
from torch import nn

from ._models import EnergyModel, ProductModel
from ._samplers import DiscreteLangevin, Langevin, ais_log_partition

#: Weight of the mean square of f, divided by the number of gates. Without it f grows without bound.
ENERGY_L2 = 0.5
#: Adam's for f: gradients from persistent chains are correlated, and the usual 0.9 overshoots.
BETAS = (0.5, 0.999)


class Group(nn.Module):
    """The layers of one shape, their density, and its sampler, None for independent gates."""

    def __init__(self, names, shape, model, sampler):
        super().__init__()
        self.names, self.shape, self.model, self.sampler = names, shape, model, sampler
        self.n_positions = math.prod(shape[1:])

    def contrastive_loss(self, gates, generator):
        """Return the loss of f: Eq. 37 and an L2 penalty on its values."""
        drawn = self.sampler.draw(self.model, gates, generator)
        f = self.model.requires_grad_(True).f(torch.cat([gates, drawn], 1))
        data, samples = f.split([gates.shape[1], drawn.shape[1]], 1)
        squares = data.square().mean(1) + samples.square().mean(1)
        weight = ENERGY_L2 / math.prod(self.shape)
        return (samples.mean(1) - data.mean(1) + weight * squares).sum()

    def energies(self, gates):
        """Return -f - log q, (n_layers, n_samples)."""
        return -self.model.f(gates) - self.model.log_prior(gates)


class GateDensities:
    """Densities of the gates of some layers, learned from batches.

    ``shapes`` has the shape of the gates of each layer by name. Methods take gates as a list with
    a tensor (n_layers, n_samples, *shape) for each shape, and return values of layers in the order
    of ``shapes``.
    """

    def __init__(self, shapes, *, penalty, sampler, n_steps, step_size, lr, seed, dtype, device):
        self.dtype, self.lr = dtype, lr
        self.generator = torch.Generator(device)
        self.generator.manual_seed(seed)
        self.groups = nn.ModuleList()
        for shape in dict.fromkeys(shapes.values()):
            names = [name for name in shapes if shapes[name] == shape]
            kind = EnergyModel if penalty == "ebm" else ProductModel
            model = kind(len(names), shape, dtype=dtype, generator=self.generator)
            flips = sampler == "flips"
            chains = DiscreteLangevin(model, n_steps) if flips else Langevin(n_steps, step_size)
            self.groups.append(Group(names, shape, model, chains if penalty == "ebm" else None))
        names = [name for group in self.groups for name in group.names]
        self._order = [names.index(name) for name in shapes]
        self.optimizer = None
        if weights := list(self.groups.parameters()):
            self.optimizer = torch.optim.Adam(weights, lr=lr, betas=BETAS, fused=True)

    @property
    def n_batches(self):
        """Number of batches learned from."""
        return int(self.groups[0].model.n_batches)

    def hard_gates(self, gates):
        """Return relaxed gates as 0 and 1."""
        return [(states > 0.5).to(self.dtype) for states in gates]

    def step(self, gates):
        """Update the densities with the hard gates of a batch; return the loss."""
        pairs = list(zip(self.groups, gates, strict=True))
        for group, states in pairs:
            group.model.update_rates(states)
        if self.optimizer is None:
            return 0.0
        try:
            with torch.enable_grad():
                losses = [group.contrastive_loss(states, self.generator) for group, states in pairs]
                total = sum(losses)
                self.optimizer.zero_grad()
                total.backward()
        finally:
            self.groups.requires_grad_(False)
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
        pairs = zip(self.groups, gates, strict=True)
        means = [group.energies(states).mean(1) / group.n_positions for group, states in pairs]
        return torch.cat(means)[self._order]

    @torch.no_grad()
    def entropies(self, gates, n_particles):
        """Return the entropy of each layer from hard gates, and its standard error, nats."""
        values, errors = [], []
        for group, states in zip(self.groups, gates, strict=True):
            energies = group.energies(states).double()
            log_z = error = energies.new_zeros(len(group.names))
            if group.sampler is not None:
                log_z, error = ais_log_partition(group.model, n_particles, self.generator)
            values.append(energies.mean(1) + log_z)
            n_samples = energies.shape[1]
            variance = np.nan if n_samples == 1 else energies.var(1, correction=1) / n_samples
            errors.append(torch.sqrt(variance + error**2))
        return torch.cat(values)[self._order], torch.cat(errors)[self._order]

    def state_dict(self):
        """Return everything needed to resume learning."""
        return {
            "groups": self.groups.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else {},
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state):
        """Restore what `state_dict` returned."""
        self.groups.load_state_dict(state["groups"])
        if self.optimizer:
            # torch would share the moments with the optimizer that the state came from
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.generator.set_state(state["generator"])
