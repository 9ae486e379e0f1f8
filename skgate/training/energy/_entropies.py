"""Entropies of gates to report: cross entropies under learned densities, within exact bounds."""

import math

import numpy as np
import torch

from ._samplers import annealed_particles


def layer_entropies(group, batches, n_particles, generator):
    """Return the entropy of each layer of a group, and its standard error, in nats, (n_layers,).

    ``batches`` are hard gates, (n_layers, n_samples, *shape), and count together. The entropy is
    the smallest of three cross entropies, with the rates of these gates: that of independent gates,
    at most log 2 for each; that of ``exp f q / Z``; and that of the shares of the states among all
    other samples, smoothed by this density. The last two are at least the entropy of the shares,
    since the estimate of Z contains the exact sum over the states that occur.
    """
    n_samples = sum(states.shape[1] for states in batches)
    rates = sum(states.sum(1, dtype=torch.float64) for states in batches) / n_samples
    surprisals = torch.cat([_independent_surprisals(states, rates) for states in batches], 1)
    values, variances = surprisals.mean(1), _variance_of_mean(surprisals)
    if group.sampler is None:
        return values, variances.sqrt()
    model = group.model.with_rates(rates)
    floats = (states.to(model.rates.dtype) for states in batches)  # one batch at a time
    energies = torch.cat([-model.f(s) - model.log_prior(s) for s in floats], 1).double()
    seen = np.concatenate([_keys(states) for states in batches], axis=1)
    particles, log_weights = annealed_particles(model, n_particles, generator)
    log_z, error = log_partition(seen, -energies, _keys(particles), log_weights)
    modelled = energies + log_z.unsqueeze(1)
    for surprisals in (modelled, _given_others(seen, -modelled)):
        better = surprisals.mean(1) < values
        values = torch.where(better, surprisals.mean(1), values)
        variances = torch.where(better, _variance_of_mean(surprisals) + error**2, variances)
    return values, variances.sqrt()


def log_partition(seen, log_densities, particles, log_weights):
    """Return log Z of each layer, and its standard error, in nats and float64, (n_layers,).

    Z is the exact sum of the unnormalised densities of the states that were ``seen``, and an
    estimate of that over all others, by the weights of the particles that ended in one of these.
    The former are keys of states, (n_layers, n_samples), as are ``particles``.
    """
    found = []
    layers = zip(seen, log_densities, particles, log_weights, strict=True)
    for keys, values, ends, weights in layers:
        rows = np.unique(keys, return_index=True)[1]
        unseen = torch.from_numpy(~np.isin(ends, keys)).to(weights.device)
        weights = weights.masked_fill(~unseen, -math.inf)
        others = torch.logsumexp(weights, 0) - math.log(len(weights))
        log_z = torch.logaddexp(torch.logsumexp(values[rows], 0), others)
        found.append((log_z, _variance_of_mean(torch.exp(weights - log_z)).sqrt()))
    log_z, errors = zip(*found, strict=True)
    return torch.stack(log_z), torch.stack(errors)


def _given_others(keys, log_densities):
    """Return the surprisals of samples, (n_layers, n_samples), given all others.

    A sample has the probability ``(N + K p) / (n - 1 + K)``: N of the n - 1 others are in its
    state, K states occur, and p is the density.
    """
    surprisals = []
    for states, log_p in zip(keys, log_densities, strict=True):
        _, state, counts = np.unique(states, return_inverse=True, return_counts=True)
        others = torch.from_numpy(counts[state] - 1).to(log_p)
        mass = torch.logaddexp(others.log(), log_p + math.log(len(counts)))
        surprisals.append(math.log(len(states) - 1 + len(counts)) - mass)
    return torch.stack(surprisals)


def _keys(states):
    """Return a key of each state, its gates as bytes, (n_layers, n_samples)."""
    gates = np.packbits(states.flatten(2).bool().cpu().numpy(), axis=-1)
    return gates.view(f"V{gates.shape[-1]}").squeeze(-1)


def _independent_surprisals(states, rates):
    """Return -log q of hard gates, (n_layers, n_samples)."""
    open_gates, p = states.flatten(2).double(), rates.flatten(1).unsqueeze(1)
    return -(torch.xlogy(open_gates, p) + torch.xlogy(1 - open_gates, 1 - p)).sum(-1)


def _variance_of_mean(values):
    """Return the variance of the mean over the last axis; NaN of a single value."""
    if values.shape[-1] == 1:
        return torch.full(values.shape[:-1], math.nan, dtype=values.dtype, device=values.device)
    return values.var(-1, correction=1) / values.shape[-1]
