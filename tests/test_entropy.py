"""GatingEntropy: double loops, closed forms, properties, saturation, edge cases."""

import itertools

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.model_selection import GridSearchCV

from skgate import GatingEntropy, GatingStates, SaturationWarning, gating_entropy
from skgate.densities import Kernel

ALPHA = 0.3


def all_states(d):
    return np.array(list(itertools.product([0, 1], repeat=d)), dtype=bool)


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@pytest.mark.parametrize("bandwidth", ["variance", "n_gates", 3.7])
@pytest.mark.parametrize("bound", ["upper", "lower"])
@pytest.mark.parametrize("joint", ["concatenated", "product"])
def test_agrees_with_double_loops(states, layers, bandwidth, bound, joint):
    fitted = GatingEntropy(
        density=Kernel(alpha=ALPHA, bandwidth=bandwidth, bound=bound, joint=joint)
    ).fit(states)
    gates = list(layers.values())
    own = [reference.bandwidth([g], bandwidth, [ALPHA]) for g in gates]

    def h(some):
        if joint == "product":
            sigmas = [own[i] for i in some]
        else:
            sigmas = [reference.bandwidth([gates[i] for i in some], bandwidth, [ALPHA] * len(some))]
            sigmas = sigmas * len(some)
        return reference.entropy(reference.kernel([gates[i] for i in some], sigmas, bound))

    assert_allclose(fitted.layer_entropy_, [h([0]), h([1]), h([2])], rtol=1e-10)
    assert_allclose(fitted.prefix_entropy_, [h([0]), h([0, 1]), h([0, 1, 2])], rtol=1e-10)
    assert_allclose(fitted.suffix_entropy_, [h([0, 1, 2]), h([1, 2]), h([2])], rtol=1e-10)
    assert_allclose(fitted.entropy_, h([0, 1, 2]), rtol=1e-10)
    assert_allclose(fitted.density_.layer_bandwidth_, own, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_auto_alpha_is_that_of_spatial_gates_where_there_are_positions(rng):
    image = rng.normal(size=(40, 3, 4, 4))
    flat = image.reshape(40, -1)
    for bound in ("upper", "lower"):
        result = gating_entropy({"conv": image, "fc": flat}, density=Kernel(bound=bound))
        for i, alpha in enumerate([0.04, 0.01]):
            expected = gating_entropy(flat, density=Kernel(alpha=alpha, bound=bound))
            assert_allclose(result.layer_entropy[i], expected.entropy, rtol=1e-12)


def test_all_states_of_ten_gates_have_ten_bits():
    fitted = GatingEntropy(density=Kernel(alpha=1e-3)).fit(all_states(10))
    assert_allclose(fitted.entropy_, 10, rtol=1e-12)
    assert not fitted.saturated_


def test_a_curve_over_alpha_and_bound_is_one_estimate_each(states):
    alphas, bounds = [0.05, 0.2, 0.9], ["lower", "upper"]
    curve = gating_entropy(states, density=Kernel(alpha=alphas, bound=bounds))
    assert curve.entropy.shape == (3, 2)
    assert curve.layer_entropy.shape == curve.layer_saturated.shape == (3, 2, 3)
    for (i, alpha), (j, bound) in itertools.product(enumerate(alphas), enumerate(bounds)):
        single = gating_entropy(states, density=Kernel(alpha=alpha, bound=bound))
        assert_allclose(curve.entropy[i, j], single.entropy, rtol=1e-12)
        assert_allclose(curve.layer_entropy[i, j], single.layer_entropy, rtol=1e-12)
        assert_allclose(curve.suffix_entropy[i, j], single.suffix_entropy, rtol=1e-12)
        assert_allclose(
            curve.density.layer_bandwidth_[i], single.density.layer_bandwidth_, rtol=1e-12
        )


def test_a_curve_makes_one_pass(states, monkeypatch):
    calls = []
    from skgate.densities.kernel import _jackknife

    original = _jackknife.block_masses
    monkeypatch.setattr(
        _jackknife, "block_masses", lambda *a, **k: calls.append(a) or original(*a, **k)
    )
    gating_entropy(states, density=Kernel(alpha=[0.1, 0.2, 0.5], bound=["lower", "upper"]))
    assert len(calls) == 1


@pytest.mark.parametrize("base", [2, np.e, 10])
def test_base_is_the_unit(states, base):
    bits = GatingEntropy(density=Kernel(alpha=ALPHA)).fit(states)
    other = GatingEntropy(density=Kernel(alpha=ALPHA), base=base).fit(states)
    for name in ("entropy_", "layer_entropy_", "prefix_entropy_", "suffix_entropy_"):
        assert_allclose(getattr(other, name), getattr(bits, name) / np.log2(base), rtol=1e-12)
    assert_allclose(other.score(states), bits.score(states) / np.log2(base), rtol=1e-12)


gates_and_alpha = (st.integers(2, 40), st.integers(1, 30), st.floats(0.005, 5), st.integers(0, 999))


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@settings(deadline=None, max_examples=40)
@given(*gates_and_alpha)
def test_bounds_order_and_permutations(n, d, alpha, seed):
    rng = np.random.default_rng(seed)
    gates = rng.random((n, d)) < rng.random(d)
    result = gating_entropy(gates, density=Kernel(alpha=alpha, bound=["lower", "upper"]), base=np.e)
    lower, upper = result.entropy
    spread = np.sum(gates.mean(0) * (1 - gates.mean(0)))
    assert 0 <= lower <= upper + 1e-12
    assert upper <= np.log(n) + 1e-12
    if spread:
        assert upper <= 1 / alpha * (1 + 1e-9)
        assert lower <= 1 / alpha / 4 * (1 + 1e-9)
    shuffled = gates[rng.permutation(n)][:, rng.permutation(d)]
    again = gating_entropy(
        shuffled, density=Kernel(alpha=alpha, bound=["lower", "upper"]), base=np.e
    ).entropy
    assert_allclose(again, result.entropy, atol=1e-11)
    flipped = gating_entropy(~gates, density=Kernel(alpha=alpha, bound="upper"), base=np.e).entropy
    assert_allclose(flipped, upper, atol=1e-11)


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 99))
def test_product_kernel_grows_with_every_layer(n, widths, seed):
    rng = np.random.default_rng(seed)
    gates = {str(i): rng.random((n, d)) < rng.random(d) for i, d in enumerate(widths)}
    result = gating_entropy(gates, density=Kernel(alpha=0.2, joint="product"))
    assert (np.diff(result.prefix_entropy) >= -1e-12).all()
    assert (np.diff(result.suffix_entropy) <= 1e-12).all()
    assert_allclose(result.suffix_entropy[-1], result.layer_entropy[-1], rtol=1e-12)
    if len(widths) == 1:
        concatenated = gating_entropy(gates, density=Kernel(alpha=0.2, joint="concatenated"))
        assert_allclose(result.entropy, concatenated.entropy, rtol=1e-12)


