"""Densities of gates and their samplers, against loops and enumeration."""

import itertools
import math

import numpy as np
import pytest
import reference
import torch
from scipy.stats import chi2
from torch import nn

from skgate import ComplexityLoss
from skgate.training.energy._entropies import _keys, layer_entropies, log_partition
from skgate.training.energy._gate_densities import Group
from skgate.training.energy._models import EnergyModel, ProductModel
from skgate.training.energy._samplers import (
    DiscreteLangevin,
    Langevin,
    annealed_particles,
    dmala_steps,
)

SHAPES = [(5,), (1,), (2, 3, 4), (1, 4, 4), (1, 5, 7), (3, 9, 5), (1, 1, 2)]
N_LAYERS = 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_model(shape, *, n_layers=N_LAYERS, seed=0, scale=1.0, dtype=torch.double):
    """Return an energy model with random f, random biases and random rates."""
    model = EnergyModel(n_layers, shape, dtype=dtype, generator=generator(seed))
    noise = generator(seed + 1)
    for parameter in [*model.biases, model.weights[-1]]:
        parameter.copy_(scale * torch.randn(parameter.shape, generator=noise, dtype=dtype) / 2)
    model.rates.copy_(0.1 + 0.8 * torch.rand(model.rates.shape, generator=noise, dtype=dtype))
    return model


def enumerated(shape, n_layers=N_LAYERS, dtype=torch.double):
    """Return all states, (n_layers, 2 ** n_gates, *shape)."""
    states = list(itertools.product((0.0, 1.0), repeat=math.prod(shape)))
    states = torch.tensor(states, dtype=dtype).reshape(-1, *shape)
    return states.expand(n_layers, *states.shape).contiguous()


def log_density(model, states, temperature=1.0):
    """Return log p of all states, and log Z."""
    value = temperature * model.f(states) + model.log_prior(states)
    log_z = torch.logsumexp(value, 1, keepdim=True)
    return value - log_z, log_z.squeeze(1)


# Models --------------------------------------------------------------------------------------


def test_rates_are_running_means_that_the_first_batch_sets():
    rng = np.random.default_rng(0)
    batches = rng.random((4, N_LAYERS, 7, 3)) < 0.3
    model = ProductModel(N_LAYERS, (3,), dtype=torch.double, generator=generator())
    assert not model.n_batches
    for i, batch in enumerate(batches):
        model.update_rates(torch.from_numpy(batch).double())
        for layer in range(N_LAYERS):
            expected = reference.running_rates(batches[: i + 1, layer])
            np.testing.assert_allclose(model.rates[layer], expected)
    assert model.n_batches == len(batches)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 2)])
def test_log_prior_is_that_of_independent_gates(shape):
    model = random_model(shape)
    model.rates.view(-1)[:3] = torch.tensor([0.0, 1.0, 1e-4])
    gates = torch.rand(N_LAYERS, 4, *shape, generator=generator(), dtype=torch.double)
    gates[:, 2:] = gates[:, 2:].round()
    expected = [
        [reference.log_prior(row.flatten(), rates.flatten().tolist()) for row in layer]
        for layer, rates in zip(gates, model.rates, strict=True)
    ]
    np.testing.assert_allclose(model.log_prior(gates), expected)
    np.testing.assert_allclose(model.log_prior(enumerated(shape)).exp().sum(1), 1)


