"""permutation_test: level, power, exactness, agreement with gating_mi, edge cases."""

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest

from skgate import GatingStates, gating_mi, permutation_test
from skgate.densities import Kernel
from skgate.densities.kernel import _kernel
from skgate.gates import _permutation

pytestmark = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")


@pytest.fixture
def dependent(rng):
    y = rng.integers(0, 2, 150)
    knows = rng.random((150, 6)) < 0.3 + 0.4 * y[:, None]
    return {"knows": knows, "does not": rng.random((150, 9)) < 0.5}, y


def test_agrees_with_gating_mi(dependent):
    layers, y = dependent
    options = {"density": Kernel(alpha=0.2, joint="product", bound="lower"), "base": 10}
    result = permutation_test(layers, y, n_permutations=9, random_state=0, **options)
    expected = gating_mi(layers, y, **options)
    assert_allclose(result.mi_xy, expected.mi_xy, rtol=1e-10)
    assert_allclose(result.layer_mi_xy, expected.layer_mi_xy, rtol=1e-10)


def test_agrees_with_double_loops(rng):
    gates, y = rng.random((25, 5)) < 0.4, rng.integers(0, 3, 25)
    result = permutation_test(
        gates, y, density=Kernel(bandwidth=1.5), n_permutations=20, random_state=3
    )
    values = reference.kernel([gates], [1.5])
    h, draw = reference.entropy(values), np.random.RandomState(3)
    null = [h - reference.conditional_entropy(values, draw.permutation(y)) for _ in range(20)]
    value = h - reference.conditional_entropy(values, y)
    assert_allclose(result.mi_xy, value, rtol=1e-10)
    assert_allclose(result.null_mi_xy, null, rtol=1e-9)
    assert_allclose(result.p_value, (1 + np.sum(np.array(null) >= value)) / 21)


def test_shapes_and_p_values(dependent):
    layers, y = dependent
    result = permutation_test(
        layers, y, density=Kernel(alpha=0.2), n_permutations=99, random_state=0
    )
    assert result.null_mi_xy.shape == (99,)
    assert result.null_layer_mi_xy.shape == (99, 2)
    assert result.layer_p_value.shape == result.layer_mi_xy.shape == (2,)
    for value, null, p in [
        (result.mi_xy, result.null_mi_xy, result.p_value),
        (result.layer_mi_xy[1], result.null_layer_mi_xy[:, 1], result.layer_p_value[1]),
    ]:
        assert_allclose(p, (1 + np.sum(null >= value)) / 100)


def test_has_power(dependent):
    layers, y = dependent
    result = permutation_test(
        layers, y, density=Kernel(alpha=0.2), n_permutations=199, random_state=0
    )
    assert result.p_value == result.layer_p_value[0] == 1 / 200  # the smallest there is
    assert result.layer_p_value[1] > 0.05
    assert result.mi_xy > result.null_mi_xy.max()


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_sees_what_single_gates_do_not_show(rng, alpha):
    y = rng.integers(0, 2, 400)
    first = rng.random((400, 3)) < 0.5
    gates = np.hstack([first, first ^ y[:, None].astype(bool)])
    result = permutation_test(
        gates, y, density=Kernel(alpha=alpha), n_permutations=99, random_state=0
    )
    assert result.p_value == 0.01


@pytest.mark.parametrize("alpha", [0.3, 0.01])
def test_p_values_are_uniform_under_the_null(alpha):
    rng, found = np.random.default_rng(1), []
    for seed in range(200):
        gates, y = rng.random((40, 12)) < 0.4, rng.integers(0, 3, 40)
        result = permutation_test(
            gates, y, density=Kernel(alpha=alpha), n_permutations=99, random_state=seed
        )
        found.append(result.p_value)
    found = np.array(found)
    # a p-value of 99 permutations is a hundredth; ties only make it larger
    assert kstest(found - rng.random(200) / 100, "uniform", alternative="greater").pvalue > 0.01
    if alpha == 0.3:
        assert kstest(found - rng.random(200) / 100, "uniform").pvalue > 0.01
    assert np.mean(found <= 0.05) <= 0.1