def test_concatenated_kernel_does_not_respect_the_chain_rule(rng):
    six = rng.random((2000, 6)) < 0.5
    many = np.repeat(rng.random((2000, 1)) < 0.5, 600, axis=1)
    result = gating_entropy({"six": six, "many": many}, density=Kernel(alpha=0.01))
    assert result.layer_entropy[0] > 5.9
    assert result.entropy < 2.5  # of more gates, and less
    product = gating_entropy(
        {"six": six, "many": many}, density=Kernel(alpha=0.01, joint="product")
    )
    assert product.entropy > 6.9


# Saturation --------------------------------------------------------------------------------------


def test_both_ceilings_warn_and_name_the_layers(rng):
    wide, narrow = rng.random((500, 1024)) < 0.5, rng.random((500, 3)) < 0.5
    with pytest.warns(
        SaturationWarning, match=r"wide \(8\.97 bits: states grow by 1\.00"
    ) as caught:
        result = gating_entropy({"wide": wide, "narrow": narrow}, density=Kernel(alpha=0.01))
    assert result.layer_saturated.tolist() == [True, False]
    assert result.suffix_saturated.tolist() == [True, False]
    assert_allclose(result.layer_ceiling, np.log2(500))
    assert result.prefix_saturated.tolist() == [True, True]
    assert "narrow (" not in str(caught[0].message)
    with pytest.warns(SaturationWarning, match="the kernel counts states as one that have 8.97"):
        result = gating_entropy(wide, density=Kernel(alpha=50.0))
    assert result.layer_saturated.all()
    assert_allclose(result.entropy, 1 / 50 / np.log(2), rtol=0.01)
    assert_allclose(result.layer_ceiling, 1 / 50 / np.log(2))


def test_the_lower_bound_has_a_quarter_of_the_ceiling(rng):
    wide = rng.random((1000, 4096)) < 0.5
    with pytest.warns(SaturationWarning, match="the kernel counts states as one that have 9.97"):
        lower = gating_entropy(wide, density=Kernel(alpha=0.2, bound="lower"))
    assert lower.layer_saturated.all()


# Densities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.01, 0.3, 4.0])
@pytest.mark.parametrize("bound", ["upper", "lower"])
@pytest.mark.parametrize("joint", ["concatenated", "product"])
@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_densities_sum_to_one_over_all_states(rng, alpha, bound, joint):
    gates = {"a": rng.random((30, 5)) < 0.3, "b": rng.random((30, 3)) < 0.6}
    fitted = GatingEntropy(density=Kernel(alpha=alpha, bound=bound, joint=joint))
    fitted.fit(GatingStates.from_arrays(gates))
    every = all_states(8)
    every = GatingStates.from_arrays({"a": every[:, :5], "b": every[:, 5:]})
    assert_allclose(np.sum(2 ** fitted.score_samples(every)), 1, rtol=1e-10)
    surprisals = fitted.transform(every)
    # each state of a layer appears once for each state of the other
    assert_allclose((2**-surprisals).sum(axis=0) / [8, 32], 1, rtol=1e-10)


