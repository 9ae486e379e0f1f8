"""Rows that are positions of samples: nothing splits a sample, and errors count samples."""

import numpy as np
import pytest
import reference
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import t
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from torch import nn

from skgate import (
    ComplexityMonitor,
    GateExtractor,
    GatingEntropy,
    GatingMI,
    GatingStates,
    TotalCorrelation,
    entropy_curve,
    gating_entropy,
    gating_mi,
    permutation_test,
    total_correlation,
)
from skgate.densities import (
    ChowLiu,
    Kernel,
    Product,
    _cross_fitting,
)
from skgate.densities.autoregression import _linear_autoregression
from skgate.densities.kernel import _jackknife
from skgate.pairwise import Engine, block_masses
from skgate.utils.samples import Samples

pytestmark = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")

N_ID = 7  # gates that write the number of the sample


def with_numbers(gates, groups):
    """Append gates that hold the sample of each row, for spies to read."""
    return np.hstack([gates, (groups[:, None] >> np.arange(N_ID)) & 1 > 0])


def numbers_in(gates):
    """Return the samples of rows, as `with_numbers` wrote them."""
    return set((np.asarray(gates)[:, -N_ID:] > 0) @ (1 << np.arange(N_ID)))


def grouped(rng, n_samples=32, low=1, high=9, d=6, threshold=0.0):
    """Gates that are alike within a sample; samples unequal, rows in random order."""
    groups = rng.permutation(np.repeat(np.arange(n_samples), rng.integers(low, high, n_samples)))
    centres = rng.normal(size=(n_samples, d))
    gates = 1.5 * centres[groups] + rng.normal(size=(len(groups), d)) > threshold
    return gates, groups


def repeated(gates, times=100):
    """The same states, each row a sample, and each row a hundred positions of a sample."""
    groups = np.repeat(np.arange(len(gates)), times)
    return GatingStates.from_arrays(gates), GatingStates.from_arrays(gates[groups], groups=groups)


def parts_of(groups, n_parts=16):
    """Rows of the parts, as the library draws samples for them, in the order of their rows."""
    names = list(dict.fromkeys(groups.tolist()))
    order = np.random.default_rng(0).permutation(len(names)).reshape(n_parts, -1)
    return [
        [j for j, name in enumerate(groups.tolist()) if name in {names[i] for i in part}]
        for part in order
    ]


class Spy(BaseEstimator):
    """Independent gates; raises if it scores rows of samples that it was fitted to."""

    n_scored = 0

    def fit(self, X):
        self.samples_ = numbers_in(X) if X.shape[1] > N_ID else set()
        self.rates_ = (X.sum(axis=0) + 1) / (len(X) + 2)
        return self

    def score_samples(self, X):
        if self.samples_:
            assert not self.samples_ & numbers_in(X)
            Spy.n_scored += 1
        return X @ np.log(self.rates_) + (1 - X) @ np.log1p(-self.rates_)


# What is split ------------------------------------------------------------------------------------


def test_folds_split_samples(rng):
    groups = rng.permutation(np.repeat([7, -2, 40, 3, 11, 12], [9, 1, 4, 4, 2, 30]))
    for seed in (None, 3):
        folds = list(Samples(groups, 50).folds(3, seed))
        scored = [set(groups[test]) for _, test in folds]
        assert sorted(s for some in scored for s in some) == [-2, 3, 7, 11, 12, 40]
        for (train, test), own in zip(folds, scored, strict=True):
            assert not own & set(groups[train])
            assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(50))


@pytest.mark.parametrize("seed", [None, 3])
def test_folds_of_rows_that_are_samples_are_those_of_scikit_learn(rng, seed):
    expected = list(KFold(4, shuffle=seed is not None, random_state=seed).split(np.zeros(30)))
    for groups in (None, np.arange(30), rng.permutation(30)):
        for ours, theirs in zip(Samples(groups, 30).folds(4, seed), expected, strict=True):
            assert_array_equal(ours[0], theirs[0])
            assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("labels", [False, True])
