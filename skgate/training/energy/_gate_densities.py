"""`GateDensities`: densities of the gates of the penalised layers, updated batch by batch."""

import copy
import math

import torch
from torch import nn

from ._entropies import layer_entropies
from ._models import EnergyModel, ProductModel
from ._samplers import DiscreteLangevin, Langevin

#: Weight of the past in the running means of the parameters of f.
MOMENTUM = 0.98
#: Adam's for f: gradients from persistent chains are correlated, and the usual 0.9 overshoots.
BETAS = (0.5, 0.999)


class Group(nn.Module):
    """The layers of one shape, their density, and its sampler, None for independent gates.

    ``learner`` is the density as of the last step; the parameters of f in ``model`` are running
    means of its own, since those of a single step carry the noise of the samples.
    """

    def __init__(self, names, shape, model, sampler):
        super().__init__()
        self.names, self.shape, self.sampler = names, shape, sampler
        self.n_positions = math.prod(shape[1:])
        self.learner, self.model = model, copy.deepcopy(model)
        self.model._buffers = model._buffers  # one set of rates

    def contrastive_loss(self, gates, generator):
        """Return the loss of f: Eq. 37 and an L2 penalty on its values."""
        drawn = self.sampler.draw(self.learner, gates, generator)
        f = self.learner.requires_grad_(True).f(torch.cat([gates, drawn], 1))
        data, samples = f.split([gates.shape[1], drawn.shape[1]], 1)
        squares = data.square().mean(1) + samples.square().mean(1)
        weight = self.sampler.energy_l2 / math.prod(self.shape)
        return (samples.mean(1) - data.mean(1) + weight * squares).sum()

    @torch.no_grad()
    def average(self):
        """Move the parameters of the model towards those of the learner, at first to their mean."""
        share = max(1 - MOMENTUM, 1 / int(self.learner.n_batches))
        torch._foreach_lerp_(list(self.model.parameters()), list(self.learner.parameters()), share)

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
        if weights := [p for group in self.groups for p in group.learner.parameters()]:
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
            group.learner.update_rates(states)
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
        for group in self.groups:
            group.average()
        return total.item()

    def penalties(self, gates):
        """Return the mean of -f - log q over samples and positions, (n_layers,), nats."""
        pairs = zip(self.groups, gates, strict=True)
        means = [group.energies(states).mean(1) / group.n_positions for group, states in pairs]
        return torch.cat(means)[self._order]

    @torch.no_grad()
    def entropies(self, batches, n_particles):
        """Return the entropy of each layer over batches of hard gates, and its error, in nats."""
        found = [
            layer_entropies(group, states, n_particles, self.generator)
            for group, *states in zip(self.groups, *batches, strict=True)
        ]
        return tuple(torch.cat(column)[self._order] for column in zip(*found, strict=True))

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
