"""The bench's true values, against all states of small cases and against what is drawn."""

import itertools

import numpy as np
import pytest
from truth import (
    CASES,
    Augmented,
    Codes,
    DeterministicNet,
    DichotomisedGaussian,
    HalfConstant,
    Independent,
    Ising,
    KHot,
    LowRank,
    ProductMixture,
    SharedRates,
    Tree,
    XorTriples,
)


def frequencies(rows):
    """Return the empirical entropy of rows, in bits."""
    _, counts = np.unique(rows @ (1 << np.arange(rows.shape[1])), return_counts=True)
    p = counts / counts.sum()
    return -(p * np.log2(p)).sum()


def every(n_gates):
    return np.array(list(itertools.product([False, True], repeat=n_gates)))


@pytest.mark.parametrize("name", CASES)
def test_what_is_drawn_has_the_rates_of_the_case(name, rng):
    case, n = CASES[name], 4000
    gates, y, groups = case.sample(n, rng)
    assert gates.shape == (n, case.n_gates)
    assert gates.dtype == bool
    assert (groups is None) or not case.independent_rows
    assert (y is None) == (case.mi_xy is None)
    size = 1 if groups is None else np.bincount(groups).max()  # rows of a group may be alike
    errors = np.sqrt(case.rates * (1 - case.rates) * size / n)
    assert np.abs(gates.mean(axis=0) - case.rates).max() < (5 * errors + 1e-9).max()
    assert np.isfinite([case.entropy, case.total_correlation]).all()


@pytest.mark.parametrize(
    "case",
    [
        Independent([0.1, 0.5, 0.7, 0.02]),
        Tree.chain(6),
        Tree.random(7, seed=1),
        KHot(2, 7),
        XorTriples(2),
        HalfConstant(40),
        Codes.zipf(64, 12),
        Ising(6),
        DeterministicNet([6], n_inputs=5),
        SharedRates([0.7, 0.3], [[0.2, 0.9], [0.5, 0.4]], [4, 2], flip=0.1),
        Augmented(Independent([0.1, 0.4, 0.8]), 3, flip=0.1),
    ],
    ids=lambda case: type(case).__name__,
)
def test_entropies_are_those_of_the_frequencies(case, rng):
    gates, y, _ = case.sample(100_000, rng)
    if isinstance(case, HalfConstant):  # too many states to count: H = h(1/2) + 1/2 of 40 coins
        assert case.entropy == 21
        assert (~gates.any(axis=1)).mean() == pytest.approx(0.5, abs=0.01)
        return
    assert frequencies(gates) == pytest.approx(case.entropy, abs=0.02)
    if y is not None:
        both = frequencies(np.column_stack([gates, y]))
        mi_xy = frequencies(gates) + frequencies(y[:, None]) - both
        assert mi_xy == pytest.approx(case.mi_xy, abs=0.005)


@pytest.mark.parametrize(
    "case", [ProductMixture(3, 7), DichotomisedGaussian(7), LowRank(7)], ids=repr
)
def test_exact_likelihoods_sum_to_one_and_are_the_frequencies(case, rng):
    states = every(7)
    joint = np.exp(case.log_joint(states))  # (128, classes)
    assert joint.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(joint.sum(axis=1) @ states, case.rates, atol=1e-6)
    n = 100_000
    gates, y, _ = case.sample(n, rng)
    counts = np.zeros_like(joint)
    np.add.at(counts, (gates @ (1 << np.arange(6, -1, -1)), 0 if y is None else y), 1)
    error = np.sqrt(joint * n) + 3
    assert np.abs(counts - n * joint).max() < (4.5 * error).max()
    assert (np.abs(counts - n * joint) < 4.5 * error).all()


@pytest.mark.parametrize("case", [ProductMixture(3, 7), LowRank(7)], ids=repr)
def test_means_over_exact_likelihoods_are_sums_over_all_states(case):
    joint = np.exp(case.log_joint(every(7)))
    p, p_y = joint.sum(axis=1), joint.sum(axis=0)
    entropy, labels = -(p * np.log2(p)).sum(), -(p_y * np.log2(p_y)).sum()
    mi_xy = entropy + labels + (joint * np.log2(joint)).sum()
    found = case.recompute(5000)
    assert found[0] == pytest.approx(entropy, abs=4 * found[1])
    assert found[2] == pytest.approx(mi_xy, abs=4 * found[3])


def test_groups_are_copies_of_one_row(rng):
    gates, y, groups = CASES["repeated rows"].sample(95, rng)
    for group in range(10):
        assert len(np.unique(gates[groups == group], axis=0)) == 1
        assert len(np.unique(y[groups == group])) == 1
    assert np.bincount(groups).tolist() == [10] * 9 + [5]


def test_all_states_once_has_each_state_once(rng):
    gates, _, _ = CASES["all states once"].sample(1024, rng)
    assert len(np.unique(gates, axis=0)) == 1024