def test_cross_fitting_scores_no_sample_that_was_fitted(rng, labels):
    """Neither the folds, nor the inner ones that choose how far classes are shrunk."""
    gates, groups = grouped(rng)
    states = GatingStates.from_arrays(with_numbers(gates, groups), groups=groups)
    Spy.n_scored = 0
    if labels:
        gating_mi(states, groups % 2, density=Spy(), cv=3, random_state=0)
    else:
        gating_entropy(states, density=Spy(), cv=3, random_state=0)
    # a fold scores with its density of all classes and those of each; its inner fold too
    assert Spy.n_scored >= (3 * 3 if labels else 3)
    with pytest.raises(AssertionError):
        gating_entropy(np.asarray(states), density=Spy(), cv=3, random_state=0)


def test_classes_are_shrunk_by_the_errors_of_samples(rng, monkeypatch):
    """A strength no worse than the best by an error: that of the samples which were judged."""
    gates, groups = grouped(rng, 40)
    seen, original = [], _cross_fitting.mean_and_error
    monkeypatch.setattr(
        _cross_fitting,
        "mean_and_error",
        lambda values, samples: seen.append((values, samples)) or original(values, samples),
    )
    states = GatingStates.from_arrays(gates, groups=groups)
    gating_mi(states, groups % 2, density="product", cv=None)
    for values, samples in seen:
        # all five inner folds are judged
        assert values.shape[1] == len(samples.of_rows) == len(groups)
        assert_array_equal(np.sort(samples.sizes), np.sort(np.bincount(groups)))
    assert seen


