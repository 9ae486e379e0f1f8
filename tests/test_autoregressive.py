"""The autoregressive density: regressions, units of several gates, and networks."""

import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import reference
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import logit, logsumexp

from skgate import GateLayer, GatingStates, gating_entropy
from skgate.densities import (
    Autoregressive,
    PerLayer,
    _cross_fitting,
)
from skgate.densities._rates import beta_prior
from skgate.densities.autoregression import (
    _linear_autoregression,
    _masked_network,
    _network_mixture,
)
from skgate.densities.autoregression._gate_code import Columns, GateCode


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(_network_mixture, "_MAX_STEPS", 150)


def rates_of(gates):
    n_open = gates.sum(axis=0)
    a, b = beta_prior(n_open, len(gates))
    return (n_open + a) / (len(gates) + a + b)


def columns_of(gates, free=None):
    return Columns(gates.astype(float), free, np.full((2, gates.shape[1]), 0.5))


def mixed_states(n, rng):
    """Two windows of three, two thermometers of two and two gates that depend on them."""
    wins = rng.random((n, 2, 3)) + 0.7 * (rng.random((n, 1, 1)) < 0.5) * [0, 0, 1]
    windows = wins.argmax(axis=2)[..., None] == np.arange(3)
    levels = rng.normal(size=(n, 2)) + (windows[:, :, 2])
    thermometers = levels[..., None] > [0.0, 1.0]
    plain = (levels.sum(axis=1)[:, None] + rng.normal(size=(n, 2)) > 0) ^ windows[:, 0, :2]
    return states_of(windows, thermometers, plain)


def states_of(*units):
    flat = [np.ascontiguousarray(u.reshape(len(u), -1)) for u in units]
    layers = [
        GateLayer("pool", 6, "max_pool", 3, one_hot=True),
        GateLayer("relu6", 4, "relu6", 2),
        GateLayer("relu", 2),
    ]
    return GatingStates([np.packbits(g, axis=1) for g in flat], layers)


def all_mixed_states():
    units = [np.eye(3, dtype=bool)] * 2 + [np.array([[0, 0], [1, 0], [1, 1]], bool)] * 2
    rows = list(product(*units, *[[False, True]] * 2))
    windows, thermometers = ([row[i : i + 2] for row in rows] for i in (0, 2))
    return states_of(*(np.array(x) for x in (windows, thermometers, [row[4:] for row in rows])))


# Regressions --------------------------------------------------------------------------------------


def test_regressions_agree_with_double_loops(rng, monkeypatch):
    monkeypatch.setattr(_linear_autoregression, "_RIDGES", (0.3,))
    latent = rng.normal(size=(80, 2))
    gates = latent @ rng.normal(size=(2, 9)) + rng.normal(size=(80, 9)) > 0.5
    new = rng.random((15, 9)) < 0.5
    layers, queries = ({"a": g[:, :4], "b": g[:, 4:]} for g in (gates, new))
    fitted = gating_entropy(layers, density="autoregressive").density
    logs = fitted.log_likelihoods(GatingStates.from_arrays(queries)) / np.log(2)
    all_rates = np.concatenate([rates_of(gates[:, :4]), rates_of(gates[:, 4:])])
    for position, model, own in [
        (0, fitted._models[0], slice(0, 4)),
        (1, fitted._models[1], slice(4, 9)),
        (fitted._ranges.joint, fitted._models[2], slice(0, 9)),
    ]:
        rates = all_rates[own].tolist()
        found = reference.ridge_predictions(new[:, own], gates[:, own], rates, 0.3)
        curves = model.models[0].intercepts, model.models[0].slopes
        expected = [
            reference.logistic_log_likelihood(row, predictions, *curves)
            for row, predictions in zip(new[:, own], found, strict=True)
        ]
        assert_allclose(logs[position], expected, rtol=1e-9)


def test_curves_are_fitted_to_predictions_of_unseen_samples(rng, monkeypatch):
    monkeypatch.setattr(_linear_autoregression, "_RIDGES", (0.3,))
    seen, original = [], _linear_autoregression.calibrate
    monkeypatch.setattr(
        _linear_autoregression, "calibrate", lambda *args: seen.append(args) or original(*args)
    )
    gates = rng.random((50, 6)) < 0.4
    gates[:, 2:4] ^= gates[:, :1]
    _linear_autoregression.fit_linear(columns_of(gates), None)
    expected = []
    for test in np.split(np.arange(50), 5):
        train = np.setdiff1d(np.arange(50), test)
        rates = (gates[train].sum(axis=0) + 0.5) / 41
        expected += reference.ridge_predictions(gates[test], gates[train], rates, 0.3)
    assert_allclose(seen[0][1], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.004])
