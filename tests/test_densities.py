"""Fitted densities: double loops, known distributions, cross-fitting, units, edge cases."""

import itertools
import pickle

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skgate import (
    GateLayer,
    GatingEntropy,
    GatingMI,
    GatingStates,
    TotalCorrelation,
    gating_entropy,
    gating_mi,
    total_correlation,
)
from skgate.densities import Kernel
from skgate.densities._rates import beta_prior, conditional_strength
from skgate.densities.forests._chow_liu import forest_edges
from skgate.densities.forests._columns import columns_of
from skgate.densities.forests._forest_model import Forest, edge_groups
from skgate.densities.forests._information import (
    chance_information,
    information_rows,
)

DENSITIES = ["product", "chow-liu", "autoregressive"]
FORESTS = ["product", "chow-liu"]
every_density = pytest.mark.parametrize("density", DENSITIES)
every_forest = pytest.mark.parametrize("density", FORESTS)


def all_states(d):
    return np.array(list(itertools.product([0, 1], repeat=d)), dtype=bool)


def tree_gates(rng, n, d, flips=(0.1, 0.2)):
    """Fair gates, each a noisy copy of one before it; with the edges and the flip rates."""
    parents = [rng.integers(max(0, i - 10), i) for i in range(1, d)]
    rates = rng.uniform(*flips, size=d - 1)
    gates = np.empty((n, d), bool)
    gates[:, 0] = rng.random(n) < 0.5
    for i, (parent, rate) in enumerate(zip(parents, rates, strict=True), start=1):
        gates[:, i] = gates[:, parent] ^ (rng.random(n) < rate)
    return gates, {(int(p), i) for i, p in enumerate(parents, start=1)}, rates


def noisy_copies(rng, y, d, flip=0.2):
    return (y[:, None] ^ (rng.random((len(y), d)) < flip)).astype(bool)


def edges_of(forest):
    pairs = zip(forest.children.tolist(), forest.parents.tolist(), strict=True)
    return {tuple(sorted(pair)) for pair in pairs}


def seed_of(random_state):
    return int(np.random.RandomState(random_state).randint(2**31 - 1))


def numbers_of(result):
    """All numbers of a result, in one array."""
    skipped = {"density", "classes", "layer_densities"}
    return np.concatenate(
        [
            np.ravel(v).astype(float)
            for k, v in result.items()
            if k not in skipped and not k.endswith("_corrected")  # of the kernel density alone
        ]
    )


# Normalisation ------------------------------------------------------------------------------------


@every_density
def test_every_range_sums_to_one_over_all_states(rng, density):
    latent = rng.normal(size=(60, 2))
    gates = latent @ rng.normal(size=(2, 8)) + rng.normal(size=(60, 8)) > 0.5
    gates[:, 5] = True
    edges = np.cumsum([0, 3, 4, 1])
    spans = [slice(*pair) for pair in itertools.pairwise(edges)]
    states = GatingStates.from_arrays([gates[:, s] for s in spans])
    every = GatingStates.from_arrays([all_states(8)[:, s] for s in spans])
    fitted = gating_entropy(states, density=density, random_state=0).density
    p = np.exp(fitted.log_likelihoods(every))
    assert p.shape == (len(fitted._ranges.bounds), 256)
    for position, (start, stop) in enumerate(fitted._ranges.bounds):
        repeats = 2 ** (8 - sum([3, 4, 1][start:stop]))
        assert_allclose(p[position].sum() / repeats, 1, rtol=1e-10)


@every_density
@pytest.mark.parametrize("measure", [GatingEntropy, GatingMI, TotalCorrelation])
def test_scores_sum_to_one_over_all_states(rng, density, measure):
    X, y = rng.random((40, 8)) < 0.3, rng.integers(0, 2, 40)
    fitted = measure(density=density, random_state=0, base=10).fit(X, y)
    assert_allclose(np.sum(10 ** fitted.score_samples(all_states(8))), 1, rtol=1e-10)
    assert_allclose(np.sum(10 ** -fitted.transform(all_states(8))), 1, rtol=1e-10)


@every_forest
def test_pairs_agree_with_their_gates(rng, density):
    """What is left of the joint, after summing over the gates of a layer, is the other layer's.

    Children agree up to the smoothing of their rates given the parents.
    """
    gates, _, _ = tree_gates(rng, 300, 6)
    layers = {"a": gates[:, :3], "b": gates[:, 3:]}
    fitted = gating_entropy(layers, density=density, random_state=0).density
    every = GatingStates.from_arrays({"a": all_states(6)[:, :3], "b": all_states(6)[:, 3:]})
    joint = np.exp(fitted.log_likelihoods(every)[fitted._ranges.joint]).reshape(8, 8)
    for axis, layer in ((1, slice(0, 3)), (0, slice(3, 6))):
        n_open = gates[:, layer].sum(axis=0)
        a, b = beta_prior(n_open, 300)
        expected = (n_open + a) / (300 + a + b)
        rtol = 1e-7 if density == "product" else 5e-3
        assert_allclose(joint.sum(axis=axis) @ all_states(3), expected, rtol=rtol)


# Double loops -------------------------------------------------------------------------------------


def forest_logs(model, queries, gates):
    """log2 p by loops, with the edges of a model; priors are tested on their own."""
    n = len(gates)
    prior = beta_prior(gates.sum(axis=0), n)
    rates = (gates.sum(axis=0) + prior[0]) / (n + sum(prior))
    edges, tables = list(zip(model.children.tolist(), model.parents.tolist(), strict=True)), []
    for child, parent in edges:
        table = np.zeros((2, 2), int)
        np.add.at(table, (gates[:, child].astype(int), gates[:, parent].astype(int)), 1)
        tables.append(table)
    own = np.stack([1 - rates, rates], axis=1)[model.children]
    kappa = conditional_strength(np.array(tables), own) if edges else None
    return [reference.forest_log_likelihood(row, gates, edges, prior, kappa) for row in queries]


