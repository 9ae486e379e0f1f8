"""The convolutional density: causal, normalised, and what a loop over gates has."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from skgate import GateLayer, GatingEntropy, GatingStates, gating_entropy
from skgate.densities import Convolutional, Product
from skgate.densities.convolution._causal_regression import Regression
from skgate.densities.convolution._grids import Grid
from skgate.densities.convolution._link_fits import LinkFitter, Settings
from skgate.densities.convolution._windows import places_before


def smooth_maps(n=200, shape=(3, 6, 7), seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([gaussian_filter(rng.normal(size=shape), (0.5, 1, 1)) for _ in range(n)]) > 0


def two_layers(n=200):
    maps = smooth_maps(n, (2, 6, 8))
    noise = np.random.default_rng(1).random((n, 3, 1, 4)) < 0.1  # the same in all rows
    halved = np.repeat(maps[:, :1, ::2, ::2], 3, axis=1) ^ noise
    return GatingStates.from_arrays({"a": maps, "b": halved})


def models_of(density, index):
    """Return the models of a layer, alone and given the one before."""
    return density._models[index].models


@pytest.mark.parametrize("shape", [(3, 2, 2), (2, 3, 2), (4, 3), (12,)], ids=str)
def test_probabilities_sum_to_one(shape):
    rng = np.random.default_rng(0)
    gates = rng.random((60, *shape)) < rng.random(shape)
    density = Convolutional(window=3).fit(GatingStates.from_arrays(gates))
    possible = np.array(list(itertools.product([0, 1], repeat=12)), bool).reshape(-1, *shape)
    logs = density.score_samples(GatingStates.from_arrays(possible))
    assert abs(logsumexp(logs)) < 1e-6


def test_probabilities_of_layers_given_those_before_sum_to_one():
    rng = np.random.default_rng(0)
    first = rng.random((80, 2, 2, 2)) < 0.5
    states = GatingStates.from_arrays(
        {"a": first, "b": first[:, :1] ^ (rng.random((80, 1, 2, 2)) < 0.1)}
    )
    density = Convolutional(window=3).fit(states)
    possible = np.array(list(itertools.product([0, 1], repeat=12)), bool)
    arrays = {"a": possible[:, :8].reshape(-1, 2, 2, 2), "b": possible[:, 8:].reshape(-1, 1, 2, 2)}
    assert abs(logsumexp(density.score_samples(GatingStates.from_arrays(arrays)))) < 1e-6


def test_logits_are_those_of_a_loop():
    states = two_layers()
    density = Convolutional(window=5).fit(states)
    model = models_of(density, 1)[1]
    new = two_layers(3)
    a, b = (np.asarray(new.select(i)).reshape(-1, *new.layers[i].shape) for i in range(2))
    assert model.window.radius > 0
    assert_logits_are_those_of_a_loop(model, b, a)


def assert_logits_are_those_of_a_loop(model, b, a, stride=2, first=0):
    w, r, (rates, before) = model.regression, model.window.radius, model.centres
    (_, height, width), (_, height_a, width_a) = b.shape[1:], a.shape[1:]
    got = model.logits(b.astype(np.uint8), a.astype(np.uint8)).numpy()
    for n, c, i, j in np.ndindex(b.shape):
        x = []
        for down, right in itertools.product((-1, 0, 1), repeat=2):
            y, z = first + stride * i + down, first + stride * j + right
            inside = 0 <= y < height_a and 0 <= z < width_a
            x += [a[n, k, y, z] - before[k, y, z] if inside else 0.0 for k in range(a.shape[1])]
        for ring in range(1, r + 1):
            for down, right in itertools.product(range(-ring, 1), range(-ring, ring + 1)):
                if max(-down, abs(right)) < ring or (down == 0 and right > 0):
                    continue
                y, z = i + down, j + right
                inside = 0 <= y < height and 0 <= z < width
                x += [b[n, k, y, z] - rates[k, y, z] if inside else 0.0 for k in range(b.shape[1])]
        x += [b[n, k, i, j] - rates[k, i, j] if k < c else 0.0 for k in range(b.shape[1])]
        offset = model.offsets[c, i, j]
        expected = w.intercepts[c] + w.slopes[c] * offset + w.weights[:, c] @ x
        assert abs(got[n, c, i, j] - expected) < 1e-4


def test_later_gates_move_no_earlier_logit():
    maps = smooth_maps()
    model = models_of(Convolutional().fit(GatingStates.from_arrays(maps)), 0)[0]
    changed = maps[:20].copy()
    changed[:, 1, 3, 4] ^= True
    before, after = (model.logits(g.astype(np.uint8)).numpy() for g in (maps[:20], changed))
    moved = np.abs(before - after).max(axis=0) > 1e-5
    assert moved.any()
    assert not moved[:, :3].any()
    assert not moved[:, 3, :4].any()
    assert not moved[:2, 3, 4].any()


def test_it_finds_what_neighbours_share():
    states = GatingStates.from_arrays(smooth_maps(400))
    entropies = [
        gating_entropy(states, density=d, random_state=0).entropy
        for d in ("product", Convolutional())
    ]
    assert entropies[1] < 0.7 * entropies[0]


def test_independent_gates_cost_no_more_than_the_product():
    rng = np.random.default_rng(0)
    gates = rng.random((150, 3, 5, 5)) < rng.random((3, 5, 5))
    states = GatingStates.from_arrays(gates)
    product, found = (
        gating_entropy(states, density=d, random_state=0).entropy
        for d in (Product(), Convolutional())
    )
    assert found < 1.01 * product


def test_a_layer_given_the_one_before():
    states = two_layers(400)
    measure = GatingEntropy(density=Convolutional(), random_state=0).fit(states)
    # its gates are those of the layer before, up to noise of 12 times H(0.1) = 0.469 bits, which
    # is the same in three rows: an exclusive or, of which a linear model sees a part
    added = measure.entropy_ - measure.layer_entropy_[0]
    assert 12 * 0.469 < added < 36 * 0.469
    assert added < 0.8 * measure.layer_entropy_[1]
    np.testing.assert_allclose(measure.prefix_entropy_[1], measure.entropy_)
    alone = GatingEntropy(density=Convolutional(given_previous=False), random_state=0).fit(states)
    np.testing.assert_allclose(alone.entropy_, alone.layer_entropy_.sum())


def of_units(values, n_gates, one_hot):
    """Return states of units with values (n, channels, height, width)."""
    at = values[..., None]
    gates = at == np.arange(n_gates) if one_hot else at > np.arange(n_gates)
    shape = values.shape[1:]
    layer = GateLayer(
        "units", gates[0].size, unit_size=n_gates, one_hot=one_hot, spatial=True, shape=shape
    )
    return GatingStates([np.packbits(gates.reshape(len(gates), -1), axis=1)], [layer])


@pytest.mark.parametrize(("n_values", "one_hot"), [(9, True), (3, False)])
def test_a_uniform_unit_costs_the_logarithm_of_its_values(n_values, one_hot):
    values = np.random.default_rng(0).integers(0, n_values, (400, 3, 4, 4))
    states = of_units(values, n_values if one_hot else n_values - 1, one_hot)
    found = gating_entropy(states, density=Convolutional(), random_state=0)
    np.testing.assert_allclose(found.entropy / 48, np.log2(n_values), rtol=0.015)


@pytest.mark.parametrize(("n_gates", "one_hot"), [(3, True), (2, False)])
def test_probabilities_of_units_sum_to_one(n_gates, one_hot):
    rng = np.random.default_rng(0)
    fields = np.stack([gaussian_filter(rng.normal(size=(2, 2, 2)), 0.7) for _ in range(100)])
    values = np.digitize(fields, [-0.3, 0.3])
    density = Convolutional(window=3).fit(of_units(values, n_gates, one_hot))
    assert models_of(density, 0)[0].regression is not None
    possible = np.array(list(itertools.product(range(3), repeat=8))).reshape(-1, 2, 2, 2)
    assert abs(logsumexp(density.score_samples(of_units(possible, n_gates, one_hot)))) < 1e-6


def test_gates_that_follow_from_earlier_ones_of_their_unit():
    hot = of_units(np.arange(3).reshape(3, 1, 1, 1), 3, one_hot=True)
    free = Grid(hot, 0).undetermined(np.asarray(hot).reshape(3, 3, 1, 1))[..., 0, 0]
    np.testing.assert_array_equal(free, [[1, 0, 0], [1, 1, 0], [1, 1, 0]])
    ordered = of_units(np.arange(3).reshape(3, 1, 1, 1), 2, one_hot=False)
    free = Grid(ordered, 0).undetermined(np.asarray(ordered).reshape(3, 2, 1, 1))[..., 0, 0]
    np.testing.assert_array_equal(free, [[1, 0], [1, 1], [1, 1]])


def test_constant_gates_cost_next_to_nothing():
    rng = np.random.default_rng(0)
    flat = np.zeros((200, 20_010), bool)
    flat[:, ::2001] = rng.random((200, 10)) < 0.5
    maps = flat[:, :20_000].reshape(200, 200, 10, 10)  # fair gates in ten channels
    for gates in (flat, maps):
        states = GatingStates.from_arrays(gates)
        found = gating_entropy(states, density=Convolutional(), random_state=0)
        assert abs(found.entropy - 10) < 0.5
    model = models_of(Convolutional().fit(states), 0)[0]
    assert len(model.channels[0]) == 10


def test_layers_of_any_sizes_are_aligned():
    # strides with padding, without it, of windows of three, of none; upsampling
    np.testing.assert_array_equal(places_before(7, 13), np.arange(0, 13, 2))
    np.testing.assert_array_equal(places_before(56, 112), np.arange(0, 112, 2))
    np.testing.assert_array_equal(places_before(13, 15), np.arange(1, 14))
    np.testing.assert_array_equal(places_before(5, 15), np.arange(1, 15, 3))
    np.testing.assert_array_equal(places_before(14, 14), np.arange(14))
    np.testing.assert_array_equal(places_before(6, 3), [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(places_before(5, 8), [0, 1, 3, 4, 6])


@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 13, 10), (2, 4, 9)], ids=str)
@pytest.mark.parametrize("rank", [None, 2])
def test_logits_of_a_convolution_are_those_of_the_places_drawn(shape, rank, monkeypatch):
    if rank:
        monkeypatch.setattr("skgate.densities.convolution._link_fits._MAX_FEATURES", 1)
        monkeypatch.setattr("skgate.densities.convolution._link_fits._RANK", rank)
    rng = np.random.default_rng(0)
    maps, below = smooth_maps(60, (3, 7, 5)), smooth_maps(60, shape, 1)
    below[:, 0] ^= rng.random(below[:, 0].shape) < 0.2
    states = GatingStates.from_arrays({"a": below, "b": maps})
    fitter = LinkFitter(states, np.arange(60) % 5, 5, 1, 0, 0)
    training = fitter.training_set([4])
    given = True
    settings = Settings(1, 1e-3)
    weights = training.weights(1, 1e-3, given)
    regression = Regression(weights, np.full(3, 0.5, np.float32), np.full(3, 0.7, np.float32))
    model = fitter._model(training, settings, regression, given)
    places, rows = fitter.places, np.arange(60)
    _, offsets, _ = training.targets(rows)
    expected = training._features(rows).numpy() @ weights + 0.7 * offsets.numpy() + 0.5
    # all rows and positions are drawn, part by part
    order = np.lexsort([np.arange(60), np.arange(60) % 5])
    z = model.logits(maps[order].astype(np.uint8), below[order].astype(np.uint8)).numpy()
    assert places.i.shape == (1, 35)
    drawn = z[:, :, places.i[0], places.j[0]].transpose(0, 2, 1).reshape(-1, 3)
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0), atol=1e-4)


def test_second_moments_of_a_training_set_are_those_of_its_centred_places():
    states = two_layers(100)
    fitter = LinkFitter(states, np.arange(100) % 5, 5, 2, 0, 0)
    training = fitter.training_set([1, 3])
    rows = fitter.places.rows_of(training.parts)
    centred = fitter.places.centred(rows, training.centres)
    expected = centred.T.astype(float) @ centred / len(centred)
    np.testing.assert_allclose(training._moments, expected, atol=1e-5)
    kept = np.isin(np.arange(100) % 5, [0, 2, 4])
    rates = np.asarray(states.select(1))[kept].reshape(-1, 3, 3, 4).mean(axis=0)
    assert np.abs(training.rates[0].all - rates).max() < 0.15


def test_a_fold_is_scored_by_what_its_rows_did_not_change():
    states = two_layers(100)
    rows = np.arange(100)
    folds = [(rows, rows[:0]), *((np.setdiff1d(rows, t), t) for t in np.array_split(rows, 5))]
    other = states[rows]
    other.packed[1][80:] ^= 255  # of the last fold, the gates of the second layer
    other.packed[1][:, -1] &= 0b11110000
    density = Convolutional(window=3)
    _, scored = density._cross_fit_link(states, folds, 0, None)
    _, changed = density._cross_fit_link(other, folds, 0, None)
    fitter = [LinkFitter(s, rows // 20, 5, 1, 0, 0) for s in (states, other)]
    models = [f.fit(np.array([4]), np.array([3])) for f in fitter]
    for one, two in zip(*models, strict=True):
        np.testing.assert_array_equal(one.offsets, two.offsets)
        assert (one.regression is None) == (two.regression is None)
        if one.regression:
            np.testing.assert_allclose(one.regression.weights, two.regression.weights, atol=1e-5)
    assert np.abs(scored[:, 80:] - changed[:, 80:]).max() > 1
    # these are fitted to the last fold
    assert np.abs(scored[:, :80] - changed[:, :80]).max() > 1e-3


def test_without_the_layer_before_terms_are_equal():
    states = two_layers(60)
    rows = np.arange(60)
    folds = [(rows, rows[:0]), *((np.setdiff1d(rows, t), t) for t in np.array_split(rows, 3))]
    density = Convolutional(window=3, given_previous=False)
    model, logs = density._cross_fit_link(states, folds, 0, None)
    assert logs.shape == (2, 60)
    np.testing.assert_array_equal(logs[0], logs[1])
    np.testing.assert_array_equal(*model.log_likelihoods(states, None))
