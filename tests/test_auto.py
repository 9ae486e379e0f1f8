"""The default density: the choice for each layer, its budget, and the chain of layers."""

import itertools
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from torch import nn

from skgate import (
    ComplexityMonitor,
    GateExtractor,
    GateLayer,
    GatingEntropy,
    GatingMI,
    GatingStates,
    TotalCorrelation,
    gating_entropy,
)
from skgate.capture import _passes
from skgate.densities import (
    Auto,
    Autoregressive,
    ChowLiu,
    Convolutional,
    Kernel,
    PerLayer,
    Product,
    _auto,
    _cross_fitting,
)
from skgate.densities.convolution import _link_fits

SEED = {"random_state": 0}


def low_rank(rng, n=600, n_gates=20):
    return rng.normal(size=(n, 3)) @ rng.normal(size=(3, n_gates)) > 0


def coins(rng, n=600, n_gates=20):
    return rng.random((n, n_gates)) < 0.5


def maps(rng, n=300):
    """Feature maps whose neighbours are alike."""
    field = rng.normal(size=(n, 2, 12, 12))
    for axis in (2, 3):
        field = sum(np.roll(field, step, axis) for step in range(3))
    return field > 0


def kinds(result):
    return [type(choice.density) for choice in result.layer_densities]


def test_each_layer_has_the_density_that_suits_it(rng):
    states = GatingStates.from_arrays(
        {"coins": coins(rng, 300), "low rank": low_rank(rng, 300), "maps": maps(rng)}
    )
    result = gating_entropy(states, **SEED)
    assert kinds(result) == [Product, Autoregressive, Convolutional]
    for choice in result.layer_densities:
        best = min(choice.held_out, key=choice.held_out.get)
        assert repr(choice.density) == best
    for i, kind in enumerate(kinds(result)):
        alone = gating_entropy(states.select(i), density=kind(), **SEED)
        assert_allclose(result.layer_entropy[i], alone.entropy, rtol=1e-12)


def test_the_same_seed_makes_the_same_choice(rng):
    gates = {"a": low_rank(rng), "b": coins(rng)}
    first, second = (gating_entropy(gates, **SEED) for _ in range(2))
    assert [str(c) for c in first.layer_densities] == [str(c) for c in second.layer_densities]
    assert first.entropy == second.entropy


def test_the_kernel_is_no_candidate(rng):
    (choice,) = gating_entropy(coins(rng), **SEED).layer_densities
    assert choice.held_out.keys() == {"Product()", "ChowLiu()", "Autoregressive()"}
    assert not choice.left_out
    with pytest.raises(ValueError, match=r"PerLayer has Kernel\(\) for 'a'"):
        GatingEntropy(density=PerLayer({"a": Kernel()})).fit(np.eye(6))


def test_what_exceeds_the_budget_or_the_memory_is_left_out_and_said(rng, monkeypatch):
    result = gating_entropy(low_rank(rng), budget=1e-9, **SEED)
    (choice,) = result.layer_densities
    assert kinds(result) == [Product]
    assert "budget=1e-09" in choice.left_out["Autoregressive()"]
    assert "Autoregressive(): takes about" in str(choice)
    monkeypatch.setattr(_auto, "physical_memory", lambda: 1)
    monkeypatch.setattr(Product, "_cost", lambda *args: (0, 0))
    monkeypatch.setattr(ChowLiu, "_cost", lambda *args: (0, 0))
    (choice,) = gating_entropy(low_rank(rng), **SEED).layer_densities
    assert choice.left_out == {"Autoregressive()": "needs about 0 GB"}
    assert list(choice.held_out) == ["Product()", "ChowLiu()"]


def test_larger_maps_have_a_faster_convolution():
    def tried(width, budget=60):
        layer = GateLayer("a", 64 * width**2, spatial=True, shape=(64, width, width))
        affordable, left_out = Auto(budget)._affordable((layer,), 500, 6)
        return list(map(repr, affordable)), list(left_out)

    assert tried(4)[0] == ["Convolutional()", "Autoregressive()", "ChowLiu()"]
    (large,), _ = tried(112)
    assert large.startswith("Convolutional(max_iter=0")
    affordable, left_out = tried(112, 0.01)
    assert affordable == ["Product()"]
    assert "Convolutional(max_iter=0, window=3)" in left_out


def test_a_wide_vector_has_a_convolution_of_one_position():
    layer = GateLayer("a", 3072, spatial=False, shape=(3072,))
    affordable, left_out = Auto()._affordable((layer,), 12_800, 6)
    assert list(map(repr, affordable)) == ["Convolutional(max_iter=0, window=3)", "ChowLiu()"]
    assert list(left_out) == ["Autoregressive()"]


def test_more_channels_than_a_window_has_are_named(rng, monkeypatch):
    monkeypatch.setattr(_link_fits, "_MAX_CHANNELS", 5)
    with pytest.warns(UserWarning, match="6 channels of layer .* vary, more than the 5"):
        gating_entropy(coins(rng, 50, 6).reshape(50, 6, 1, 1), density="convolutional", **SEED)