@every_forest
def test_in_sample_agrees_with_double_loops(rng, density):
    gates, _, _ = tree_gates(rng, 90, 9)
    gates[:, 4] = False
    result = gating_entropy(gates, density=density, cv=None)
    model = result.density._models[0]
    edges = reference.forest_edges(gates) if density == "chow-liu" else []
    assert edges_of(model) == set(edges)
    logs = forest_logs(model, gates, gates)
    assert_allclose(result.entropy, -np.mean(logs), rtol=1e-7)
    assert_allclose(result.entropy_se, np.std(logs, ddof=1) / np.sqrt(90), rtol=1e-6)
    new = rng.random((20, 9)) < 0.5
    expected = forest_logs(model, new, gates)
    fitted = GatingEntropy(density=density).fit(gates)
    assert_allclose(fitted.score_samples(new), expected, rtol=1e-7)
    assert_allclose(fitted.transform(new)[:, 0], -np.array(expected), rtol=1e-7)
    assert_allclose(fitted.score(new), np.mean(expected), rtol=1e-7)


@every_forest
@pytest.mark.parametrize("cv", [2, 5, 90])
def test_cross_fitting_agrees_with_double_loops(rng, density, cv):
    gates, _, _ = tree_gates(rng, 90, 7)
    result = gating_entropy(gates, density=density, cv=cv, random_state=4)
    logs = np.empty(90)
    for train, test in KFold(cv, shuffle=True, random_state=seed_of(4)).split(gates):
        model = gating_entropy(gates[train], density=density, cv=None).density._models[0]
        edges = reference.forest_edges(gates[train]) if density == "chow-liu" else []
        assert edges_of(model) == set(edges)
        logs[test] = forest_logs(model, gates[test], gates[train])
    # edges have either direction
    assert_allclose(result.entropy, -logs.mean(), rtol=1e-7 if density == "product" else 1e-3)
    assert_allclose(result.entropy_se, logs.std(ddof=1) / np.sqrt(90), rtol=1e-2)


@settings(deadline=None, max_examples=25)
@given(st.integers(10, 60), st.integers(3, 9), st.integers(0, 999))
def test_forests_are_as_informative_as_those_of_kruskal(n, d, seed):
    """Ties may give other edges, but as many, and as much information; weak ones are left out."""
    rng = np.random.default_rng(seed)
    gates = rng.random((n, d)) < rng.uniform(0.2, 0.8, d)
    gates[:, 1] ^= gates[:, 0] & (rng.random(n) < 0.5)
    states = GatingStates.from_arrays(gates)
    found = list(zip(*forest_edges(columns_of(states), states.layers), strict=True))
    expected = reference.forest_edges(gates)
    assert len(found) == len(expected)

    def information(edges):
        return sum(reference.mutual_information(gates, *edge) for edge in edges)

    assert_allclose(information(found), information(expected), rtol=1e-9)


# Known distributions ------------------------------------------------------------------------------


def test_a_known_tree_is_found(rng):
    gates, edges, rates = tree_gates(rng, 5000, 200)
    fitted = TotalCorrelation(density="chow-liu", random_state=0).fit(gates)
    truth = 1 + sum(map(reference.binary_entropy, rates))
    assert len(edges & edges_of(fitted.density_._models[0])) >= 0.95 * 199
    assert_allclose(fitted.entropy_, truth, rtol=0.01)
    assert_allclose(fitted.total_correlation_, 200 - truth, rtol=0.02)
    assert_allclose(fitted.independent_entropy_, 200, rtol=0.001)


@pytest.mark.parametrize("seed", range(3))
def test_independent_gates_have_no_total_correlation(seed):
    rng = np.random.default_rng(seed)
    gates = rng.random((3000, 150)) < rng.uniform(0.1, 0.9, 150)
    for density in FORESTS:
        result = total_correlation(gates, density=density, random_state=0)
        assert abs(result.total_correlation) <= 0.02
    result = total_correlation(gates, density="autoregressive", random_state=0)
    assert result.total_correlation <= 0.02
    assert (
        result.total_correlation >= -0.02 * 150
    )  # regressions on what tells nothing cost a little


def test_product_has_no_total_correlation(rng):
    gates, _, _ = tree_gates(rng, 200, 30)
    result = total_correlation(gates, rng.integers(0, 2, 200), density="product", random_state=0)
    assert_allclose(result.total_correlation, 0, atol=1e-10)
    assert_allclose(result.total_correlation_se, 0, atol=1e-10)
    assert_allclose(result.conditional_total_correlation, 0, atol=0.05)


@settings(deadline=None, max_examples=30)
@given(st.integers(5, 60), st.integers(1, 30), st.integers(0, 999))
def test_product_entropy_is_that_of_the_gates(n, d, seed):
    rng = np.random.default_rng(seed)
    gates = rng.random((n, d)) < rng.random(d)
    result = gating_entropy(gates, density="product", cv=None)
    (a, b), n_open = beta_prior(gates.sum(axis=0), n), gates.sum(axis=0)
    likelihoods = n_open * np.log2(n_open + a) + (n - n_open) * np.log2(n - n_open + b)
    expected = d * np.log2(n + a + b) - likelihoods.sum() / n
    assert_allclose(result.entropy, expected, rtol=1e-6)
    assert reference.product_entropy(gates) <= result.entropy + 1e-10


def test_product_entropy_approaches_the_closed_form(rng):
    gates = rng.random((20000, 12)) < rng.uniform(0.05, 0.95, 12)
    result = gating_entropy(gates, density="product", random_state=0)
    assert_allclose(result.entropy, reference.product_entropy(gates), rtol=1e-3)


@every_density
def test_dependent_gates_have_less_entropy_than_independent_ones(rng, density):
    gates, _, rates = tree_gates(rng, 2000, 30)
    truth = 1 + sum(map(reference.binary_entropy, rates))
    result = gating_entropy(gates, density=density, random_state=0)
    assert result.entropy >= truth - 3 * result.entropy_se
    if density != "product":
        assert result.entropy <= truth + 1.5
    assert_allclose(result.layer_ceiling, 30)


