"""The pairwise engine against all pairs at once."""

import threading

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context

from skgate import GatingStates
from skgate.pairwise import kernel_masses, resolve_device
from skgate.pairwise._tiles import tile_rows

WEIGHTS = np.array(
    [[0.3, 0, 0], [0, 0.05, 0], [0, 0, 0.03], [0.1, 0.1, 0], [0.02, 0.02, 0.02], [0, 0, 0]]
)


def random_states(rng, n, widths=(5, 70, 130)):
    return GatingStates.from_arrays({f"l{d}": rng.random((n, d)) < 0.4 for d in widths})


def expected_masses(queries, states, weights, query_labelings, labelings):
    exponents = 0
    for layer, name in enumerate(states.layer_names):
        a, b = (np.asarray(s.select(name)).astype(float) for s in (queries, states))
        distances = np.abs(a[:, None] - b[None]).sum(axis=2)
        exponents = exponents + weights[:, layer, None, None] * distances
    groups = [np.ones(exponents.shape[1:], bool)]
    groups += [q[:, None] == c for q, c in zip(query_labelings, labelings, strict=True)]
    with np.errstate(divide="ignore"):
        return np.stack(
            [np.log(np.where(group, np.exp(-exponents), 0).sum(axis=2)) for group in groups],
            axis=1,
        )


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 300, 1100])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_symmetric_masses_are_those_of_all_pairs(rng, device, n, n_jobs):
    resolve_device(device)
    states = random_states(rng, n)
    y, z = rng.integers(0, 4, n), rng.integers(0, 2, n)
    masses = kernel_masses(states, WEIGHTS, labelings=[y, z], n_jobs=n_jobs)
    expected = expected_masses(states, states, WEIGHTS, [y, z], [y, z])
    np.testing.assert_allclose(masses, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_queries", [1, 64, 200])
def test_cross_masses_are_those_of_all_pairs(rng, device, n_queries):
    resolve_device(device)
    states, queries = random_states(rng, 150), random_states(rng, n_queries)
    y, z = rng.integers(0, 3, 150), rng.integers(0, 4, n_queries)  # label 3 has no columns
    masses = kernel_masses(
        states, WEIGHTS, labelings=[y], queries=queries, query_labelings=[z], n_jobs=2
    )
    expected = expected_masses(queries, states, WEIGHTS, [z], [y])
    np.testing.assert_allclose(masses, expected, rtol=1e-12, atol=1e-12)
    if n_queries == 200:
        assert np.isneginf(masses[:, 1, z == 3]).all()


def test_cross_masses_do_not_underflow(rng):
    states, queries = random_states(rng, 50), random_states(rng, 20)
    weights = np.array([[1e4, 1e4, 1e4]])
    masses = kernel_masses(states, weights, queries=queries)
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
    expected = kernel_masses(states, WEIGHTS, labelings=[y], n_jobs=1)
    for n_jobs in (2, 4):
        masses = kernel_masses(states, WEIGHTS, labelings=[y], n_jobs=n_jobs)
        np.testing.assert_array_equal(masses, expected)
    with config_context(working_memory=1):
        masses = kernel_masses(states, WEIGHTS, labelings=[y], n_jobs=2)
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


def test_cuda_says_what_is_missing():
    with pytest.raises(RuntimeError, match="no CUDA engine"):
        resolve_device("cuda")
