"""Rows that are positions, and groups: nothing splits these, and errors count them."""

import numpy as np
import pytest
import reference
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import t
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from skgate import (
    ComplexityMonitor,
    GateExtractor,
    GatingEntropy,
    GatingMI,
    GatingStates,
    GibbsLayerMI,
    TotalCorrelation,
    entropy_curve,
    gating_entropy,
    gating_mi,
    permutation_test,
    total_correlation,
)
from skgate.capture import _passes
from skgate.densities import (
    Autoregressive,
    ChowLiu,
    Convolutional,
    Kernel,
    LayerRanges,
    PerLayer,
    Product,
)
from skgate.densities.autoregression import _linear_autoregression
from skgate.densities.kernel import _jackknife
from skgate.densities.labels import label_information
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


def test_cross_fitting_scores_no_sample_that_was_fitted(rng):
    gates, groups = grouped(rng)
    states = GatingStates.from_arrays(with_numbers(gates, groups), groups=groups)
    Spy.n_scored = 0
    gating_entropy(states, density=Spy(), cv=3, random_state=0)
    assert Spy.n_scored >= 3
    with pytest.raises(AssertionError):
        gating_entropy(np.asarray(states), density=Spy(), cv=3, random_state=0)


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
    fitted = GatingMI(density=Product(), random_state=0).fit(states, y)
    seed = np.random.RandomState(0)
    Samples(groups, len(y)).permuted_labels(y, seed)
    options = LayerRanges(1), seed.randint(2**31 - 1)
    ratios = label_information(states, [y], *options)[0][0] / np.log(2)
    assert_allclose(fitted.mi_xy_, ratios.mean(), rtol=1e-10)
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


# Groups that are passed ---------------------------------------------------------------------------


def as_text(groups):
    return np.array([f"patient {g + 200}" for g in groups])


FORMS = {
    "integers": lambda g: 5 - 3 * g,
    "text": as_text,
    "list of text": lambda g: as_text(g).tolist(),
    "floats": lambda g: g / 4,
    "objects": lambda g: as_text(g).astype(object),
    "tensor": torch.tensor,
    "dates": lambda g: np.datetime64("2020-01-01") + g,
}


def same_values(one, other):
    for name in one.keys() - {"density"}:
        assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_any_type_are_groups(rng, form):
    gates, groups = grouped(rng)
    states = GatingStates.from_arrays(gates, groups=groups)
    options = {"density": Kernel(alpha=0.3), "random_state": 0}  # a row is drawn of each sample
    found = gating_entropy(gates, groups=FORMS[form](groups), **options)
    same_values(found, gating_entropy(states, **options))


def test_groups_are_as_those_of_states(rng):
    gates, groups = grouped(rng)
    states, y = GatingStates.from_arrays(gates, groups=groups), rng.integers(0, 2, 32)[groups]
    for density in (Kernel(alpha=0.3), "autoregressive"):
        options = {"density": density, "random_state": 0}
        given = options | {"groups": as_text(groups)}
        same_values(gating_entropy(gates, **given), gating_entropy(states, **options))
        for function, measure in (
            (gating_mi, GatingMI(**options)),
            (total_correlation, TotalCorrelation(**options)),
        ):
            expected = function(states, y, **options)
            same_values(function(gates, y, **given), expected)
            fitted = measure.fit(gates, y, groups=given["groups"])
            same_values({name: getattr(fitted, f"{name}_") for name in expected}, expected)
    tested = {"density": Kernel(alpha=0.3), "n_permutations": 9, "random_state": 0}
    given = tested | {"groups": as_text(groups)}
    same_values(permutation_test(gates, y, **given), permutation_test(states, y, **tested))
    same_values(entropy_curve(gates, groups=given["groups"]), entropy_curve(states))