def test_autoregression_sees_what_no_tree_can(rng):
    latent = rng.normal(size=(3000, 4))
    gates = latent @ rng.normal(size=(4, 80)) + rng.normal(size=(3000, 80)) > 0
    h = {d: gating_entropy(gates, density=d, random_state=0).entropy for d in DENSITIES}
    assert h["autoregressive"] < h["chow-liu"] - 5 < h["product"] - 10


def test_regressions_on_what_tells_nothing_cost_little(rng):
    """Curves are fitted to predictions of samples that the regressions have not seen."""
    gates = rng.random((150, 120)) < 0.4
    product, auto = (
        gating_entropy(gates, density=density, random_state=0).entropy
        for density in ("product", "autoregressive")
    )
    assert auto < 1.03 * product


@every_density
@pytest.mark.parametrize("base", [10])
def test_base_is_the_unit(rng, density, base):
    gates, y = rng.random((60, 9)) < 0.4, rng.integers(0, 2, 60)
    gates[:, 0] = y
    layers = {"a": gates[:, :4], "b": gates[:, 4:]}
    for twin in (gating_mi, total_correlation):
        bits, other = (twin(layers, y, density=density, base=b, random_state=0) for b in (2, base))
        assert_allclose(numbers_of(other), numbers_of(bits) / np.log2(base), rtol=1e-9, atol=1e-13)


# Information about the label ----------------------------------------------------------------------


@every_density
@pytest.mark.parametrize("seed", range(3))
def test_copies_of_a_label_tell_one_bit_and_shuffled_ones_none(density, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 500)
    gates = noisy_copies(rng, y, 100)
    fitted = GatingMI(density=density, random_state=seed).fit(gates, y)
    assert 0.95 <= fitted.mi_xy_ <= 1
    assert_allclose(fitted.shuffled_mi_xy_, 0, atol=0.05)
    nothing = gating_mi(gates, rng.permutation(y), density=density, random_state=seed)
    assert abs(nothing.mi_xy) <= 3 * nothing.mi_xy_se + 1e-9


@pytest.mark.parametrize("density", FORESTS)
def test_classes_that_tell_nothing_are_not_heeded(density):
    values = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        gates = noisy_copies(rng, rng.integers(0, 2, 400), 60)  # of something else
        result = gating_mi(gates, rng.integers(0, 2, 400), density=density, random_state=seed)
        values.append(result.mi_xy)
    assert -0.02 < np.mean(values) < 0.001


@every_density
@pytest.mark.parametrize("seed", range(3))
def test_few_gates_tell_what_the_closed_form_says(density, seed):
    rng = np.random.default_rng(seed)
    flips, n = np.array([0.2, 0.3, 0.1]), 4000
    y = (rng.random(n) < 0.4).astype(int)
    gates = noisy_copies(rng, y, 3, flips)
    every = all_states(3)
    given_y = np.stack(
        [np.where(every != label, flips, 1 - flips).prod(axis=1) for label in (0, 1)], axis=1
    )
    joint = given_y * [0.6, 0.4]
    truth = np.sum(joint * np.log2(given_y / joint.sum(axis=1, keepdims=True)))
    result = gating_mi(gates, y, density=density, random_state=seed)
    # the error is that around the label's own share, which moves too
    assert abs(result.mi_xy - truth) <= 3 * result.mi_xy_se + 0.003
    assert_allclose(result.mi_x - result.conditional_entropy, result.mi_xy, rtol=1e-9)


def test_dependence_given_the_class_takes_a_classifier_that_sees_it(rng):
    y = rng.integers(0, 2, 600)
    first = rng.random((600, 2)) < 0.5
    gates = np.hstack([first, first ^ y[:, None].astype(bool)])
    options = {"density": "product", "random_state": 0}
    assert abs(gating_mi(gates, y, **options).mi_xy) < 0.02
    assert gating_mi(gates, y, classifier=KNeighborsClassifier(15), **options).mi_xy > 0.9


@settings(deadline=None, max_examples=15)
@given(st.integers(5, 40), st.integers(1, 12), st.integers(1, 5), st.sampled_from(DENSITIES),
       st.sampled_from([None, 2, 5]), st.integers(0, 999))  # fmt: skip
def test_information_is_no_more_than_the_label_has(n, d, n_classes, density, cv, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    gates = rng.random((n, d)) < rng.random((n_classes, d))[y]
    result = gating_mi({"a": gates, "b": ~gates[:, :1]}, y, density=density, cv=cv, random_state=0)
    shares = np.bincount(y)[np.bincount(y) > 0] / n
    h_y = -np.sum(shares * np.log2(shares))
    assert result.mi_xy <= h_y + 1e-9
    assert (result.layer_mi_xy <= h_y + 1e-9).all()
    assert (result.suffix_mi_xy <= h_y + 1e-9).all()
    assert_allclose(result.mi_x - result.mi_xy, result.conditional_entropy, rtol=1e-9, atol=1e-9)
    assert_array_equal(result.suffix_mi_xy[0], result.mi_xy)
    assert np.isfinite(numbers_of(result)).all()


@every_density
def test_labels_of_any_kind(rng, density):
    y = rng.integers(0, 3, 80)
    gates = noisy_copies(rng, (y > 0).astype(int), 8)
    names = np.array(["x", "z", "y"])[y]
    codes = np.unique(names, return_inverse=True)[1]
    fitted = GatingMI(density=density, random_state=0).fit(gates, names)
    other = GatingMI(density=density, random_state=0).fit(gates, codes)
    assert fitted.mi_xy_ == other.mi_xy_
    assert fitted.score(gates, names) == other.score(gates, codes)
    assert fitted.classes_.tolist() == ["x", "y", "z"]
    with pytest.raises(ValueError, match="labels"):
        fitted.score(gates, np.full(80, "w"))


@every_density
def test_held_out_score_of_labels(rng, density):
    y = rng.integers(0, 2, 600)
    gates = noisy_copies(rng, y, 20, 0.3)
    measure = GatingMI(density=density, random_state=0)
    found = cross_val_score(measure, gates, y, cv=3)
    assert_allclose(found, measure.fit(gates, y).mi_xy_, atol=0.15)
    nothing = cross_val_score(measure, gates, rng.permutation(y), cv=3)
    assert (nothing < 0.03).all()


# Total correlation --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(st.integers(5, 40), st.lists(st.integers(1, 8), min_size=1, max_size=3),
       st.sampled_from(DENSITIES), st.sampled_from([None, 5]), st.integers(0, 999))  # fmt: skip