def test_draws_of_the_prior_have_its_rates():
    model = random_model((2, 2, 3))
    drawn = model.draw_prior(20000, generator())
    assert drawn.shape == (N_LAYERS, 20000, 2, 2, 3)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(1), model.rates, atol=0.015)


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_is_that_of_loops(shape):
    model = random_model(shape)
    n_rows = 2 if len(shape) == 1 else 1  # loops take their time
    gates = torch.rand(N_LAYERS, n_rows, *shape, generator=generator(), dtype=torch.double)
    f = reference.dense_energy if len(shape) == 1 else reference.convolutional_energy
    for layer in range(N_LAYERS):
        weights = [w[layer].tolist() for w in model.weights]
        biases = [b[layer].tolist() for b in model.biases]
        expected = [f(row.tolist(), weights, biases) for row in gates[layer]]
        np.testing.assert_allclose(model.f(gates)[layer], expected, rtol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_of_the_energy_is_that_of_autograd(shape):
    model = random_model(shape)
    gates = torch.rand(N_LAYERS, 6, *shape, generator=generator(), dtype=torch.double)
    f, gradient = model.f_and_gradient(gates)
    assert not f.requires_grad
    assert not gradient.requires_grad
    f_again = model.f(gates.requires_grad_())
    (expected,) = torch.autograd.grad(f_again.sum(), gates)
    torch.testing.assert_close(f, f_again)
    torch.testing.assert_close(gradient.expand_as(expected), expected)
    assert expected.abs().max() > 1e-3


def test_energy_is_zero_at_first_and_has_no_parameters_to_train():
    for shape in SHAPES:
        model = EnergyModel(N_LAYERS, shape, dtype=torch.double, generator=generator())
        assert not model.f(model.draw_prior(3, generator())).any()
        assert not any(p.requires_grad for p in model.parameters())
        assert len(model.weights) == 6


# Samplers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "temperature", "n_chains", "n_steps"),
    [((5,), 1.0, 20000, 15), ((5,), 0.6, 20000, 15), ((1, 2, 2), 0.8, 2000, 5)],
)
def test_dmala_steps_leave_the_density_invariant(shape, temperature, n_chains, n_steps):
    model = random_model(shape, scale=2.0, dtype=torch.float32)
    states = enumerated(shape, dtype=torch.float32)
    p = log_density(model, states, temperature)[0].exp()
    rows = torch.multinomial(p, n_chains, replacement=True, generator=generator(1))
    chains = torch.stack([layer[r] for layer, r in zip(states, rows, strict=True)])
    step_size = torch.tensor([0.8, 2.0])
    moved, f, acceptance = dmala_steps(model, chains, step_size, n_steps, generator(2), temperature)
    assert ((acceptance > 0.2) & (acceptance < 0.95)).all()
    torch.testing.assert_close(f, model.f(moved))
    powers = 2 ** torch.arange(math.prod(shape) - 1, -1, -1)
    found = (moved.flatten(2).long() * powers).sum(-1)
    for layer in range(N_LAYERS):
        counts = torch.bincount(found[layer], minlength=p.shape[1])
        expected = p[layer] * n_chains
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert chi2.sf(statistic, p.shape[1] - 1) > 1e-3
        # chains that never move leave any density invariant
        assert (found[layer] != rows[layer]).double().mean() > 0.3


def test_chains_start_at_the_data_and_persist():
    model = random_model((6,), dtype=torch.float32)
    sampler = DiscreteLangevin(model, 1)
    gates = torch.zeros(N_LAYERS, 3, 6)
    gates[:, 1] = 1
    sampler.step_size.fill_(1e-3)  # too small to move
    first = sampler.draw(model, gates, generator())
    assert first.shape == (N_LAYERS, 32, 6)
    assert torch.equal(first[:, :6], gates[:, [0, 1, 2, 0, 1, 2]])
    assert (sampler.step_size > 1e-3).all()
    again = sampler.draw(model, 1 - gates, generator())
    assert torch.equal(again, first)
    assert torch.equal(sampler.chains, first.bool())


def test_step_size_follows_the_acceptance():
    model = random_model((30,), scale=1.0)
    for first in (0.02, 50.0):
        sampler = DiscreteLangevin(model, 5)
        sampler.step_size.fill_(first)
        gates, noise = model.draw_prior(20, generator()), generator(1)
        for _ in range(150):
            sampler.draw(model, gates, noise)
        _, _, acceptance = dmala_steps(model, sampler.chains.double(), sampler.step_size, 50, noise)
        np.testing.assert_allclose(acceptance, 0.57, atol=0.1)