def test_fitted_states_have_the_groups(rng):
    gates, groups = grouped(rng)
    fitted = GatingEntropy(density="product").fit(gates, groups=as_text(groups))
    assert_array_equal(fitted.states_.groups, groups)  # in the order of their names
    fitted.fit(gates, groups=(5 - 3 * groups).tolist())
    assert_array_equal(fitted.states_.groups, 5 - 3 * groups)  # integers stay
    assert GatingEntropy(density="product").fit(gates).states_.groups is None
    assert fitted.transform(gates).shape == (len(gates), 1)
    assert np.isfinite(fitted.score(gates))


@pytest.mark.parametrize("by_row", [False, True])
def test_groups_of_samples_that_have_several_rows(rng, by_row):
    """Rows are positions of 32 images of 8 patients; labels and groups are those of images."""
    gates, images = grouped(rng, high=5)
    patients, y = rng.permutation(np.arange(32) % 8), rng.integers(0, 2, 32)
    names = 1000 - 3 * images  # the order of np.unique is the opposite one
    states = GatingStates.from_arrays(gates, groups=names)
    coarse = GatingStates.from_arrays(gates, groups=patients[images])
    given = patients[images] if by_row else patients[::-1]
    options = {"density": Kernel(alpha=0.3), "random_state": 0}
    expected = gating_mi(coarse, y[images], **options)
    same_values(gating_mi(states, y[::-1], groups=given, **options), expected)
    fitted = GatingMI(**options).fit(states, y[::-1], groups=given)
    same_values({name: getattr(fitted, f"{name}_") for name in expected}, expected)
    assert states.groups is not fitted.states_.groups
    assert_array_equal(states.groups, names)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda g: g[:-1], r"groups has \d+ labels for \d+ samples"),
        (lambda g: g[:, None], "got an array of shape"),
        (lambda g: "patient", "got an array of shape"),
        (lambda g: [*g[:-1], None], "misses labels"),
        (lambda g: [*as_text(g)[:-1], float("nan")], "misses labels"),
        (lambda g: np.where(g == 3, np.nan, g), "misses labels"),
        (lambda g: np.where(g == 3, "NaT", "2020-01-01").astype("M8[D]"), "misses labels"),
        (lambda g: [*g[:-1].tolist(), "a"], r"several types, \['int', 'str'\]"),
    ],
)
@pytest.mark.parametrize("call", ["fit", "function", "curve", "test", "model"])
def test_groups_that_are_none_are_refused(rng, change, match, call):
    gates, groups = grouped(rng)
    y, wrong = groups % 2, change(groups)
    calls = {
        "fit": lambda: GatingEntropy().fit(gates, groups=wrong),
        "function": lambda: gating_mi(gates, y, groups=wrong),
        "curve": lambda: entropy_curve(gates, groups=wrong),
        "test": lambda: permutation_test(gates, y, groups=wrong),
        "model": lambda: GatingEntropy(nn.ReLU()).fit(gates * 1.0, groups=wrong),
    }
    with pytest.raises(ValueError, match=f"groups.*{match}|{match}"):
        calls[call]()


def test_groups_do_not_split_samples(rng):
    gates, samples = grouped(rng, low=2)
    states = GatingStates.from_arrays(gates, groups=samples)
    groups = samples // 4
    for sample in (5, 9):  # the first rows of two samples
        groups[np.flatnonzero(samples == sample)[0]] = 77
    with pytest.raises(ValueError, match="splits 2 of the 32 samples"):
        GatingEntropy().fit(states, groups=groups)
    with pytest.raises(ValueError, match=f"33 labels for 32 samples of {len(gates)} rows"):
        total_correlation(states, groups=np.arange(33))


def test_one_group_has_no_error_and_no_folds(rng):
    gates, one = rng.random((40, 4)) < 0.5, np.zeros(40)
    for density, cv in ((Kernel(alpha=0.3), 5), ("product", None)):
        fitted = GatingEntropy(density=density, cv=cv).fit(gates, groups=one)
        assert np.isnan(fitted.entropy_se_)
        assert np.isfinite(fitted.entropy_)
    with pytest.raises(ValueError, match=r"cv=5 folds.*groups.*n_groups=1"):
        gating_entropy(gates, groups=one)
    with pytest.raises(ValueError, match=r"cv=5 folds.*n_groups=4"):
        gating_mi(gates, np.arange(40) % 2, groups=np.arange(40) % 4)