def test_entropy_and_total_correlation_add_up(n, widths, density, cv, seed):
    rng = np.random.default_rng(seed)
    latent, y = rng.normal(size=(n, 1)), rng.integers(0, 3, n)
    gates = {str(i): latent + rng.normal(size=(n, d)) > 0.3 for i, d in enumerate(widths)}
    result = total_correlation(gates, y, density=density, cv=cv, random_state=0)
    for c, h, tc in [
        (result.independent_entropy, result.entropy, result.total_correlation),
        (result.layer_independent_entropy, result.layer_entropy, result.layer_total_correlation),
        (
            result.layer_conditional_independent_entropy,
            result.layer_conditional_entropy,
            result.layer_conditional_total_correlation,
        ),
    ]:
        assert_allclose(h + tc, c, rtol=1e-11, atol=1e-11)
    own = gating_entropy(gates, density=density, cv=cv, random_state=0)
    assert_allclose(result.entropy, own.entropy, rtol=1e-12)
    assert_allclose(result.layer_entropy, own.layer_entropy, rtol=1e-12)
    assert_allclose(result.entropy_se, own.entropy_se, rtol=1e-9)
    without = total_correlation(gates, density=density, cv=cv, random_state=0)
    assert np.isnan(without.conditional_total_correlation)
    assert without.total_correlation == result.total_correlation


def test_total_correlation_given_the_label(rng):
    """Copies of a label depend on each other through it alone."""
    y = rng.integers(0, 2, 2000)
    gates = noisy_copies(rng, y, 30)
    result = total_correlation(gates, y, density="chow-liu", random_state=0)
    assert result.total_correlation > 1
    assert abs(result.conditional_total_correlation) < 0.1


@pytest.mark.parametrize("density", ["chow-liu", "autoregressive"])
def test_a_label_without_relation_leaves_total_correlation_as_it_is(rng, density):
    gates, _, _ = tree_gates(rng, 1500, 20)
    result = total_correlation(gates, rng.integers(0, 2, 1500), density=density, random_state=0)
    assert result.total_correlation > 5
    assert_allclose(result.conditional_total_correlation, result.total_correlation, rtol=0.05)
    assert_allclose(result.layer_conditional_entropy, result.layer_entropy, rtol=0.05)


def unit_states(rng, n, n_units, unit_size, one_hot):
    values = rng.integers(0, unit_size if one_hot else unit_size + 1, (n, n_units))
    marks = np.arange(unit_size)
    gates = values[..., None] == marks if one_hot else values[..., None] > marks
    gates = gates.reshape(n, -1)
    layer = GateLayer("units", gates.shape[1], unit_size=unit_size, one_hot=one_hot)
    return GatingStates([np.packbits(gates, axis=1)], [layer])


@every_density
@pytest.mark.parametrize(("unit_size", "one_hot"), [(2, False), (3, False), (4, True), (9, True)])
def test_gates_of_one_unit_carry_no_total_correlation(rng, density, unit_size, one_hot):
    states = unit_states(rng, 1500, 8, unit_size, one_hot)
    y = rng.integers(0, 2, len(states))
    result = total_correlation(states, y, density=density, random_state=0)
    # a logistic curve is no step: what is certain within a window is nearly certain here
    loss = 0.06 * result.independent_entropy if density == "autoregressive" else 0.02
    assert -loss <= result.total_correlation <= 0.02
    assert -2 * loss <= result.conditional_total_correlation <= 0.04


@pytest.mark.parametrize(
    ("unit_size", "one_hot", "density"),
    [(2, False, "chow-liu"), (3, False, "chow-liu"), (4, True, "product"), (9, True, "product")],
)
def test_independent_units_have_the_entropy_of_their_values(rng, unit_size, one_hot, density):
    states = unit_states(rng, 1500, 8, unit_size, one_hot)
    result = total_correlation(states, density=density, random_state=0)
    truth = 8 * np.log2(unit_size if one_hot else unit_size + 1)
    assert_allclose(result.independent_entropy, truth, rtol=0.01)


UNITS = [
    GateLayer("gates", 2),
    GateLayer("windows", 6, unit_size=3, one_hot=True),
    GateLayer("steps", 4, unit_size=2),
]