def test_few_samples_leave_no_choice(rng):
    result = gating_entropy(coins(rng, 9), **SEED)
    (choice,) = result.layer_densities
    assert kinds(result) == [Product]
    assert "9 samples are too few" in str(choice)
    assert "Product()" not in choice.left_out


def test_a_layer_is_not_given_one_that_does_not_help(rng):
    unrelated = GatingStates.from_arrays({"a": coins(rng, 300, 60), "b": low_rank(rng, 300, 12)})
    copies = np.asarray(unrelated.select("b"))
    related = GatingStates.from_arrays({"b": copies, "c": copies[:, ::-1]})
    found = [gating_entropy(states, **SEED).layer_densities[1] for states in (unrelated, related)]
    assert [choice.density.given_previous for choice in found] == [False, True]


def test_the_budget_of_a_measure_is_that_of_its_density():
    with pytest.raises(ValueError, match="'budget' parameter"):
        GatingEntropy(budget=0).fit(np.eye(6))
    with pytest.raises(ValueError, match="'budget' parameter"):
        GatingEntropy(density=Auto(budget=-1)).fit(np.eye(6))


def test_a_choice_is_kept_by_the_fitted_density(rng):
    states = GatingStates.from_arrays({"a": low_rank(rng), "b": coins(rng)})
    fitted = GatingEntropy(**SEED).fit(states)
    assert isinstance(fitted.density_, PerLayer)
    kept = GatingEntropy(density=clone(fitted.density_), **SEED).fit(states)
    assert kept.entropy_ == fitted.entropy_
    other = GatingStates.from_arrays({"a": coins(rng), "b": low_rank(rng)})
    chosen = [choice.density for choice in fitted.layer_densities_]
    kept.fit(other)
    assert [repr(c.density) for c in kept.layer_densities_] == list(map(repr, chosen))


def test_layers_are_a_chain(rng):
    first = coins(rng, 800, 4)
    second = first ^ (rng.random(first.shape) < 0.1)
    third = second[:, ::-1]
    states = GatingStates.from_arrays({"a": first, "b": second, "c": third})
    result = gating_entropy(states, density=PerLayer({"*": Autoregressive()}), **SEED)
    noise = -4 * (0.1 * np.log2(0.1) + 0.9 * np.log2(0.9))
    assert_allclose(result.layer_entropy, 4, atol=0.1)
    assert_allclose(result.prefix_entropy, [4, 4 + noise, 4 + noise], atol=0.25)
    assert_allclose(result.suffix_entropy, [4 + noise, 4, 4], atol=0.25)
    assert result.prefix_entropy[-1] == result.suffix_entropy[0] == result.entropy
    forest = gating_entropy(states, density=PerLayer({"*": ChowLiu()}), **SEED)
    assert_allclose(forest.entropy, forest.layer_entropy.sum(), rtol=1e-12)


@pytest.mark.parametrize("density", [Product, ChowLiu, Autoregressive, Convolutional])
def test_the_chain_is_a_distribution(rng, density):
    gates = {"a": low_rank(rng, 200, 4), "b": low_rank(rng, 200, 4).reshape(200, 1, 2, 2)}
    fitted = PerLayer({"a": Autoregressive(), "b": density()})
    fitted.fit(GatingStates.from_arrays(gates))
    every = np.array(list(itertools.product([0, 1], repeat=8)))
    states = GatingStates.from_arrays({"a": every[:, :4], "b": every[:, 4:].reshape(-1, 1, 2, 2)})
    assert_allclose(np.exp(fitted.score_samples(states)).sum(), 1, rtol=1e-5)


def test_new_samples_are_scored(rng):
    gates = low_rank(rng, 900)
    fitted = GatingEntropy(**SEED).fit(gates[:600])
    assert_allclose(fitted.score(gates[600:]), -fitted.entropy_, rtol=0.1)
    assert_allclose(fitted.transform(gates[600:]).mean(), fitted.entropy_, rtol=0.1)


def test_all_measures_have_it_by_default(rng):
    y = rng.integers(0, 2, 600)
    gates = np.column_stack([coins(rng), np.tile(y[:, None], 5) ^ (rng.random((600, 5)) < 0.2)])
    mi = GatingMI(**SEED).fit(gates, y)
    assert mi.mi_xy_ > 0.5
    assert abs(mi.shuffled_mi_xy_) < 0.05
    tc = TotalCorrelation(**SEED).fit(gates, y)
    assert_allclose(tc.independent_entropy_ - tc.entropy_, tc.total_correlation_, rtol=1e-9)
    assert [repr(c.density) for c in mi.layer_densities_] == [
        repr(c.density) for c in tc.layer_densities_
    ]


def test_rows_of_a_sample_stay_together_in_the_choice(rng):
    # rows of a sample are equal: split, they would make a forest look good
    groups = np.repeat(np.arange(60), 10)
    states = GatingStates.from_arrays(np.repeat(coins(rng, 60, 40), 10, axis=0), groups=groups)
    assert kinds(gating_entropy(states, **SEED)) == [Product]


