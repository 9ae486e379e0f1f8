"""Kernel entropies that are too low are flagged by all three estimators, and right ones are not."""

import math
import warnings
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skgate import (
    GateLayer,
    GatingEntropy,
    GatingMI,
    GatingStates,
    SaturationWarning,
    TotalCorrelation,
    gating_entropy,
    gating_mi,
)
from skgate.densities import Kernel

MEASURES = [GatingEntropy, GatingMI, TotalCorrelation]


def all_states(d):
    return (np.arange(2**d)[:, None] >> np.arange(d)) & 1 == 1


def codes(rng, n_states, d=60):
    return rng.random((n_states, d)) < 0.5


def is_flagged(gates, alpha=0.01, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SaturationWarning)
        result = gating_entropy(gates, density=Kernel(alpha=alpha), **options)
    assert bool(caught) == result.saturated
    return result.saturated


@pytest.fixture
def wide_and_narrow(rng):
    return GatingStates.from_arrays(
        {"wide": rng.random((400, 1024)) < 0.5, "slim": rng.random((400, 2)) < 0.5}
    )


# Which values are flagged -------------------------------------------------------------------------


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("params", "density", "message"),
    [
        ({}, Kernel(alpha=0.01), r"wide \(8\.64 bits: .*by 1\.00 a doubling, 100% are alone\)"),
        ({"base": np.e}, Kernel(alpha=0.01), r"wide \(5\.99 nats: .* by 0\.69 a doubling"),
        ({}, Kernel(alpha=20.0), r"wide \(0\.07 bits: the kernel counts .* that have 8\.64;"),
        ({}, Kernel(alpha=5.0, bound="lower"), r"wide \(0\.07 bits: the kernel .* have 8\.64;"),
    ],
)
def test_the_warning_names_the_layer_and_what_was_found(
    measure, params, density, message, wide_and_narrow
):
    y = np.arange(400) % 2
    with pytest.warns(SaturationWarning, match=message):
        fitted = measure(density=density, **params).fit(wide_and_narrow, y)
    assert fitted.layer_saturated_[0]
    assert fitted.saturated_


@pytest.mark.parametrize("measure", MEASURES)
def test_a_layer_with_few_states_is_not_flagged(measure, wide_and_narrow):
    with pytest.warns(SaturationWarning) as caught:
        fitted = measure(density=Kernel(alpha=0.01)).fit(wide_and_narrow, np.arange(400) % 2)
    assert fitted.layer_saturated_.tolist() == [True, False]
    assert "slim" not in str(caught[0].message)


@pytest.mark.parametrize("measure", MEASURES)
def test_few_states_of_many_gates_do_not_warn(measure, rng):
    gates = codes(rng, 16, d=300)[rng.integers(0, 16, 1000)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SaturationWarning)
        fitted = measure(density="kde").fit(gates, rng.integers(0, 2, 1000))
    assert not fitted.saturated_


def test_far_below_both_ceilings_and_wrong(rng):
    """Half of the rows are constant, half 500 coins: the value is 5.5 of 251 bits."""
    gates = (rng.random((1000, 500)) < 0.5) & (rng.random((1000, 1)) < 0.5)
    result = gating_entropy(gates, density="kde")
    assert result.entropy < 0.6 * result.ceiling
    assert result.saturated


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_few_rows_that_are_alone_can_hold_most_of_the_entropy(rng, share):
    gates = (rng.random((1000, 500)) < 0.5) & (rng.random((1000, 1)) < share)
    assert is_flagged(gates)


def test_every_state_once_is_right_although_it_grows():
    assert not is_flagged(all_states(10))
    assert is_flagged(all_states(10)[::3])


@pytest.mark.parametrize(("n", "flagged"), [(200, True), (20_000, False)])
def test_equally_likely_states_are_flagged_until_they_are_seen_often(rng, n, flagged):
    # the bias is about 1000 / 2n nats of 6.9: far above a tenth, and 0.4%
    assert is_flagged(codes(rng, 1000)[rng.integers(0, 1000, n)]) is flagged


def test_a_wide_kernel_is_flagged_where_it_merges_states(rng):
    gates = all_states(6)[rng.integers(0, 64, 5000)]
    result = gating_entropy(gates, density=Kernel(alpha=[1e-3, 0.01, 0.3, 3.0]))
    truth = np.abs(result.entropy / 6 - 1)
    assert result.saturated.tolist() == [False, False, True, True]
    assert (truth[:2] < 0.02).all()
    assert (truth[2:] > 0.1).all()


def test_windows_of_max_pooling_are_units(rng):
    """All states of four windows once: the entropy is that of the units, not of the gates."""
    windows = np.eye(4, dtype=bool)[np.indices((4, 4, 4, 4)).reshape(4, -1).T]
    packed = np.packbits(windows.reshape(256, 16), axis=1)
    layer = GateLayer("pool", 16, "max_pool", unit_size=4, one_hot=True)
    result = gating_entropy(GatingStates([packed], [layer]), density=Kernel(alpha=1e-3))
    assert_allclose(result.entropy, 8)
    assert not result.saturated


def test_copies_of_rows_without_groups_are_flagged(rng):
    copied = np.repeat(rng.random((100, 50)) < 0.5, 10, axis=0)
    with pytest.warns(SaturationWarning, match="multiple of 10 times"):
        result = gating_entropy(copied, density="kde")
    assert result.saturated


def test_copies_of_rows_with_groups_grow_a_bit_a_doubling(rng):
    gates, groups = rng.random((100, 50)) < 0.5, np.repeat(np.arange(100), 10)
    states = GatingStates.from_arrays(np.repeat(gates, 10, axis=0), groups=groups)
    with pytest.warns(SaturationWarning, match=r"by 0\.99 a doubling, 100% are alone"):
        result = gating_entropy(states, density="kde")
    assert_allclose(result.entropy, np.log2(100))