def states_of_units(values, layers=UNITS):
    """States of layers, from the values of their units, (n_rows, n_units)."""
    packed, first = [], 0
    for layer in layers:
        own = values[:, first : first + layer.n_gates // layer.unit_size, None]
        first += own.shape[1]
        marks = np.arange(layer.unit_size)
        gates = own == marks if layer.one_hot else own > marks
        packed.append(np.packbits(gates.reshape(len(values), -1), axis=1))
    return GatingStates(packed, layers)


def dependent_values(rng, n):
    values = rng.integers(0, [2, 2, 3, 3, 3, 3], (n, 6))
    values[:, 3] = np.where(rng.random(n) < 0.9, values[:, 2], values[:, 3])
    values[:, 4] = np.where(rng.random(n) < 0.8, values[:, 3], values[:, 4])
    values[:, 1] = np.where(rng.random(n) < 0.9, values[:, 4] > 1, values[:, 1])
    return values


@every_forest
def test_units_of_all_kinds_sum_to_one_over_their_values(rng, density):
    values = dependent_values(rng, 200)
    states = states_of_units(values)
    every = np.array(list(itertools.product(*map(range, [2, 2, 3, 3, 3, 3]))))
    fitted = gating_entropy(states, density=density, random_state=0).density
    p = np.exp(fitted.log_likelihoods(states_of_units(every)))
    n_states = [4, 9, 9]
    if density == "chow-liu":  # some edges join layers of other kinds
        assert len(fitted._models[-1].groups) >= 3
    for position, (start, stop) in enumerate(fitted._ranges.bounds):
        repeats = 324 / np.prod(n_states[start:stop])
        assert_allclose(p[position].sum() / repeats, 1, rtol=1e-10)


def test_likelihoods_of_units_are_sums_over_their_values(rng):
    """A forest with edges from gates to windows, and from windows to steps, against a loop."""
    layers, sizes = UNITS, [2, 3, 3]
    groups = edge_groups(layers, np.array([0, 1, 4, 5]), np.array([3, 2, 3, 2]))
    nodes = [rng.normal(size=(2, k)) for k in sizes]
    ends = [group.layers for group in groups]
    assert ends == [(0, 1), (2, 1)]
    tables = [rng.normal(size=(2, sizes[a], sizes[b])) for a, b in ends]
    forest = Forest(layers, groups, nodes, tables)
    values = np.array(list(itertools.product(*map(range, [2, 2, 3, 3, 3, 3]))))
    bounds = [(0, 1), (1, 2), (0, 2), (1, 3), (0, 3)]
    expected = np.zeros((len(bounds), len(values)))
    for place, (start, stop) in enumerate(bounds):
        for row, own in enumerate(values.reshape(-1, 3, 2)):
            for layer in range(start, stop):
                expected[place, row] += sum(nodes[layer][u, own[layer, u]] for u in (0, 1))
            for group, table in zip(groups, tables, strict=True):
                a, b = group.layers
                if start <= min(a, b) and max(a, b) < stop:
                    for edge, (u, w) in enumerate(zip(group.children, group.parents, strict=True)):
                        expected[place, row] += table[edge, own[a, u], own[b, w]]
    found = forest.log_likelihoods(states_of_units(values), bounds)
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_information_of_units_is_that_of_their_values(rng):
    """Rows of the matrix against tables of values that a loop counts."""
    values = dependent_values(rng, 150)
    states = states_of_units(values)
    rows, least = information_rows(columns_of(states), states.layers, None)
    k = np.array([2, 2, 3, 3, 3, 3])
    for a, b in itertools.permutations(range(6), 2):
        table = np.zeros((k[a], k[b]))
        for row in values:
            table[row[a], row[b]] += 1
        independent = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        seen = table > 0
        expected = np.sum(table[seen] * np.log(table[seen] / independent[seen]))
        expected -= chance_information(6, (k[a] - 1) * (k[b] - 1))
        assert_allclose(rows(a)[b], expected, rtol=1e-9)
    assert least == 0


@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 4), (9, 9)])
def test_independent_units_rarely_exceed_chance(a, b):
    """Of the 66 pairs of 12 units, about one."""
    rng, n, exceeded = np.random.default_rng(0), 1000, 0
    for _ in range(66 * 20):
        table = np.zeros((a, b))
        np.add.at(table, (rng.integers(0, a, n), rng.integers(0, b, n)), 1)
        independent = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
        seen = table > 0
        information = np.sum(table[seen] * np.log(table[seen] / independent[seen]))
        exceeded += information > chance_information(12, (a - 1) * (b - 1))
    assert exceeded <= 2 * 20


def test_chance_information_of_gates_is_the_logarithm_of_their_pairs():
    assert_allclose(chance_information(12), np.log(66), rtol=1e-12)


@every_forest
def test_a_uniform_window_has_the_logarithm_of_its_size(rng, density):
    result = gating_entropy(unit_states(rng, 2000, 1, 9, True), density=density, random_state=0)
    assert_allclose(result.entropy, np.log2(9), atol=0.01)


def test_windows_that_copy_each_other_are_joined(rng):
    values = rng.integers(0, 9, (600, 3))
    copies = np.hstack([values, values])
    layers = [
        GateLayer("a", 27, unit_size=9, one_hot=True),
        GateLayer("b", 27, unit_size=9, one_hot=True),
    ]
    result = gating_entropy(states_of_units(copies, layers), density="chow-liu", random_state=0)
    assert_allclose(result.entropy, 3 * np.log2(9), rtol=0.01)
    assert_allclose(result.prefix_entropy[0], 3 * np.log2(9), rtol=0.01)
    assert edges_of(result.density._models[-1]) == {(0, 3), (1, 4), (2, 5)}
    apart = gating_entropy(states_of_units(copies, layers), density="product", random_state=0)
    assert_allclose(apart.entropy, 6 * np.log2(9), rtol=0.01)


@every_forest
@pytest.mark.parametrize("open_share", [0.0, 0.5, 1.0])
def test_constant_gates_cost_next_to_nothing(density, open_share):
    rng = np.random.default_rng(0)
    constants = 20_000 if density == "product" else 3000
    gates = np.broadcast_to(rng.random(constants) < open_share, (200, constants))
    gates = np.hstack([gates, rng.random((200, 10)) < 0.5])[:, rng.permutation(constants + 10)]
    result = gating_entropy(gates, density=density, random_state=0)
    assert_allclose(result.entropy, 10, atol=0.5)


# Layers -------------------------------------------------------------------------------------------


@every_density
@pytest.mark.parametrize("cv", [None, 3])
def test_prefixes_and_suffixes(rng, density, cv):
    gates, _, _ = tree_gates(rng, 400, 24)
    layers = {str(i): gates[:, s] for i, s in enumerate(np.split(np.arange(24), [5, 11, 18]))}
    result = gating_entropy(layers, density=density, cv=cv, random_state=0)
    assert result.prefix_entropy[-1] == result.suffix_entropy[0] == result.entropy
    assert result.prefix_entropy[0] == result.layer_entropy[0]
    assert result.suffix_entropy[-1] == result.layer_entropy[-1]
    assert (np.diff(result.prefix_entropy) > 0).all()
    assert (np.diff(result.suffix_entropy) < 0).all()
    for ranges in (result.prefix_entropy, result.suffix_entropy[::-1]):
        own = result.layer_entropy if ranges is result.prefix_entropy else (
            result.layer_entropy[::-1]
        )  # fmt: skip
        assert (ranges <= np.cumsum(own) + 0.5).all()
    if density == "product":
        assert_allclose(result.prefix_entropy, np.cumsum(result.layer_entropy), rtol=1e-10)
        backwards = np.cumsum(result.layer_entropy[::-1])[::-1]
        assert_allclose(result.suffix_entropy, backwards, rtol=1e-10)
    elif cv is None:
        assert (result.prefix_entropy <= np.cumsum(result.layer_entropy) + 1e-9).all()