def test_rows_of_a_sample_are_in_random_order():
    """Else evenly spaced rows of samples of one size would all be the same positions."""
    rows = Samples(np.repeat(np.arange(50), 30), 1500).shuffled_rows(0)
    assert_array_equal(np.diff(rows // 30) != 0, np.arange(1, 1500) % 30 == 0)
    assert len(set(rows[::30] % 30)) > 20
    assert len(set(np.flatnonzero(rows % 30 == 0) % 30)) > 20


def test_regressions_predict_no_sample_that_was_fitted(rng, monkeypatch):
    gates, groups = grouped(rng, 40)
    order = np.argsort(groups, kind="stable")  # so that neighbours show if folds are not at random
    gates, groups = gates[order], groups[order]
    numbers = 3 * groups  # each of their bits varies, else it is no column
    states = GatingStates.from_arrays(with_numbers(gates, numbers), groups=groups)
    regression = _linear_autoregression.Regression
    original, predict = _linear_autoregression.Moments.regression, regression.centred_predictions
    begin, shares, spans = _linear_autoregression.Moments.__init__, [], []

    def moments(self, columns, *args):
        begin(self, columns, *args)
        self.samples = numbers_in(columns.gates)

    def fitted(self, *args):
        found = original(self, *args)
        found.samples = self.samples
        return found

    def predictions(regression, columns):
        seen = numbers_in(columns.gates)
        assert not regression.samples & seen
        shares.append(len(seen) / len(regression.samples))
        spans.append(np.ptp(list(seen)))
        return predict(regression, columns)

    monkeypatch.setattr(_linear_autoregression.Moments, "__init__", moments)
    monkeypatch.setattr(_linear_autoregression.Moments, "regression", fitted)
    monkeypatch.setattr(regression, "centred_predictions", predictions)
    for y in (None, groups % 2):
        options = {"density": "autoregressive", "cv": 4, "random_state": 0}
        gating_entropy(states, **options) if y is None else gating_mi(states, y, **options)
    assert len(shares) > 40
    assert 0.2 <= min(shares) <= max(shares) < 0.4  # a fifth or a quarter of the samples
    assert min(spans) > 45


@pytest.mark.parametrize(("n_samples", "size"), [(3, 1), (20, 1), (37, 2), (64, 4)])
def test_blocks_of_the_jackknife_hold_whole_samples(rng, monkeypatch, n_samples, size):
    gates, groups = grouped(rng, n_samples)
    seen = []

    def spy(states, *args, **options):
        masses, blocks = block_masses(states, *args, **options)
        seen.append((states.groups, blocks))
        return masses, blocks

    monkeypatch.setattr(_jackknife, "block_masses", spy)
    states = GatingStates.from_arrays(gates, groups=groups)
    gating_mi(states, groups % 2, density=Kernel(alpha=0.3))
    entropy_curve(states)
    assert len(seen) == 2
    for of_row, blocks in seen:
        assert_array_equal(np.sort(of_row), np.sort(groups))
        pairs = np.unique([of_row, blocks], axis=1)
        assert len(pairs[0]) == n_samples  # a sample is in one block
        assert_array_equal(np.bincount(pairs[1])[:16], size)
        assert_array_equal(blocks, np.sort(blocks))


def test_draws_hold_whole_samples(rng):
    gates, groups = grouped(rng, 40)
    states = GatingStates.from_arrays(with_numbers(gates, groups), groups=groups)
    for max_samples, n in ((10, 10), (0.5, 20), (1, 1), (40, 40), (100, 40)):
        drawn = (
            GatingEntropy(density="kde", max_samples=max_samples, random_state=0)
            .fit(states)
            .states_
        )
        chosen = set(drawn.groups)
        assert len(chosen) == n
        assert_array_equal(drawn.groups, groups[np.isin(groups, list(chosen))])
        assert numbers_in(drawn) == chosen
    y = rng.integers(0, 3, 40)
    for labels in (y, y[groups]):
        fitted = GatingMI(density="kde", max_samples=25, random_state=0).fit(states, labels)
        own = fitted.states_.groups
        assert_allclose(
            fitted.mi_xy_, gating_mi(fitted.states_, y[own], density="kde").mi_xy, rtol=1e-12
        )


def test_slopes_come_from_rows_of_all_samples(rng, monkeypatch):
    gates, groups = grouped(rng, 64, low=30, high=60)
    seen = []
    original = _jackknife.kernel_masses

    def spy(*args, queries=None, **options):
        seen.append(queries.groups)
        return original(*args, queries=queries, **options)

    monkeypatch.setattr(_jackknife, "kernel_masses", spy)
    gating_entropy(GatingStates.from_arrays(gates, groups=groups), density=Kernel(alpha=0.3))
    (rows,) = seen
    assert len(rows) == 512
    expected = np.bincount(groups) * 512 / len(groups)
    assert np.abs(np.bincount(rows, minlength=64) - expected).max() <= 1


# Labels -------------------------------------------------------------------------------------------


def test_labels_of_samples_are_those_of_their_rows(rng):
    gates, groups = grouped(rng)
    states = GatingStates.from_arrays(gates, groups=1000 - 3 * groups)  # names fall with the number
    of_samples = np.array(["a", "b", "c"])[rng.integers(0, 3, 32)]
    in_order = of_samples[::-1]  # of np.unique(states.groups)
    options = {"density": Kernel(alpha=0.3), "random_state": 0}
    for function in (gating_mi, total_correlation, permutation_test):
        more = {"n_permutations": 5} if function is permutation_test else {}
        one, other = (
            function(states, y, **options, **more) for y in (of_samples[groups], in_order)
        )
        for name in one.keys() - {"density"}:
            assert_array_equal(one[name], other[name])
    for measure in (GatingMI(**options), TotalCorrelation(**options)):
        one, other = measure.fit(states, of_samples[groups]), type(measure)(**options)
        other.fit(states, in_order)
        assert_array_equal(one.layer_conditional_entropy_, other.layer_conditional_entropy_)
    fitted = GatingMI(**options).fit(states, in_order)
    assert fitted.classes_.tolist() == ["a", "b", "c"]
    assert fitted.score(states, in_order) == fitted.score(states, of_samples[groups])


def test_as_many_labels_as_rows_are_those_of_the_rows(rng):
    """Also where each sample has one row, in another order than that of their names."""
    gates, groups = rng.random((30, 4)) < 0.5, rng.permutation(30)
    y = rng.integers(0, 2, 30)
    result = gating_mi(GatingStates.from_arrays(gates, groups=groups), y, random_state=0)
    assert result.mi_xy == gating_mi(gates, y, random_state=0).mi_xy


@pytest.mark.parametrize("call", [gating_mi, total_correlation, permutation_test, GatingMI().fit])
def test_labels_of_another_length_are_refused(rng, call):
    gates, groups = grouped(rng)
    states = GatingStates.from_arrays(gates, groups=groups)
    match = f"33 labels for 32 samples of {len(groups)} rows"
    with pytest.raises(ValueError, match=match):
        call(states, np.arange(33) % 2)


def test_classes_count_rows(rng):
    """A class of few samples with many rows has their share; one of a single sample is one."""
    groups = np.repeat([0, 1, 2], [10, 20, 70])
    gates = np.column_stack([groups == 0, groups == 1])
    states = GatingStates.from_arrays(gates, groups=groups)
    result = gating_mi(states, [0, 1, 2], density=Kernel(bandwidth=1e-3))
    p = np.array([0.1, 0.2, 0.7])
    assert_allclose(result.mi_xy, -np.sum(p * np.log2(p)), rtol=1e-9)


# Permutations -------------------------------------------------------------------------------------


def label_sets_of(monkeypatch, function, *args, **options):
    """Return the sets of labels that a measure hands to its density."""
    seen, original = [], Kernel.estimate
    monkeypatch.setattr(
        Kernel, "estimate", lambda self, s, sets, *a, **k: seen.extend(sets)
        or original(self, s, sets, *a, **k)
    )  # fmt: skip
    function(*args, density="kde", random_state=0, **options)
    monkeypatch.setattr(Kernel, "estimate", original)
    return seen


@pytest.mark.parametrize("function", [permutation_test, gating_mi])
def test_samples_exchange_all_their_labels(rng, monkeypatch, function):
    options = {"n_permutations": 20} if function is permutation_test else {}
    groups = rng.permutation(np.repeat(np.arange(15), 4))
    y = rng.integers(0, 3, 60)  # vary within samples
    gates = rng.random((60, 4)) < 0.5
    states = GatingStates.from_arrays(gates, groups=groups)
    own = sorted(tuple(y[groups == g]) for g in range(15))
    first, *shuffled = label_sets_of(monkeypatch, function, states, y, **options)
    assert_array_equal(first, y)
    for labels in shuffled:
        assert sorted(tuple(labels[groups == g]) for g in range(15)) == own
        assert (labels != y).any()


def test_labels_of_samples_stay_labels_of_samples(rng, monkeypatch):
    gates, groups = grouped(rng, 20)
    states, y = GatingStates.from_arrays(gates, groups=groups), np.arange(20) // 7
    _, *shuffled = label_sets_of(monkeypatch, permutation_test, states, y, n_permutations=20)
    for labels in shuffled:
        of_samples = [set(labels[groups == g]) for g in range(20)]
        assert sorted(label for (label,) in of_samples) == y.tolist()


def test_unequal_samples_have_labels_cut_off_or_repeated(rng):
    groups = grouped(rng, 12)[1]
    y = np.arange(len(groups))  # which row a label is from
    labels = Samples(groups, len(groups)).permuted_labels(y, 0)
    donors = set()
    for g in range(12):
        received = labels[groups == g]
        (donor,) = set(groups[received])
        assert_array_equal(received, np.resize(y[groups == donor], len(received)))
        donors.add(donor)
    assert donors == set(range(12))


def test_rows_that_are_samples_are_permuted_as_by_numpy(rng):
    y = rng.integers(0, 3, 50)
    expected = np.random.RandomState(3).permutation(y)
    for groups in (None, np.arange(50), rng.permutation(50)):
        assert_array_equal(Samples(groups, 50).permuted_labels(y, 3), expected)


def test_p_values_are_right_where_those_of_rows_are_tiny():
    """A label of samples that says nothing, of gates that are alike within a sample."""
    rng, found = np.random.default_rng(2), []
    for seed in range(60):
        groups = np.repeat(np.arange(24), 20)
        gates = 1.5 * rng.normal(size=(24, 3))[groups] + rng.normal(size=(480, 3)) > 0
        options = {"density": Kernel(bandwidth=0.5), "n_permutations": 19, "random_state": seed}
        y = rng.permutation(24) % 2
        states = GatingStates.from_arrays(gates, groups=groups)
        result = permutation_test(states, y, **options)
        naive = permutation_test(gates, y[groups], **options)
        found.append((result.p_value, naive.p_value))
    p, naive = np.transpose(found)
    assert np.mean(p <= 0.1) <= 0.2  # binomial: 12 of 60 or fewer, in 99%
    assert 0.4 < p.mean() < 0.62
    assert np.mean(naive <= 0.05) > 0.7


def test_a_label_that_says_nothing_has_no_information(rng):
    """Shuffled rows are told apart from the real ones by the sample that they are of."""
    groups = np.repeat(np.arange(30), 20)
    gates = (rng.random((30, 25)) < 0.5)[groups] ^ (rng.random((600, 25)) < 0.1)
    y = rng.permutation(30) % 2
    states = GatingStates.from_arrays(gates, groups=groups)
    fitted = gating_mi(states, y, density="product", random_state=0)
    naive = gating_mi(gates, y[groups], density="product", random_state=0)
    assert abs(fitted.mi_xy) < 3 * fitted.mi_xy_se + 0.02
    assert naive.mi_xy > 0.3  # folds that split samples know the label of each
    kernel, rows = (
        gating_mi(*of, density=Kernel(alpha=0.1), random_state=0)
        for of in ((states, y), (gates, y[groups]))
    )
    assert kernel.mi_xy - kernel.shuffled_mi_xy < 0.1
    assert rows.mi_xy - rows.shuffled_mi_xy > 0.3


# Standard errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bandwidth", [1.3, "variance"])
@pytest.mark.parametrize("joint", ["concatenated", "product"])
def test_equal_positions_have_the_error_of_one(rng, bandwidth, joint):
    gates = rng.normal(size=(32, 3)) @ rng.normal(size=(3, 10)) > 0
    arrays = {"a": gates[:, :6], "b": gates[:, 6:]}
    groups = np.repeat(np.arange(32), 100)
    one = GatingStates.from_arrays(arrays)
    many = GatingStates.from_arrays({k: a[groups] for k, a in arrays.items()}, groups=groups)
    y = rng.integers(0, 2, 32)
    density = Kernel(alpha=0.4, bandwidth=bandwidth, joint=joint)
    expected = gating_mi(one, y, density=density)
    found = gating_mi(many, y, density=density)
    for name in ("mi_x", "mi_xy", "layer_mi_x", "layer_mi_xy", "suffix_mi_xy"):
        assert_allclose(found[name], expected[name], rtol=1e-9)
        assert_allclose(found[f"{name}_se"], expected[f"{name}_se"], rtol=1e-9)
    naive = gating_mi(GatingStates(many.packed, many.layers), y[groups], density=density)
    for name in ("mi_x_se", "mi_xy_se"):
        assert naive[name] < 0.2 * expected[name]


@pytest.mark.parametrize("density", ["product", "chow-liu", "autoregressive"])
def test_equal_positions_have_the_error_of_one_under_fitted_densities(rng, density):
    gates = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4)) > 0
    one, many = repeated(gates)
    options = {"density": density, "random_state": 0}
    expected, found = (gating_entropy(states, **options) for states in (one, many))
    naive = gating_entropy(GatingStates(many.packed, many.layers), **options)
    # rates are smoothed by less of a sample
    assert_allclose(found.entropy, expected.entropy, rtol=0.03)
    assert_allclose(found.entropy_se, expected.entropy_se, rtol=0.1)
    assert_allclose(naive.entropy_se, found.entropy_se / 10, rtol=0.1)
    if density != "product":
        expected, found = (total_correlation(states, **options) for states in (one, many))
        assert_allclose(found.total_correlation_se, expected.total_correlation_se, rtol=0.05)


