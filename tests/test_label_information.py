"""Information about labels by calibrated classifiers, against loops, closed forms and truth."""

from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression

from skgate import GateLayer, GatingMI, GatingStates, gating_entropy, gating_mi
from skgate.densities import LayerRanges
from skgate.densities.labels import (
    _class_rates,
    _coordinates,
    _scores,
    class_rate_gains,
    label_information,
    label_log_ratios,
)
from skgate.densities.labels._calibration import Calibration, _best_slope
from skgate.densities.labels._class_rates import class_rate_scores
from skgate.densities.labels._coordinates import Coordinates
from skgate.densities.labels._discriminants import _BETWEEN, _RIDGES, discriminant_scores
from skgate.densities.labels._folds import LabelFolds, Labels
from skgate.states import LayersInTurn
from skgate.utils.samples import Samples

ONE = LayerRanges(1)
BITS = 1 / np.log(2)


def information(states, y, ranges=ONE, **options):
    (found,) = label_information(GatingStates.from_arrays(states), [y], ranges, 0, **options)
    return found.mean(axis=1) * BITS, found.std(axis=1) / np.sqrt(len(y)) * BITS


def folds_and_labels(y, seed=0):
    folds = LabelFolds.crossing(Samples(None, len(y)), seed)
    return folds, Labels.of(y[folds.order], folds)


def test_models_leave_out_what_they_score_and_what_calibrates():
    folds = LabelFolds.crossing(Samples(None, 23), 0)
    assert sorted(folds.order) == list(range(23))
    assert folds.models == [(k,) for k in range(5)] + list(combinations(range(5), 2))
    for target in range(5):
        calibrating = folds.calibrating(target)
        assert [part for part, _ in calibrating] == [k for k in range(5) if k != target]
        for part, model in calibrating:
            assert {part, target} == set(model)
            assert part in folds.scored(model)
    new = LabelFolds.with_new(Samples(None, 23), 4, 0)
    assert new.models == [(5,)] + [(k, 5) for k in range(5)]
    assert [new.scored(m) for m in new.models] == [(5,), *([k] for k in range(5))]
    assert_array_equal(new.order[new.rows(5)], range(23, 27))


def loop_scores(gates, free, y, train, row, n_classes):
    """Return the scores of one row by class, gate by gate."""
    kappa = _class_rates._KAPPA
    found = np.zeros(n_classes)
    for i in range(gates.shape[1]):
        if not free[row, i]:
            continue
        rows = [r for r in train if free[r, i]]
        rate = (sum(gates[r, i] for r in rows) + 0.5) / (len(rows) + 1)
        for c in range(n_classes):
            own = [r for r in rows if y[r] == c]
            of_class = (sum(gates[r, i] for r in own) + kappa * rate) / (len(own) + kappa)
            p, q = (of_class, rate) if gates[row, i] else (1 - of_class, 1 - rate)
            found[c] += np.log(p / q)
    return found


