"""sample_correlation against NumPy's matrix and a double loop."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skgate import sample_correlation

KEYS = ("same", "different", "abs_same", "abs_different")
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def y(rng):
    return rng.integers(0, 3, 40)


@pytest.fixture
def layers(rng, y):
    return {
        "narrow": rng.normal(size=(40, 2)) + 0.1,
        "wide": rng.normal(size=(40, 30)) + 2 * rng.normal(size=(3, 30))[y],
    }


def by_numpy(activations, y):
    R = np.corrcoef(np.asarray(activations, dtype=np.float64))
    same = np.equal.outer(y, y)
    others = ~np.eye(len(y), dtype=bool)
    values = [R[same & others], R[~same]]
    return [v.mean() for v in values] + [np.abs(v).mean() for v in values]


def test_agrees_with_double_loops_and_numpy(layers, y):
    result = sample_correlation(layers, y)
    assert result.layer_names == list(layers)
    for i, activations in enumerate(layers.values()):
        values = [result[key][i] for key in KEYS]
        assert_allclose(values, reference.sample_correlation(activations, y), **TIGHT)
        assert_allclose(values, by_numpy(activations, y), **TIGHT)


def test_more_samples_than_a_chunk(rng):
    X, y = rng.normal(size=(2100, 5)), rng.integers(0, 2, 2100)
    result = sample_correlation(X, y)
    assert_allclose([result[key][0] for key in KEYS], by_numpy(X, y), **TIGHT)


def test_matrices_are_sorted_by_class(layers, y):
    names = np.array(["z", "a", "m"])[y]
    result = sample_correlation(layers, names, return_matrices=True)
    assert_array_equal(names[result.order], np.sort(names))
    assert_array_equal(result.order[names[result.order] == "z"], np.flatnonzero(y == 0))
    for matrix, activations in zip(result.matrices, layers.values(), strict=True):
        assert_allclose(matrix, np.corrcoef(activations[result.order]), **TIGHT)
    assert "matrices" not in sample_correlation(layers, y)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(2, 20), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_scale_shift_and_order_do_not_matter(n, d, m, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, d)), rng.integers(0, m, n)
    result = sample_correlation(X, y)
    scaled = X * rng.uniform(0.1, 10, (n, 1)) + rng.normal(size=(n, 1))
    order = rng.permutation(n)
    for other in (
        sample_correlation(scaled, y),
        sample_correlation(X[order], y[order]),
        sample_correlation(X[:, rng.permutation(d)], y),
    ):
        for key in KEYS:
            assert_allclose(other[key], result[key], rtol=1e-9, atol=1e-12)
    with np.errstate(invalid="ignore"):
        assert not (np.abs(result.same) > result.abs_same + 1e-12).any()
        assert not (np.abs(result.different) > result.abs_different + 1e-12).any()


def test_signs_cancel_in_the_signed_means_alone():
    X = np.array([[1.0, 2.0], [2.0, 1.0]] * 4)
    result = sample_correlation(X, [0, 1] * 4)
    assert_allclose([result.same, result.different], [[1], [-1]], **TIGHT)
    assert_allclose([result.abs_same, result.abs_different], 1, **TIGHT)
    mixed = sample_correlation(X, [0, 0, 1, 1] * 2)
    assert_allclose(mixed.different, 0, atol=1e-12)
    assert_allclose(mixed.abs_different, 1, **TIGHT)


def test_pairs_that_are_not_there_are_nan(layers):
    one = sample_correlation(layers, np.zeros(40))
    assert np.isfinite(one.same).all()
    assert np.isnan([one.different, one.abs_different]).all()
    own = sample_correlation(layers, np.arange(40))
    assert np.isfinite(own.different).all()
    assert np.isnan([own.same, own.abs_same]).all()
    single = sample_correlation([[1.0, 2.0]], [0])
    assert np.isnan([single[key] for key in KEYS]).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -1e7])
def test_samples_that_do_not_vary_are_left_out_and_told(layers, y, value):
    some = {k: X.copy() for k, X in layers.items()}
    some["wide"][[3, 8]] = value
    with pytest.warns(UserWarning, match=r"Layer 'wide': 2 of 40 samples") as caught:
        result = sample_correlation(some, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    kept = np.delete(np.arange(40), [3, 8])
    expected = sample_correlation(layers["wide"][kept], y[kept])
    for key in KEYS:
        assert_allclose(result[key][1], expected[key][0], **TIGHT)
    with pytest.warns(UserWarning, match="40 of 40"):
        none = sample_correlation(np.full((40, 6), value), y)
    assert np.isnan([none[key] for key in KEYS]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_numbers_of_few_bits_count_as_their_values(layers, y, dtype):
    few = (10 * layers["wide"]).astype(dtype)
    for X in (few, torch.tensor(few), few.tolist()):
        result = sample_correlation(X, torch.tensor(y))
        assert_allclose([result[key][0] for key in KEYS], by_numpy(few, y), **TIGHT)


def test_activations_far_from_zero(layers, y):
    X = layers["wide"]
    expected = sample_correlation(X, y)
    shifted = sample_correlation(X + 1e6, y)
    for key in KEYS:
        assert_allclose(shifted[key], expected[key], rtol=1e-7)
    huge = sample_correlation(X * 1e150, y)
    for key in KEYS:
        assert_allclose(huge[key], expected[key], rtol=1e-10)


def test_nothing_of_size_n_squared_is_allocated(rng):
    import tracemalloc

    n = 6000
    X, y = rng.normal(size=(n, 4)), rng.integers(0, 2, n)
    tracemalloc.start()
    sample_correlation(X, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * n * n


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.full((4, 3), np.nan), [0, 1, 0, 1], "NaN"),
        (np.ones((4, 3, 2)), [0, 1, 0, 1], "dim 3"),
        (np.ones((4, 3)), [0, 1, 0], "inconsistent"),
        (np.ones((4, 3)), None, "requires y"),
        (np.ones((4, 3)), [0.1, 0.2, 0.3, 0.5], "continuous"),
        ([np.ones((4, 3)), np.ones((5, 3))], [0, 1, 0, 1], "number of samples"),
        ({}, [0, 1], "at least one"),
    ],
)
def test_bad_input(X, y, message):
    with pytest.raises(ValueError, match=message):
        sample_correlation(X, y)
    with pytest.raises(ValueError, match="return_matrices"):
        sample_correlation(np.eye(4), [0, 1, 0, 1], return_matrices="yes")