def test_one_sample_shows_nothing(rng):
    assert is_flagged([[1.0, 0.0, 2.0]])
    positions = GatingStates.from_arrays(rng.random((9, 4)) < 0.5, groups=np.zeros(9, int))
    assert is_flagged(positions)
    assert not is_flagged(np.ones((9, 4), bool))


def test_without_standard_errors_the_flags_are_the_same(wide_and_narrow):
    kernels = Kernel(alpha=[0.01, 0.1, 1.0, 10.0])
    flags = [
        gating_entropy(wide_and_narrow, density=kernels, standard_errors=e).layer_saturated
        for e in (False, True)
    ]
    np.testing.assert_array_equal(*flags)
    assert flags[0].shape == (4, 2)


def test_fitted_densities_are_not_flagged(rng):
    assert not gating_entropy(rng.random((50, 40)) < 0.5, density="product").saturated


# What was found, by double loops ------------------------------------------------------------------


def plug_in(rows):
    counts, n = Counter(map(tuple, rows)), len(rows)
    return -math.fsum(c / n * math.log2(c / n) for c in counts.values())


def growth(rows, groups):
    """The slope over log2 of the number of samples, from the values without each of them."""
    samples = sorted(set(groups))
    without = [
        plug_in([row for row, g in zip(rows, groups, strict=True) if g != left_out])
        for left_out in samples
    ]
    g = len(samples)
    return (g - 1) * (plug_in(rows) - math.fsum(without) / g) * math.log(2)


def share_alone(rows, groups):
    found = [
        all(r != row or g == group for r, g in zip(rows, groups, strict=True))
        for row, group in zip(rows, groups, strict=True)
    ]
    return sum(found) / len(rows)


def found_in(message, name):
    """Growth and share of rows that are alone, as the warning prints them."""
    (line,) = [x for x in message.splitlines() if x.strip().startswith(f"{name} (")]
    grown, alone = line.split("states grow by ")[1].split(" a doubling, ")
    return float(grown), int(alone.split("%")[0]) / 100


@pytest.mark.parametrize("in_groups", [False, True])
def test_growth_and_rows_that_are_alone_are_brute_force(rng, in_groups):
    gates = {"a": rng.random((60, 4)) < 0.3, "b": rng.random((60, 7)) < 0.4}
    groups = np.sort(rng.integers(0, 20, 60)) if in_groups else np.arange(60)
    states = GatingStates.from_arrays(gates, groups=groups if in_groups else None)
    y = groups % 3
    with pytest.warns(SaturationWarning) as caught:
        gating_mi(states, y, density=Kernel(alpha=1e-3))
    rows = {name: [tuple(map(int, row)) for row in g] for name, g in gates.items()}
    rows["all layers together"] = [a + b for a, b in zip(*rows.values(), strict=True)]
    for name, values in rows.items():
        expected = growth(values, groups), share_alone(values, groups)
        assert_allclose(found_in(str(caught[0].message), name), expected, atol=0.006)
        labelled = [(*row, int(label)) for row, label in zip(values, y, strict=True)]
        labels = [(int(label),) for label in y]
        expected = (
            growth(labelled, groups) - growth(labels, groups),
            share_alone(labelled, groups),
        )
        found = found_in(str(caught[0].message), f"{name} given Y")
        assert_allclose(found, expected, atol=0.006)


def test_the_entropy_given_the_label_alone_can_be_flagged(rng):
    # 8 states and 100 classes of 10 samples each
    gates, y = all_states(3)[rng.integers(0, 8, 1000)], np.repeat(np.arange(100), 10)
    with pytest.warns(SaturationWarning, match="layer0 given Y") as caught:
        result = gating_mi(gates, y, density=Kernel(alpha=0.01))
    assert "layer0 (" not in str(caught[0].message)
    assert result.saturated
    assert not is_flagged(gates)


# The corrected value ------------------------------------------------------------------------------


def test_corrected_entropy_is_the_block_jackknife(rng):
    gates = rng.random((64, 5)) < 0.3
    blocks = np.random.default_rng(0).permutation(64).reshape(16, 4)
    without = [np.delete(gates, block, axis=0) for block in blocks]
    options = {"density": Kernel(bandwidth=1e-3), "standard_errors": False}
    mean = np.mean([gating_entropy(g, **options).entropy for g in without])
    result = gating_entropy(gates, density=Kernel(bandwidth=1e-3))
    assert_allclose(result.entropy_corrected, result.entropy + 15 * (result.entropy - mean))
    assert_allclose(result.layer_entropy_corrected, [result.entropy_corrected])


def test_corrected_entropy_has_less_bias(rng):
    """1000 equally likely codes: 9.97 bits, of which 2000 samples show 9.6."""
    states = codes(rng, 1000)
    results = [gating_entropy(states[rng.integers(0, 1000, 2000)], density="kde") for _ in range(5)]
    truth = np.log2(1000)
    assert np.mean([r.entropy for r in results]) < truth - 0.3
    assert abs(np.mean([r.entropy_corrected for r in results]) - truth) < 0.08


def test_corrected_entropy_of_a_single_sample_or_fitted_density_is_unknown(rng):
    assert np.isnan(gating_entropy([[1, 0]], density="kde").entropy_corrected)
    gates = rng.random((40, 5)) < 0.5
    assert np.isnan(gating_entropy(gates, density="product").layer_entropy_corrected).all()
    result = gating_entropy(gates, density=Kernel(alpha=[0.1, 1.0]), standard_errors=False)
    assert np.isnan(result.suffix_entropy_corrected).all()
    assert result.suffix_entropy_corrected.shape == (2, 1)