@pytest.mark.parametrize("kind", ["gates", "one-hot", "thermometer"])
def test_class_rates_agree_with_loops(rng, kind, monkeypatch):
    monkeypatch.setattr(_class_rates, "_KAPPAS", (_class_rates._KAPPA,))
    n, y = 30, rng.integers(0, 3, 30)
    if kind == "gates":
        gates, unit = rng.random((n, 6)) < 0.5, 1
    elif kind == "one-hot":
        gates, unit = np.eye(3, dtype=bool)[rng.integers(0, 3, (n, 2))].reshape(n, 6), 3
    else:
        gates, unit = (rng.integers(0, 3, (n, 3, 1)) > np.arange(2)).reshape(n, 6), 2
    free = np.ones(gates.shape, bool)
    for i in range(6):
        for earlier in range(i - i % unit, i):
            decides = gates[:, earlier] if kind == "one-hot" else ~gates[:, earlier]
            free[decides, i] = False
        if kind == "one-hot" and i % unit == unit - 1:
            free[:, i] = False
    layer = GateLayer(
        "a", 6, spatial=False, shape=(6 // unit,), unit_size=unit, one_hot=kind == "one-hot"
    )
    states = GatingStates([np.packbits(gates, axis=1)], [layer])
    folds, labels = folds_and_labels(y)
    scores = class_rate_scores(states[folds.order], folds, labels.indicators)
    part_of = np.repeat(range(5), np.diff(folds.starts))
    for model, part in [((1,), 1), ((0, 3), 0), ((0, 3), 3)]:
        train = [folds.order[i] for i in range(n) if part_of[i] not in model]
        expected = [
            loop_scores(gates, free, y, train, folds.order[i], 3)
            for i in np.flatnonzero(part_of == part)
        ]
        assert_allclose(scores[model, part], expected, atol=1e-12)
    gains = class_rate_gains(states, y, ONE, 0)[0]
    for i in (0, 11, 29):
        row = folds.order[i]
        train = [folds.order[j] for j in range(n) if part_of[j] != part_of[i]]
        assert_allclose(gains[row], loop_scores(gates, free, y, train, row, 3)[y[row]], atol=1e-12)


def test_discriminants_agree_with_inverse_matrices(rng):
    y = rng.integers(0, 3, 40)
    gates = rng.random((40, 5)) < 0.3 + 0.2 * y[:, None]
    folds, labels = folds_and_labels(y)
    x = gates[folds.order].astype(float)
    x -= x.mean(axis=0)
    coordinates = Coordinates.of(x, folds.fitted)
    found = discriminant_scores(coordinates, folds, labels.indicators)
    part_of, model = np.repeat(range(5), np.diff(folds.starts)), (2, 4)
    train = ~np.isin(part_of, model)
    means = [x[train & (labels.encoded == c)].mean(axis=0) for c in range(3)]
    shares = [np.mean(labels.encoded[train] == c) for c in range(3)]
    total = x.T @ x / 40
    choices = [(ridge, between) for ridge in _RIDGES for between in _BETWEEN]
    for (ridge, between), scores in zip(choices, found[model, 2], strict=True):
        within = total + ridge * np.trace(total) / 5 * np.eye(5)
        for share, mean in zip(shares, means, strict=True):
            within = within - between * share * np.outer(mean, mean)
        for place, row in enumerate(x[folds.rows(2)]):
            expected = [
                row @ np.linalg.solve(within, m) - m @ np.linalg.solve(within, m) / 2 for m in means
            ]
            assert_allclose(scores[place], expected, atol=1e-8)


def test_calibrated_probabilities_are_the_best_of_their_kind(rng):
    shares = np.array([0.2, 0.3, 0.5])
    log_shares = np.log(shares) * np.ones((500, 1))
    scores = 3 * rng.normal(size=(500, 3))
    p = shares * np.exp(0.4 * scores)
    y = np.array([rng.choice(3, p=row / row.sum()) for row in p])

    def loss(slope):
        q = shares * np.exp(slope * scores)
        return -np.mean(np.log(q[np.arange(500), y] / q.sum(axis=1)))

    best = minimize_scalar(loss, bounds=(0, 5), method="bounded").x
    assert _best_slope(scores, y, log_shares) == pytest.approx(best, rel=5e-3)
    useless = rng.normal(size=(500, 3))
    calibration = Calibration.fit([useless, scores], y, log_shares)
    assert calibration.option == 1
    each = [calibration([useless, scores], np.full(500, c), log_shares) for c in range(3)]
    assert_allclose(np.exp(each).T @ shares, 1)
    assert loss(calibration.slope) - loss(best) < 0.01
    assert Calibration.fit([-scores], y, log_shares).slope == 0  # worse than nothing


def test_a_gate_that_is_the_label_tells_all_of_it(rng):
    y = rng.integers(0, 2, 1000)
    value, _ = information(np.column_stack([y, rng.integers(0, 2, (1000, 3))]), y)
    assert 0.97 < value[0] <= 1


@pytest.mark.parametrize("n_gates", [20, 1500])
def test_values_of_noisy_copies_are_right(rng, n_gates):
    y = rng.integers(0, 2, 1000)
    copy = y ^ (rng.random(1000) < 0.11)  # 0.5 bits
    gates = copy[:, None] ^ (rng.random((1000, n_gates)) < 0.1)
    value, error = information(gates, y)
    assert 0.4 < value[0] < 0.5 + 3 * error[0]


def test_labels_that_do_not_depend_on_the_gates_have_no_information(rng):
    values = [
        information(rng.random((300, 200)) < 0.5, rng.integers(0, 4, 300))[0][0] for _ in range(5)
    ]
    assert max(values) < 0.02
    assert min(values) > -0.05


def test_wide_layers_have_the_values_of_narrow_ones(rng, monkeypatch):
    y = rng.integers(0, 3, 120)
    gates = rng.random((120, 150)) < 0.4 + 0.1 * (y[:, None] == 1)
    narrow = label_information(GatingStates.from_arrays(gates), [y], ONE, 0)[0]
    monkeypatch.setattr(_coordinates, "_MAX_WIDTH", 140)  # all 120 rows are landmarks
    wide = label_information(GatingStates.from_arrays(gates), [y], ONE, 0)[0]
    assert np.abs(narrow).max() > 0.1
    # two spectra of the same products; their mean variances differ, and so does the ridge
    assert_allclose(wide, narrow, atol=0.35)
    assert np.corrcoef(wide[0], narrow[0])[0, 1] > 0.95


def test_ranges_have_the_values_of_their_layers_side_by_side(rng):
    y = rng.integers(0, 2, 200)
    a, b, c = (rng.random((200, 30)) < 0.5 + shift * y[:, None] for shift in (0.1, 0.2, 0.0))
    ranges = LayerRanges(3, prefixes=True)
    (found,) = label_information(GatingStates.from_arrays([a, b, c]), [y], ranges, 0)
    for (start, stop), values in zip(ranges.bounds, found, strict=True):
        alone = GatingStates.from_arrays(np.hstack([a, b, c][start:stop]))
        assert_allclose(values, label_information(alone, [y], ONE, 0)[0][0], atol=1e-9)


def test_layers_may_be_read_in_turn(rng):
    y = rng.integers(0, 2, 100)
    states = GatingStates.from_arrays([rng.random((100, 20)) < 0.5 + 0.2 * y[:, None]] * 2)
    in_turn = LayersInTurn(states.layers, None, 100, states.select)
    ranges = LayerRanges(2)
    expected = label_information(states, [y], ranges, 0)[0]
    assert_array_equal(label_information(in_turn, [y], ranges, 0)[0], expected)


def test_new_rows_are_scored_one_by_one_as_together(rng):
    y = rng.integers(0, 3, 150)
    states = GatingStates.from_arrays(rng.random((150, 12)) < 0.3 + 0.2 * y[:, None])
    new_y = rng.integers(0, 3, 9)
    new = GatingStates.from_arrays(rng.random((9, 12)) < 0.3 + 0.2 * new_y[:, None])
    together = label_log_ratios(states, y, new, new_y, 0)
    one_by_one = [label_log_ratios(states, y, new[[i]], new_y[[i]], 0)[0] for i in range(9)]
    assert_allclose(together, one_by_one, atol=1e-9)
    # probabilities of all classes, over their shares
    each = [label_log_ratios(states, y, new, np.full(9, c), 0) for c in range(3)]
    assert_allclose(np.exp(each).T @ (np.bincount(y) / 150), 1)


@pytest.mark.parametrize(
    "y",
    [np.zeros(40, int), np.arange(40), np.r_[np.zeros(39, int), 1]],
    ids=["one class", "classes of one member", "one such class"],
)
def test_labels_that_cannot_be_learnt_have_no_information(rng, y):
    # a class that is missing from the samples that a model knows must be in the others
    for _ in range(5):
        value, _ = information(rng.random((40, 8)) < 0.5, y)
        assert -0.6 < value[0] < 0.02


def test_few_samples_and_constant_gates_have_no_information(rng):
    y = np.arange(8) % 2
    assert information(np.column_stack([y, y]), y)[0] == 0
    assert information(np.ones((50, 3), bool), np.arange(50) % 2)[0] == pytest.approx(0, abs=0.02)


def test_rows_of_a_sample_stay_together(rng):
    inputs, labels = rng.random((60, 40)) < 0.5, rng.integers(0, 2, 60)
    rows = np.repeat(np.arange(60), 10)
    repeated = GatingStates.from_arrays(inputs[rows])
    grouped = GatingStates.from_arrays(inputs[rows], groups=rows)
    found = [
        gating_mi(s, labels[rows], density="product", random_state=0) for s in (repeated, grouped)
    ]
    assert found[0].mi_xy > 0.5  # random labels of rows that are there ten times
    assert found[1].mi_xy < 0.05


def test_every_fitted_density_has_the_same_information(rng):
    y = rng.integers(0, 2, 200)
    gates = rng.random((200, 10)) < 0.4 + 0.2 * y[:, None]
    densities = "product", "chow-liu", "autoregressive"
    found = [gating_mi(gates, y, density=density, random_state=0) for density in densities]
    assert_allclose([r.mi_xy for r in found], found[0].mi_xy, rtol=1e-9)
    for density, result in zip(densities, found, strict=True):
        entropy = gating_entropy(gates, density=density, random_state=0).entropy
        assert result.mi_x == pytest.approx(entropy, rel=0.02)  # other draws of folds
        assert result.conditional_entropy == pytest.approx(result.mi_x - result.mi_xy)


class Shapeless(BaseEstimator):
    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return np.ones((len(X), 1))


def test_a_classifier_gives_the_probabilities_instead(rng):
    y = rng.integers(0, 2, 300)
    gates = np.column_stack([y ^ (rng.random(300) < 0.1), rng.random((300, 5)) < 0.5])
    measure = GatingMI(classifier=LogisticRegression(), density="product", random_state=0)
    value = measure.fit(gates, y).mi_xy_
    assert 0.35 < value < 0.65  # true .53
    assert value != GatingMI(density="product", random_state=0).fit(gates, y).mi_xy_
    assert measure.score(gates, y) == pytest.approx(value, abs=0.1)
    with pytest.raises(ValueError, match=r"predict_proba returned shape \(\d+, 1\)"):
        gating_mi(gates, y, density="product", classifier=Shapeless())
    with pytest.raises(ValueError, match="has an I\\(X;Σ;Y\\) of its own"):
        gating_mi(gates, y, density="kde", classifier=LogisticRegression())
    with pytest.raises(TypeError, match=r"need an instance, LogisticRegression\(...\)"):
        gating_mi(gates, y, classifier=LogisticRegression)
    with pytest.raises(ValueError, match="'classifier' parameter"):
        gating_mi(gates, y, classifier="logistic")


def test_what_does_not_fit_in_memory_is_refused(rng, monkeypatch):
    gates, y = rng.random((60, 30)) < 0.5, np.arange(60) % 3
    monkeypatch.setattr(_scores, "physical_memory", lambda: 1e4)
    with pytest.raises(ValueError, match="3 classes needs about"):
        gating_mi(gates, y, density="product")
    monkeypatch.setattr(_scores, "N_OPTIONS", 0)
    with pytest.raises(ValueError, match="needs all 30 gates of 60 rows as numbers"):
        gating_mi(gates, y, density="product", classifier=LogisticRegression())


def test_the_rates_of_classes_are_drawn_to_those_of_all_where_labels_tell_nothing(rng):
    gates, y = rng.random((300, 50)) < 0.3, rng.integers(0, 5, 300)
    states = GatingStates.from_arrays(gates)
    assert abs(class_rate_gains(states, y, ONE, 0).mean()) < 0.01
    gates[:, :25] ^= (y == 1)[:, None]
    assert class_rate_gains(GatingStates.from_arrays(gates), y, ONE, 0).mean() > 1
