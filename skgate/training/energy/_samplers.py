"""Samplers of energy models: Markov chains on gates, and annealed particles that estimate Z."""

import math

import torch
from torch import nn

#: Number of chains, by the number of axes of a shape: each position is a sample of the filters.
N_CHAINS = {1: 32, 3: 16}
#: Acceptance rate that the step size is adapted to.
ACCEPTANCE = 0.57
FIRST_STEP = 0.2
#: Largest log odds of a flip: beyond it, a float32 rounds the probability to 1.
MAX_LOG_ODDS = 15.0
#: Temperatures of the annealed importance sampling.
N_TEMPERATURES = 16


class Langevin(nn.Module):
    """Langevin steps from the data (Eq. 36), which leave the binary values 0 and 1."""

    #: Weight of the mean square of f, divided by the number of gates, in the loss of f. It alone
    #: bounds f here: gates and numbers beside 0 and 1 are always told apart.
    energy_l2 = 0.5

    def __init__(self, n_steps, step_size):
        super().__init__()
        self.n_steps, self.step_size = n_steps, step_size

    def draw(self, model, gates, generator):
        """Return samples, (n_layers, n_samples, *shape), from chains that start at ``gates``."""
        p = model.p
        for _ in range(self.n_steps):
            _, gradient = model.f_and_gradient(gates)
            q = 1 - p + gates * (2 * p - 1)
            # outside [0, 1] q may vanish or change its sign
            gradient = gradient + (2 * p - 1) / torch.maximum(q, torch.minimum(p, 1 - p))
            noise = torch.randn(gates.shape, generator=generator, **_like(gates))
            gates = gates + self.step_size / 2 * gradient + math.sqrt(self.step_size) * noise
        return gates


class DiscreteLangevin(nn.Module):
    """Persistent chains on binary gates, which continue from batch to batch.

    A step proposes to flip each gate with a probability that depends on the gradient, all at once
    (DMALA, the discrete Langevin proposal of Zhang, Liu and Liu, 2022), and is accepted or rejected
    by Metropolis and Hastings. The step size follows the acceptance rate.
    """

    #: As in `Langevin`; smaller, since it draws f towards 0 and the density towards q.
    energy_l2 = 0.1

    def __init__(self, model, n_steps):
        super().__init__()
        self.n_steps = n_steps
        shape, like = (model.n_layers, N_CHAINS[len(model.shape)], *model.shape), _like(model.rates)
        self.register_buffer("chains", torch.zeros(shape, dtype=bool, device=like["device"]))
        self.register_buffer("step_size", torch.full(shape[:1], FIRST_STEP, **like))
        self.register_buffer("started", torch.tensor(False, device=like["device"]))

    @torch.no_grad()
    def draw(self, model, gates, generator):
        """Return samples, (n_layers, n_chains, *shape); chains start at the first ``gates``."""
        if not self.started:
            rows = torch.arange(self.chains.shape[1], device=gates.device) % gates.shape[1]
            self.chains.copy_(gates[:, rows] > 0)
            self.started.fill_(True)
        states = self.chains.to(gates.dtype)
        states, _, acceptance = dmala_steps(model, states, self.step_size, self.n_steps, generator)
        self.chains.copy_(states > 0)
        self.step_size *= torch.exp((acceptance - ACCEPTANCE) * 0.1 * self.n_steps)
        return states


def dmala_steps(model, states, step_size, n_steps, generator, temperature=1.0):
    """Return states after some steps on ``exp(temperature * f) q``, their f, and the acceptance.

    States are binary gates, (n_layers, n_chains, *shape); ``step_size`` is (n_layers,).
    """
    logit = model.p.logit()
    column = logit.flatten(1).unsqueeze(-1)  # (n_layers, n_gates, 1)
    cost = 0.5 / step_size.reshape(-1, *[1] * (states.ndim - 1))  # of a flip, in log odds

    def evaluate(states):
        """Return f, log density, log odds and odds of flips, and log P(no flip) of states."""
        f, gradient = model.f_and_gradient(states)
        value = temperature * f + torch.bmm(states.flatten(2), column).squeeze(-1)
        # in place, since fresh memory costs more than the arithmetic on it
        log_odds = gradient.mul_(temperature).add_(logit).mul_(0.5 - states)
        log_odds.sub_(cost).clamp_(max=MAX_LOG_ODDS)
        p = torch.sigmoid(log_odds)
        return f, value, log_odds, p, p.neg().log1p_().flatten(2).sum(-1)

    current, accepted = evaluate(states), 0
    for _ in range(n_steps):
        flips = torch.rand(states.shape, generator=generator, **_like(states)).lt(current[3])
        flips = flips.to(states.dtype)
        proposal = (states - flips).abs_()
        new = evaluate(proposal)
        # backward over forward proposal: log P(no flip) + sum of the log odds of the flips made
        log_ratio = new[1] - current[1] + new[4] - current[4]
        log_ratio += (new[2] - current[2]).mul_(flips).flatten(2).sum(-1)
        accept = torch.rand(log_ratio.shape, generator=generator, **_like(states)).log() < log_ratio
        accept_gates = accept.reshape(*accept.shape, *[1] * (states.ndim - 2))
        states = torch.where(accept_gates, proposal, states, out=proposal)
        for a, b in zip(new, current, strict=True):
            torch.where(accept if a.ndim == 2 else accept_gates, a, b, out=a)
        current = new
        accepted = accepted + log_ratio.clamp(max=0).exp().mean(1)
    return states, current[0], accepted / n_steps


@torch.no_grad()
def annealed_particles(model, n_particles, generator):
    """Return states, (n_layers, n_particles, *shape), and the logarithms of their weights.

    Annealed importance sampling: particles move from q to the model in steps of temperature. The
    mean of ``weight * h(state)`` is an unbiased estimate of the sum of ``exp f q h`` over all
    states, and with h = 1 of Z. Its logarithm is biased low. Weights are in float64.
    """
    step_size = model.rates.new_full((model.n_layers,), FIRST_STEP)
    states = model.draw_prior(n_particles, generator)
    f = model.f(states)
    log_weights = torch.zeros_like(f, dtype=torch.float64)
    for i in range(1, N_TEMPERATURES):
        log_weights += f / N_TEMPERATURES
        temperature = i / N_TEMPERATURES
        states, f, acceptance = dmala_steps(model, states, step_size, 1, generator, temperature)
        step_size = step_size * torch.exp(acceptance - ACCEPTANCE)
    log_weights += f / N_TEMPERATURES
    return states, log_weights


def _like(tensor):
    return {"dtype": tensor.dtype, "device": tensor.device}