def test_errors_of_fitted_densities_are_those_of_a_loop(rng):
    gates, groups = grouped(rng, 25)
    states = GatingStates.from_arrays(gates, groups=groups)
    y = np.array([gates[groups == g, 0].mean() > 0.5 for g in range(25)])[groups].astype(int)

    def error(rows):
        return reference.cluster_error(rows.tolist(), groups.tolist())

    fitted = GatingEntropy(density=ChowLiu(), cv=None).fit(states)
    surprisals = fitted.transform(states)[:, 0]
    assert_allclose(fitted.entropy_se_, error(surprisals), rtol=1e-10)
    independent = GatingEntropy(density=Product(), cv=None).fit(states).transform(states)[:, 0]
    fitted = TotalCorrelation(density=ChowLiu(), cv=None).fit(states)
    expected = error(independent - surprisals)
    assert_allclose(fitted.total_correlation_se_, expected, rtol=1e-10)
    fitted = GatingMI(density=Product(), cv=None).fit(states, y)
    ratios = fitted.density_.log_ratios(states, y, Engine()) / np.log(2)
    assert_allclose(fitted.mi_xy_se_, error(ratios), rtol=1e-10)
    assert abs(fitted.mi_xy_se_ / (ratios.std(ddof=1) / np.sqrt(len(y))) - 1) > 0.2


