"""Densities of other libraries, or of a user: cross-fitted as ours, or refused with the reason."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from sklearn.base import BaseEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity

from skgate import (
    GatingEntropy,
    GatingMI,
    GatingStates,
    TotalCorrelation,
    gating_entropy,
    gating_mi,
    permutation_test,
)
from skgate.densities import Product


class BernoulliMixture(BaseEstimator):
    """Groups of rows by the number of open gates, each with independent gates."""

    def __init__(self, n_components=1):
        self.n_components = n_components

    def fit(self, X, y=None):
        n_open = X.sum(axis=1)
        edges = np.quantile(n_open, np.arange(1, self.n_components) / self.n_components)
        groups = [X[np.digitize(n_open, edges) == c] for c in range(self.n_components)]
        self.rates_ = np.array([(g.sum(axis=0) + 0.5) / (len(g) + 1) for g in groups])
        return self

    def score_samples(self, X):
        logs = X @ np.log(self.rates_.T) + (1 - X) @ np.log1p(-self.rates_.T)
        return logsumexp(logs, axis=1) - np.log(len(self.rates_))


class Plain:
    """Neither ``get_params`` nor a base class: fair gates."""

    def fit(self, X):
        return self

    def score_samples(self, X):
        return np.full(len(X), -X.shape[1] * np.log(2))


class Unsmoothed(BernoulliMixture):
    def fit(self, X, y=None):
        self.rates_ = np.clip(X.mean(axis=0, keepdims=True), 1e-300, 1 - 1e-16)
        self.seen_ = {tuple(row) for row in X}
        return self

    def score_samples(self, X):
        logs = super().score_samples(X)
        few = X.shape[1] <= 3
        return np.array(
            [v if few or tuple(r) in self.seen_ else -np.inf for v, r in zip(logs, X, strict=True)]
        )


def all_states(d):
    return np.array(list(itertools.product([0, 1], repeat=d)), dtype=bool)


@pytest.fixture
def gates(rng):
    """Rows of two kinds, with many gates open or few."""
    kind = rng.random((300, 1)) < 0.5
    return rng.random((300, 8)) < np.where(kind, 0.8, 0.2)


def test_sums_to_one_over_all_states(gates):
    fitted = GatingEntropy(density=BernoulliMixture(2)).fit(gates)
    assert_allclose(np.sum(2 ** fitted.score_samples(all_states(8))), 1, rtol=1e-10)
    y = np.arange(300) % 3
    fitted = GatingMI(density=BernoulliMixture(2)).fit(gates, y)
    assert_allclose(np.sum(2 ** fitted.score_samples(all_states(8))), 1, rtol=1e-10)


def test_is_cross_fitted(gates):
    layers = {"a": gates[:, :5], "b": gates[:, 5:]}
    result = gating_entropy(layers, density=BernoulliMixture(2), cv=3, random_state=0)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    folds = list(KFold(3, shuffle=True, random_state=seed).split(gates))
    for columns, found in [
        (slice(0, 5), result.layer_entropy[0]),
        (slice(5, 8), result.suffix_entropy[1]),
        (slice(0, 8), result.entropy),
    ]:
        logs = np.concatenate(
            [
                BernoulliMixture(2)
                .fit(gates[train, columns].astype(float))
                .score_samples(gates[test, columns].astype(float))
                for train, test in folds
            ]
        )
        assert_allclose(found, -logs.mean() / np.log(2), rtol=1e-10)
    assert_allclose(result.entropy_se, logs.std(ddof=1) / np.log(2) / np.sqrt(300), rtol=1e-10)


def test_a_grid_search_finds_the_number_of_components(gates):
    grid = {"density__n_components": [1, 2, 60]}
    search = GridSearchCV(GatingEntropy(density=BernoulliMixture()), grid, cv=3).fit(gates)
    assert search.best_params_ == {"density__n_components": 2}
    assert search.best_estimator_.density_.estimator.n_components == 2


def test_measures_of_information_and_total_correlation(gates, rng):
    y = (gates.sum(axis=1) > 4).astype(int)
    result = gating_mi(gates, y, density=BernoulliMixture(2), random_state=0)
    assert 0.8 < result.mi_xy < np.log2(2)
    assert abs(result.shuffled_mi_xy) < 0.05
    fitted = GatingMI(density=BernoulliMixture(2), random_state=0).fit(gates, y)
    assert fitted.score(gates, y) > 0.8
    tc = TotalCorrelation(density=BernoulliMixture(2), random_state=0).fit(gates)
    assert tc.total_correlation_ > 0.5
    independent = gating_entropy(gates, density=Product(), random_state=0).entropy
    assert_allclose(tc.independent_entropy_, independent, rtol=1e-12)
    assert_allclose(tc.entropy_ + tc.total_correlation_, tc.independent_entropy_, rtol=1e-12)
    options = {"density": BernoulliMixture(2), "n_permutations": 19, "random_state": 0}
    assert permutation_test(gates, y, **options).p_value == 0.05
    assert permutation_test(gates, rng.integers(0, 2, 300), **options).p_value > 0.05


def test_classes_that_do_not_matter_are_not_told_apart(gates, rng):
    result = gating_mi(gates, rng.integers(0, 3, 300), density=BernoulliMixture(2), random_state=0)
    assert abs(result.mi_xy) < 0.02


def test_a_class_of_one_and_a_plain_object(rng):
    y = np.zeros(40, int)
    y[7] = 1
    gates = rng.random((40, 6)) < 0.5
    assert np.isfinite(gating_mi(gates, y, density=BernoulliMixture(1), random_state=0).mi_xy)
    assert_allclose(gating_entropy(gates, density=Plain()).entropy, 6)


@pytest.mark.parametrize("density", [KernelDensity(bandwidth=0.1), GaussianMixture(1)])
def test_densities_of_real_numbers_are_refused_with_the_reason(gates, density):
    for measure in (GatingEntropy, GatingMI, TotalCorrelation):
        with pytest.raises(ValueError, match=r"not a density of gates.*8 states.*sum to 1"):
            measure(density=density).fit(gates, np.arange(300) % 2)


def test_scores_of_another_shape_are_refused(gates):
    class Wide(BernoulliMixture):
        def score_samples(self, X):
            return super().score_samples(X)[:, None]

    with pytest.raises(ValueError, match=r"returned shape \(8, 1\) for 8 rows"):
        GatingEntropy(density=Wide()).fit(gates)


def test_a_class_is_refused(gates):
    with pytest.raises(TypeError, match=r"need an instance, Product\(\.\.\.\)"):
        GatingEntropy(density=Product).fit(gates)


def test_probabilities_of_zero_are_refused(gates):
    with pytest.raises(ValueError, match="Smooth its rates"):
        gating_entropy(gates, density=Unsmoothed())


def test_states_come_as_numbers_that_do_not_wrap_around(gates):
    seen = []

    class Recorder(BernoulliMixture):
        def fit(self, X, y=None):
            seen.append(X.dtype)
            return super().fit(X)

    gating_entropy(GatingStates.from_arrays(gates), density=Recorder())
    assert set(seen) == {np.dtype(np.float64)}