@pytest.mark.parametrize("shape", [(5,), (2, 2, 3)])
@pytest.mark.parametrize("low", [0.1, 0.6])
def test_langevin_steps_follow_the_gradient_of_the_density(shape, low):
    model, step = random_model(shape), 0.01
    model.rates.copy_(low + 0.3 * torch.rand(model.rates.shape, generator=generator()))
    gates = model.draw_prior(4, generator())
    moved = Langevin(1, step).draw(model, gates, generator(3))
    noise = torch.randn(gates.shape, generator=generator(3), dtype=torch.double)
    point = gates.clone().requires_grad_()
    value = model.f(point) + model.log_prior(point)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    torch.testing.assert_close(moved, gates + step / 2 * gradient + math.sqrt(step) * noise)
    far = Langevin(200, 0.1).draw(model, gates, generator())
    assert torch.isfinite(far).all()


def estimate(model, n_particles, seed=0, seen=None):
    """Return log Z and its error, from particles and states that were seen, none by default."""
    seen = enumerated(model.shape)[:, :0] if seen is None else seen
    seen = seen.to(model.rates.dtype)
    particles, log_weights = annealed_particles(model, n_particles, generator(seed))
    log_densities = (model.f(seen) + model.log_prior(seen)).double()
    return log_partition(_keys(seen), log_densities, _keys(particles), log_weights)


@pytest.mark.parametrize(("shape", "n_particles"), [((6,), 4000), ((1, 2, 2), 1000)])
def test_log_partition_is_that_of_enumeration(shape, n_particles):
    model = random_model(shape, scale=1.5, dtype=torch.float32)
    states = enumerated(shape, dtype=torch.float32)
    expected = log_density(model, states)[1]
    log_z, error = estimate(model, n_particles)
    assert log_z.dtype == torch.double
    assert expected.abs().min() > 0.1
    assert (error < 0.05).all()
    assert ((log_z - expected).abs() < 3 * error).all()
    # states that were seen, some of them twice, are summed exactly
    half = torch.cat([states[:, ::2], states[:, ::4]], 1)
    known, known_error = estimate(model, n_particles, seen=half)
    assert ((known - expected).abs() < 3 * known_error).all()
    assert estimate(model, 1)[1].isnan().all()
    exact, no_error = estimate(model, 10, seen=states)
    torch.testing.assert_close(exact, expected.double(), atol=1e-5, rtol=0)
    assert not no_error.any()


def test_error_of_log_partition_is_its_spread():
    model = random_model((6,), scale=1.5, dtype=torch.float32)
    for seen in (None, enumerated((6,))[:, 1::4]):
        runs = [estimate(model, 50, seed, seen) for seed in range(100)]
        found = torch.stack([log_z for log_z, _ in runs]).std(0)
        reported = torch.stack([error for _, error in runs]).mean(0)
        assert ((found / reported > 0.7) & (found / reported < 1.5)).all()


# Entropies -----------------------------------------------------------------------------------


def group_of(model):
    """Return a group that has a model of its own."""
    return Group(["a", "b"], model.shape, model, DiscreteLangevin(model, 1))


def drawn_from(model, n_samples, seed=1):
    """Return exact samples of a model."""
    states = enumerated(model.shape)
    p = log_density(model, states)[0].exp()
    rows = torch.multinomial(p, n_samples, replacement=True, generator=generator(seed))
    return torch.stack([layer[r] for layer, r in zip(states, rows, strict=True)])


class Chains(ProductModel):
    """Chains of gates: neighbours agree in the first layer, gates are open in the second."""

    def f(self, gates):
        spins = 2 * gates - 1
        agreement = (spins[..., 1:] * spins[..., :-1]).sum(-1)
        return torch.tensor([[0.8], [0.1]]) * agreement + torch.tensor([[0.0], [1.5]]) * spins.sum(
            -1
        )

    def f_and_gradient(self, gates):
        with torch.enable_grad():
            gates = gates.clone().requires_grad_()
            f = self.f(gates)
            return f.detach(), torch.autograd.grad(f.sum(), gates)[0]