def test_errors_of_the_kernel_are_those_of_brute_force(rng):
    gates, groups = grouped(rng, 32)
    states, y = GatingStates.from_arrays(gates, groups=groups + 5), rng.integers(0, 2, 32)[groups]
    result = gating_mi(states, y, density=Kernel(bandwidth=1.3))
    values, parts = reference.kernel([gates], [1.3]), parts_of(groups)

    def information(rows):
        some = [[values[j][k] for k in rows] for j in rows]
        return reference.entropy(some) - reference.conditional_entropy(some, [y[j] for j in rows])

    expected = reference.jackknife_error(lambda rows: reference.entropy(values, rows), parts)
    assert_allclose(result.mi_x_se, expected, rtol=1e-10)
    assert_allclose(result.mi_xy_se, reference.jackknife_error(information, parts), rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("high", [12, 60])  # fewer rows than slopes are estimated from, and more
def test_bandwidth_is_estimated_again_without_each_part(rng, alpha, high):
    gates, groups = grouped(rng, 64, high=high)
    gates[:, 4:] &= rng.random((64, 1))[groups] < 0.3  # the variance differs between samples
    states = GatingStates.from_arrays(gates, groups=groups)
    y, density = rng.integers(0, 2, 64)[groups], Kernel(alpha=alpha)
    result = gating_mi(states, y, density=density)
    for name in ("mi_x", "mi_xy"):
        expected = reference.jackknife_error(
            lambda rows, name=name: gating_mi(states[rows], y[rows], density=density)[name],
            parts_of(groups),
        )
        assert_allclose(result[f"{name}_se"], expected, rtol=0.1)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(7)
    found = {"kde": [], "product": [], "rows": []}
    for _ in range(150):
        gates, groups = grouped(rng, 48, 2, 8, d=4, threshold=2.0)
        states = GatingStates.from_arrays(gates, groups=groups)
        for name, of, density in (
            ("kde", states, Kernel(bandwidth=0.5)),
            ("product", states, "product"),
            ("rows", gates, "product"),
        ):
            result = gating_entropy(of, density=density, random_state=0)
            found[name].append((result.entropy, result.entropy_se))
    covered = {}
    for name, pairs in found.items():
        values, errors = np.transpose(pairs)
        covered[name] = np.mean(np.abs(values - values.mean()) <= t.ppf(0.975, 15) * errors)
    assert 0.9 <= covered["kde"] <= 0.99
    assert 0.9 <= covered["product"] <= 0.99
    assert covered["rows"] < 0.85


def test_one_sample_has_no_error(rng):
    states = GatingStates.from_arrays(rng.random((30, 4)) < 0.5, groups=np.zeros(30, int))
    for density, cv in ((Kernel(alpha=0.3), 5), ("product", None)):
        assert np.isnan(gating_entropy(states, density=density, cv=cv).entropy_se)
    assert permutation_test(states, [1], n_permutations=9).p_value == 1


def test_folds_need_as_many_samples(rng):
    gates, groups = grouped(rng, 4, 5, 9)
    states = GatingStates.from_arrays(gates, groups=groups)
    with pytest.raises(ValueError, match=r"cv=5 folds.*groups.*n_groups=4"):
        gating_entropy(states, density="product")


# The rest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "density", [Kernel(alpha=0.3), "product", "chow-liu", "autoregressive", Spy()]
)
@pytest.mark.parametrize("order", ["sorted", "any"])
def test_one_row_a_sample_is_the_same_bit_for_bit(rng, density, order):
    gates, y = grouped(rng, 60, 1, 2)[0], np.arange(60) % 2
    groups = np.arange(60) if order == "sorted" else rng.permutation(60) * 3 - 50
    gates = with_numbers(gates, np.arange(60)) if isinstance(density, Spy) else gates
    plain, states = GatingStates.from_arrays(gates), GatingStates.from_arrays(gates, groups=groups)
    for function in (gating_mi, total_correlation):
        one, other = (function(s, y, density=density, random_state=0) for s in (plain, states))
        for name in one.keys() - {"density"}:
            assert_array_equal(one[name], other[name])
    if isinstance(density, Kernel):
        assert_array_equal(entropy_curve(plain).entropy, entropy_curve(states).entropy)