@every_density
def test_a_prefix_is_that_of_its_layers_alone(rng, density):
    """Up to the tree, which is the best of all layers, and the ridge."""
    gates, _, _ = tree_gates(rng, 1500, 24, flips=(0.05, 0.1))
    layers = {"a": gates[:, :8], "b": gates[:, 8:16], "c": gates[:, 16:]}
    result = gating_entropy(layers, density=density, random_state=0)
    two = gating_entropy({k: layers[k] for k in "ab"}, density=density, random_state=0)
    assert_allclose(result.prefix_entropy[1], two.entropy, rtol=0.05)
    two = gating_entropy({k: layers[k] for k in "cb"}, density=density, random_state=0)
    # a forest that lost what joined its gates is a looser bound
    assert two.entropy - 0.1 <= result.suffix_entropy[1] <= 1.15 * two.entropy


def test_an_edge_between_layers_counts_in_spans_with_both(rng):
    a, c = rng.random((500, 2)) < 0.5, rng.random((500, 2)) < 0.5
    layers = {"a": a, "b": rng.random((500, 3)) < 0.5, "c": np.hstack([a[:, :1], c[:, 1:]])}
    result = gating_entropy(layers, density="chow-liu", random_state=0)
    assert_allclose(result.prefix_entropy, [2, 5, 6], atol=0.05)
    assert_allclose(result.suffix_entropy, [6, 5, 2], atol=0.05)
    auto = gating_entropy(layers, density="autoregressive", random_state=0)
    assert_allclose(auto.prefix_entropy, [2, 5, 6], atol=0.15)
    assert_allclose(auto.suffix_entropy, [6, 5, 2], atol=0.15)


@every_density
def test_twenty_layers(rng, density):
    layers = {str(i): rng.random((60, 3)) < 0.5 for i in range(20)}
    result = gating_entropy(layers, density=density, cv=2, random_state=0)
    assert result.prefix_entropy.shape == result.suffix_entropy.shape == (20,)
    assert np.isfinite(numbers_of(result)).all()
    mi = gating_mi(layers, rng.integers(0, 2, 60), density=density, cv=2, random_state=0)
    assert mi.suffix_mi_xy.shape == (20,)
    assert result.suffix_saturated.shape == (20,)


@every_density
def test_one_layer_is_the_whole(rng, density):
    gates = rng.random((50, 6)) < 0.4
    result = gating_entropy(gates, density=density, random_state=0)
    for name in ("layer_entropy", "prefix_entropy", "suffix_entropy"):
        assert_array_equal(result[name], [result.entropy])


# Cross-fitting ------------------------------------------------------------------------------------


@every_density
def test_in_sample_is_lower_than_cross_fitted(rng, density):
    gates, y = rng.random((100, 40)) < 0.4, rng.integers(0, 2, 100)
    gates[:, 20:] ^= gates[:, :20] & (rng.random((100, 20)) < 0.5)
    inside = gating_entropy(gates, density=density, cv=None)
    outside = gating_entropy(gates, density=density, random_state=0)
    assert inside.entropy < outside.entropy
    inside = gating_mi(gates, y, density=density, cv=None, random_state=0)
    outside = gating_mi(gates, y, density=density, random_state=0)
    assert inside.mi_x < outside.mi_x


@every_density
def test_the_density_is_that_of_all_samples_whatever_cv(rng, density):
    gates = rng.random((80, 10)) < 0.4
    folds = [
        GatingEntropy(density=density, cv=cv, random_state=0).fit(gates) for cv in (None, 2, 5)
    ]
    for fitted in folds[1:]:
        assert_array_equal(fitted.score_samples(gates), folds[0].score_samples(gates))
    assert len({fitted.entropy_ for fitted in folds}) == 3
    assert_allclose(folds[0].entropy_, -folds[0].score(gates), rtol=1e-12)


@every_density
def test_same_seed_same_bits(rng, density):
    gates, y = rng.random((80, 30)) < 0.4, rng.integers(0, 2, 80)
    one, two, other = (
        gating_mi(gates, y, density=density, random_state=seed) for seed in (3, 3, 4)
    )
    assert_array_equal(numbers_of(one), numbers_of(two))
    assert one.mi_x != other.mi_x
    one, two = (total_correlation(gates, y, density=density, random_state=3) for _ in range(2))
    assert_array_equal(numbers_of(one), numbers_of(two))


@every_density
def test_threads_give_the_same_bits(rng, density):
    gates, y = rng.random((200, 300)) < 0.4, rng.integers(0, 2, 200)
    one, two = (
        gating_mi(gates, y, density=density, cv=2, n_jobs=jobs, random_state=0) for jobs in (1, 2)
    )
    assert_array_equal(numbers_of(one), numbers_of(two))


@every_forest
def test_order_of_samples_and_gates_does_not_matter_in_sample(rng, density):
    gates, _, _ = tree_gates(rng, 150, 20)
    value = gating_entropy(gates, density=density, cv=None).entropy
    shuffled = gates[rng.permutation(150)][:, rng.permutation(20)]
    # edges may have the other direction, of which the smoothing depends on a little
    rtol = 1e-10 if density == "product" else 1e-3
    assert_allclose(gating_entropy(shuffled, density=density, cv=None).entropy, value, rtol=rtol)


@every_density
def test_order_of_samples_hardly_matters(rng, density):
    gates, _, _ = tree_gates(rng, 400, 20)
    one = gating_entropy(gates, density=density, random_state=0)
    for order in (rng.permutation(400), np.lexsort(gates.T), np.argsort(gates.sum(axis=1))):
        two = gating_entropy(gates[order], density=density, random_state=0)
        assert abs(one.entropy - two.entropy) < one.entropy_se


