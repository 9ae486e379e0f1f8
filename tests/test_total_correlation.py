"""TotalCorrelation: double loops, H + TC = C, units of several gates, convergence."""

import itertools

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skgate import (
    GateLayer,
    GatingStates,
    SaturationWarning,
    TotalCorrelation,
    gating_entropy,
    total_correlation,
)
from skgate.densities import Kernel

ALPHA = 0.3


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@pytest.mark.parametrize("bandwidth", ["variance", "n_gates", 3.7])
@pytest.mark.parametrize("bound", ["upper", "lower"])
@pytest.mark.parametrize("joint", ["concatenated", "product"])
def test_agrees_with_double_loops(states, layers, labels, bandwidth, bound, joint):
    fitted = TotalCorrelation(
        density=Kernel(alpha=ALPHA, bandwidth=bandwidth, bound=bound, joint=joint)
    )
    fitted.fit(states, labels)
    gates = list(layers.values())
    own = [reference.bandwidth([g], bandwidth, [ALPHA]) for g in gates]
    whole = own if joint == "product" else [reference.bandwidth(gates, bandwidth, [ALPHA] * 3)] * 3
    c = [reference.independent_entropy([g], [s], bound) for g, s in zip(gates, own, strict=True)]
    h = [
        reference.entropy(reference.kernel([g], [s], bound))
        for g, s in zip(gates, own, strict=True)
    ]
    assert_allclose(fitted.layer_independent_entropy_, c, rtol=1e-10)
    assert_allclose(fitted.layer_entropy_, h, rtol=1e-10)
    assert_allclose(fitted.layer_total_correlation_, np.subtract(c, h), rtol=1e-10, atol=1e-12)
    c_all = reference.independent_entropy(gates, whole, bound)
    h_all = reference.entropy(reference.kernel(gates, whole, bound))
    assert_allclose(fitted.total_correlation_, c_all - h_all, rtol=1e-10, atol=1e-12)
    for layer in range(3):
        c_y = 0
        for label in set(labels.tolist()):
            rows = np.flatnonzero(labels == label).tolist()
            share = len(rows) / len(labels)
            c_y += share * reference.independent_entropy([gates[layer]], [own[layer]], bound, rows)
        values = reference.kernel([gates[layer]], [own[layer]], bound)
        h_y = reference.conditional_entropy(values, labels.tolist())
        assert_allclose(fitted.layer_conditional_independent_entropy_[layer], c_y, rtol=1e-10)
        assert_allclose(fitted.layer_conditional_entropy_[layer], h_y, rtol=1e-10)
        assert_allclose(
            fitted.layer_conditional_total_correlation_[layer], c_y - h_y, rtol=1e-10, atol=1e-12
        )


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-4, 3), st.integers(0, 999))
def test_entropy_and_total_correlation_add_up(n, d, alpha, seed):
    rng = np.random.default_rng(seed)
    gates = rng.random((n, d)) < rng.random(d)
    result = total_correlation(gates, rng.integers(0, 3, n), density=Kernel(alpha=alpha))
    h = gating_entropy(gates, density=Kernel(alpha=alpha)).entropy
    assert np.isfinite(result.total_correlation)
    assert_allclose(
        h + result.total_correlation, result.independent_entropy, rtol=1e-12, atol=1e-12
    )
    assert_allclose(
        result.layer_conditional_entropy + result.layer_conditional_total_correlation,
        result.layer_conditional_independent_entropy,
        rtol=1e-12,
        atol=1e-12,
    )


def test_duplicated_fair_gates_share_a_bit_each():
    states = np.array(list(itertools.product([0, 1], repeat=3)) * 4)
    result = total_correlation(np.hstack([states, states]), density=Kernel(alpha=1e-3))
    assert_allclose(result.total_correlation, 3, rtol=1e-9)
    assert_allclose(
        total_correlation(states, density=Kernel(alpha=1e-3)).total_correlation, 0, atol=1e-9
    )


def entropy_over_draws(gates, drawn, sigma2):
    """C in nats as Eq. 28 estimates it: the mean kernel value with some drawn states."""
    kernel_means = [np.mean(np.exp(-np.sum(row != drawn, axis=1) / (2 * sigma2))) for row in gates]
    return -np.mean(np.log(kernel_means))


def drawn_independently(gates, n_draws, rng):
    return rng.random((n_draws, gates.shape[1])) < gates.mean(axis=0)


@pytest.mark.parametrize("d", [3, 8])
def test_draws_from_the_marginals_converge_to_the_closed_form(rng, d):
    latent = rng.normal(size=(200, 2))
    gates = latent @ rng.normal(size=(2, d)) + 0.5 * rng.normal(size=(200, d)) > 0.3
    y = rng.integers(0, 2, 200)
    result = total_correlation(gates, y, density=Kernel(alpha=0.1), base=np.e)
    sigma2, gaps = result.density.bandwidth_, []
    for n_draws in (100, 100_000):
        value = entropy_over_draws(gates, drawn_independently(gates, n_draws, rng), sigma2)
        gaps.append(abs(value - result.independent_entropy))
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0]
    own = [gates[y == m] for m in (0, 1)]
    values = [entropy_over_draws(g, drawn_independently(g, 100_000, rng), sigma2) for g in own]
    given = np.average(values, weights=np.bincount(y))
    assert_allclose(result.conditional_independent_entropy, given, atol=0.02)