def test_drawn_samples_keep_their_groups(rng):
    gates, groups = grouped(rng, low=5)
    gates = with_numbers(gates, groups)
    options = {"density": "product", "max_samples": 60, "random_state": 0}
    fitted = GatingEntropy(**options).fit(gates, groups=groups)
    plain = GatingEntropy(**options).fit(gates)
    assert_array_equal(np.asarray(fitted.states_), np.asarray(plain.states_))
    written = (np.asarray(fitted.states_)[:, -N_ID:] > 0) @ (1 << np.arange(N_ID))
    assert_array_equal(fitted.states_.groups, written)
    assert len(fitted.states_) == 60


@pytest.mark.parametrize(
    "density", ["product", "chow-liu", "autoregressive", "auto", PerLayer({"*": Autoregressive()})]
)
def test_no_choice_sees_copies_of_what_it_was_fitted_to(rng, density):
    """Coins, each sample ten times: what a density learns of them, but their rates, is wrong."""
    coins, groups = rng.random((60, 10)) < 0.5, np.tile(np.arange(60), 10)
    options = {"density": density, "random_state": 0}
    result = gating_entropy(coins[groups], groups=groups, **options)
    once = gating_entropy(coins, **options)
    assert result.entropy > max(9.9, once.entropy - 2 * once.entropy_se)
    if density != "chow-liu":  # counts decide on its edges, those of rows
        assert result.entropy < 10.8
    naive = gating_entropy(coins[groups], **options)
    assert naive.entropy_se < 0.7 * result.entropy_se
    if density != "product":
        assert naive.entropy < 9.5


def test_no_choice_of_a_convolution_sees_copies(rng):
    coins = rng.random((80, 2, 4, 4)) < 0.5
    groups = np.tile(np.arange(80), 10)
    options = {"density": Convolutional(), "random_state": 0}
    result = gating_entropy({"a": coins[groups]}, groups=groups, **options)
    assert 31.9 < result.entropy < 33.5
    assert gating_entropy({"a": coins[groups]}, **options).entropy < 31.5


def test_copies_of_images_have_the_entropy_of_one_of_each(rng):
    """A hundred images, ten times each, through a network."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6), nn.ReLU())
    X, groups = rng.normal(size=(100, 8)).astype(np.float32), np.tile(np.arange(100), 10)
    for density in ("auto", Kernel(alpha=0.1)):
        measure = GatingEntropy(net, density=density, random_state=0)
        once, one_se = measure.fit(X).entropy_, measure.entropy_se_
        fitted = measure.fit(X[groups], groups=groups)
        found, error = fitted.entropy_, fitted.entropy_se_
        assert abs(found - once) < 0.05 * once
        assert_allclose(error, one_se, rtol=0.35)
        with pytest.warns(UserWarning, match="900 of 1000 inputs equal an earlier one"):
            naive = measure.fit(X[groups])
        assert naive.entropy_se_ < 0.5 * error
        if density == "auto":
            assert naive.entropy_ < found - 1


def test_p_values_are_uniform_where_a_group_has_one_label():
    """Clusters of unequal size; Kolmogorov and Smirnov's distance from the uniform, by hand."""
    rng, p, naive = np.random.default_rng(5), [], []
    for seed in range(120):
        groups = np.repeat(np.arange(20), rng.integers(2, 12, 20))
        gates = 1.5 * rng.normal(size=(20, 3))[groups] + rng.normal(size=(len(groups), 3)) > 0
        y = rng.permutation(20)[groups] % 2
        options = {"density": Kernel(bandwidth=0.5), "n_permutations": 19, "random_state": seed}
        p.append(permutation_test(gates, y, groups=groups, **options).p_value)
        naive.append(permutation_test(gates, y, **options).p_value)
    steps = np.arange(1, 21) / 20  # what p can be
    distance = max(abs(np.mean(np.array(p) <= step + 1e-9) - step) for step in steps)
    assert distance < 1.36 / np.sqrt(120)
    assert np.mean(np.array(naive) <= 0.05) > 0.5