@every_density
def test_closed_for_open_changes_nothing(rng, density):
    gates, y = tree_gates(rng, 150, 20)[0], rng.integers(0, 2, 150)
    gates ^= (y[:, None] > 0) & (rng.random(20) < 0.2)
    some = rng.random(20) < 0.5
    one, two, other = (
        gating_mi(g, y, density=density, random_state=0) for g in (gates, ~gates, gates ^ some)
    )
    assert_allclose(two.mi_x, one.mi_x, rtol=1e-6)
    assert_allclose(two.mi_xy, one.mi_xy, atol=1e-6)
    # the rates of some gates have another distribution then
    assert_allclose(other.mi_x, one.mi_x, rtol=3e-3)


# Estimators ---------------------------------------------------------------------------------------


@every_density
@pytest.mark.parametrize("measure", [GatingEntropy, GatingMI, TotalCorrelation])
def test_estimators_equal_their_twins(rng, density, measure):
    twin = {
        GatingEntropy: lambda X, y, **k: gating_entropy(X, **k),
        GatingMI: gating_mi,
        TotalCorrelation: total_correlation,
    }[measure]
    X = GatingStates.from_arrays({"a": rng.random((60, 5)) < 0.4, "b": rng.random((60, 3)) < 0.4})
    y = rng.integers(0, 2, 60)
    options = {"density": density, "cv": 3, "random_state": 1}
    fitted, result = measure(**options).fit(X, y), twin(X, y, **options)
    for name, value in result.items():
        if name not in ("density", "layer_densities"):
            assert_array_equal(getattr(fitted, f"{name}_"), value)
    new = GatingStates.from_arrays({"a": rng.random((9, 5)) < 0.4, "b": rng.random((9, 3)) < 0.4})
    density_ = fitted.density_
    logs = np.exp(density_.log_likelihoods(new))  # (n_ranges, n)
    assert_allclose(2 ** -fitted.transform(new).T, logs[density_._ranges.layers], rtol=1e-9)
    assert_allclose(2 ** fitted.score_samples(new), logs[density_._ranges.joint], rtol=1e-9)
    if measure is not GatingMI:
        assert_allclose(fitted.score(new), fitted.score_samples(new).mean(), rtol=1e-12)
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.score_samples(new), fitted.score_samples(new))
    assert clone(fitted).density == density


def test_fitting_again_with_a_kernel_forgets_the_density(rng):
    gates = rng.random((60, 5)) < 0.4
    fitted = GatingEntropy(density="chow-liu").fit(gates)
    fitted.set_params(density=Kernel(alpha=0.5)).fit(gates)
    expected = GatingEntropy(density=Kernel(alpha=0.5)).fit(gates)
    assert_array_equal(fitted.score_samples(gates), expected.score_samples(gates))
    fitted.set_params(density="product").fit(gates)
    assert_array_equal(
        fitted.score_samples(gates),
        GatingEntropy(density="product").fit(gates).score_samples(gates),
    )


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_grid_search_finds_the_density(rng):
    grid = {"density": [*DENSITIES, *(Kernel(alpha=a) for a in (0.1, 0.3, 1.0))]}
    gates, _, _ = tree_gates(rng, 300, 40)
    options = {"cv": 3, "error_score": "raise"}
    search = GridSearchCV(GatingEntropy(random_state=0), grid, **options).fit(gates)
    assert search.best_params_ == {"density": "chow-liu"}
    independent = rng.random((300, 40)) < rng.uniform(0.2, 0.8, 40)
    search = GridSearchCV(GatingEntropy(random_state=0), grid, **options).fit(independent)
    scores = dict(zip(DENSITIES, search.cv_results_["mean_test_score"], strict=False))
    assert scores["product"] >= max(search.cv_results_["mean_test_score"]) - 0.05
    latent = rng.normal(size=(600, 3))
    factors = latent @ rng.normal(size=(3, 40)) + 0.5 * rng.normal(size=(600, 40)) > 0
    search = GridSearchCV(GatingEntropy(random_state=0), grid, **options).fit(factors)
    assert search.best_params_["density"] == "autoregressive"


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_grid_search_of_information(rng):
    y = rng.integers(0, 2, 400)
    gates = noisy_copies(rng, y, 40, 0.35)
    grid = {"density": [*DENSITIES, Kernel(alpha=0.01)]}
    search = GridSearchCV(GatingMI(random_state=0), grid, cv=3, error_score="raise").fit(gates, y)
    assert search.best_params_["density"] in DENSITIES
    assert search.best_score_ > 0.5


def test_fitted_densities_do_not_saturate(rng):
    gates, y = rng.random((50, 600)) < 0.5, rng.integers(0, 2, 50)
    for density in FORESTS:  # a warning is an error here
        assert not GatingEntropy(density=density, random_state=0).fit(gates).layer_saturated_.any()
        assert gating_mi(gates, y, density=density, random_state=0).mi_xy < 0.2  # not 1


@pytest.mark.parametrize("wrong", [{"density": "tree"}, {"density": None}, {"cv": 1}, {"cv": 0},
                                   {"cv": 2.5}, {"cv": "5"}])  # fmt: skip
def test_parameters_are_validated(wrong, rng):
    gates, y, name = rng.random((20, 3)) < 0.5, rng.integers(0, 2, 20), next(iter(wrong))
    for call in (
        lambda: gating_entropy(gates, **wrong),
        lambda: gating_mi(gates, y, **wrong),
        lambda: total_correlation(gates, **wrong),
        lambda: GatingEntropy(**wrong).fit(gates),
        lambda: GatingMI(**wrong).fit(gates, y),
        lambda: TotalCorrelation(**wrong).fit(gates),
    ):
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            call()


# Edges --------------------------------------------------------------------------------------------