def test_entropy_is_the_smaller_cross_entropy_with_the_rates_of_the_gates():
    model = Chains(N_LAYERS, (6,), dtype=torch.double, generator=generator())
    gates, states = drawn_from(model, 2000), enumerated((6,))
    model.rates.fill_(0.1)  # of the training, which do not count
    with torch.no_grad():
        found, errors = layer_entropies(group_of(model), [gates], 500, generator())
        parts = [gates[:, :100], gates[:, 100:]]
        again, _ = layer_entropies(group_of(model), parts, 500, generator())
    torch.testing.assert_close(found, again)
    assert model.rates.eq(0.1).all()
    model.rates.copy_(gates.mean(1))
    log_p, _ = log_density(model, states)
    rows = (gates.long() * 2 ** torch.arange(5, -1, -1)).sum(-1)
    surprisals = -log_p.gather(1, rows)
    independent = [math.log(2) * reference.product_entropy(layer.tolist()) for layer in gates]
    assert surprisals[0].mean() < independent[0] - 0.5
    assert surprisals[1].mean() > independent[1] + 0.5  # f has the rates, and q has them again
    np.testing.assert_allclose(found, [surprisals[0].mean(), independent[1]], atol=0.01)
    np.testing.assert_allclose(errors[0], surprisals[0].std() / 2000**0.5, rtol=0.05)
    rates = gates[1].mean(0)
    values = -(gates[1] * rates.log() + (1 - gates[1]) * (1 - rates).log()).sum(-1)
    np.testing.assert_allclose(errors[1], values.std() / 2000**0.5)


def test_entropy_of_states_that_recur_is_that_of_their_shares():
    model = EnergyModel(N_LAYERS, (6,), dtype=torch.double, generator=generator())  # f = 0
    gates = torch.tensor([[0, 0, 1, 1, 0, 1], [1, 1, 0, 0, 1, 0]]).double()[[0, 1] * 150]
    gates = gates.expand(N_LAYERS, -1, -1).clone()
    gates[1, 7] = 1  # once
    found, errors = layer_entropies(group_of(model), [gates], 50, generator())
    expected = []
    for layer in gates:
        rows, total = [tuple(row) for row in layer.tolist()], 0.0
        for row in rows:
            log_p = reference.log_prior(row, layer.mean(0).tolist())
            others, n_states = rows.count(row) - 1, len(set(rows))
            total -= math.log((others + n_states * math.exp(log_p)) / (299 + n_states))
        expected.append(total / 300)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert abs(found[0] - math.log(2)) < 0.01 < errors[1]


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_entropy_is_between_that_of_the_rows_and_that_of_independent_gates(scale):
    for seed in range(10):
        model = random_model((7,), scale=scale, seed=seed)
        gates = (torch.rand(N_LAYERS, 40, 7, generator=generator(seed + 50)) < 0.3).double()
        gates[1, :, 2:] = gates[1, :1, 2:]  # four states at most
        found, _ = layer_entropies(group_of(model), [gates], 20, generator(seed))
        for layer, bits in zip(gates, found / math.log(2), strict=True):
            rows = [tuple(row) for row in layer.tolist()]
            shares = [rows.count(row) / len(rows) for row in set(rows)]
            highest = reference.product_entropy(layer.tolist())
            assert reference.plogp(shares) - 1e-9 <= bits <= highest + 1e-9


# Learning ------------------------------------------------------------------------------------