def test_labels_of_copies_that_are_random_have_no_information(rng):
    """A hundred states, ten times each, and a label each: folds that split copies know it."""
    gates = rng.normal(size=(100, 20)) @ rng.normal(size=(20, 40)) > 0
    groups, y = np.tile(np.arange(100), 10), rng.integers(0, 2, 100)
    for density in ("product", "auto"):
        options = {"density": density, "random_state": 0}
        result = gating_mi(gates[groups], y[groups], groups=groups, **options)
        assert abs(result.mi_xy) < 2 * result.mi_xy_se + 0.02
        assert gating_mi(gates[groups], y[groups], **options).mi_xy > 0.05


# Groups of raw inputs -----------------------------------------------------------------------------


class Stream(IterableDataset):
    def __init__(self, X):
        self.X = X

    def __iter__(self):
        return iter(self.X)


@pytest.fixture
def written(rng):
    """Inputs that hold their group in bits, which are the gates; the groups; a network."""
    groups = rng.permutation(np.repeat(np.arange(50), 3))
    bits = 2.0 * (groups[:, None] >> np.arange(N_ID) & 1) - 1
    X = np.hstack([bits, rng.normal(size=(150, 3))]).astype(np.float32)
    net = nn.Sequential(nn.Linear(10, N_ID, bias=False), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(N_ID, 10))
    return X, groups, GateExtractor(net, batch_size=16)


@pytest.mark.parametrize("max_samples", [None, 40])
@pytest.mark.parametrize("form", ["array", "dict", "dataset"])
def test_groups_of_raw_inputs(written, form, max_samples):
    X, groups, net = written
    data = {"array": X, "dict": {"input": X}, "dataset": TensorDataset(torch.tensor(X))}[form]
    measure = GatingEntropy(net, density=Kernel(alpha=1.0), max_samples=max_samples, random_state=0)
    states = measure.fit(data, groups=as_text(groups)).states_
    assert len(states) == (max_samples or 150)
    assert_array_equal((np.asarray(states) > 0) @ (1 << np.arange(N_ID)), states.groups)
    expected = gating_entropy(np.asarray(states), groups=states.groups, density=Kernel(alpha=1.0))
    assert_allclose(measure.entropy_se_, expected.entropy_se, rtol=1e-12)


def test_groups_of_data_in_another_order_are_refused(written, monkeypatch):
    X, groups, net = written
    monkeypatch.setattr(net.module, "forward", lambda x: pytest.fail("the model ran"))
    for data in (DataLoader(TensorDataset(torch.tensor(X))), Stream(X)):
        with pytest.raises(ValueError, match=f"groups came together with a {type(data).__name__}"):
            GatingEntropy(net).fit(data, groups=groups)
    with pytest.raises(ValueError, match="groups has 149 labels for 150 samples"):
        GatingEntropy(net).fit(X, groups=groups[1:])
    with pytest.raises(ValueError, match="groups misses labels"):
        GatingEntropy(net).fit(X, groups=[None, *groups[1:]])


def test_groups_of_images_whose_pixels_are_rows(pixels, rng):
    extractor, X, states = pixels
    groups = rng.permutation(np.arange(24) % 6)
    options = {"density": Kernel(alpha=1.0), "random_state": 0}
    fitted = GatingEntropy(extractor, **options).fit(X, groups=groups)
    assert_array_equal(fitted.states_.groups, np.repeat(groups, 25))
    expected = gating_entropy(np.asarray(states), groups=np.repeat(groups, 25), **options)
    assert_allclose(fitted.entropy_se_, expected.entropy_se, rtol=1e-9)


