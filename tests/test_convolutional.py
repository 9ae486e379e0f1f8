"""The convolutional density: causal, normalised, and what a loop over gates has."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from skgate import GateLayer, GatingEntropy, GatingStates, gating_entropy, gating_mi
from skgate.densities import Convolutional, Product


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


def test_gates_of_pooling_windows_and_tokens():
    rng = np.random.default_rng(0)
    winners = rng.integers(0, 4, (300, 6))  # 2 channels at 3 places
    gates = (winners[..., None] == np.arange(4)).reshape(300, -1)
    layer = GateLayer("pool", 24, "max_pool1d", 4, one_hot=True, spatial=True, shape=(2, 3))
    states = GatingStates([np.packbits(gates, axis=1)], [layer])
    found = gating_entropy(states, density=Convolutional(), random_state=0)
    assert 11.5 < found.entropy < 14  # 6 windows of 2 bits


def test_classes_have_rates_of_their_own():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    rates = rng.random((2, 2, 4, 4))
    gates = rng.random((400, 2, 4, 4)) < rates[y]
    density = Convolutional(window=3)
    found = gating_mi(GatingStates.from_arrays(gates), y, density=density, random_state=0)
    odds = np.log(rates[:, None] / (1 - rates[:, None]))
    logs = (gates * odds + np.log(1 - rates[:, None])).sum(axis=(2, 3, 4))  # (2, n)
    truth = np.mean(logs[y, np.arange(400)] - logsumexp(logs, axis=0) + np.log(2)) / np.log(2)
    assert 0.8 * truth < found.mi_xy < truth + 3 * found.mi_xy_se
    assert abs(found.shuffled_mi_xy) < 0.05
