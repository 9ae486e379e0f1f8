"""GibbsLayerMI, BinnedLayerMI, KDELayerMI: double loops, closed forms, properties, edge cases."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skgate import (
    BinnedLayerMI,
    GibbsLayerMI,
    KDELayerMI,
    SaturationWarning,
    binned_layer_mi,
    gibbs_layer_mi,
    kde_layer_mi,
)

pytestmark = [
    # activations of the networks here are small beside the default bins
    pytest.mark.filterwarnings("ignore:All samples are in one cell"),
    # and samples are few; tests of the warning look for it
    pytest.mark.filterwarnings("ignore::skgate.SaturationWarning"),
]

WEIGHTS = ["prior", "uniform"]
BOUNDS = ["upper", "lower"]
MEASURES = {
    "gibbs": (GibbsLayerMI, gibbs_layer_mi, {}),
    "binned": (BinnedLayerMI, binned_layer_mi, {"bin_size": 1.5}),
    "kde": (KDELayerMI, kde_layer_mi, {"noise_variance": 0.8}),
}
EVERY = pytest.mark.parametrize("name", MEASURES)

TIGHT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def y(rng):
    return np.sort(rng.integers(0, 3, 60))[rng.permutation(60)]


@pytest.fixture
def layers(rng, y):
    """A narrow layer, a wide one and logits, that know the label to some degree."""
    means = 2 * rng.normal(size=(3, 20))
    hidden = np.maximum(means[y] + rng.normal(size=(60, 20)), 0)
    hidden[50:55] = hidden[:5]
    return {
        "narrow": np.tanh(means[y, :2] + rng.normal(size=(60, 2))),
        "wide": hidden,
        "logits": 2 * np.eye(3)[y] + rng.normal(size=(60, 3)),
    }


def fitted(name, X, y, **params):
    measure, _, defaults = MEASURES[name]
    return measure(**{**defaults, **params}).fit(X, y)


def result_of(name, X, y, **params):
    _, function, defaults = MEASURES[name]
    return function(X, y, **{**defaults, **params})


# Double loops ------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_gibbs_agrees_with_double_loops(layers, y, class_weight):
    expected = np.array([reference.gibbs(t, y, class_weight) for t in layers.values()])
    measure = GibbsLayerMI(class_weight=class_weight).fit(layers, y)
    result = gibbs_layer_mi(layers, y, class_weight=class_weight)
    for values in (
        (measure.layer_mi_x_, measure.layer_mi_y_, measure.layer_mi_xbar_),
        (result.layer_mi_x, result.layer_mi_y, result.layer_mi_xbar),
    ):
        assert_allclose(np.transpose(values), expected, **TIGHT)
    assert_allclose(measure.mi_x_, expected[0, 2] + expected[-1, 1], **TIGHT)
    assert_allclose(measure.mi_y_, expected[-1, 1], **TIGHT)
    assert (result.mi_x, result.mi_y) == (
        measure.mi_x_,
        measure.mi_y_,
    )


@pytest.mark.parametrize("bin_size", [0.3, 1.5, 8.0])
def test_binning_agrees_with_counting(layers, y, bin_size):
    expected = np.array([reference.binned(t, y, bin_size) for t in layers.values()])
    measure = BinnedLayerMI(bin_size=bin_size).fit(layers, y)
    result = binned_layer_mi(layers, y, bin_size=bin_size)
    for values in (
        (measure.layer_mi_x_, measure.layer_mi_y_),
        (result.layer_mi_x, result.layer_mi_y),
    ):
        assert_allclose(np.transpose(values), expected, **TIGHT)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("noise_variance", [0.05, 0.8, 30.0])
def test_kernels_agree_with_double_loops(layers, y, noise_variance, bound):
    expected = np.array([reference.kde(t, y, noise_variance, bound) for t in layers.values()])
    measure = KDELayerMI(noise_variance=noise_variance, bound=bound).fit(layers, y)
    result = kde_layer_mi(layers, y, noise_variance=noise_variance, bound=bound)
    for values in (
        (measure.layer_mi_x_, measure.layer_mi_y_),
        (result.layer_mi_x, result.layer_mi_y),
    ):
        assert_allclose(np.transpose(values), expected, **TIGHT)


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_gibbs_score_agrees_with_double_loops(layers, y, class_weight):
    train, test = {k: t[:40] for k, t in layers.items()}, {k: t[40:] for k, t in layers.items()}
    measure = GibbsLayerMI(class_weight=class_weight).fit(train, y[:40])
    expected = reference.gibbs_score(train["logits"], y[:40], test["logits"], y[40:], class_weight)
    assert_allclose(measure.score(test, y[40:]), expected, **TIGHT)


def test_binned_score_and_surprisals_agree_with_counting(layers, y):
    train, test = {k: t[:40] for k, t in layers.items()}, {k: t[40:] for k, t in layers.items()}
    measure = BinnedLayerMI(bin_size=1.5).fit(train, y[:40])
    expected = reference.binned_score(train["logits"], y[:40], test["logits"], y[40:], 1.5)
    assert_allclose(measure.score(test, y[40:]), expected, **TIGHT)
    surprisals = measure.transform(test)
    for column, name in zip(surprisals.T, layers, strict=True):
        cells = reference._cells(train[name], 1.5)
        counts = [max(cells.count(c), 1) for c in reference._cells(test[name], 1.5)]
        assert_allclose(column, -np.log2(np.array(counts) / 40), **TIGHT)


@pytest.mark.parametrize("bound", BOUNDS)
def test_kernel_score_and_surprisals_agree_with_double_loops(layers, y, bound):
    train, test = {k: t[:40] for k, t in layers.items()}, {k: t[40:] for k, t in layers.items()}
    measure = KDELayerMI(noise_variance=0.5, bound=bound).fit(train, y[:40])
    expected = reference.kde_score(train["logits"], y[:40], test["logits"], y[40:], 0.5, bound)
    assert_allclose(measure.score(test, y[40:]), expected, **TIGHT)
    surprisals = measure.transform(test)
    for column, name in zip(surprisals.T, layers, strict=True):
        expected = [-reference.log_kernel_mean(t, train[name], 0.5, bound) for t in test[name]]
        assert_allclose(column, expected, **TIGHT)


@EVERY
def test_transform_of_the_fitted_samples_has_the_mean_that_was_measured(layers, y, name):
    measure = fitted(name, layers, y)
    if name == "gibbs":
        P = measure.transform(layers)
        expected = np.hstack(
            [[reference.gibbs_distribution(r) for r in t] for t in layers.values()]
        )
        assert_allclose(P, expected, **TIGHT)
    else:
        assert_allclose(measure.transform(layers).mean(axis=0), measure.layer_mi_x_, **TIGHT)


# Inputs ------------------------------------------------------------------------------------------


@EVERY
def test_a_list_a_dict_an_array_and_a_tensor_are_the_same_layers(layers, y, name):
    whole = result_of(name, layers, y)
    assert whole.layer_names == list(layers)
    as_list = result_of(name, list(layers.values()), y)
    assert as_list.layer_names == ["layer0", "layer1", "layer2"]
    assert_array_equal(as_list.layer_mi_y, whole.layer_mi_y)
    assert_array_equal(fitted(name, layers, y).layer_mi_y_, whole.layer_mi_y)
    for i, array in enumerate(layers.values()):
        frame = pd.DataFrame(array, columns=[f"u{j}" for j in range(array.shape[1])])
        tensor = torch.tensor(array, requires_grad=True)
        for X in (array, np.asfortranarray(array), frame, tensor, array.tolist()):
            for labels in (y, y.tolist(), pd.Series(y), torch.tensor(y)):
                single = result_of(name, X, labels)
                assert_allclose(single.layer_mi_x, whole.layer_mi_x[[i]], **TIGHT)
                assert_allclose(single.layer_mi_y, whole.layer_mi_y[[i]], **TIGHT)
            estimator = fitted(name, X, y)
            assert_allclose(estimator.layer_mi_y_, whole.layer_mi_y[[i]], **TIGHT)
            assert estimator.layer_names_ == ["layer0"]
            assert estimator.n_units_ == [array.shape[1]]


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_numbers_of_few_bits_count_as_their_values(layers, y, name, dtype):
    few = {k: (3 * t).astype(dtype) for k, t in layers.items()}
    exact = {k: t.astype(np.float64) for k, t in few.items()}
    low, high = result_of(name, few, y), result_of(name, exact, y)
    assert_allclose(low.layer_mi_x, high.layer_mi_x, **TIGHT)
    assert_allclose(low.layer_mi_y, high.layer_mi_y, **TIGHT)


@EVERY
@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_layers_of_a_dict_go_by_name_whatever_their_order(layers, y, name, order):
    layers["other"] = layers["wide"][:, ::-1] + 1  # of the same width as another
    measure = fitted(name, layers, y)
    keys = list(layers)
    turned = {keys[i]: layers[keys[i]] for i in [3, *order]}
    assert_allclose(measure.transform(turned), measure.transform(layers), rtol=1e-13)
    assert_allclose(measure.score(turned, y), measure.score(layers, y), rtol=1e-13)


def test_names_that_read_alike_do_not_hide_a_layer(layers, y):
    for function in (gibbs_layer_mi, binned_layer_mi, kde_layer_mi):
        with pytest.raises(ValueError, match="1"):
            function({1: layers["wide"], "1": layers["logits"]}, y)


@EVERY
def test_labels_of_any_type_are_classes(layers, y, name):
    expected = result_of(name, layers, y)
    names = np.array(["cat", "dog", "a longer name"])[y]
    for labels in (
        names,
        names.astype(object),
        y.astype(float),
        y.astype(np.uint8),
        names.tolist(),
    ):
        result = result_of(name, layers, labels)
        assert_allclose(result.layer_mi_y, expected.layer_mi_y, **TIGHT)
        assert_array_equal(result.classes, np.unique(labels))
        measure = fitted(name, layers, labels)
        assert_array_equal(measure.classes_, np.unique(labels))
        assert_allclose(measure.score(layers, labels), fitted(name, layers, y).score(layers, y))


# Closed forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", WEIGHTS)
@pytest.mark.parametrize("m", [1, 2, 5, 16])
def test_one_unit_a_class_has_the_entropy_of_the_label(m, class_weight):
    y = np.arange(16 * m) % m
    result = gibbs_layer_mi(200.0 * np.eye(m)[y], y, class_weight=class_weight)
    assert_allclose([result.layer_mi_x, result.layer_mi_y], np.log2(m), **TIGHT)
    assert_allclose(result.layer_mi_xbar, 0, atol=1e-12)


def test_one_unit_a_class_of_unbalanced_classes():
    y = np.repeat([0, 1], [1, 7])
    prior = gibbs_layer_mi(200.0 * np.eye(2)[y], y)
    uniform = gibbs_layer_mi(200.0 * np.eye(2)[y], y, class_weight="uniform")
    assert_allclose(prior.layer_mi_y, reference.plogp([1 / 8, 7 / 8]), **TIGHT)
    assert_allclose(uniform.layer_mi_y, 1, **TIGHT)


def test_what_is_not_the_label_is_in_xbar():
    y, background = np.arange(24) % 2, np.arange(24) // 2 % 3
    result = gibbs_layer_mi(200.0 * np.eye(6)[3 * y + background], y)
    assert_allclose(result.layer_mi_x, np.log2(6), **TIGHT)
    assert_allclose(result.layer_mi_y, 1, **TIGHT)
    assert_allclose(result.layer_mi_xbar, np.log2(3), **TIGHT)


@pytest.mark.parametrize("class_weight", WEIGHTS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_units_that_are_all_alike_know_nothing(value, class_weight):
    y = np.repeat([0, 1, 2], [1, 4, 7])
    result = gibbs_layer_mi(np.full((12, 9), value), y, class_weight=class_weight)
    assert_allclose([result.layer_mi_x, result.layer_mi_y, result.layer_mi_xbar], 0, atol=1e-13)


@EVERY
def test_base_is_the_unit(layers, y, name):
    bits = fitted(name, layers, y)
    for base in (np.e, 10):
        other = fitted(name, layers, y, base=base)
        for attribute in (
            "layer_mi_x_",
            "layer_mi_y_",
            "layer_mi_xbar_",
            "mi_x_",
            "layer_ceiling_",
        ):
            if hasattr(bits, attribute):
                expected = getattr(bits, attribute) / np.log2(base)
                assert_allclose(getattr(other, attribute), expected, **TIGHT)
        assert_allclose(other.score(layers, y), bits.score(layers, y) / np.log2(base), **TIGHT)
        if name != "gibbs":
            expected = bits.transform(layers) / np.log2(base)
            assert_allclose(other.transform(layers), expected, **TIGHT)


@pytest.mark.parametrize(("bound", "scale"), [("upper", 2), ("lower", 8)])
@pytest.mark.parametrize("distance", [0.0, 0.7, 3.0, 40.0])
def test_two_points_in_closed_form(bound, scale, distance):
    result = kde_layer_mi([[0.0], [distance]], [0, 1], noise_variance=1.7, bound=bound)
    expected = 1 - np.log2(1 + np.exp(-(distance**2) / scale / 1.7))
    assert_allclose(result.layer_mi_x, expected, **TIGHT)
    assert_allclose(result.layer_mi_y, expected, **TIGHT)


def test_cells_are_half_open():
    values = np.array([[-2.0], [-1.999], [-0.001], [0.0], [1.999], [2.0]])
    result = binned_layer_mi(values, [0] * 6, bin_size=2.0)
    assert_allclose(result.layer_mi_x, reference.plogp([3 / 6, 2 / 6, 1 / 6]), **TIGHT)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_bins_of_few_bits_are_those_of_their_values(dtype):
    X = (0.1 * np.arange(-40, 40)).astype(dtype)[:, None]  # at the edges, or beside them
    y = np.arange(80) % 2
    result = binned_layer_mi(X, y, bin_size=0.2)
    assert_allclose(
        [result.layer_mi_x[0], result.layer_mi_y[0]],
        reference.binned(X.astype(float), y, 0.2),
        **TIGHT,
    )


def test_a_cell_is_that_of_all_units_together():
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 3, dtype=float)
    assert_allclose(binned_layer_mi(corners, [0, 1] * 6, bin_size=1.0).layer_mi_x, 2, **TIGHT)
    assert_allclose(binned_layer_mi(corners, [0, 1] * 6, bin_size=1.0).layer_mi_y, 1, **TIGHT)
    assert_allclose(binned_layer_mi(corners, [0, 1] * 6, bin_size=2.0).layer_mi_x, 0, **TIGHT)


# Properties --------------------------------------------------------------------------------------


def test_classes_of_one_size_weigh_the_same(layers):
    y = np.arange(60) % 3
    prior, uniform = (gibbs_layer_mi(layers, y, class_weight=w) for w in WEIGHTS)
    for key in ("layer_mi_x", "layer_mi_y", "layer_mi_xbar"):
        assert_allclose(prior[key], uniform[key], **TIGHT)
    X = layers["logits"]
    prior, uniform = (GibbsLayerMI(class_weight=w).fit(X, y) for w in WEIGHTS)
    assert_allclose(prior.score(X, y), uniform.score(X, y), **TIGHT)


def random_case(rng):
    n, d, m = rng.integers(1, 13), rng.integers(1, 9), rng.integers(1, 5)
    scale = 10.0 ** rng.integers(-4, 5)
    X = rng.normal(size=(n, d)) * scale * (rng.random((n, d)) < rng.random())
    return X + rng.normal() * scale, (rng.random(n) ** 3 * m).astype(int)


def test_information_keeps_its_bounds_in_ten_thousand_cases(rng):
    for _ in range(5000):
        X, y = random_case(rng)
        for class_weight in WEIGHTS:
            result = gibbs_layer_mi(X, y, class_weight=class_weight)
            assert -1e-12 <= result.layer_mi_y[0] <= result.layer_mi_x[0] + 1e-12
            assert result.layer_mi_x[0] <= np.log2(X.shape[1]) + 1e-12
            assert result.layer_mi_xbar[0] >= -1e-12
            assert result.layer_mi_y[0] <= np.log2(len(result.classes)) + 1e-12


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_baselines_keep_their_bounds(seed, width):
    X, y = random_case(np.random.default_rng(seed))
    binned = binned_layer_mi(X, y, bin_size=width)
    lower, upper = (kde_layer_mi(X, y, noise_variance=width, bound=b) for b in BOUNDS[::-1])
    assert lower.layer_mi_x[0] <= upper.layer_mi_x[0] + 1e-12
    for result in (binned, lower, upper):
        assert -1e-12 <= result.layer_mi_x[0] <= result.layer_ceiling[0] * (1 + 1e-9) + 1e-12
        assert result.layer_mi_x[0] <= np.log2(len(X)) + 1e-12
        assert result.layer_mi_y[0] <= reference.plogp(np.bincount(y) / len(y)) + 1e-12
    assert -1e-12 <= binned.layer_mi_y[0] <= binned.layer_mi_x[0] + 1e-12


@EVERY
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_samples_and_units_does_not_matter(name, seed):
    rng = np.random.default_rng(seed)
    X, y = random_case(rng)
    X = np.floor(X / X.std() * 64) / 64 if X.std() else X  # so that distances are exact
    rows, units = rng.permutation(len(X)), rng.permutation(X.shape[1])
    result, other = result_of(name, X, y), result_of(name, X[rows][:, units], y[rows])
    assert_allclose(other.layer_mi_x, result.layer_mi_x, **TIGHT)
    assert_allclose(other.layer_mi_y, result.layer_mi_y, **TIGHT)


@EVERY
def test_each_sample_twice_is_the_same_distribution(layers, y, name):
    twice = {k: np.repeat(t, 2, axis=0) for k, t in layers.items()}
    once, again = result_of(name, layers, y), result_of(name, twice, np.repeat(y, 2))
    assert_allclose(again.layer_mi_x, once.layer_mi_x, **TIGHT)
    assert_allclose(again.layer_mi_y, once.layer_mi_y, **TIGHT)


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_a_constant_added_to_all_units_of_a_sample_changes_nothing(layers, y, rng, class_weight):
    shifted = {k: t + 64.0 * rng.integers(-9, 9, (60, 1)) for k, t in layers.items()}
    before, after = (gibbs_layer_mi(t, y, class_weight=class_weight) for t in (layers, shifted))
    assert_allclose(after.layer_mi_x, before.layer_mi_x, **TIGHT)
    assert_allclose(after.layer_mi_y, before.layer_mi_y, **TIGHT)


@EVERY
@pytest.mark.parametrize("scale", [1e-300, 1e-5, 200.0, 1e3, 1e5, 1e150])
@pytest.mark.parametrize("shift", [0.0, 1e6, -1e6])
def test_activations_of_any_size_give_finite_values(layers, y, name, scale, shift):
    extreme = {k: scale * t + shift for k, t in layers.items()}
    if name == "binned" and scale > 1e15:
        pytest.skip("more than 2^62 bins")
    measure = fitted(name, extreme, y)
    assert np.isfinite(measure.layer_mi_x_).all()
    assert np.isfinite(measure.layer_mi_y_).all()
    assert np.isfinite(measure.transform(extreme)).all()
    assert np.isfinite(measure.score(extreme, y))
    if name == "gibbs" and not shift:
        expected = np.transpose([reference.gibbs(t, y) for t in extreme.values()])
        assert_allclose(
            [measure.layer_mi_x_, measure.layer_mi_y_, measure.layer_mi_xbar_], expected, **TIGHT
        )


def test_the_largest_numbers_that_there_are_give_finite_values():
    X = np.array([[1e308, -1e308], [0.0, 1.0], [-1e308, 1e308]])
    result = gibbs_layer_mi(X, [0, 1, 1])
    expected = reference.gibbs([[1, -1e4], [0.0, 1.0], [-1e4, 1]], [0, 1, 1])
    assert_allclose(
        [result.layer_mi_x[0], result.layer_mi_y[0], result.layer_mi_xbar[0]], expected, **TIGHT
    )


def test_the_least_noise_that_there_is_tells_all_samples_apart(layers, y):
    X = layers["narrow"]
    result = kde_layer_mi(X, y, noise_variance=1e-310)
    assert_allclose(result.layer_mi_x, np.log2(60), **TIGHT)
    assert np.isfinite(result.layer_mi_y).all()


def test_threads_change_no_bit(rng):
    X, y = rng.normal(size=(20_000, 60)), rng.integers(0, 7, 20_000)
    expected = GibbsLayerMI(n_jobs=1).fit(X, y)
    for n_jobs in (2, 3):
        measure = GibbsLayerMI(n_jobs=n_jobs).fit(X, y)
        assert_array_equal(measure.layer_mi_x_, expected.layer_mi_x_)
        assert_array_equal(measure.layer_mi_y_, expected.layer_mi_y_)
        assert gibbs_layer_mi(X, y, n_jobs=n_jobs).layer_mi_x == expected.layer_mi_x_


def test_many_samples_and_many_units_are_cut_into_blocks(rng):
    X = rng.normal(size=(700, 3000)).astype(np.float32)
    y = rng.integers(0, 3, 700)
    P = np.exp(X - X.max(axis=1, keepdims=True), dtype=np.float64)
    P /= P.sum(axis=1, keepdims=True)
    H = [-(p * np.log2(p)).sum(axis=-1) for p in (P, P.mean(axis=0))]
    assert_allclose(gibbs_layer_mi(X, y).layer_mi_x, H[1] - H[0].mean(), rtol=0, atol=1e-6)
    assert_allclose(
        gibbs_layer_mi(X.astype(float), y).layer_mi_x,
        gibbs_layer_mi(X, y).layer_mi_x,
        rtol=0,
        atol=1e-13,
    )


# In parts ----------------------------------------------------------------------------------------


def assert_same_measure(measure, expected):
    for attribute in ("layer_mi_x_", "layer_mi_y_", "layer_mi_xbar_", "mi_x_", "mi_y_"):
        assert_allclose(getattr(measure, attribute), getattr(expected, attribute), **TIGHT)
    assert_array_equal(measure.classes_, expected.classes_)
    assert measure.layer_names_ == expected.layer_names_
    assert measure.n_units_ == expected.n_units_


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 59), max_size=6, unique=True),
    class_weight=st.sampled_from(WEIGHTS),
    ordered=st.booleans(),
    labels=st.sampled_from([[0, 1, 2, 3], [7, -2, 0, 5], ["b", "longer", "a", "zz"]]),
)
def test_parts_add_up_to_the_whole(seed, cuts, class_weight, ordered, labels):
    rng = np.random.default_rng(seed)
    X = {"a": 3 * rng.normal(size=(60, 5)), "b": 3 * rng.normal(size=(60, 2))}
    y = np.array(labels)[np.sort(rng.integers(0, 4, 60)) if ordered else rng.integers(0, 4, 60)]
    parts = GibbsLayerMI(class_weight=class_weight)
    for rows in np.split(np.arange(60), sorted(cuts)):
        parts.partial_fit({k: t[rows] for k, t in X.items()}, y[rows])
    whole = GibbsLayerMI(class_weight=class_weight).fit(X, y)
    assert_same_measure(parts, whole)
    assert_allclose(parts.score(X, y), whole.score(X, y), **TIGHT)


def test_parts_after_a_fit_and_a_fit_after_parts(layers, y):
    whole = GibbsLayerMI().fit(layers, y)
    head, tail = ({k: t[s] for k, t in layers.items()} for s in (slice(25), slice(25, None)))
    measure = GibbsLayerMI().fit(head, y[:25]).partial_fit(tail, y[25:])
    assert_same_measure(measure, whole)
    assert_same_measure(measure.fit(layers, y), whole)
    turned = dict(reversed(tail.items()))
    assert_same_measure(GibbsLayerMI().fit(head, y[:25]).partial_fit(turned, y[25:]), whole)


BAD_PARTS = {
    "NaN": lambda X, y: ({**X, "logits": np.full((5, 3), np.nan)}, y),
    "labels missing": lambda X, y: (X, None),
    "labels of another number": lambda X, y: (X, y[:-1]),
    "continuous labels": lambda X, y: (X, y + 0.5 * np.arange(5)),
    "a layer missing": lambda X, y: ({k: X[k] for k in ("narrow", "wide")}, y),
    "another width": lambda X, y: ({**X, "wide": X["wide"][:, 1:]}, y),
    "an array": lambda X, y: (np.hstack(list(X.values())), y),
    "layers of two lengths": lambda X, y: ({**X, "wide": X["wide"][1:]}, y),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_a_part_that_fails_leaves_no_trace(layers, y, case):
    measure = GibbsLayerMI().fit(layers, y)
    before = pickle.dumps(vars(measure))
    part = {k: t[:5] for k, t in layers.items()}
    X, labels = BAD_PARTS[case](part, y[:5])
    with pytest.raises(ValueError):  # noqa: PT011
        measure.partial_fit(X, labels)
    assert pickle.dumps(vars(measure)) == before
    measure.partial_fit(part, y[:5])
    twice = {k: np.vstack([t, t[:5]]) for k, t in layers.items()}
    assert_same_measure(measure, GibbsLayerMI().fit(twice, np.append(y, y[:5])))


def test_a_first_part_that_fails_is_no_fit(layers, y):
    measure = GibbsLayerMI()
    with pytest.raises(ValueError, match="inconsistent"):
        measure.partial_fit(layers, y[1:])
    with pytest.raises(NotFittedError):
        measure.transform(layers)
    assert_same_measure(measure.partial_fit(layers, y), GibbsLayerMI().fit(layers, y))


# Scores ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_score_of_the_fitted_samples_is_the_information_of_the_output(layers, y, class_weight):
    measure = GibbsLayerMI(class_weight=class_weight).fit(layers, y)
    assert_allclose(measure.score(layers, y), measure.layer_mi_y_[-1], **TIGHT)


@pytest.mark.parametrize("bound", BOUNDS)
def test_kernel_score_of_the_fitted_samples_is_the_information_of_the_output(layers, y, bound):
    measure = KDELayerMI(noise_variance=3.0, bound=bound).fit(layers, y)
    assert_allclose(measure.score(layers, y), measure.layer_mi_y_[-1], **TIGHT)


@EVERY
def test_held_out_labels_that_are_shuffled_score_nothing(rng, name):
    X, y = rng.normal(size=(2000, 5)), rng.integers(0, 5, 2000)
    measure = fitted(name, X[:1000], y[:1000])
    assert measure.layer_mi_y_[0] > 0
    assert measure.score(X[1000:], y[1000:]) < 0.01
    informative = X + 3 * np.eye(5)[y]
    measure = fitted(name, informative[:1000], y[:1000])
    assert measure.score(informative[1000:], y[1000:]) > 0.3


@pytest.mark.parametrize("class_weight", WEIGHTS)
@pytest.mark.parametrize("scale", [200.0, 1e4])
def test_units_that_were_never_on_do_not_make_a_score_infinite(class_weight, scale):
    train = scale * np.eye(4)[[0, 0, 1, 1]]
    measure = GibbsLayerMI(class_weight=class_weight).fit(train, [0, 0, 1, 1])
    score = measure.score(scale * np.eye(4)[[2, 3, 1]], [0, 1, 1])  # units 2 and 3: of no class
    assert np.isfinite(score)
    assert score <= 1
    worst = measure.score(scale * np.eye(4)[[1, 0]], [0, 1])  # those of the other class
    assert np.isfinite(worst)
    assert worst < -100


@pytest.mark.parametrize("name", ["binned", "kde"])
def test_samples_far_from_all_others_do_not_make_a_score_infinite(layers, y, name):
    measure = fitted(name, layers["narrow"], y)
    far = np.full((3, 2), 1e6)
    assert np.isfinite(measure.score(far, [0, 1, 2]))
    assert np.isfinite(measure.transform(far)).all()


def test_an_empty_cell_tells_nothing(layers, y):
    measure = BinnedLayerMI(bin_size=1.5).fit(layers["narrow"], y)
    assert_allclose(measure.score(np.full((3, 2), 1e6), [0, 1, 2]), 0, atol=1e-12)
    assert_allclose(measure.transform(np.full((3, 2), 1e6)), np.log2(60), **TIGHT)


@EVERY
def test_classes_absent_from_new_data_are_no_obstacle(layers, y, name):
    measure = fitted(name, layers, y)
    scores, sizes = [], []
    for label in range(3):
        rows = y == label
        scores.append(measure.score({k: t[rows] for k, t in layers.items()}, y[rows]))
        sizes.append(rows.sum())
    assert_allclose(np.average(scores, weights=sizes), measure.score(layers, y), **TIGHT)


def test_classes_that_weigh_the_same_are_averaged_over_those_that_are_there(layers, y):
    measure = GibbsLayerMI(class_weight="uniform").fit(layers, y)
    scores = [
        measure.score({k: t[y == label] for k, t in layers.items()}, y[y == label])
        for label in range(3)
    ]
    rows = y != 1
    some = measure.score({k: t[rows] for k, t in layers.items()}, y[rows])
    assert_allclose(some, (scores[0] + scores[2]) / 2, **TIGHT)
    assert_allclose(measure.score(layers, y), np.mean(scores), **TIGHT)


# Containers and scikit-learn ---------------------------------------------------------------------


def test_probabilities_of_each_layer_sum_to_one(layers, y):
    measure = GibbsLayerMI().fit(layers, y)
    P = measure.transform(layers)
    assert P.shape == (60, 25)
    for columns in (P[:, :2], P[:, 2:22], P[:, 22:]):
        assert_allclose(columns.sum(axis=1), 1, **TIGHT)
    names = [f"narrow_{i}" for i in range(2)] + [f"wide_{i}" for i in range(20)]
    assert list(measure.get_feature_names_out()) == names + [f"logits_{i}" for i in range(3)]
    assert measure.n_features_in_ == 25


@EVERY
def test_dataframes_out_and_in(layers, y, name):
    frame = pd.DataFrame(layers["wide"], index=np.arange(60) + 5).add_prefix("u")
    measure = MEASURES[name][0]().set_output(transform="pandas").fit(frame, pd.Series(y))
    out = measure.transform(frame)
    assert list(out.columns) == list(measure.get_feature_names_out())
    pd.testing.assert_index_equal(out.index, frame.index)
    assert list(measure.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        measure.transform(frame[frame.columns[::-1]])
    layers_out = MEASURES[name][0]().set_output(transform="pandas").fit(layers, y).transform(layers)
    assert len(layers_out.columns) == (25 if name == "gibbs" else 3)


@EVERY
def test_clones_and_pickles(layers, y, name):
    measure = fitted(name, layers, y)
    with pytest.raises(NotFittedError):
        clone(measure).transform(layers)
    assert_array_equal(clone(measure).fit(layers, y).layer_mi_x_, measure.layer_mi_x_)
    loaded = pickle.loads(pickle.dumps(measure))
    assert_array_equal(loaded.transform(layers), measure.transform(layers))
    assert loaded.score(layers, y) == measure.score(layers, y)


def test_a_pickle_goes_on_with_further_parts(layers, y):
    measure = pickle.loads(pickle.dumps(GibbsLayerMI().fit(layers, y))).partial_fit(layers, y)
    assert_same_measure(measure, GibbsLayerMI().fit(layers, y))


def test_a_second_fit_forgets_the_first(layers, y):
    for name in MEASURES:
        measure = fitted(name, layers, y)
        measure.fit(layers["wide"][:30], y[:30])
        expected = fitted(name, layers["wide"][:30], y[:30])
        assert_array_equal(measure.transform(layers["wide"]), expected.transform(layers["wide"]))
        assert measure.layer_names_ == ["layer0"]
        assert measure.n_features_in_ == 20


def test_max_samples_draws_rows_with_their_labels(rng):
    y = rng.integers(0, 2, 300)
    X = 10.0 * np.eye(2)[y]
    some = KDELayerMI(max_samples=50, random_state=3).fit(X, y)
    share = KDELayerMI(max_samples=1 / 6, random_state=3).fit(X, y)
    assert_array_equal(some.layer_ceiling_, share.layer_ceiling_)
    assert_allclose(some.layer_ceiling_, np.log2(50))
    assert some.layer_mi_x_ == share.layer_mi_x_
    assert_allclose(
        some.layer_mi_y_, some.layer_mi_x_, **TIGHT
    )  # rows and labels still belong together
    other = KDELayerMI(max_samples=50, random_state=4).fit(X, y)
    assert other.layer_mi_x_ != some.layer_mi_x_


# Edge cases --------------------------------------------------------------------------------------


@EVERY
def test_one_class_has_no_information(layers, name):
    measure = fitted(name, layers, np.zeros(60, int))
    assert_allclose(measure.layer_mi_y_, 0, atol=1e-12)
    assert_allclose(measure.score(layers, np.zeros(60, int)), 0, atol=1e-12)
    assert (measure.layer_mi_x_ > 0).all()


@EVERY
def test_one_sample_has_no_information(name):
    measure = fitted(name, [[0.3, -2.0, 1.0]], ["only"])
    assert_allclose([measure.layer_mi_x_, measure.layer_mi_y_], 0, atol=1e-12)
    assert_allclose(measure.score([[0.3, -2.0, 1.0]], ["only"]), 0, atol=1e-12)


def test_one_unit_is_no_choice(rng):
    result = gibbs_layer_mi(rng.normal(size=(20, 1)), np.arange(20) % 2)
    assert_allclose([result.layer_mi_x, result.layer_mi_y, result.layer_mi_xbar], 0, atol=1e-13)


@EVERY
@pytest.mark.parametrize("value", [0.0, 0.1, -1e7])
@pytest.mark.parametrize("n_units", [1, 3, 40])
def test_constant_activations_have_no_information(name, value, n_units):
    X, y = np.full((12, n_units), value), np.arange(12) % 3
    measure = fitted(name, X, y)
    assert_allclose([measure.layer_mi_x_, measure.layer_mi_y_], 0, atol=1e-12)
    assert_allclose(measure.score(X, y), 0, atol=1e-12)


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_a_class_with_one_member(layers, class_weight):
    y = np.zeros(60, int)
    y[17] = 1
    expected = reference.gibbs(layers["logits"], y, class_weight)
    result = gibbs_layer_mi(layers["logits"], y, class_weight=class_weight)
    assert_allclose(
        [result.layer_mi_x[0], result.layer_mi_y[0], result.layer_mi_xbar[0]], expected, **TIGHT
    )
    assert_allclose(
        kde_layer_mi(layers["narrow"], y).layer_mi_y, reference.kde(layers["narrow"], y, 2)[1]
    )


@EVERY
def test_a_class_for_each_sample(layers, name):
    X, y = layers["narrow"], np.arange(60)
    result = result_of(name, X, y)
    assert_allclose(result.layer_mi_y, result.layer_mi_x, **TIGHT)


# Saturation --------------------------------------------------------------------------------------


def feature_maps(n_samples):
    """Return digits, labels, and an untrained network of feature maps far from zero."""
    X, y = load_digits(return_X_y=True)
    torch.manual_seed(0)
    maps = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10))
    order = np.random.default_rng(0).permutation(len(X))
    images = (60 * X[order]).reshape(-1, 1, 8, 8).astype(np.float32)
    return images[:n_samples], y[order][:n_samples], maps


@pytest.mark.parametrize("layer", [0, slice(None)])
def test_flattened_feature_maps_of_an_untrained_network_are_flagged(layer):
    X, y, net = feature_maps(200)
    few, more = slice(100), slice(100, None)
    options = {"layers": layer, "random_state": 0}
    with pytest.warns(SaturationWarning, match=r"0: I\(X;T\) .* of shuffled labels 1\.") as caught:
        flat = GibbsLayerMI(net, spatial="flatten", **options).fit(X[few], y[few])
    assert "score(X, y) on samples that were not fitted" in str(caught[0].message)
    assert len(caught) == 1
    assert flat.layer_mi_y_[0] > 2
    assert flat.shuffled_layer_mi_y_[0] > 0.5 * flat.layer_mi_y_[0]
    assert flat.saturated_
    if layer == 0:  # the honest number is that of the last layer
        assert flat.score(X[more], y[more]) < 0
    channels = GibbsLayerMI(net, layers=0, random_state=0).fit(X[few], y[few])
    assert channels.shuffled_layer_mi_y_[0] < 0.02
    assert not channels.layer_saturated_.any()
    assert not channels.saturated_


@pytest.mark.parametrize(("n_units", "saturated"), [(39, False), (40, True), (60, True)])
def test_as_many_units_as_samples_are_no_information(n_units, saturated):
    n, y = 40, np.repeat([0, 1], 20)
    X = 200.0 * np.eye(n_units)[np.arange(n) % n_units]
    measure = GibbsLayerMI(random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure.fit(X, np.zeros(n))  # one class, of which no layer can know anything
    assert measure.layer_saturated_.tolist() == [saturated] == [bool(caught)]
    assert_allclose(measure.layer_ceiling_, np.log2(min(n, n_units)))
    with pytest.warns(SaturationWarning, match="shuffled labels"):
        result = gibbs_layer_mi(X, y)
    assert result.saturated


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_ceiling_of_weighted_samples_is_their_entropy(class_weight):
    y = np.repeat([0, 1], [3, 13])
    result = gibbs_layer_mi(500.0 * np.eye(20)[:16], y, class_weight=class_weight)
    weights = np.repeat([1 / 16] * 2 if class_weight == "prior" else [1 / 6, 1 / 26], [3, 13])
    assert_allclose(result.layer_ceiling, reference.plogp(weights))
    assert_allclose(result.layer_mi_x, result.layer_ceiling)
    assert result.layer_saturated.tolist() == [True]


def test_values_far_above_those_of_shuffled_labels_are_not_flagged(rng):
    # 16 samples a class: shuffled labels have a sixth of I(Y;T) = H(Y), which is right
    y = np.arange(256) % 16
    result = gibbs_layer_mi(200.0 * np.eye(16)[y], y, random_state=0)
    assert result.shuffled_layer_mi_y[0] > 0.1 * result.layer_mi_y[0]
    # little information, of which shuffled labels have much: far from the ceiling
    vague = gibbs_layer_mi(0.3 * rng.normal(size=(100, 8)), np.arange(100) % 2, random_state=0)
    assert vague.shuffled_layer_mi_y[0] > 0.3 * vague.layer_mi_y[0]
    assert not result.saturated
    assert not vague.saturated


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_shuffled_labels_of_gibbs_are_a_fit_to_shuffled_labels(layers, y, class_weight):
    y = np.where(y == 2, 1, y)  # unbalanced
    measure = GibbsLayerMI(class_weight=class_weight, random_state=1).fit(layers, y)
    shuffled = np.random.RandomState(1).permutation(y)
    again = GibbsLayerMI(class_weight=class_weight).fit(layers, shuffled)
    assert_allclose(measure.shuffled_layer_mi_y_, again.layer_mi_y_, **TIGHT)
    assert measure.shuffled_mi_y_ == measure.shuffled_layer_mi_y_[-1]


def test_labels_are_shuffled_over_all_batches_if_they_are_known(rng):
    y = np.repeat(["a", "b", "c"], 50)  # a batch holds one class
    X = rng.normal(size=(150, 4)) + 3 * np.eye(4)[np.repeat([0, 1, 2], 50)]
    X = X.astype(np.float32)
    net = nn.Linear(4, 4)
    with torch.no_grad():
        net.weight.copy_(torch.eye(4))
        net.bias.zero_()
    measure = GibbsLayerMI(net, batch_size=25, random_state=3).fit(X, y)
    shuffled = np.random.RandomState(3).permutation(y)
    assert_allclose(measure.shuffled_layer_mi_y_, gibbs_layer_mi(X, shuffled).layer_mi_y, rtol=1e-4)
    # labels that come with the batches cannot be moved to another
    codes = np.unique(y, return_inverse=True)[1]
    inputs, targets = torch.tensor(X), torch.tensor(codes)
    in_order = DataLoader(TensorDataset(inputs, targets), batch_size=25)
    assert np.isnan(GibbsLayerMI(net).fit(in_order).shuffled_layer_mi_y_).all()
    mixed = torch.tensor(rng.permutation(150))
    loader = DataLoader(TensorDataset(inputs[mixed], targets[mixed]), batch_size=25)
    found = GibbsLayerMI(net, random_state=0).fit(loader)
    assert 0 < found.shuffled_mi_y_ < 0.1 * found.mi_y_


def test_parts_have_shuffled_labels_of_their_own(layers, y):
    parts = [
        ({k: t[rows] for k, t in layers.items()}, y[rows]) for rows in np.split(np.arange(60), 2)
    ]
    measure = GibbsLayerMI(random_state=0)
    shuffled = []
    for X, labels in parts:
        measure.partial_fit(X, labels)
        shuffled.append(np.random.RandomState(0).permutation(labels))
    again = gibbs_layer_mi(layers, np.concatenate(shuffled))
    assert_allclose(measure.shuffled_layer_mi_y_, again.layer_mi_y, **TIGHT)
    ordered = GibbsLayerMI()
    for label in range(3):
        ordered.partial_fit({k: t[y == label] for k, t in layers.items()}, y[y == label])
    assert np.isnan(ordered.shuffled_layer_mi_y_).all()
    assert not ordered.layer_saturated_.any()


@pytest.mark.parametrize("name", ["binned", "kde"])
def test_saturation_names_the_layers(rng, name):
    wide = 100 * rng.normal(size=(60, 30))
    coarse = np.repeat(3.0 * np.arange(6), 10)[:, None]
    y = np.arange(60) % 2
    with pytest.warns(SaturationWarning, match=r"wide: I\(X;T\) 5\.91, ceiling 5\.91") as caught:
        measure = fitted(name, {"wide": wide, "coarse": coarse}, y)
    assert "coarse:" not in str(caught[0].message)
    assert len(caught) == 1
    assert measure.layer_saturated_.tolist() == [True, False]
    assert measure.layer_saturated_.dtype == bool
    assert_allclose(measure.layer_ceiling_[0], np.log2(60))
    with pytest.warns(SaturationWarning, match="n = 60"):
        result = result_of(name, {"wide": wide, "coarse": coarse}, y)
    assert_array_equal(result.layer_saturated, measure.layer_saturated_)
    assert_array_equal(result.layer_ceiling, measure.layer_ceiling_)


@pytest.mark.parametrize(("n_pairs", "saturated"), [(0, True), (4, True), (5, False)])
def test_saturation_begins_one_percent_below_the_ceiling(n_pairs, saturated):
    X = 1e3 * np.append(np.arange(128 - n_pairs), np.arange(n_pairs))[:, None]
    for name in ("binned", "kde"):
        result = result_of(name, X, X[:, 0] // 1e3 % 2)  # pairs in one class
        assert_allclose(result.layer_mi_x, 7 - n_pairs / 64, rtol=1e-9)  # 6.93 is the limit
        assert result.layer_saturated.tolist() == [saturated]


@pytest.mark.parametrize("name", ["binned", "kde"])
def test_saturation_within_the_classes_alone_is_told(name):
    # each class has the same eight places: half of log n, all of log n given Y
    X = np.repeat(100.0 * np.arange(8), 8)[:, None]
    y = np.tile(np.arange(8), 8)
    with pytest.warns(SaturationWarning, match=r"given Y 3\.00, ceiling 3\.00"):
        result = result_of(name, X, y)
    assert_allclose(result.layer_mi_x, 3, rtol=1e-9)
    assert result.layer_saturated.tolist() == [True]


def test_noise_that_covers_all_is_told(rng):
    X, y = rng.normal(size=(50, 4)), np.arange(50) % 2
    with pytest.warns(SaturationWarning, match="noise covers"):
        result = kde_layer_mi(X, y, noise_variance=1e5)
    assert_allclose(result.layer_ceiling, X.var(axis=0).sum() / 1e5 / np.log(2))
    assert result.layer_mi_x <= result.layer_ceiling
    with pytest.warns(SaturationWarning):
        lower = kde_layer_mi(X, y, noise_variance=1e5, bound="lower")
    assert_allclose(lower.layer_ceiling, result.layer_ceiling / 4)


@pytest.mark.parametrize("name", ["binned", "kde"])
def test_what_is_far_from_a_ceiling_does_not_warn(layers, name):
    X = layers["narrow"]
    y = np.arange(60) % 2
    assert not result_of(name, X, y).layer_saturated.any()
    assert not result_of(name, np.zeros((60, 2)), y).layer_saturated.any()
    assert not result_of(name, np.full((60, 20), 0.1), y).layer_saturated.any()


@pytest.mark.parametrize("name", ["binned", "kde"])
def test_classes_of_one_member_have_no_ceiling_to_sit_at(name):
    X = np.repeat([[0.0], [9.0]], 4, axis=0)
    result = result_of(name, X, np.arange(8))  # given Y is 0, and could be nothing else
    assert_allclose(result.layer_mi_x, 1, rtol=1e-6)
    assert not result.layer_saturated.any()
    assert not result_of(name, np.zeros((4, 2)), np.arange(4)).layer_saturated.any()


@pytest.mark.parametrize(
    "measure", [BinnedLayerMI(bin_size=1.0), KDELayerMI(noise_variance=0.5)], ids=["bins", "kde"]
)
def test_shuffled_labels_stand_beside_the_information_about_the_label(measure):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    layers = {
        "knows": rng.normal(size=(400, 3)) + 3 * np.eye(4)[y, :3],
        "tells all apart": 50 * rng.normal(size=(400, 9)),
    }
    measure = clone(measure).set_params(random_state=1).fit(layers, y)
    assert measure.layer_mi_y_[0] > measure.shuffled_layer_mi_y_[0] + 0.5
    assert_allclose(
        measure.shuffled_layer_mi_y_[1], measure.layer_mi_y_[1], rtol=1e-3
    )  # a number without meaning
    shuffled = np.random.RandomState(1).permutation(y)
    again = clone(measure).fit(layers, shuffled)
    assert_allclose(again.layer_mi_y_, measure.shuffled_layer_mi_y_, rtol=1e-12)


def test_bins_that_hold_all_samples_are_told(rng):
    wide = np.round(rng.normal(size=(50, 1))) * 4
    X = {"narrow": rng.random((50, 3)), "wide": wide, "dead": np.zeros((50, 2))}
    y = np.arange(50) % 2
    for measure in (BinnedLayerMI().fit, binned_layer_mi):
        with pytest.warns(UserWarning, match=r"one cell of bin_size=2\.0 in layers \['narrow'\]"):
            measure(X, y)