@every_density
def test_fewer_samples_than_folds_are_told(rng, density):
    gates, y = rng.random((4, 3)) < 0.5, [0, 1, 0, 1]
    for call in (
        lambda: gating_entropy(gates, density=density),
        lambda: gating_mi(gates, y, density=density),
        lambda: total_correlation(gates, density=density),
        lambda: GatingEntropy(density=density).fit(gates),
    ):
        with pytest.raises(ValueError, match=r"cv=5 folds.*n_samples=4.*cv=None"):
            call()
    for cv in (2, 4, None):
        assert np.isfinite(gating_mi(gates, y, density=density, cv=cv).mi_x)


@every_density
def test_one_sample(density):
    result = gating_entropy([[1, 0, 1]], density=density, cv=None)
    assert np.isfinite(result.entropy)
    assert np.isnan(result.entropy_se)
    mi = gating_mi([[1, 0, 1]], ["a"], density=density, cv=None)
    assert_allclose(mi.mi_xy, 0, atol=1e-12)
    assert np.isnan(mi.mi_xy_se)
    with pytest.raises(ValueError, match="n_samples=1"):
        gating_entropy([[1, 0, 1]], density=density)


@every_density
@pytest.mark.parametrize("n", [5, 6, 9, 10, 11, 13])
def test_few_samples(rng, density, n):
    result = gating_mi(rng.random((n, 4)) < 0.5, np.arange(n) % 3, density=density, random_state=0)
    assert np.isfinite(numbers_of(result)).all()


@every_density
def test_more_gates_than_samples(rng, density):
    gates, y = rng.random((20, 300)) < 0.4, np.arange(20) % 2
    result = gating_mi(gates, y, density=density, random_state=0)
    assert np.isfinite(numbers_of(result)).all()
    assert result.mi_x < 1.2 * 300
    assert result.mi_xy > -0.5


@every_density
def test_constant_gates(density):
    gates = np.tile([True, False, True], (50, 1))
    result = gating_mi(gates, np.arange(50) % 2, density=density, random_state=0)
    assert 0 <= result.mi_x < 0.1
    assert_allclose(result.mi_xy, 0, atol=1e-9)
    fitted = GatingEntropy(density=density, random_state=0).fit(gates)
    assert fitted.score(gates) > fitted.score(~gates) > -np.inf
    tc = total_correlation(gates, density=density, random_state=0)
    assert_allclose(tc.total_correlation, 0, atol=0.03)


@every_density
def test_one_gate(rng, density):
    gates = rng.random((400, 1)) < 0.3
    result = gating_entropy(gates, density=density, random_state=0)
    assert_allclose(result.entropy, reference.product_entropy(gates), rtol=0.02)
    tc = total_correlation(gates, density=density, random_state=0)
    assert_allclose(tc.total_correlation, 0, atol=0.01)
    assert abs(tc.total_correlation) < 1e-9 or density == "autoregressive"


def test_duplicate_gates_are_one(rng):
    gates = rng.random((500, 6)) < 0.5
    twice = np.hstack([gates, gates])
    for density, rtol in (("chow-liu", 0.02), ("autoregressive", 0.1)):
        result = gating_entropy(twice, density=density, random_state=0)
        assert_allclose(result.entropy, 6, rtol=rtol)
    result = gating_entropy(twice, density="product", random_state=0)
    assert_allclose(result.entropy, 12, rtol=0.02)
    tree = gating_entropy(twice, density="chow-liu").density._models[0]
    assert {(i, i + 6) for i in range(6)} <= edges_of(tree)


@every_density
def test_a_class_of_one_and_classes_absent_from_folds(rng, density):
    y = np.zeros(60, int)
    y[[3, 17, 30]] = [1, 2, 3]
    gates = rng.random((60, 7)) < 0.4
    result = gating_mi(gates, y, density=density, random_state=0)
    assert np.isfinite(numbers_of(result)).all()
    # samples sorted by class, each of which some fold lacks
    y = np.repeat(np.arange(20), 3)
    result = gating_mi(gates, y, density=density, cv=2, random_state=0)
    assert np.isfinite(numbers_of(result)).all()
    alone = gating_mi(gates, np.arange(60), density=density, random_state=0)
    assert np.isfinite(numbers_of(alone)).all()
    assert abs(alone.mi_xy) < 1
    tc = total_correlation(gates, y, density=density, random_state=0)
    assert np.isfinite(numbers_of(tc)).all()


@every_density
def test_one_class_tells_nothing(rng, density):
    gates = rng.random((60, 7)) < 0.4
    result = gating_mi(gates, np.ones(60), density=density, random_state=0)
    assert_allclose([result.mi_xy, result.mi_xy_se, result.shuffled_mi_xy], 0, atol=1e-12)


@every_density
def test_cross_fitted_entropies_do_not_fall_short_of_the_truth(density):
    """Over replications, the held-out log loss of a density is above the entropy."""
    rng, values = np.random.default_rng(5), []
    for seed in range(30):
        gates = rng.random((100, 10)) < 0.3
        values.append(gating_entropy(gates, density=density, random_state=seed).entropy)
    truth = 10 * reference.binary_entropy(0.3)
    assert np.mean(values) > truth - 0.02
    assert np.mean(values) < truth + 0.6


@every_forest
def test_errors_are_the_spread_over_repetitions(rng, density):
    found, flips = [], rng.uniform(0.25, 0.4, 6)
    for seed in range(60):
        gates = noisy_copies(rng, rng.integers(0, 2, 300), 6, flips)
        result = gating_entropy(gates, density=density, random_state=seed)
        found.append((result.entropy, result.entropy_se))
    values, errors = np.transpose(found)
    assert 0.75 < values.std() / errors.mean() < 1.35


@pytest.mark.parametrize("density", ["product", "chow-liu", "autoregressive"])
def test_classes_that_share_a_density_are_not_told_apart_at_all(density):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    copies = (y[:, None] == 1) ^ (rng.random((2000, 100)) < 0.1)
    shuffled = np.random.default_rng(5).permutation(y)
    result = gating_mi(copies[:, :20], shuffled, density=density, random_state=0)
    assert result.mi_xy == 0 or abs(result.mi_xy) > 1e-9  # never a rounding error with an error