def test_a_density_of_no_layer_is_named():
    with pytest.raises(ValueError, match=r"no density for layer 'layer0'.*\['other'\]"):
        GatingEntropy(density=PerLayer({"other": Product()})).fit(np.eye(6))


def test_work_beyond_memory_is_refused_and_long_work_is_announced(rng, monkeypatch):
    fitted = []
    monkeypatch.setattr(ChowLiu, "_fit_model", lambda *args: fitted.append(args))
    monkeypatch.setattr(ChowLiu, "_cost", lambda *args: (1.0, 5e9))
    monkeypatch.setattr(_cross_fitting, "physical_memory", lambda: 2e9)
    with pytest.raises(ValueError, match=r"ChowLiu needs about 5 GB for layer .* has 2 GB"):
        gating_entropy(coins(rng, 30), density="chow-liu")
    assert not fitted
    monkeypatch.undo()
    monkeypatch.setattr(ChowLiu, "_cost", lambda *args: (36_000.0, 0))
    with pytest.warns(UserWarning, match="about 10 hours for these 30 rows of 20 gates"):
        gating_entropy(coins(rng, 30), density="chow-liu")


def test_verbose_shows_layers_and_estimates(rng, capsys):
    gating_entropy({"first": coins(rng), "second": coins(rng)}, verbose=1, **SEED)
    shown = capsys.readouterr().err
    assert "layer first" in shown
    assert "layer second" in shown
    assert "100%" in shown


def test_the_monitor_chooses_once(rng):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 20), nn.ReLU(), nn.Linear(20, 2))
    X = rng.normal(size=(300, 3)).astype("float32")
    monitor = ComplexityMonitor(GatingEntropy(), X, every=1)
    monitor.record(net, 0)
    restored = ComplexityMonitor(GatingEntropy(), X, every=1)
    restored.load_state_dict(monitor.state_dict())
    with torch.no_grad():  # gates that are independent coins: there, the product is better
        net[0].weight.zero_()
        net[0].bias.zero_()
    for m in (monitor, restored):
        m.record(net, 1)
        assert {r["density"] for r in m.history_ if r["layer"]} == {"Autoregressive()"}
    assert restored.history_ == monitor.history_


def test_the_states_of_a_model_name_its_layers():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    X = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    states = GateExtractor(net).fit_transform(X)
    fitted = GatingEntropy(net, **SEED).fit(X)
    assert list(fitted.density_.densities) == list(states.layer_names) == ["1"]


@pytest.mark.parametrize("measure", [GatingEntropy, GatingMI, TotalCorrelation])
def test_layers_that_do_not_fit_in_memory_are_read_in_turn(rng, monkeypatch, measure):
    torch.manual_seed(0)
    widths = [6, 20, 16, 12, 8]
    net = nn.Sequential(*(m for pair in pairwise(widths) for m in (nn.Linear(*pair), nn.ReLU())))
    X, y = rng.normal(size=(200, 6)).astype("float32"), rng.integers(0, 2, 200)
    expected = measure(net, **SEED).fit(X, y)
    monkeypatch.setattr(_passes, "LIMIT", 200 * 5)  # bytes: two layers
    with pytest.warns(UserWarning, match="module runs 2 times"):
        found = measure(net, **SEED).fit(X, y)
    for name, value in vars(expected).items():
        if isinstance(value, float | np.ndarray):
            assert_array_equal(getattr(found, name), value, err_msg=name)
    assert found.score(X, y) == expected.score(X, y)
    with (
        pytest.warns(UserWarning, match="in turn"),
        pytest.raises(ValueError, match="density='auto'"),
    ):
        measure(net, density="kde", **SEED).fit(X, y)


# What every fitted density has to read ------------------------------------------------------

FITTED = ["auto", "product", "chow-liu", "autoregressive", "convolutional"]


@pytest.mark.parametrize("density", FITTED)
@pytest.mark.parametrize("shape", [(20_010,), (2, 60, 60)], ids=["flat", "maps"])
def test_constant_gates_cost_next_to_nothing(rng, density, shape):
    gates = np.zeros((200, np.prod(shape)), bool)
    fair = rng.permutation(gates.shape[1])[:10]
    gates[:, rng.permutation(gates.shape[1])[:300]] = True  # some are always open
    gates[:, fair] = rng.random((200, 10)) < 0.5
    states = GatingStates.from_arrays(gates.reshape(200, *shape))
    assert_allclose(gating_entropy(states, density=density, **SEED).entropy, 10, atol=0.5)


@pytest.mark.parametrize("density", FITTED)
def test_the_winner_of_a_window_is_one_of_nine(rng, density):
    winners = rng.integers(0, 9, (1500, 1, 2, 2))
    gates = (winners[..., None] == np.arange(9)).reshape(1500, -1)
    layer = GateLayer("pool", 36, "maxpool", 9, one_hot=True, spatial=True, shape=(1, 2, 2))
    states = GatingStates([np.packbits(gates, axis=1)], [layer])
    assert_allclose(
        gating_entropy(states, density=density, **SEED).entropy, 4 * np.log2(9), atol=0.1
    )