@pytest.mark.parametrize("all_free", [True, False])
def test_curves_are_at_the_posterior_mode(rng, rate, all_free):
    contrasts = rng.normal(size=(500, 4)) * [0.05, 0.2, 0.5, 1.0]
    gates = (rng.random((500, 4)) < 1 / (1 + np.exp(-logit(rate) - 3 * contrasts))).astype(float)
    free = None if all_free else rng.random((500, 4)) < 0.7
    prior = logit((gates.sum(axis=0) + 0.5) / 501)
    columns = columns_of(gates, free)
    intercepts, slopes = _linear_autoregression.calibrate(columns, contrasts, prior, 4.0)
    for i in range(4):
        own = slice(None) if all_free else free[:, i]

        def loss(x, i=i, own=own):
            z = x[0] + x[1] * contrasts[own, i]
            likelihood = np.sum(np.logaddexp(0, np.where(gates[own, i] > 0, -z, z)))
            return likelihood + 0.5 * ((x[0] - prior[i]) ** 2 + 0.1 * (x[1] - 4.0) ** 2)

        best = minimize(loss, [prior[i], 4.0], tol=1e-12)
        assert loss([intercepts[i], slopes[i]]) <= best.fun + 1e-6


def test_work_beyond_memory_is_refused_before_it_starts(monkeypatch):
    started = []
    monkeypatch.setattr(_cross_fitting, "physical_memory", lambda: 3 * 8 * 20**2)
    monkeypatch.setattr(Autoregressive, "_fit_model", lambda *args: started.append(args))
    gates = {"a": np.eye(10), "b": np.eye(10)}
    with pytest.raises(ValueError, match=r"10 rows of 20 gates.*'auto'.*select"):
        gating_entropy(gates, density="autoregressive")
    assert not started


# Rates and units ----------------------------------------------------------------------------------


def test_constant_gates_cost_next_to_nothing(rng):
    fair = rng.random((200, 10)) < 0.5
    constant = np.tile(rng.random(20_000) < 0.3, (200, 1))
    gates = np.insert(constant, np.arange(10) * 2000, fair, axis=1)
    found = gating_entropy(gates, density="autoregressive", random_state=0)
    assert abs(found.entropy - 10) < 0.5
    assert len(found.density._models[0].code.columns) == 10


def test_constant_gates_that_vary_later_cost_their_smoothed_rate(rng):
    gates = np.hstack([rng.random((50, 3)) < 0.5, np.zeros((50, 4), bool)])
    density = Autoregressive().fit(gates)
    odd = gates.copy()
    odd[:, 4] = True
    rates = rates_of(gates)
    assert_allclose(
        density.score_samples(odd) - density.score_samples(gates), logit(rates[4]), rtol=1e-9
    )


@pytest.mark.parametrize("thermometer", [False, True])
def test_a_uniform_unit_of_nine_values_has_log2_9_bits(rng, thermometer):
    values = rng.integers(0, 9, (3000, 1))
    gates = np.arange(8) < values if thermometer else np.arange(9) == values
    layer = GateLayer("unit", gates.shape[1], "unit", gates.shape[1], one_hot=not thermometer)
    states = GatingStates([np.packbits(gates, axis=1)], [layer])
    found = gating_entropy(states, density="autoregressive", random_state=0)
    assert abs(found.entropy - math.log2(9)) < 0.02


def test_free_gates_are_those_that_no_earlier_one_of_their_unit_determines():
    states = all_mixed_states()
    columns, _ = GateCode(states).read(states)
    gates = np.asarray(states)
    for row, free in zip(gates, columns.free, strict=True):
        expected = []
        for unit in (row[:3], row[3:6]):
            expected += [True, not unit[0]]  # the third is determined, no column
        for unit in (row[6:8], row[8:10]):
            expected += [True, unit[0]]
        assert free.tolist() == [*expected, True, True]


