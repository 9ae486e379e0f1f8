"""`ComplexityLoss`: its value and gradient against loops, what it leaves alone, what it refuses."""

import math
from itertools import pairwise

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from test_module_restored import NETWORKS, assert_unchanged, build, snapshot
from torch import nn

from skgate import ComplexityLoss, GateExtractor
from skgate.training.energy._gate_densities import Group

SHARPNESS = 4.0


def data(*shape, seed=0, dtype=torch.double):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mlp(sizes=(3, 6, 4, 4, 6, 2), dtype=torch.double):
    """Return a network whose layers of one shape are not all neighbours."""
    torch.manual_seed(0)
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out, dtype=dtype), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Images(nn.Module):
    """Convolutions with gates of one and of two thresholds, then a dense layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(1, 2, 3).double(), nn.Conv2d(2, 1, 2).double()
        self.fc = nn.Linear(12, 3).double()

    def forward(self, x):
        x = self.b(F.relu6(self.a(x)))
        return torch.clamp(self.fc(F.leaky_relu(x).flatten(1)), min=0.1)


def taught(net, x, n_steps=5, **params):
    params = {"gate_sharpness": SHARPNESS, "energy_lr": 0.05, "random_state": 0, **params}
    loss = ComplexityLoss(net, **params)
    for _ in range(n_steps):
        loss.energy_step(x)
    return loss


NETS = {
    "mlp": (mlp, (12, 3), ["1", "3", "5", "7"]),
    "images": (Images, (6, 1, 7, 6), ["relu6", "leaky_relu", "clamp"]),
}


def expected_penalties(loss, x, *, hard=False):
    """Return penalties in nats from the pre-activations, by the loops of `reference`."""
    net, gates = loss.module, {}
    if isinstance(net, Images):
        z = [net.a(x), None, None]
        thresholds = [(0, 6), (0,), (0.1,)]
        y = z[0] * torch.sigmoid(SHARPNESS * z[0])
        y = y - (z[0] - 6) * torch.sigmoid(SHARPNESS * (z[0] - 6))
        z[1] = net.b(y)
        y = 0.01 * z[1] + 0.99 * z[1] * torch.sigmoid(SHARPNESS * z[1])
        z[2] = net.fc(y.flatten(1))
    else:
        z, thresholds, y = [], [(0,)] * 4, x
        for layer in [*net][0:8:2]:
            z.append(layer(y))
            y = z[-1] * torch.sigmoid(SHARPNESS * z[-1])
    for name, values, ts in zip(loss.layer_names_, z, thresholds, strict=True):
        relaxed = torch.stack([torch.sigmoid(SHARPNESS * (values - t)) for t in ts], 2)
        gates[name] = relaxed.flatten(1, 2).detach()  # gates of a unit go by the channel
    found = []
    for i, name in enumerate(loss.layer_names_):
        group = next(g for g in loss._densities.groups if name in g.names)
        layer = group.names.index(name)
        weights = [w[layer].tolist() for w in getattr(group.model, "weights", [])]
        biases = [b[layer].tolist() for b in getattr(group.model, "biases", [])]
        rates = group.model.rates[layer].flatten().tolist()
        f = reference.convolutional_energy if gates[name].ndim > 2 else reference.dense_energy
        total = 0.0
        for row in gates[name]:
            total -= reference.log_prior(row.flatten().tolist(), rates)
            total -= f(row.tolist(), weights, biases) if weights else 0.0
        positions = math.prod(z[i].shape[2:])
        found.append(total / len(x) / positions)
    return found


# Value and gradient --------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["ebm", "product"])
@pytest.mark.parametrize("net", NETS)
def test_penalty_of_each_layer_is_that_of_loops(net, penalty):
    make, shape, names = NETS[net]
    loss = taught(make(), data(*shape), penalty=penalty)
    assert loss.layer_names_ == names
    x = data(4, *shape[1:], seed=1)
    found = loss.layer_penalties(x)
    np.testing.assert_allclose(found.detach(), expected_penalties(loss, x), rtol=1e-8)
    np.testing.assert_allclose(loss(x).item(), found.sum().item())
    if penalty == "ebm":
        assert all(
            g.model.f(g.model.draw_prior(9, loss._densities.generator)).any()
            for g in loss._densities.groups
        )


@pytest.mark.parametrize("penalty", ["ebm", "product"])
@pytest.mark.parametrize("net", NETS)
def test_gradient_of_the_penalty_is_that_of_differences(net, penalty):
    make, shape, _ = NETS[net]
    net, x = make(), data(*shape)
    loss = taught(net, x, penalty=penalty)
    loss(x).backward()
    step = 1e-6
    for parameter in net.parameters():
        if parameter.grad is None:  # of the head, which no gate comes after
            assert parameter.shape[0] == 2
            continue
        direction = data(*parameter.shape, seed=3)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
                values.append(loss(x).item())
                parameter -= sign * step * direction
        slope = (values[0] - values[1]) / (2 * step)
        assert abs(slope) > 1e-6
        np.testing.assert_allclose((parameter.grad * direction).sum(), slope, rtol=1e-5)


def test_rates_are_running_means_of_hard_gates():
    net, batches = mlp((3, 6, 2)), [data(20, 3, seed=s) for s in range(4)]
    loss = ComplexityLoss(net, penalty="product", random_state=0)
    for x in batches:
        assert loss.energy_step(x) == 0.0
    expected = reference.running_rates([(net[0](x) > 0).tolist() for x in batches])
    np.testing.assert_allclose(loss._densities.groups[0].model.rates[0], expected)


def test_complexity_of_independent_gates_is_their_entropy_in_the_plain_module():
    net, x = mlp(), data(30, 3)
    loss = taught(net, x, penalty="product", gate_sharpness=0.5)  # far from the plain module
    y = data(17, 3, seed=2)
    bits, errors = loss.complexity(y)
    for i, name in enumerate(loss.layer_names_):
        gates = (net[: int(name)](y) > 0).tolist()
        rates = np.mean(gates, 0)
        values = [
            -sum(math.log2(p if g else 1 - p) for g, p in zip(row, rates, strict=True))
            for row in gates
        ]
        np.testing.assert_allclose(bits[i], reference.product_entropy(gates))
        np.testing.assert_allclose(errors[i], np.std(values, ddof=1) / math.sqrt(17))
    parts = loss.complexity(y[:5], y[5:6], y[6:])
    np.testing.assert_allclose(parts, (bits, errors))


def test_complexity_is_measured_in_evaluation_mode_with_rates_of_that_mode():
    net, x = mlp((3, 6, 2)), data(200, 3)
    net.insert(1, nn.BatchNorm1d(6).double())
    net.insert(0, nn.Dropout(0.9))
    loss = taught(net.train(), x, penalty="product")
    bits, _ = loss.complexity(x)
    assert net.training
    gates = net.eval()[:3](x) > 0
    np.testing.assert_allclose(bits, reference.product_entropy(gates.tolist()))
    # with the rates of the training, it would be more bits than gates
    rates = loss._densities.groups[0].model.rates[0].tolist()
    surprisals = [-reference.log_prior(row, rates) / math.log(2) for row in gates.tolist()]
    assert np.mean(surprisals) > 6


@pytest.mark.parametrize("sampler", ["flips", "langevin"])
def test_complexity_of_constant_gates_is_zero(sampler):
    net, x = mlp((3, 24, 2)), data(64, 3)
    with torch.no_grad():
        net[0].bias[:] = torch.tensor([50.0, -50.0] * 12)
    loss = taught(net, x, 100, sampler=sampler, energy_lr=0.01)
    np.testing.assert_array_equal(loss.complexity(x)[0], 0)


# Gradient and complexity, against the entropy ------------------------------------------------

N_GATES = 8


def gaussian_gates(seed):
    """Return a layer of eight gates of Gaussian inputs, and its entropy's value and gradient.

    The entropy of the gates has the derivative, by the bias of gate i, density of its
    pre-activation at 0 times E[log P(gate i closed) - log P(gate i open)], over inputs on its
    hyperplane; by its weights, the same with the inputs as a factor. Inputs on a hyperplane are
    projections of Gaussian ones.
    """
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(N_GATES, 8)) / 8**0.5, rng.normal(size=N_GATES)
    X, powers = rng.normal(size=(100_000, 8)), 2 ** np.arange(N_GATES)
    counts = np.bincount((X @ weights.T + bias > 0) @ powers, minlength=2**N_GATES)
    log_p, slopes = np.log(np.maximum(counts, 0.3) / len(X)), []
    for i, (w, b) in enumerate(zip(weights, bias, strict=True)):
        norm = np.linalg.norm(w)
        on_plane = X - np.outer((X @ w + b) / norm**2, w)
        is_open = on_plane @ weights.T + bias > 0
        is_open[:, i] = False
        states = is_open @ powers
        gains = log_p[states] - log_p[states + powers[i]]
        density = math.exp(-((b / norm) ** 2) / 2) / math.sqrt(2 * math.pi) / norm
        slopes.append(density * np.append(gains @ on_plane / len(X), gains.mean()))
    net = nn.Sequential(nn.Linear(8, N_GATES), nn.ReLU(), nn.Linear(N_GATES, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(weights))
        net[0].bias.copy_(torch.tensor(bias))
    return net, reference.plogp(counts / len(X)), np.array(slopes)


def cosine(a, b):
    return (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_is_that_of_the_entropy(seed):
    net, entropy, exact = gaussian_gates(seed)
    loss, batches = ComplexityLoss(net, random_state=seed), data(500, 128, 8, dtype=torch.float32)
    for x in batches[:300]:
        loss.energy_step(x)
    found = []
    for x in batches[300:]:
        net.zero_grad()
        loss(x).backward()
        found.append(np.column_stack([net[0].weight.grad, net[0].bias.grad]))
    assert cosine(np.mean(found, 0), exact) > 0.95
    assert np.mean([cosine(gradient, exact) for gradient in found]) > 0.7
    bits, error = loss.complexity(*batches[300:310])
    assert abs(bits[0] - entropy) < 0.2
    assert error < 0.1


@pytest.mark.parametrize("net", NETS)
def test_order_of_samples_does_not_matter(net):
    make, shape, _ = NETS[net]
    loss = taught(make(), data(*shape))
    x = data(8, *shape[1:], seed=1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss.layer_penalties(x), loss.layer_penalties(x[order]))
    twice = torch.cat([x, x])
    torch.testing.assert_close(loss.layer_penalties(x), loss.layer_penalties(twice))


def test_run_gives_the_output_of_the_relaxed_module_and_the_gates_of_the_penalty():
    net, x = mlp(), data(9, 3)
    loss = taught(net, x)
    output, gates = loss.run(x)
    torch.testing.assert_close(loss(gates), loss(x))
    y = x
    for i, layer in enumerate(net):
        y = y * torch.sigmoid(SHARPNESS * y) if i % 2 else layer(y)
    torch.testing.assert_close(output, y)
    with loss.relaxed() as found:
        torch.testing.assert_close(net(x), output)
    torch.testing.assert_close(loss(found[0]), loss(x))


def test_penalty_lowers_the_complexity_of_a_network_in_training():
    net, x = mlp((3, 8, 8, 2), torch.float32), data(128, 3, dtype=torch.float32)
    loss = ComplexityLoss(net, random_state=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loss.energy_step(x)
    before = sum(loss.complexity(x)[0])
    for _ in range(60):
        _, gates = loss.run(x)
        loss.energy_step(gates)
        optimizer.zero_grad()
        loss(gates).backward()
        optimizer.step()
    assert sum(loss.complexity(x)[0]) < before / 2


# What is left alone --------------------------------------------------------------------------

METHODS = {
    "find_layers": lambda loss, x: loss.find_layers(x),
    "energy_step": lambda loss, x: loss.energy_step(x),
    "penalty": lambda loss, x: loss(x),
    "complexity": lambda loss, x: (loss.energy_step(x), loss.complexity(x, n_particles=4)),
}
IN_PLACE = pytest.mark.xfail(reason="F.embedding shortens rows in place", strict=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", NETWORKS)
def test_module_is_as_it_was(case, method, request):
    if case == "max_norm" and method in ("energy_step", "complexity"):
        request.applymarker(IN_PLACE)
    net, _, x = build(case)
    loss = ComplexityLoss(net, random_state=0)
    if method == "penalty":
        loss.energy_step(x)
    before = snapshot(net)
    METHODS[method](loss, x)
    assert_unchanged(net, before)
    METHODS[method](loss, x)
    assert_unchanged(net, before)


@pytest.mark.parametrize("method", METHODS)
def test_random_numbers_of_dropout_are_left(method):
    net, x = mlp().insert(2, nn.Dropout(0.5)).train(), data(9, 3)
    loss = taught(net, x, 1)
    before = torch.get_rng_state()
    METHODS[method](loss, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert net[2].training


@pytest.mark.parametrize("error", [RuntimeError("blown"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("method", METHODS)
def test_module_is_as_it_was_after_an_error(method, error):
    net, fuse, x = build(next(iter(NETWORKS)))
    loss = ComplexityLoss(net, random_state=0)
    loss.energy_step(x)
    value, before = loss(x).item(), snapshot(net)
    fuse.error, fuse.at = error, fuse.n_calls + 1
    with pytest.raises(type(error)):
        METHODS[method](loss, x)
    assert_unchanged(net, before)
    assert loss(x).item() == value


def test_energy_model_stays_out_of_the_gradients_of_the_user():
    net, x = mlp(), data(9, 3)
    loss = taught(net, x)
    for group in loss._densities.groups:
        for p in group.model.parameters():
            p.grad = None
    loss(x).backward()
    models = [group.model for group in loss._densities.groups]
    assert all(p.grad is None for model in models for p in model.parameters())
    assert not {id(p) for m in models for p in m.parameters()} & {id(p) for p in net.parameters()}
    assert not isinstance(loss, nn.Module)
    net.zero_grad()
    loss.energy_step(loss.run(x)[1])
    assert all(p.grad is None for p in net.parameters())


def test_energy_model_stays_out_after_an_interrupted_step(monkeypatch):
    net, x = mlp(), data(9, 3)
    loss = taught(net, x)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Group, "contrastive_loss", lambda g, *_: interrupt(g.model.requires_grad_()))
        with pytest.raises(KeyboardInterrupt):
            loss.energy_step(x)
    assert not any(p.requires_grad for g in loss._densities.groups for p in g.model.parameters())


# State ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"sampler": "langevin"}, {"penalty": "product"}], ids=str)
def test_state_resumes_bit_for_bit(params, tmp_path):
    net, x = mlp(), data(9, 3)
    first = taught(net, x, 3, **params)
    torch.save(first.state_dict(), tmp_path / "state")
    others = []
    # in memory, where the two must not share any, and through a file
    for state in (first.state_dict(), torch.load(tmp_path / "state", weights_only=True)):
        other = ComplexityLoss(net, gate_sharpness=SHARPNESS, energy_lr=0.05, **params)
        other.find_layers(x).load_state_dict(state)
        others.append(other)
    for loss in (first, *others):
        for _ in range(4):
            loss.energy_step(x)
    values = [[loss(x).item(), *loss.complexity(x)[0]] for loss in (first, *others)]
    assert values[0] == values[1] == values[2]


def test_random_state_determines_everything():
    net, x = mlp(), data(9, 3)
    values = []
    for seed in (0, 0, 1, np.random.RandomState(0)):
        torch.manual_seed(len(values))
        loss = taught(net, x, 3, random_state=seed)
        values.append((loss(x).item(), *loss.complexity(x)[0]))
    assert values[0] == values[1] == values[3] != values[2]


def test_state_of_other_layers_is_refused():
    state = taught(mlp(), data(9, 3), 1).state_dict()
    loss = ComplexityLoss(mlp((3, 6, 2))).find_layers(data(9, 3))
    with pytest.raises(ValueError, match=r"The state is of the layers \['1', '3', '5', '7'\]"):
        loss.load_state_dict(state)


# Edges ---------------------------------------------------------------------------------------


def test_gates_that_are_constant_and_batches_of_one_sample():
    net = mlp((3, 6, 4, 2))
    with torch.no_grad():
        net[0].bias[:3] = torch.tensor([50.0, -50.0, 50.0])
    loss = taught(net, data(1, 3), 3)
    for x in (data(1, 3), data(1, 3).repeat(5, 1), data(64, 3)):
        assert math.isfinite(loss.energy_step(x))
        loss(x).backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
        with np.errstate(all="ignore"):
            assert np.isfinite(loss.complexity(x.repeat(2, 1))[0]).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_precision_is_that_of_the_module_or_better(dtype):
    net, x = mlp((3, 6, 4, 2), dtype), data(16, 3)
    loss = taught(net, x, 3, gate_sharpness=100.0)
    penalty = loss(x)
    assert penalty.dtype is torch.promote_types(dtype, torch.float32)
    penalty.backward()
    assert all(torch.isfinite(p.grad).all() for p in net[0].parameters())
    assert loss.run(x)[0].dtype is dtype
    assert np.isfinite(loss.complexity(x)[0]).all()


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, a, b):
        return F.relu(self.fc(a) * b)


def test_inputs_in_dicts_and_tuples():
    torch.manual_seed(0)
    net, a, b = Pair(), data(8, 3, dtype=torch.float32), data(8, 1, dtype=torch.float32)
    values = [taught(net, x)(x).item() for x in ((a, b), {"b": b, "a": a}, (a.numpy(), b.numpy()))]
    assert values[0] == values[1] == values[2]


def test_transformer_gates_have_the_samples_first():
    torch.manual_seed(0)
    for batch_first in (True, False):
        layer = nn.TransformerEncoderLayer(8, 2, 6, dropout=0.0, batch_first=batch_first)
        net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
        x = data(7, 5, 8)
        loss = taught(net, (x,), 2) if batch_first else None
        if loss is None:
            net = Swapped(net)
            loss = taught(net, x, 2)
        gates = loss.run(x)[1]
        assert [tuple(g.shape) for g in gates] == [(2, 7, 30)]
        assert [n.split("layers.")[1] for n in loss.layer_names_] == ["0.relu", "1.relu"]
        assert np.isfinite(loss.complexity(x)[0]).all()
        alone = loss.run(x[:1])[1][0]
        torch.testing.assert_close(alone[:, 0], gates[0][:, 0])


class Swapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


def test_layers_of_a_compiled_module():
    net, x = mlp(), data(9, 3)
    expected = taught(net, x)
    loss = taught(torch.compile(net, backend="eager"), x)
    assert loss.layer_names_ == expected.layer_names_
    assert loss(x).item() == expected(x).item()


def test_default_takes_the_last_four_layers():
    net, x = mlp((3, 4, 4, 4, 4, 4, 4, 2)), data(9, 3)
    assert ComplexityLoss(net).find_layers(x).layer_names_ == ["5", "7", "9", "11"]
    every = ComplexityLoss(net, "*").find_layers(x).layer_names_
    assert every == GateExtractor(net).fit(x).layer_names_
    assert ComplexityLoss(net, [0, "7", -1]).find_layers(x).layer_names_ == ["1", "7", "11"]


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4).double()

    def forward(self, x):
        x = F.relu(self.fc(x))
        return x if len(x) > 5 else x.clamp(max=0.3)


def test_layers_that_cannot_be_penalised_are_an_error():
    x = data(9, 3)
    with pytest.raises(ValueError, match=r"have seen no gates yet\. Call energy_step"):
        ComplexityLoss(mlp())(x)
    with pytest.raises(ValueError, match=r"\['clamp'\] ran on the first samples but not on others"):
        ComplexityLoss(Moody()).find_layers(x).energy_step(x)
    pooled = nn.Sequential(nn.Linear(3, 4).double(), nn.MaxPool1d(2), nn.Tanh())
    with pytest.raises(ValueError, match="no layer that could be penalised"):
        ComplexityLoss(pooled).energy_step(x)
    cell = nn.RNNCell(3, 4, nonlinearity="relu").double()
    with pytest.raises(ValueError, match="no layer that could be penalised"):
        ComplexityLoss(cell).energy_step(x)
    with pytest.raises(ValueError, match=r"penalized_layers: No layer matches 'tail'.*ReLU"):
        ComplexityLoss(mlp(), "tail").find_layers(x)
    images = ComplexityLoss(Images().a, random_state=0)
    images.module = nn.Sequential(images.module, nn.ReLU())
    images.energy_step(data(4, 1, 6, 6))
    with pytest.raises(ValueError, match=r"'1' has gates of shape \(2, 5, 5\), where it had"):
        images.energy_step(data(4, 1, 7, 7))


@pytest.mark.parametrize(
    "params",
    [
        {"penalty": "kde"},
        {"sampler": "gibbs"},
        {"gate_sharpness": 0},
        {"langevin_steps": 0},
        {"langevin_step_size": -1.0},
        {"energy_lr": 0.0},
        {"random_state": "x"},
        {"penalized_layers": 1.5},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_named(params):
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter of ComplexityLoss"):
        ComplexityLoss(mlp(), **params)


def test_energies_that_are_not_finite_are_an_error():
    net, x = mlp(), data(9, 3)
    loss = taught(net, x, 2)
    loss._densities.groups[0].learner.biases[-1].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"energy of layers \['1', '7'\].*energy_lr"):
        loss.energy_step(x)


def test_methods_that_come_too_early_say_what_comes_first():
    net, x = mlp(), data(9, 3)
    loss = ComplexityLoss(net, random_state=0)
    with pytest.raises(ValueError, match="Call find_layers"):
        loss.state_dict()
    with pytest.raises(ValueError, match="Call find_layers"), loss.relaxed():
        net(x)
    for early in (loss, loss.complexity):
        with pytest.raises(ValueError, match="Call energy_step"):
            early(x)


@pytest.mark.parametrize("n_particles", [0, 1.5, None])
def test_number_of_particles_is_checked(n_particles):
    net, x = mlp(), data(9, 3)
    with pytest.raises(ValueError, match="n_particles"):
        taught(net, x, 1).complexity(x, n_particles=n_particles)


def test_nothing_is_learned_from_no_samples():
    net, x = mlp(), data(9, 3)
    loss = taught(net, x, 1)
    with pytest.raises(ValueError, match="0 samples"):
        loss.energy_step(x[:0])
    assert np.isfinite(loss.complexity(x)[0]).all()


def test_one_sample_has_no_standard_error():
    net, x = mlp(), data(9, 3)
    loss = taught(net, x, 1)
    assert np.isnan(loss.complexity(x[:1])[1]).all()
    assert np.isfinite(loss.complexity(x[:1], n_particles=1)[0]).all()
