"""Samples of energy models, Markov chains on gates, and what they tell of log Z."""

import math

import torch
from torch import nn

__all__ = ["Flips", "Langevin", "log_partition"]

#: Chains, by the number of axes of a shape: positions are many samples of their filters.
N_CHAINS = {1: 32, 3: 16}
#: Acceptance that the size of a step is led to.
ACCEPTANCE = 0.57
FIRST_STEP = 0.2
#: Of a flip; beyond it a float32 takes the odds for certain.
MOST_LOG_ODDS = 15.0
#: Of the particles that estimate log Z.
N_TEMPERATURES = 16


class Langevin(nn.Module):
    """Langevin steps from the data (Eq. 36); they leave the corners of the cube of gates.

    Parameters
    ----------
    n_steps : int
    step_size : float
    """

    def __init__(self, n_steps, step_size):
        super().__init__()
        self.n_steps, self.step_size = n_steps, step_size

    def draw(self, model, gates, generator):
        """Return samples, (n_layers, n_samples, *shape), from chains that start at ``gates``."""
        p = model.p
        for _ in range(self.n_steps):
            _, gradient = model.f_and_gradient(gates)
            q = 1 - p + gates * (2 * p - 1)
            # outside of the cube q may vanish or change its sign
            gradient = gradient + (2 * p - 1) / torch.maximum(q, torch.minimum(p, 1 - p))
            noise = torch.randn(gates.shape, generator=generator, **_like(gates))
            gates = gates + self.step_size / 2 * gradient + math.sqrt(self.step_size) * noise
        return gates


class Flips(nn.Module):
    """Chains on whole gates that go on from batch to batch.

    A step proposes to flip each gate with a probability that its gradient informs, all at once
    (the discrete Langevin proposal of Zhang, Liu and Liu, 2022), and accepts or rejects by
    Metropolis and Hastings. The size of the steps follows the acceptance.

    Parameters
    ----------
    model : EnergyModel
    n_steps : int
    """

    def __init__(self, model, n_steps):
        super().__init__()
        self.n_steps = n_steps
        n_chains = N_CHAINS[len(model.shape)]
        shape, like = (model.n_layers, n_chains, *model.shape), _like(model.rates)
        self.register_buffer("chains", torch.zeros(shape, dtype=bool, device=like["device"]))
        self.register_buffer("step_size", torch.full(shape[:1], FIRST_STEP, **like))
        self.register_buffer("started", torch.tensor(False, device=like["device"]))

    @torch.no_grad()
    def draw(self, model, gates, generator):
        """Return samples, (n_layers, n_chains, *shape), from chains that once started at gates."""
        if not self.started:
            rows = torch.arange(self.chains.shape[1], device=gates.device) % gates.shape[1]
            self.chains.copy_(gates[:, rows] > 0)
            self.started.fill_(True)
        states = self.chains.to(gates.dtype)
        states, _, acceptance = flip(model, states, self.step_size, self.n_steps, generator)
        self.chains.copy_(states > 0)
        self.step_size *= torch.exp((acceptance - ACCEPTANCE) * 0.1 * self.n_steps)
        return states


def flip(model, states, step_size, n_steps, generator, temperature=1.0):
    """Return states after some steps on ``exp(temperature * f) q``, their f, and the acceptance.

    Parameters
    ----------
    model : EnergyModel
    states : Tensor of shape (n_layers, n_chains, *shape)
        Whole gates.
    step_size : Tensor of shape (n_layers,)
    n_steps : int
    generator : torch.Generator
    temperature : float, default=1
    """
    logit = model.p.logit()
    column = logit.flatten(1).unsqueeze(-1)  # (n_layers, n_gates, 1)
    reluctance = 0.5 / step_size.reshape(-1, *[1] * (states.ndim - 1))

    def look(states):
        """Return f, log density, log odds and odds of flips, and log P(no flip) of states."""
        f, gradient = model.f_and_gradient(states)
        value = temperature * f + torch.bmm(states.flatten(2), column).squeeze(-1)
        # in place, since fresh memory costs more than the arithmetic on it
        log_odds = gradient.mul_(temperature).add_(logit).mul_(0.5 - states)
        log_odds.sub_(reluctance).clamp_(max=MOST_LOG_ODDS)
        p = torch.sigmoid(log_odds)
        return f, value, log_odds, p, p.neg().log1p_().flatten(2).sum(-1)

    now, accepted = look(states), 0
    for _ in range(n_steps):
        flips = torch.rand(states.shape, generator=generator, **_like(states)).lt(now[3])
        flips = flips.to(states.dtype)
        proposal = (states - flips).abs_()
        new = look(proposal)
        # of the way back over the way there: log P(no flip) + sum over flips of their log odds
        log_ratio = new[1] - now[1] + new[4] - now[4]
        log_ratio += (new[2] - now[2]).mul_(flips).flatten(2).sum(-1)
        uniform = torch.rand(log_ratio.shape, generator=generator, **_like(states))
        accept = uniform.log() < log_ratio
        wide = accept.reshape(*accept.shape, *[1] * (states.ndim - 2))
        states = torch.where(wide, proposal, states, out=proposal)
        for a, b in zip(new, now, strict=True):
            torch.where(accept if a.ndim == 2 else wide, a, b, out=a)
        now = new
        accepted = accepted + log_ratio.clamp(max=0).exp().mean(1)
    return states, now[0], accepted / n_steps


@torch.no_grad()
def log_partition(model, n_particles, generator):
    """Return estimates of log Z, (n_layers,), and their standard errors, in nats and float64.

    Annealed importance sampling: particles go from q to the model in steps of temperature. As
    of any estimate by importance sampling, its expectation is below log Z.
    """
    step_size = model.rates.new_full((model.n_layers,), FIRST_STEP)
    states = model.draw_prior(n_particles, generator)
    f = model.f(states)
    log_weights = torch.zeros_like(f, dtype=torch.float64)
    for i in range(1, N_TEMPERATURES):
        log_weights += f / N_TEMPERATURES
        states, f, acceptance = flip(model, states, step_size, 1, generator, i / N_TEMPERATURES)
        step_size = step_size * torch.exp(acceptance - ACCEPTANCE)
    log_weights += f / N_TEMPERATURES
    log_z = torch.logsumexp(log_weights, 1) - math.log(n_particles)
    weights = torch.exp(log_weights - log_z.unsqueeze(1))  # their mean is 1
    if n_particles == 1:
        return log_z, torch.full_like(log_z, math.nan)
    return log_z, weights.std(1) / math.sqrt(n_particles)


def _like(tensor):
    return {"dtype": tensor.dtype, "device": tensor.device}