def test_few_draws_overestimate_in_high_dimension(rng):
    latent = rng.normal(size=(1000, 2))
    gates = latent @ rng.normal(size=(2, 16)) + 0.3 * rng.normal(size=(1000, 16)) > 0
    exact = TotalCorrelation(density=Kernel(alpha=0.01)).fit(gates)
    drawn = drawn_independently(gates, 1000, rng)
    bits = entropy_over_draws(gates, drawn, exact.density_.bandwidth_) / np.log(2)
    assert bits - exact.entropy_ > exact.total_correlation_ + 5


def one_hot_units(rng, n, n_units, size):
    winners = rng.integers(0, size, (n, n_units))
    return (winners[..., None] == np.arange(size)).reshape(n, -1), winners


def pooled_states(gates, size):
    layer = GateLayer("pool", gates.shape[1], "max_pool2d", size, one_hot=True)
    return GatingStates([np.packbits(gates, axis=1)], [layer])


def unit_expectation(codes, distance, weight):
    """C in nats by the definition: all pairs of rows, unit by unit."""
    n, n_units = codes.shape
    total = 0.0
    for j in range(n):
        for u in range(n_units):
            total -= np.log(
                np.mean([np.exp(-weight * distance(codes[j, u], codes[k, u])) for k in range(n)])
            )
    return total / n


def test_windows_of_max_pooling_are_units(rng):
    gates, winners = one_hot_units(rng, 80, 5, 4)
    states = pooled_states(gates, 4)
    result = total_correlation(states, density=Kernel(alpha=0.2), base=np.e)
    weight = 0.5 / result.density.bandwidth_
    expected = unit_expectation(winners, lambda a, b: 2 * (a != b), weight)
    assert_allclose(result.independent_entropy, expected, rtol=1e-10)
    # taken as gates, the same bits would depend on each other by construction
    assert total_correlation(gates, density=Kernel(alpha=0.2), base=np.e).total_correlation > (
        result.total_correlation + 0.1
    )


def test_two_thresholds_are_one_unit(rng):
    codes = rng.integers(0, 3, (80, 6))
    gates = (codes[..., None] > np.arange(2)).reshape(80, -1)
    states = GatingStates([np.packbits(gates, axis=1)], [GateLayer("relu6", 12, "relu6", 2)])
    result = total_correlation(states, density=Kernel(alpha=0.2), base=np.e)
    expected = unit_expectation(
        codes, lambda a, b: abs(int(a) - int(b)), 0.5 / result.density.bandwidth_
    )
    assert_allclose(result.independent_entropy, expected, rtol=1e-10)


@pytest.mark.parametrize("one_hot", [True, False])
def test_draws_of_whole_units_converge_to_the_closed_form(rng, one_hot):
    if one_hot:
        gates, values = one_hot_units(rng, 100, 2, 3)
        gates_of_a_value = np.eye(3, dtype=bool)
    else:
        values = rng.integers(0, 4, (100, 2))
        gates_of_a_value = np.arange(4)[:, None] > np.arange(3)
        gates = gates_of_a_value[values].reshape(100, -1)
    states = GatingStates([np.packbits(gates, axis=1)], [GateLayer("u", 6, "u", 3, one_hot)])
    result = total_correlation(states, density=Kernel(alpha=0.1), base=np.e)
    # each unit drawn from the rows, independently of the other
    drawn = np.column_stack([rng.choice(values[:, u], 100_000) for u in range(2)])
    drawn = gates_of_a_value[drawn].reshape(len(drawn), -1)
    sigma2 = result.density.bandwidth_
    expected = entropy_over_draws(gates, drawn, sigma2)
    assert_allclose(result.independent_entropy, expected, atol=0.01)


def test_saturated_total_correlation_is_flagged(rng):
    with pytest.warns(SaturationWarning, match="total correlation"):
        fitted = TotalCorrelation(density="kde").fit(rng.random((300, 1024)) < 0.5)
    assert fitted.layer_saturated_.all()
    # independent gates, and yet it reads C - log n
    assert fitted.total_correlation_ > fitted.independent_entropy_ - np.log2(300) - 1e-6


def test_constant_gates_and_single_members(layers):
    constant = TotalCorrelation().fit(np.ones((5, 3), bool), [0, 0, 0, 1, 1])
    assert constant.total_correlation_ == constant.conditional_total_correlation_ == 0
    y = np.zeros(60, int)
    y[3] = 1
    fitted = TotalCorrelation(density=Kernel(alpha=ALPHA)).fit(layers["a"], y)
    assert np.isfinite(fitted.layer_conditional_total_correlation_).all()


def test_without_labels_there_are_no_conditional_terms(states):
    fitted = TotalCorrelation(density=Kernel(alpha=ALPHA)).fit(states)
    assert np.isnan(fitted.layer_conditional_total_correlation_).all()
    fitted.fit(states, np.arange(60) % 2)
    assert np.isfinite(fitted.layer_conditional_total_correlation_).all()
    # a second fit leaves nothing of the first behind
    assert np.isnan(fitted.fit(states).conditional_total_correlation_)