def test_bandwidths_that_leave_nothing_have_no_power_but_the_right_level(rng):
    gates, y = rng.random((60, 400)) < 0.5, rng.integers(0, 2, 60)
    gates[:, :10] = y[:, None]
    result = permutation_test(
        gates, y, density=Kernel(bandwidth=1e-3), n_permutations=99, random_state=0
    )
    assert result.p_value == 1  # all values tie


def test_chunks_give_the_same_as_one_pass(dependent, monkeypatch):
    layers, y = dependent
    options = {"density": Kernel(alpha=0.2), "n_permutations": 30, "random_state": 5}
    whole = permutation_test(layers, y, **options)
    for step in (1, 7, 30, 31):
        monkeypatch.setattr(_permutation, "_MASS_BYTES", 8 * 3 * 150 * step)
        calls = []
        original = _kernel.kernel_masses
        monkeypatch.setattr(
            _kernel,
            "kernel_masses",
            lambda *a, original=original, calls=calls, **k: calls.append(1) or original(*a, **k),
        )
        chunks = permutation_test(layers, y, **options)
        monkeypatch.setattr(_kernel, "kernel_masses", original)
        assert len(calls) == -(-31 // step)
        for name, value in whole.items():
            assert_allclose(chunks[name], value, rtol=1e-12, atol=1e-13)
        assert chunks.p_value == whole.p_value


def test_threads_and_seeds(rng):
    gates, y = rng.random((1500, 20)) < 0.5, rng.integers(0, 4, 1500)
    one, two, other = (
        permutation_test(gates, y, n_permutations=5, n_jobs=jobs, random_state=seed)
        for jobs, seed in ((1, 2), (2, 2), (1, 3))
    )
    assert_array_equal(one.null_mi_xy, two.null_mi_xy)
    assert one.mi_xy == two.mi_xy == other.mi_xy
    assert (one.null_mi_xy != other.null_mi_xy).any()


def test_takes_states_and_labels_of_any_kind(dependent):
    layers, y = dependent
    options = {"density": Kernel(alpha=0.2), "n_permutations": 19, "random_state": 0}
    one = permutation_test(layers, y, **options)
    two = permutation_test(GatingStates.from_arrays(layers), np.array(["a", "b"])[y], **options)
    assert_array_equal(one.null_mi_xy, two.null_mi_xy)
    assert one.p_value == two.p_value


# Edges --------------------------------------------------------------------------------------------


def test_one_class_and_constant_gates_give_a_p_value_of_one(rng):
    gates = rng.random((30, 4)) < 0.5
    assert permutation_test(gates, np.zeros(30), n_permutations=9).p_value == 1
    result = permutation_test(np.ones((30, 4)), rng.integers(0, 2, 30), n_permutations=9)
    assert result.p_value == 1
    assert result.mi_xy == result.null_mi_xy.mean() == 0


def test_few_samples():
    assert permutation_test([[1, 0]], [0], n_permutations=3).p_value == 1
    result = permutation_test([[1, 0], [0, 1]], [0, 1], n_permutations=50, random_state=0)
    assert result.p_value == 1  # either order tells the samples apart


def test_a_label_of_each_sample_ties(rng):
    gates = rng.random((40, 8)) < 0.5
    result = permutation_test(
        gates, np.arange(40), density=Kernel(alpha=0.3), n_permutations=19, random_state=0
    )
    assert result.p_value == 1


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"n_permutations": 0}, "n_permutations"),
        ({"n_permutations": 1.5}, "n_permutations"),
        ({"density": Kernel(alpha=0)}, "alpha"),
        ({"random_state": "x"}, "random_state"),
        ({"y": [0, 1]}, "samples"),
        ({"y": None}, "y"),
        ({"y": np.linspace(0, 1, 30)}, "continuous"),
    ],
)
def test_validates(wrong, match, rng):
    options = {"y": np.arange(30) % 2, **wrong}
    with pytest.raises(ValueError, match=match):
        permutation_test(rng.random((30, 3)) < 0.5, **options)