def test_curve_is_the_mean_of_sub_samples(rng):
    gates, groups = grouped(rng, 32)
    states = GatingStates.from_arrays(gates, groups=groups)
    curve = entropy_curve(states, density=Kernel(bandwidth=1.3))
    assert_array_equal(curve.n_samples, np.arange(2, 33, 2))
    parts, values = parts_of(groups), reference.kernel([gates], [1.3])
    for length in (1, 5, 16):
        runs = [[j for i in range(length) for j in parts[(i + s) % 16]] for s in range(16)]
        expected = np.mean([reference.entropy(values, rows) for rows in runs])
        assert_allclose(curve.entropy[length - 1], expected, rtol=1e-10)


def test_engines_take_blocks_of_unequal_size(rng, device):
    gates, groups = grouped(rng, 40, 1, 30)
    order = np.argsort(groups, kind="stable")
    states = GatingStates.from_arrays(gates, groups=groups)[order]
    y = rng.integers(0, 3, len(groups))
    masses, blocks = block_masses(
        states, np.array([[0.4]]), label_sets=[y], engine=Engine(device=device)
    )
    sizes = np.bincount(blocks)
    assert len(sizes) == 17
    assert len(set(sizes)) > 5
    bits = np.asarray(states, int)
    kernel = np.exp(-0.4 * np.abs(bits[:, None] - bits).sum(axis=2))
    for block in range(17):
        own = blocks == block
        assert_allclose(masses[0, 0, block], kernel[:, own].sum(axis=1), rtol=1e-10)
        same = own & (y[:, None] == y)
        assert_allclose(masses[0, 1, block], (kernel * same).sum(axis=1), rtol=1e-10, atol=1e-13)