@pytest.mark.parametrize("hidden", [None, 8])
def test_probabilities_of_all_states_sum_to_one(rng, few_steps, hidden):
    states, every = mixed_states(400, rng), all_mixed_states()
    density = Autoregressive(hidden)
    fitted = gating_entropy(states, density=density, cv=None, random_state=0).density
    logs = fitted.log_likelihoods(every)[fitted._ranges.joint]
    assert_allclose(np.exp(logs).sum(axis=0), 1, rtol=1e-5)
    link = density._fit_link(states.select([0, 1]), 0, None)
    alone, given = link.log_likelihoods(every.select([0, 1]), None)
    before = np.unique(np.asarray(every.select([0])), axis=0, return_inverse=True)[1]
    for terms, groups in [(given, before), (alone, 0 * before)]:
        for group in set(groups):
            rows = np.flatnonzero(groups == group)
            _, firsts = np.unique(np.asarray(every.select([1]))[rows], axis=0, return_index=True)
            assert len(firsts) == 9
            assert_allclose(np.exp(terms[rows[firsts]]).sum(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("hidden", [None, 8])
def test_a_layer_that_follows_from_the_one_before_costs_nothing_given_it(rng, few_steps, hidden):
    coins = rng.random((400, 5)) < 0.5
    layers = {"a": coins, "b": ~coins[:, ::-1]}
    density = PerLayer({"*": Autoregressive(hidden)})
    found = gating_entropy(layers, density=density, random_state=0)
    assert_allclose(found.layer_entropy, 5, atol=0.15)
    assert found.entropy < 5.3


# Networks -----------------------------------------------------------------------------------------


def triples(rng, n, n_triples):
    a, b = rng.random((2, n, n_triples)) < 0.5
    return np.hstack([a, b, a ^ b])


def test_networks_see_an_exclusive_or(rng, monkeypatch):
    monkeypatch.setattr(_network_mixture, "_MAX_STEPS", 1500)
    gates, new = triples(rng, 1000, 3), triples(rng, 1000, 3)
    bits = [-Autoregressive(hidden).fit(gates).score(new) / np.log(2) for hidden in (None, 64)]
    assert bits[0] > 8.9
    assert 5.98 < bits[1] < 6.3


def test_gradients_are_those_of_the_loss(rng):
    shapes = [4, 5, (4, 7), (5, 7), (4, 5)]
    weights = [torch.tensor(rng.normal(size=s), dtype=torch.float32) for s in shapes]
    masks = [torch.tensor(rng.random(s) < 0.6, dtype=torch.float32) for s in shapes[2:]]
    for weight, mask in zip(weights[2:], masks, strict=True):
        weight *= mask
    x = torch.tensor(rng.normal(size=(20, 7)), dtype=torch.float32)
    gates, free = (torch.tensor(rng.random((20, 4)) < 0.5) for _ in range(2))
    _masked_network._set_gradients(weights, masks, (0.1, 0.2, 0.3), x, gates.float(), free)
    found = [w.grad for w in weights]
    copies = [w.detach().clone().requires_grad_() for w in weights]
    a, c, direct, inward, outward = copies
    z = a + x @ direct.T + torch.relu(c + x @ inward.T) @ outward.T
    log_p = torch.distributions.Bernoulli(logits=z).log_prob(gates.float())
    loss = -(log_p * free).sum() / 20
    loss += sum(p * w.abs().sum() for p, w in zip((0.1, 0.2, 0.3), copies[2:], strict=True))
    loss.backward()
    for own, copy, mask in zip(found, copies, [1, 1, *masks], strict=True):
        assert_allclose(own, (copy.grad * mask), rtol=1e-4, atol=1e-6)


def fitted_networks(gates, hidden, monkeypatch, **options):
    """Return what judges the networks, and the networks."""
    seen, original = [], _network_mixture._weigh

    def weigh(models, judged, first):
        weights = original(models, judged, first)
        seen.append((models, judged, weights))
        return weights

    monkeypatch.setattr(_network_mixture, "_weigh", weigh)
    Autoregressive(hidden).fit(gates)
    return seen[0]


def test_the_mixture_is_no_worse_than_regressions_on_the_samples_that_judge(
    rng, few_steps, monkeypatch
):
    for gates in (triples(rng, 300, 3), rng.random((300, 9)) < 0.5):
        models, judged, weights = fitted_networks(gates, 16, monkeypatch)
        logs = [judged.log_bernoulli(m.logits(judged)).sum(axis=1) for m in models]
        mixed = logsumexp(np.log(weights)[:, None] + logs, axis=0)
        assert len(judged) == 30
        assert mixed.mean() >= logs[0].mean() - 1e-9


def test_a_network_is_no_worse_than_where_it_began(rng, few_steps):
    gates = columns_of(rng.random((300, 9)) < 0.5)
    moments = _linear_autoregression.Moments(gates[:250])
    regression = moments.regression(0.1, order=np.arange(9)[::-1])
    weights = logit(moments.rates[::-1]), 4.0 * regression.weights()
    start = _masked_network.MaskedNetwork(np.arange(9)[::-1], moments.rates, weights)
    plan = _masked_network.Schedule(16, 300, 50)
    judged = gates[250:]
    network, stop = _masked_network.train(gates[:250], start, 1.0, plan, 0, judged)
    z = weights[0] + judged.centred(moments.rates)[:, ::-1] @ weights[1].T
    before = judged.log_bernoulli(z[:, ::-1]).sum(axis=1).mean()
    assert _masked_network.held_out(network, judged) >= before - 1e-5
    assert 0 <= stop < 300


def test_later_gates_move_no_earlier_logit(rng, monkeypatch):
    monkeypatch.setattr(_network_mixture, "_MAX_STEPS", 400)
    models, judged, _ = fitted_networks(triples(rng, 1000, 2), 16, monkeypatch)
    for network in models[1:]:
        logits = network.logits(judged)
        for place, column in enumerate(network.order):
            flipped = columns_of(judged.gates.copy())
            flipped.gates[:, column] = 1 - flipped.gates[:, column]
            moved = np.abs(network.logits(flipped) - logits).max(axis=0)
            assert_array_equal(moved[network.order[: place + 1]], 0)
        assert np.any(network.weights[4])


def test_a_seed_determines_networks_and_torch_keeps_its_state(rng, few_steps):
    gates = triples(rng, 300, 2)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    scores = [Autoregressive(16).fit(gates).score_samples(gates)]
    assert_array_equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    with torch.inference_mode():
        scores.append(Autoregressive(16).fit(gates).score_samples(gates))
    assert_array_equal(*scores)


def test_torch_is_imported_for_networks_alone():
    code = (
        "import sys, numpy as np; from skgate.densities import Autoregressive;"
        "Autoregressive().fit(np.eye(30)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_few_samples_and_few_gates_do_without_networks(rng):
    few = Autoregressive(16).fit(rng.random((15, 6)) < 0.5)
    assert len(few._models[0].models) == 1
    single = Autoregressive(16).fit(rng.random((100, 1)) < 0.5)
    assert len(single._models[0].models) == 1


@pytest.mark.parametrize("size", [(180_000, 64), (1_000, 1_500), (300_000, 17), (15_000, 1_000)])
def test_steps_follow_from_sizes_within_the_work(size):
    plan = _network_mixture.schedule(*size, size[1], 512)
    work = _network_mixture.step_work(plan.batch, size[1], size[1], 512) * plan.n_steps
    assert 6 * work <= 1.01 * _network_mixture._WORK
    assert plan.n_steps >= 100


# Conditional probabilities ------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
def test_conditional_probabilities_multiply_to_the_likelihood_and_do_not_look_ahead(rng, several):
    latent = rng.normal(size=(300, 2))
    gates = latent @ rng.normal(size=(2, 9)) + rng.normal(size=(300, 9)) > 0.5
    gates[:200, 4] = False  # constant where fitted

    def states(gates):
        layers = {"a": gates[:, :6], "b": gates[:, 6:]}
        return GatingStates.from_arrays(layers) if several else gates

    density, new = Autoregressive().fit(states(gates[:200])), gates[200:]
    p = density.conditional_probabilities(states(new))
    logs = np.log(np.where(new, p, 1 - p)).sum(axis=1)
    assert_allclose(logs, density.score_samples(states(new)), rtol=1e-10)
    changed = new ^ (np.arange(9) >= 5)
    later = density.conditional_probabilities(states(changed))
    assert_allclose(later[:, :6], p[:, :6], rtol=1e-12)
    assert (abs(later - p)[:, 6:] > 1e-3).any()


def test_conditional_probabilities_of_a_measured_density_are_those_of_all_layers(rng):
    gates = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 8)) > 0
    layers = GatingStates.from_arrays({"a": gates[:, :5], "b": gates[:, 5:]})
    density = gating_entropy(layers, density="autoregressive").density
    p = density.conditional_probabilities(layers)
    logs = np.log(np.where(gates, p, 1 - p)).sum(axis=1)
    assert_allclose(logs, density.score_samples(layers), rtol=1e-10)


def test_conditional_probabilities_are_refused_where_there_is_no_one_order(rng, few_steps):
    gates = rng.random((60, 4)) < 0.5
    with pytest.raises(ValueError, match=r"in different orders; .* needs hidden=None"):
        Autoregressive(hidden=4).fit(gates).conditional_probabilities(gates)
    states = mixed_states(60, rng)
    with pytest.raises(ValueError, match=r"layers \['pool', 'relu6'\] have several gates"):
        Autoregressive().fit(states).conditional_probabilities(states)