def test_layers_that_are_read_in_turn_have_the_groups(rng, monkeypatch):
    torch.manual_seed(0)
    layers = [part for _ in range(4) for part in (nn.Linear(8, 8), nn.ReLU())]
    net, X = nn.Sequential(*layers), rng.normal(size=(90, 8)).astype(np.float32)
    groups = np.arange(90) % 30
    options = {"density": PerLayer({"*": Product()}), "random_state": 0}
    whole = GatingEntropy(net, **options).fit(X, groups=groups)
    monkeypatch.setattr(_passes, "LIMIT", 2 * 90)
    with pytest.warns(UserWarning, match="read in turn"):
        fitted = GatingEntropy(net, **options).fit(X, groups=groups)
    assert_array_equal(fitted.states_.groups, groups)
    assert_array_equal(fitted.states_.select([1, 2]).groups, groups)
    rows = rng.permutation(90)[:40]
    assert_array_equal(fitted.states_[rows].select([3]).groups, groups[rows])
    assert_array_equal(fitted.layer_entropy_se_, whole.layer_entropy_se_)
    plain = GatingEntropy(net, **options)
    with pytest.warns(UserWarning, match="read in turn"):
        plain.fit(X)
    assert plain.states_.select([1]).groups is None
    assert (plain.layer_entropy_se_ != whole.layer_entropy_se_).all()


# scikit-learn and the monitor ---------------------------------------------------------------------


class Seen(GatingEntropy):
    """Notes the groups of what it is fitted to."""

    fits = []

    def fit(self, X, y=None, groups=None):
        super().fit(X, y, groups)
        Seen.fits.append(self.states_)
        return self


def of_last_step(pipeline, X, y=None):
    return pipeline[-1].score(pipeline[:-1].transform(X))


def test_groups_are_routed_through_cross_validation(written):
    X, groups, net = written
    Seen.fits = []
    cv = GroupKFold(3)
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(net, Seen(density="product").set_fit_request(groups=True))
        # the score of a pipeline needs one with sample_weight, also of scikit-learn's own density
        options = {"params": {"groups": groups}, "cv": cv, "error_score": "raise"}
        scores = [cross_validate(pipeline, X, scoring=of_last_step, **options)["test_score"]]
        with_model = Seen(net, density="product").set_fit_request(groups=True)
        scores.append(cross_validate(with_model, X, **options)["test_score"])
        fitted = pipeline.fit(X, groups=groups)[-1]
    assert_allclose(*scores, rtol=1e-12)
    assert len(Seen.fits) == 7
    for fold, (train, _) in enumerate(cv.split(X, groups=groups)):
        for states in Seen.fits[fold:6:3]:
            assert_array_equal(states.groups, groups[train])
            assert numbers_in(states) == set(groups[train])
    assert_array_equal(fitted.states_.groups, groups)


def test_groups_are_not_routed_unasked(written):
    X, groups, net = written
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(net, GatingEntropy(density="product"))
        with pytest.raises(ValueError, match=r"groups.* are passed but are not explicitly set"):
            pipeline.fit(X, groups=groups)


def test_a_monitor_has_groups(written):
    X, groups, net = written
    measures = {"kernel": GatingEntropy(density=Kernel(alpha=1.0)), "tc": TotalCorrelation()}
    monitor = ComplexityMonitor(measures, X, groups=groups)
    records = monitor.record(net.module, 0)
    expected = GatingEntropy(net, density=Kernel(alpha=1.0), random_state=0)
    expected.fit(X, groups=groups)
    assert records[0]["entropy_se"] == expected.layer_entropy_se_[0]
    plain = ComplexityMonitor(measures, X).record(net.module, 0)
    assert records[0]["entropy_se"] > 1.2 * plain[0]["entropy_se"]
    with pytest.raises(ValueError, match="'GibbsLayerMI' takes no groups"):
        ComplexityMonitor(GibbsLayerMI(), X, groups % 2, groups=groups)