@pytest.mark.parametrize("bandwidth", ["variance", "n_gates", 3.7])
@pytest.mark.parametrize("bound", ["upper", "lower"])
@pytest.mark.parametrize("joint", ["concatenated", "product"])
@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_likelihoods_agree_with_double_loops(states, layers, rng, bandwidth, bound, joint):
    fitted = GatingEntropy(
        density=Kernel(alpha=ALPHA, bandwidth=bandwidth, bound=bound, joint=joint)
    ).fit(states)
    queries = {name: rng.random((5, gates.shape[1])) < 0.4 for name, gates in layers.items()}
    new, gates = GatingStates.from_arrays(queries), list(layers.values())
    own = [reference.bandwidth([g], bandwidth, [ALPHA]) for g in gates]
    whole = own if joint == "product" else [reference.bandwidth(gates, bandwidth, [ALPHA] * 3)] * 3
    rows = list(zip(*queries.values(), strict=True))
    expected = [reference.log_likelihood(row, gates, whole, bound) for row in rows]
    assert_allclose(fitted.score_samples(new), expected, rtol=1e-10)
    assert_allclose(fitted.score(new), np.mean(expected), rtol=1e-10)
    for i in range(3):
        expected = [reference.log_likelihood([r[i]], [gates[i]], [own[i]], bound) for r in rows]
        assert_allclose(fitted.transform(new)[:, i], -np.array(expected), rtol=1e-10)


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_grid_search_finds_the_bandwidth_that_predicts(rng):
    gates = rng.random((300, 40)) < rng.random(40)
    grid = {"density__alpha": np.logspace(-4, 0, 9)}
    search = GridSearchCV(GatingEntropy(density=Kernel()), grid, cv=3).fit(gates)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    # neither end: too narrow a kernel is surprised by new states, too wide a one by all
    assert search.best_index_ > 0
    rates = gates.mean(axis=0)
    truth = np.sum(rates * np.log2(rates) + (1 - rates) * np.log2(1 - rates))
    assert search.best_score_ <= truth + 1


# Edge cases, decided -----------------------------------------------------------------------------


def test_one_sample_has_no_entropy_and_says_so():
    with pytest.warns(SaturationWarning):
        fitted = GatingEntropy(density="kde").fit([[1.0, 0.0, 2.0]])
    assert fitted.entropy_ == 0
    assert fitted.layer_saturated_.all()


def test_constant_gates_have_no_entropy():
    gates = np.array([[1, 0, 1]] * 5)
    fitted = GatingEntropy(density="kde").fit(gates)
    assert fitted.entropy_ == 0
    assert not fitted.layer_saturated_.any()
    np.testing.assert_array_equal(fitted.score_samples([[1, 0, 1], [1, 1, 1]]), [0.0, -np.inf])


@pytest.mark.parametrize("joint", ["concatenated", "product"])
def test_a_constant_layer_adds_nothing(layers, joint):
    constant = np.ones((60, 7))
    alone = gating_entropy(layers, density=Kernel(alpha=ALPHA, joint=joint))
    result = gating_entropy(
        {**layers, "constant": constant}, density=Kernel(alpha=ALPHA, joint=joint)
    )
    assert result.layer_entropy[-1] == 0
    assert_allclose(result.entropy, alone.entropy, rtol=1e-12)
    assert np.isfinite(result.suffix_entropy).all()


def test_duplicate_rows_count_each(layers):
    once = gating_entropy(layers, density=Kernel(alpha=ALPHA)).entropy
    twice = gating_entropy(
        {k: np.repeat(v, 2, axis=0) for k, v in layers.items()}, density=Kernel(alpha=ALPHA)
    ).entropy
    assert_allclose(twice, once, rtol=1e-12)


def test_max_samples_draws_rows(rng):
    gates = rng.random((200, 6)) < 0.5
    some = GatingEntropy(max_samples=50, random_state=3).fit(gates)
    share = GatingEntropy(max_samples=0.25, random_state=3).fit(gates)
    assert len(some.states_) == 50
    assert some.states_ == share.states_
    assert len(GatingEntropy(max_samples=500).fit(gates).states_) == 200
    assert GatingEntropy(max_samples=50, random_state=4).fit(gates).states_ != some.states_


def test_threshold_and_input_types_agree(rng):
    import torch

    values = rng.normal(size=(50, 6)).astype(np.float32)
    options = {"threshold": 0.5, "random_state": 0}
    expected = GatingEntropy(**options).fit(values > 0.5).entropy_
    for X in (values, torch.tensor(values, requires_grad=True), torch.tensor(values).bfloat16()):
        fitted = GatingEntropy(**options).fit(X)
        assert_allclose(fitted.entropy_, expected, rtol=0.1 if X is not values else 1e-12)
    assert GatingEntropy(**options).fit(torch.tensor(values)).entropy_ == expected