N_GATES = 12
PARENTS = [None, *((i - 1) // 2 for i in range(1, N_GATES))]
COPIES = [None, *(0.95 - 0.02 * i for i in range(1, N_GATES))]


@pytest.fixture(scope="module")
def tree():
    """Return all states of a tree of gates and their probabilities."""
    states = enumerated((N_GATES,), 1, torch.float32)
    rows = states[0].long().tolist()
    p = [reference.tree_probability(row, PARENTS, 0.4, COPIES) for row in rows]
    assert math.isclose(math.fsum(p), 1)
    return states, torch.tensor(p, dtype=torch.double)


def learned(tree, **options):
    states, p = tree
    loss = ComplexityLoss(nn.ReLU(), random_state=0, **options)
    noise = generator(5)
    draws = torch.multinomial(p, 1500 * 128, replacement=True, generator=noise).reshape(1500, 128)
    for rows in draws:
        loss.energy_step(2 * states[0, rows] - 1)
    model = loss._densities.groups[0].model.double()
    loss._densities.dtype = torch.double
    return loss, model


def divergence(model, tree):
    states, p = tree
    return float((p * (p.log() - log_density(model, states.double())[0][0])).sum())


def test_energy_model_learns_a_tree(tree, record_property):
    states, p = tree
    loss, model = learned(tree)
    rates = (p @ states[0].double()).reshape(1, -1)
    product = ProductModel(1, (N_GATES,), dtype=torch.double, generator=generator())
    product.rates.copy_(rates)
    independent, flips = divergence(product, tree), divergence(model, tree)
    langevin = divergence(learned(tree, sampler="langevin")[1], tree)
    print(f"KL in nats: product {independent:.3f}, flips {flips:.3f}, langevin {langevin:.3f}")
    assert flips < independent / 8
    assert langevin > flips
    np.testing.assert_allclose(model.rates, rates, atol=0.06)

    rows = torch.multinomial(p, 400, replacement=True, generator=generator(6))
    model.rates.copy_(states[0, rows].mean(0, keepdim=True))
    log_p, _ = log_density(model, states.double())
    exact = -log_p[0, rows] / math.log(2)
    bits, error = loss.complexity(2 * states[0, rows] - 1, n_particles=4000)
    assert abs(bits[0] - exact.mean()) < 0.05
    np.testing.assert_allclose(error[0], exact.std() / 20, rtol=0.1)


def test_model_has_running_means_of_the_parameters():
    loss = ComplexityLoss(nn.ReLU(), random_state=0).find_layers(torch.randn(4, 3))
    (group,) = loss._densities.groups
    x, steps = torch.randn(60, 8, 3, generator=generator()), []
    for batch in x:
        loss.energy_step(batch)
        steps.append([p.clone() for p in group.learner.parameters()])
    expected = [torch.zeros_like(p) for p in steps[0]]
    for i, step in enumerate(steps):
        share = max(0.02, 1 / (i + 1))
        expected = [share * p + (1 - share) * e for p, e in zip(step, expected, strict=True)]
    for found, mean, last in zip(group.model.parameters(), expected, steps[-1], strict=True):
        torch.testing.assert_close(found, mean)
        assert not torch.equal(found, last)
    assert group.model.rates is group.learner.rates


def test_contrastive_loss_pulls_energies_of_data_and_samples_towards_zero():
    loss = ComplexityLoss(nn.ReLU(), random_state=0).find_layers(torch.randn(4, 3))
    (group,) = loss._densities.groups
    group.learner = random_model((3,), n_layers=1)
    data = torch.randint(2, (1, 5, 3), generator=generator()).double()
    drawn = torch.randint(2, (1, 7, 3), generator=generator(1)).double()
    group.sampler.draw = lambda *_: drawn
    found = group.contrastive_loss(data, None)
    f, g = group.learner.f(data)[0].tolist(), group.learner.f(drawn)[0].tolist()
    squares = sum(v * v for v in f) / 5 + sum(v * v for v in g) / 7
    expected = sum(g) / 7 - sum(f) / 5 + 0.1 / 3 * squares
    np.testing.assert_allclose(found.item(), expected)
