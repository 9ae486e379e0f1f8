"""The pairwise engine against all pairs at once."""

import threading

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context

from skgate import GatingStates
from skgate.pairwise import Engine, kernel_masses
from skgate.pairwise._tiles import tile_rows

WEIGHTS = np.array(
    [[0.3, 0, 0], [0, 0.05, 0], [0, 0, 0.03], [0.1, 0.1, 0], [0.02, 0.02, 0.02], [0, 0, 0]]
)


def random_states(rng, n, widths=(5, 70, 130)):
    return GatingStates.from_arrays({f"l{d}": rng.random((n, d)) < 0.4 for d in widths})


def expected_masses(queries, states, weights, query_label_sets, label_sets):
    exponents = 0
    for layer, name in enumerate(states.layer_names):
        a, b = (np.asarray(s.select(name)).astype(float) for s in (queries, states))
        distances = np.abs(a[:, None] - b[None]).sum(axis=2)
        exponents = exponents + weights[:, layer, None, None] * distances
    groups = [np.ones(exponents.shape[1:], bool)]
    groups += [q[:, None] == c for q, c in zip(query_label_sets, label_sets, strict=True)]
    with np.errstate(divide="ignore"):
        return np.stack(
            [np.log(np.where(group, np.exp(-exponents), 0).sum(axis=2)) for group in groups],
            axis=1,
        )


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 300, 1100])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_symmetric_masses_are_those_of_all_pairs(rng, device, n, n_jobs):
    states = random_states(rng, n)
    y, z = rng.integers(0, 4, n), rng.integers(0, 2, n)
    masses = kernel_masses(states, WEIGHTS, label_sets=[y, z], engine=Engine(device, n_jobs))
    expected = expected_masses(states, states, WEIGHTS, [y, z], [y, z])
    np.testing.assert_allclose(masses, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_classes", [1, 3, 40])
def test_many_label_sets_are_those_of_all_pairs(rng, device, n_classes):
    states, label_sets = random_states(rng, 600), rng.integers(0, n_classes, (12, 600))
    masses = kernel_masses(states, WEIGHTS, label_sets=label_sets, engine=Engine(device, 2))
    expected = expected_masses(states, states, WEIGHTS, label_sets, label_sets)
    np.testing.assert_allclose(masses, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_queries", [1, 64, 200])
def test_cross_masses_are_those_of_all_pairs(rng, device, n_queries):
    states, queries = random_states(rng, 150), random_states(rng, n_queries)
    y, z = rng.integers(0, 3, 150), rng.integers(0, 4, n_queries)  # label 3 has no columns
    masses = kernel_masses(
        states,
        WEIGHTS,
        label_sets=[y],
        queries=queries,
        query_label_sets=[z],
        engine=Engine(device, n_jobs=2),
    )
    expected = expected_masses(queries, states, WEIGHTS, [z], [y])
    np.testing.assert_allclose(masses, expected, rtol=1e-12, atol=1e-12)
    if n_queries == 200:
        assert np.isneginf(masses[:, 1, z == 3]).all()


def test_cross_masses_do_not_underflow(rng, device):
    states, queries = random_states(rng, 50), random_states(rng, 20)
    weights = np.array([[1e4, 1e4, 1e4]])
    masses = kernel_masses(states, weights, queries=queries, engine=Engine(device))
    distances = (np.asarray(queries)[:, None] != np.asarray(states)).sum(axis=2)
    # the nearest column alone counts, however far it is
    nearest = distances.min(axis=1)
    counts = (distances == nearest[:, None]).sum(axis=1)
    np.testing.assert_allclose(masses[0, 0], np.log(counts) - 1e4 * nearest, rtol=1e-14)


def test_what_is_left_out_of_a_sum_rounds_off(rng):
    # two groups of equal rows, far apart: tiles between them add nothing
    gates = np.repeat(rng.random((2, 4000)) < 0.5, 200, axis=0)
    masses = kernel_masses(GatingStates.from_arrays(gates), np.array([[10.0]]))
    np.testing.assert_array_equal(masses[0, 0], np.log(200.0))


def test_small_kernel_values_between_far_tiles_still_count():
    # 2100 equal rows and 100 that differ from them in ten gates: tiles with no near pair
    gates = np.zeros((2200, 64), bool)
    gates[2100:, :10] = True
    masses = kernel_masses(GatingStates.from_arrays(gates), np.array([[1.0]]))[0, 0]
    np.testing.assert_allclose(masses[:2100], np.log(2100 + 100 * np.exp(-10)), rtol=1e-14)
    np.testing.assert_allclose(masses[2100:], np.log(100 + 2100 * np.exp(-10)), rtol=1e-14)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 90), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_masses_follow_a_permutation_of_the_rows(n, d, seed):
    rng = np.random.default_rng(seed)
    states = GatingStates.from_arrays(rng.random((n, d)) < rng.random(d))
    order = rng.permutation(n)
    weights = np.array([[rng.random()]])
    masses = kernel_masses(states, weights)
    np.testing.assert_allclose(
        kernel_masses(states[order], weights), masses[..., order], rtol=0, atol=1e-12
    )
    assert (masses >= 0).all()
    assert (masses <= np.log(n) + 1e-12).all()


def test_threads_and_memory_settings_give_the_same_bits(rng):
    states = random_states(rng, 1500)
    y = rng.integers(0, 3, 1500)
    expected = kernel_masses(states, WEIGHTS, label_sets=[y], engine=Engine(n_jobs=1))
    for n_jobs in (2, 4):
        masses = kernel_masses(states, WEIGHTS, label_sets=[y], engine=Engine(n_jobs=n_jobs))
        np.testing.assert_array_equal(masses, expected)
    with config_context(working_memory=1):
        masses = kernel_masses(states, WEIGHTS, label_sets=[y], engine=Engine(n_jobs=2))
        np.testing.assert_allclose(masses, expected, rtol=1e-13)


def test_tiles_fit_into_the_working_memory():
    whole = tile_rows(64, 1, 1)
    with config_context(working_memory=0.1):
        assert tile_rows(64, 1, 1) < whole
        assert 8 * 64 * 4 * tile_rows(64, 1, 1) <= 0.1 * 2**20 * 1.3
    assert tile_rows(64, 20, 60) < whole


def test_parallel_config_governs_the_threads(rng, monkeypatch):
    seen = set()
    states = random_states(rng, 1500)
    from skgate.pairwise import _cpu

    original = _cpu._symmetric_task

    def spy(*args):
        seen.add(threading.get_ident())
        return original(*args)

    monkeypatch.setattr(_cpu, "_symmetric_task", spy)
    kernel_masses(states, WEIGHTS)
    assert seen == {threading.get_ident()}
    seen.clear()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        kernel_masses(states, WEIGHTS)
    assert threading.get_ident() not in seen


def test_processes_give_the_same_bits(rng):
    states = random_states(rng, 300)
    expected = kernel_masses(states, WEIGHTS)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        np.testing.assert_array_equal(kernel_masses(states, WEIGHTS), expected)


def test_nothing_of_size_n_squared_is_allocated(rng):
    import tracemalloc

    n = 4000
    states = GatingStates.from_arrays(rng.random((n, 64)) < 0.5)
    tracemalloc.start()
    kernel_masses(states, np.array([[0.1]]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n * n / 2  # bytes: an eighth of the distances alone


# Real numbers --------------------------------------------------------------------------------

FLOAT_WEIGHTS = np.array([[0.3, 0, 0], [0, 0.02, 0], [0, 0, 0.4], [0.1, 0.01, 0.2], [0, 0, 0]])


def random_layers(rng, n, widths=(1, 40, 16)):
    return [rng.normal(size=(n, d)) * rng.uniform(0.1, 3, d) for d in widths]


def float_masses(queries, layers, weights, query_label_sets, label_sets):
    """Log masses from differences of all pairs, in extended precision where there is one."""
    exponents = 0
    for index, (a, b) in enumerate(zip(queries, layers, strict=True)):
        a, b = np.asarray(a, np.longdouble), np.asarray(b, np.longdouble)
        distances = np.stack([((row - b) ** 2).sum(axis=1) for row in a])
        exponents = exponents + weights[:, index, None, None] * distances
    groups = [np.ones(exponents.shape[1:], bool)]
    groups += [q[:, None] == c for q, c in zip(query_label_sets, label_sets, strict=True)]
    masses = []
    for group in groups:
        own = np.where(group, exponents, np.inf)
        least = own.min(axis=2, keepdims=True)
        shift = np.where(np.isfinite(least), least, 0)
        with np.errstate(divide="ignore"):
            masses.append(np.log(np.exp(shift - own).sum(axis=2)) - shift[..., 0])
    return np.stack(masses, axis=1).astype(np.float64)


@pytest.mark.parametrize("n", [1, 2, 63, 255, 256, 257, 600])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_masses_of_real_numbers_are_those_of_all_pairs(rng, device, n, n_jobs):
    layers = random_layers(rng, n)
    y, z = rng.integers(0, 4, n), rng.integers(0, 2, n)
    masses = kernel_masses(layers, FLOAT_WEIGHTS, label_sets=[y, z], engine=Engine(device, n_jobs))
    expected = float_masses(layers, layers, FLOAT_WEIGHTS, [y, z], [y, z])
    np.testing.assert_allclose(masses, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_queries", [1, 64, 300])
def test_queries_of_real_numbers_are_those_of_all_pairs(rng, device, n_queries):
    layers, queries = random_layers(rng, 270), random_layers(rng, n_queries)
    y, z = rng.integers(0, 3, 270), rng.integers(0, 4, n_queries)  # label 3 has no columns
    masses = kernel_masses(
        layers,
        FLOAT_WEIGHTS,
        label_sets=[y],
        queries=queries,
        query_label_sets=[z],
        engine=Engine(device),
    )
    expected = float_masses(queries, layers, FLOAT_WEIGHTS, [z], [y])
    np.testing.assert_allclose(masses, expected, rtol=1e-12, atol=1e-11)
    assert np.isneginf(masses[:, 1, z == 3]).all()


@pytest.mark.parametrize("d", [1, 2, 15, 16, 17, 18, 64, 300])
@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
def test_any_number_of_units_any_distance_from_the_origin(rng, device, d, shift):
    X = rng.normal(size=(90, d)) + shift
    weights = np.array([[1 / d]])
    masses = kernel_masses([X], weights, engine=Engine(device))
    np.testing.assert_allclose(
        masses, float_masses([X], [X], weights, [], []), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("d", [3, 16, 17, 100])
@pytest.mark.parametrize("norm", [1.0, 1e3, 1e5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tight_clusters_far_apart(rng, d, norm, dtype):
    centres = rng.normal(size=(4, d)) * norm / np.sqrt(d)
    X = np.repeat(centres, 30, axis=0) + 1e-2 * rng.normal(size=(120, d)) / np.sqrt(d)
    X = X.astype(dtype)
    weights = np.array([[1 / (2 * 1e-4)]])  # a noise as small as a cluster
    queries = X[::7] + np.asarray(1e-3, dtype)
    symmetric = kernel_masses([X], weights)
    np.testing.assert_allclose(
        symmetric, float_masses([X], [X], weights, [], []), rtol=1e-9, atol=1e-9
    )
    cross = kernel_masses([X], weights, queries=[queries])
    expected = float_masses([queries], [X], weights, [], [])
    np.testing.assert_allclose(cross, expected, rtol=1e-9, atol=1e-8)


def test_a_few_samples_far_away_do_not_cost_digits(rng):
    # the first tile is near the mean; the last ones are two clusters far from it
    X = rng.normal(size=(600, 40)) * 0.1
    X[300:450] += 1e5
    X[450:] -= 1e5
    weights = np.array([[0.5]])
    np.testing.assert_allclose(
        kernel_masses([X], weights), float_masses([X], [X], weights, [], []), rtol=1e-8, atol=1e-8
    )


def test_no_rounding_makes_a_mass_exceed_the_number_of_rows(rng):
    X = np.repeat(30 * rng.normal(size=(2, 50)), 400, axis=0)
    masses = kernel_masses([X], np.array([[1.0]]))
    assert (masses <= np.log(400)).all()
    np.testing.assert_allclose(masses, np.log(400), rtol=0, atol=1e-9)


def test_queries_far_from_the_columns_keep_their_digits(rng):
    # the columns are near one another, so that products would do for them
    X = rng.normal(size=(80, 40))
    queries = X[:20] + 1e4
    y = rng.integers(0, 2, 80)
    weights = np.array([[0.5]])
    labels = {"label_sets": [y], "query_label_sets": [y[:20]]}
    masses = kernel_masses([X], weights, queries=[queries], **labels)
    expected = float_masses([queries], [X], weights, [y[:20]], [y])
    gains = np.diff(masses[0], axis=0), np.diff(expected[0], axis=0)
    np.testing.assert_allclose(*gains, rtol=1e-5, atol=1e-5)


def test_real_numbers_that_are_bits_have_the_masses_of_bits(rng):
    states = random_states(rng, 300)
    y = rng.integers(0, 3, 300)
    layers = [np.asarray(states.select(name), dtype=float) for name in states.layer_names]
    np.testing.assert_allclose(
        kernel_masses(layers, WEIGHTS, label_sets=[y]),
        kernel_masses(states, WEIGHTS, label_sets=[y]),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_real_numbers_of_less_precision_count_as_their_values(rng, dtype):
    layers = [array.astype(dtype) for array in random_layers(rng, 130)]
    exact = [array.astype(np.float64) for array in layers]
    np.testing.assert_allclose(
        kernel_masses(layers, FLOAT_WEIGHTS), kernel_masses(exact, FLOAT_WEIGHTS), rtol=1e-12
    )


def test_equal_rows_of_real_numbers_have_no_distance(rng):
    for d in (3, 50):
        X = np.repeat(rng.normal(size=(2, d)) * [[0], [1e8]], 300, axis=0)
        masses = kernel_masses([X], np.array([[1e3]]))
        np.testing.assert_allclose(masses, np.log(300), rtol=0, atol=1e-13)


def test_threads_and_processes_give_the_same_bits_of_real_numbers(rng):
    layers = random_layers(rng, 1500)
    y = rng.integers(0, 3, 1500)
    expected = kernel_masses(layers, FLOAT_WEIGHTS, label_sets=[y], engine=Engine(n_jobs=1))
    queries = [array[:400] for array in layers]
    cross = kernel_masses(layers, FLOAT_WEIGHTS, queries=queries, engine=Engine(n_jobs=1))
    for n_jobs in (2, 4):
        masses = kernel_masses(layers, FLOAT_WEIGHTS, label_sets=[y], engine=Engine(n_jobs=n_jobs))
        np.testing.assert_array_equal(masses, expected)
        masses = kernel_masses(layers, FLOAT_WEIGHTS, queries=queries, engine=Engine(n_jobs=n_jobs))
        np.testing.assert_array_equal(masses, cross)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        masses = kernel_masses(layers, FLOAT_WEIGHTS, label_sets=[y])
        np.testing.assert_array_equal(masses, expected)


@pytest.mark.parametrize("megabytes", [0.1, 1, 1.6])
def test_memory_settings_do_not_change_masses_of_real_numbers(rng, megabytes):
    X, y = rng.normal(size=(900, 20)), rng.integers(0, 3, 900)
    expected = kernel_masses([X], np.array([[0.1]]), label_sets=[y])
    with config_context(working_memory=megabytes):
        masses = kernel_masses([X], np.array([[0.1]]), label_sets=[y])
    np.testing.assert_allclose(masses, expected, rtol=1e-13)


@pytest.mark.parametrize("d", [8, 64])
def test_nothing_of_size_n_squared_is_allocated_for_real_numbers(rng, d):
    import tracemalloc

    n = 4000
    X = rng.normal(size=(n, d))
    tracemalloc.start()
    kernel_masses([X], np.array([[0.1]]))
    kernel_masses([X], np.array([[0.1]]), queries=[X])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n * n  # bytes: an eighth of the distances alone
