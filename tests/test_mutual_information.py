"""GatingMI: double loops, null values, held-out scores, edge cases."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.model_selection import GridSearchCV, cross_val_score

from skgate import GatingMI, SaturationWarning, gating_entropy, gating_mi
from skgate.densities import Kernel

ALPHA = 0.3


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@pytest.mark.parametrize("bandwidth", ["variance", "n_gates", 3.7])
@pytest.mark.parametrize("bound", ["upper", "lower"])
def test_agrees_with_double_loops(states, layers, labels, bandwidth, bound):
    fitted = GatingMI(density=Kernel(alpha=ALPHA, bandwidth=bandwidth, bound=bound)).fit(
        states, labels
    )
    gates = list(layers.values())
    for first in range(3):
        some = gates[first:]
        sigma2 = reference.bandwidth(some, bandwidth, [ALPHA] * len(some))
        values = reference.kernel(some, [sigma2] * len(some), bound)
        given_y = reference.conditional_entropy(values, labels.tolist())
        h = reference.entropy(values)
        assert_allclose(fitted.suffix_mi_xy_[first], h - given_y, rtol=1e-10)
        sigma2 = reference.bandwidth([gates[first]], bandwidth, [ALPHA])
        values = reference.kernel([gates[first]], [sigma2], bound)
        given_y_l = reference.conditional_entropy(values, labels.tolist())
        assert_allclose(fitted.layer_conditional_entropy_[first], given_y_l, rtol=1e-10)
        h_l = reference.entropy(values)
        assert_allclose(fitted.layer_mi_x_[first], h_l, rtol=1e-10)
        assert_allclose(fitted.layer_mi_xy_[first], h_l - given_y_l, rtol=1e-10)
        if first == 0:
            assert_allclose([fitted.mi_x_, fitted.conditional_entropy_], [h, given_y], rtol=1e-10)
            assert_allclose(fitted.mi_xy_, h - given_y, rtol=1e-10)


def test_mi_x_is_the_entropy(states, labels):
    fitted = GatingMI(density=Kernel(alpha=ALPHA)).fit(states, labels)
    result = gating_entropy(states, density=Kernel(alpha=ALPHA))
    assert_allclose(fitted.mi_x_, result.entropy, rtol=1e-13)
    assert_allclose(fitted.layer_mi_x_, result.layer_entropy, rtol=1e-13)


def test_null_value_is_that_of_shuffled_labels(states, labels):
    result = gating_mi(states, labels, density=Kernel(alpha=ALPHA), random_state=5)
    shuffled = np.random.RandomState(5).permutation(labels)
    other = gating_mi(states, shuffled, density=Kernel(alpha=ALPHA))
    assert_allclose(result.shuffled_mi_xy, other.mi_xy, rtol=1e-12)
    assert_allclose(result.shuffled_layer_mi_xy, other.layer_mi_xy, rtol=1e-12)
    assert_allclose(result.shuffled_suffix_mi_xy, other.suffix_mi_xy, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 5), st.floats(0.003, 3),
       st.integers(0, 999))  # fmt: skip
def test_does_not_exceed_the_entropy_of_the_label(n, d, n_classes, alpha, seed):
    rng = np.random.default_rng(seed)
    gates, y = rng.random((n, d)) < 0.5, rng.integers(0, n_classes, n)
    result = gating_mi(gates, y, density=Kernel(alpha=alpha), random_state=0)
    shares = np.unique(y, return_counts=True)[1] / n
    assert result.mi_xy <= -np.sum(shares * np.log2(shares)) + 1e-12


def test_saturated_gates_fake_the_label_and_are_flagged(rng):
    gates, y = rng.random((1000, 1024)) < 0.5, rng.integers(0, 10, 1000)
    with pytest.warns(SaturationWarning, match="layer0 given Y"):
        fitted = GatingMI(density="kde", random_state=0).fit(gates, y)
    assert fitted.layer_saturated_.all()
    assert fitted.mi_xy_ > 3.2  # of 3.32, about labels that mean nothing
    assert_allclose(fitted.shuffled_mi_xy_, fitted.mi_xy_, atol=0.05)
    assert fitted.score(rng.random((200, 1024)) < 0.5, rng.integers(0, 10, 200)) < 0


def test_classes_at_their_ceiling_are_flagged(rng):
    # log n_m of 500 classes is reached long before log n
    gates, y = rng.random((1000, 5)) < 0.5, np.repeat(np.arange(500), 2)
    with pytest.warns(SaturationWarning, match="given Y") as caught:
        fitted = GatingMI(density=Kernel(alpha=0.01), random_state=0).fit(gates, y)
    assert "layer0 (" not in str(caught[0].message)
    assert fitted.layer_saturated_.all()


def test_score_is_the_held_out_log_ratio(rng):
    gates, y = rng.random((30, 6)) < 0.4, rng.integers(0, 3, 30)
    new, y_new = rng.random((9, 6)) < 0.4, rng.integers(0, 3, 9)
    fitted = GatingMI(density=Kernel(alpha=0.5)).fit(gates, y)
    sigma2 = reference.bandwidth([gates], "variance", [0.5])
    ratios = []
    for query, label in zip(new, y_new, strict=True):
        own = reference.log_likelihood([query], [gates[y == label]], [sigma2])
        ratios.append(own - reference.log_likelihood([query], [gates], [sigma2]))
    assert_allclose(fitted.score(new, y_new), np.mean(ratios), rtol=1e-10)


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_grid_search_is_not_taken_in_by_shuffled_labels(rng):
    y = rng.integers(0, 10, 500)
    gates = rng.random((500, 200)) < 0.2 + 0.06 * y[:, None] * (rng.random(200) < 0.3)
    grid = {"density__alpha": np.logspace(-4, 0, 5)}
    real = GridSearchCV(GatingMI(density=Kernel(), random_state=0), grid, cv=3).fit(gates, y)
    null = GridSearchCV(GatingMI(density=Kernel(), random_state=0), grid, cv=3).fit(
        gates, rng.permutation(y)
    )
    assert np.isfinite(null.cv_results_["mean_test_score"]).all()
    assert abs(null.best_score_) < 0.05
    assert real.best_score_ > 0.2
    assert cross_val_score(GatingMI(density=Kernel(alpha=0.1)), gates, y).mean() > 0.2


def test_labels_of_any_type(states, labels):
    expected = gating_mi(states, labels, density=Kernel(alpha=ALPHA)).mi_xy
    names = np.array(["cat", "dog", "eel"])[labels]
    for y in (names, names.astype(object), labels.astype(float), list(labels)):
        fitted = GatingMI(density=Kernel(alpha=ALPHA)).fit(states, y)
        assert_allclose(fitted.mi_xy_, expected, rtol=1e-13)
        assert fitted.classes_.tolist() == np.unique(y).tolist()
        assert np.isfinite(fitted.score(states, y))


def test_one_class_tells_nothing(states):
    fitted = GatingMI(density=Kernel(alpha=ALPHA)).fit(states, np.zeros(60, int))
    assert_allclose(fitted.mi_xy_, 0, atol=1e-12)
    assert_allclose(fitted.score(states, np.zeros(60, int)), 0, atol=1e-12)


def test_a_class_of_one_sample_has_no_entropy(states, layers):
    y = np.zeros(60, int)
    y[7] = 1
    fitted = GatingMI(density=Kernel(alpha=ALPHA)).fit(states, y)
    sigma2 = reference.bandwidth(list(layers.values()), "variance", [ALPHA] * 3)
    values = reference.kernel(list(layers.values()), [sigma2] * 3)
    others = [j for j in range(60) if j != 7]
    assert_allclose(
        fitted.conditional_entropy_, 59 / 60 * reference.entropy(values, others), rtol=1e-10
    )


def test_constant_gates_tell_nothing():
    fitted = GatingMI(density="kde").fit(np.ones((6, 4), bool), [0, 1, 0, 1, 0, 1])
    assert fitted.mi_x_ == fitted.mi_xy_ == 0


def test_unknown_label_in_score_is_named(states, labels):
    fitted = GatingMI(density=Kernel(alpha=ALPHA)).fit(states, labels)
    with pytest.raises(ValueError, match=r"labels \[7\].*StratifiedKFold"):
        fitted.score(states, np.full(60, 7))