def test_cross_validation_with_group_k_fold(rng):
    gates, groups = grouped(rng, 30)
    states, y = GatingStates.from_arrays(gates, groups=groups), (rng.random(30) < 0.5)[groups]
    cv = GroupKFold(3)
    scores = cross_val_score(GatingMI(density="product"), states, y, groups=groups, cv=cv)
    expected = []
    for train, test in cv.split(states, y, groups):
        fitted = GatingMI(density="product").fit(states[train], y[train])
        assert not set(fitted.states_.groups) & set(states[test].groups)
        expected.append(fitted.score(states[test], y[test]))
    assert_allclose(scores, expected, rtol=1e-12)
    grid = {"density__alpha": [0.05, 0.5, 5.0]}
    search = GridSearchCV(GatingEntropy(density=Kernel()), grid, cv=cv)
    search.fit(states, groups=states.groups)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.states_ == states


# From a network -----------------------------------------------------------------------------------


@pytest.fixture
def pixels(rng):
    """A network of images, read by position, and its gates by hand."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(100, 2))
    X = torch.tensor(rng.normal(size=(24, 1, 5, 5)), dtype=torch.float32)
    with torch.no_grad():
        gates = (net[0](X) > 0).permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    states = GatingStates.from_arrays(gates, groups=np.repeat(np.arange(24), 25))
    return GateExtractor(net, samples="position"), X, states


@pytest.mark.parametrize("axes", [1, 3])
def test_labels_of_samples_or_positions_with_a_model(pixels, rng, axes):
    extractor, X, states = pixels
    y = rng.integers(0, 2, (24, 5, 5)[:axes])
    rows = np.ravel(y) if axes == 3 else np.repeat(y, 25)
    options = {"density": Kernel(alpha=1.0), "random_state": 0}
    fitted, expected = GatingMI(extractor, **options).fit(X, y), gating_mi(states, rows, **options)
    assert_allclose(fitted.mi_xy_, expected.mi_xy, rtol=1e-10)
    assert_allclose(fitted.mi_xy_se_, expected.mi_xy_se, rtol=1e-6)
    by_hand = GatingMI(**options).fit(states, rows)
    assert_allclose(fitted.score(X, y), by_hand.score(states, rows), rtol=1e-10)
    with pytest.raises(ValueError, match="continuous"):
        GatingMI(extractor, **options).fit(X, y + 0.5)


def test_a_monitor_takes_labels_of_samples(pixels, rng):
    extractor, X, states = pixels
    y = rng.integers(0, 2, 24)
    measure = GatingMI(extractor, density=Kernel(alpha=1.0), random_state=0)
    record = ComplexityMonitor(measure, X, y).record(extractor.module, 0)[-1]
    expected = gating_mi(states, y, density=Kernel(alpha=1.0), random_state=0)
    assert_allclose(record["mi_xy"], expected.mi_xy, rtol=1e-10)
    assert_allclose(record["shuffled_mi_xy"], expected.shuffled_mi_xy, rtol=1e-10)
