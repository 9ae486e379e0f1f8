"""Layers stored as the positions of their open gates: the same states, and the same values."""

import itertools
import math
import pickle
import tracemalloc

import numpy as np
import pytest
import reference
import scipy.sparse
import torch
from gpu import FakeGpu, FullError
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from skgate import (
    GateExtractor,
    GateLayer,
    GatingEntropy,
    GatingMI,
    GatingStates,
    TotalCorrelation,
    gating_entropy,
    gating_mi,
    permutation_test,
    total_correlation,
)
from skgate.capture._store import Store
from skgate.densities import ChowLiu, Kernel, Product
from skgate.densities._rates import beta_prior
from skgate.densities.forests._chow_liu import forest_edges
from skgate.densities.forests._columns import BitColumns, SparseColumns
from skgate.densities.forests._sparse_edges import _bounds, sparse_edges
from skgate.pairwise import Engine, _cupy, block_masses, kernel_masses
from skgate.pairwise._distances import HammingDistances
from skgate.states import is_sparse, to_packed, to_sparse

pytestmark = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")

WIDE = 8192  # the least gates of a layer that may be stored as positions
KERNEL = Kernel(alpha=0.3)


def in_form(states, *sparse):
    """The same states, with the form of each layer."""
    layers = [
        to_sparse(gates, layer.n_gates) if as_positions else to_packed(gates)
        for gates, layer, as_positions in zip(states.packed, states.layers, sparse, strict=True)
    ]
    return GatingStates(layers, states.layers, states.groups)


@pytest.fixture
def gates(rng):
    """Two layers: one with gates that are open often, some that always or never are, and pairs."""
    rates = np.concatenate([rng.random(20) ** 3, np.full(60, 0.02), [0, 1, 0, 1]])
    wide = rng.random((150, 84)) < rates
    wide[:, 30] = wide[:, 2] ^ (rng.random(150) < 0.05)
    wide[:, 3] = wide[:, 0] & ~wide[:, 1]
    return [wide, rng.random((150, 13)) < 0.4]


@pytest.fixture
def forms(gates):
    """The same states, packed, sparse, and one layer of each."""
    states = GatingStates.from_arrays(gates)
    return [in_form(states, *f) for f in itertools.product([False, True], repeat=2)]


# --- storage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "n_open"), [(WIDE, 32), (WIDE, 203), (WIDE, 204), (WIDE - 8, 1)])
def test_the_smaller_form_is_stored(rng, d, n_open):
    gates = np.zeros((40, d), bool)
    for row in gates:
        row[rng.choice(d, n_open, replace=False)] = True
    states = GatingStates.from_arrays(gates)
    positions, bits = 5 * n_open * 40 + 4 * 41, d // 8 * 40
    assert is_sparse(states.packed[0]) == (d >= WIDE and positions < bits)
    assert states.nbytes == (min(positions, bits) if d >= WIDE else bits)
    np.testing.assert_array_equal(np.asarray(states), gates)


def test_rows_of_both_forms(forms):
    packed, *others = forms
    mask = np.arange(150) % 3 == 0
    for states in others:
        assert states == packed
        assert packed == states
        assert pickle.loads(pickle.dumps(states)) == packed
        assert states.select(1) == packed.select(1)
        np.testing.assert_array_equal(np.asarray(states, int), np.asarray(packed, int))
        for rows in (slice(3, 20, 2), slice(None, None, -1), [5, 2, 2], [], range(4), mask):
            assert states[rows] == packed[rows]
        np.testing.assert_array_equal(states[-1], packed[-1])
        assert states[[1, 0]] != packed[[0, 1]]
        assert states[:2] != packed[:3]
        for a, b in zip(states.activation_rates(mask), packed.activation_rates(mask), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mmap", [False, True])
def test_files_keep_the_form(forms, tmp_path, mmap):
    for states in forms:
        states.save(tmp_path / "states")
        loaded = GatingStates.load(tmp_path / "states", mmap=mmap)
        assert loaded == states
        assert [*map(is_sparse, loaded.packed)] == [*map(is_sparse, states.packed)]
        if is_sparse(states.packed[0]):
            assert is_mapped(loaded.packed[0].indices) == mmap


def is_mapped(array):
    return array is not None and (isinstance(array, np.memmap) or is_mapped(array.base))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("layer0_open", [84, 1]),
        ("layer0_open", [-1, 1]),
        ("layer0_open", [2, 1]),
        ("layer0_open", [1]),
        ("layer0_starts", [0, 1, 3]),
        ("layer0_starts", [1, 1, 2]),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, values):
    gates = scipy.sparse.csr_array([[0, 1, 1], [0, 0, 0]], dtype=bool)
    GatingStates([gates], [GateLayer("a", 3)]).save(tmp_path / "states")
    with np.load(tmp_path / "states") as archive:
        members = {**archive, name: np.array(values, np.int32)}
    with open(tmp_path / "states", "wb") as file:
        np.savez(file, **members)
    with pytest.raises(ValueError, match="is not a complete file of gating states"):
        GatingStates.load(tmp_path / "states")


def test_arrays_that_are_not_open_gates_are_refused():
    layers, starts = [GateLayer("a", 3)], [0, 2]
    open_ = scipy.sparse.csr_array(np.array([[True, False, True]]))
    GatingStates([open_], layers)
    for wrong in (open_.tocsc(), scipy.sparse.csr_matrix(open_), open_.astype(int), open_[:, :2]):
        with pytest.raises(ValueError, match="needs a csr_array of shape"):
            GatingStates([wrong], layers)
    for data, positions in (([1, 1], [2, 0]), ([1, 1], [1, 1]), ([1, 0], [0, 1])):
        wrong = scipy.sparse.csr_array((np.array(data, bool), positions, starts), shape=(1, 3))
        with pytest.raises(ValueError, match="in canonical format whose entries are True"):
            GatingStates([wrong], layers)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dok", "lil", "bsr"])
@pytest.mark.parametrize("container", ["array", "matrix"])
def test_sparse_arrays_of_scipy_become_states(rng, kind, container):
    numbers = scipy.sparse.random_array((30, WIDE), density=0.004, rng=rng)
    numbers.data -= 0.3  # some of the entries are negative
    array = getattr(scipy.sparse, f"{kind}_{container}")(numbers)
    for threshold in (0, 0.2):
        states = GatingStates.from_arrays(array, threshold=threshold)
        np.testing.assert_array_equal(np.asarray(states), numbers.toarray() > threshold)
        assert is_sparse(states.packed[0])
    narrow = GatingStates.from_arrays({"a": array.tocsr()[:, :50], "b": numbers.toarray()})
    assert not is_sparse(narrow.packed[0])
    np.testing.assert_array_equal(
        np.asarray(narrow), np.hstack([numbers.toarray()[:, :50], numbers.toarray()]) > 0
    )


def test_entries_of_sparse_arrays_are_summed_before_they_are_compared():
    entries = [0.4, 0.4, 1.0, -1.0, 0.0], ([0, 0, 0, 0, 1], [1, 1, 2, 2, 2])
    array = scipy.sparse.coo_array(entries, shape=(2, 3))
    states = GatingStates.from_arrays(array, threshold=0.5)
    np.testing.assert_array_equal(np.asarray(states), [[0, 1, 0], [0, 0, 0]])
    assert array.nnz == 5
    twice = scipy.sparse.csr_array(([0.4, 0.4], [1, 1], [0, 2]), shape=(1, 3))
    np.testing.assert_array_equal(GatingStates.from_arrays(twice, threshold=0.5)[0], [0, 1, 0])
    assert twice.nnz == 2
    assert not np.asarray(GatingStates.from_arrays(scipy.sparse.csr_array((2, WIDE)))).any()


def test_sparse_arrays_without_gates_are_refused():
    array = scipy.sparse.csr_array(np.eye(3))
    with pytest.raises(ValueError, match="would open every gate that it does not store"):
        GatingStates.from_arrays(array, threshold=-0.1)
    with pytest.raises(ValueError, match="NaN or infinity"):
        GatingStates.from_arrays(array * np.nan)
    with pytest.raises(ValueError, match="dtype complex"):
        GatingStates.from_arrays(array * 1j)
    with pytest.raises(ValueError, match="at least one sample"):
        GatingStates.from_arrays(array[:0])


# --- capture ------------------------------------------------------------------------------------


class Stream(IterableDataset):
    """Samples one by one, of a number that is not known before."""

    def __init__(self, X):
        self.X = X

    def __iter__(self):
        return iter(self.X)


@pytest.mark.parametrize("batch_size", [7, 64])
@pytest.mark.parametrize("as_stream", [False, True])
def test_capture_of_few_open_gates(batch_size, as_stream):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, WIDE), nn.ReLU(), nn.Linear(WIDE, 6), nn.ReLU())
    nn.init.constant_(net[0].bias, -1.3)
    X = torch.randn(50, 4)
    expected = (net[0](X) > 0).numpy()
    assert 0 < expected.mean() < 1 / 40
    data = DataLoader(Stream(X), batch_size) if as_stream else X
    states = GateExtractor(net, batch_size=batch_size).fit(X).transform(data)
    assert [*map(is_sparse, states.packed)] == [True, False]
    np.testing.assert_array_equal(np.asarray(states.select(0)), expected)


@pytest.mark.parametrize("n_known", [None, 60, 80])
@pytest.mark.parametrize("rates", [(0.001,) * 4, (0.001, 0.5, 0.001, 0.5), (0.5, *[0.001] * 3)])
def test_batches_of_changing_rates(rng, n_known, rates):
    layer = GateLayer("a", WIDE)
    store, batches = Store([layer], n_known), [rng.random((15, WIDE)) < r for r in rates]
    for batch in batches:
        store.add([np.packbits(batch, axis=1)], None, None)
    found = store.finish()[0]
    assert is_sparse(found) == (max(rates) < 0.1)
    np.testing.assert_array_equal(np.asarray(GatingStates([found], [layer])), np.vstack(batches))


def test_batches_end_as_positions_if_these_are_fewer_bytes(rng):
    store = Store([GateLayer("a", WIDE)], 1002)
    store.add([np.packbits(rng.random((2, WIDE)) < 0.5, axis=1)], None, None)
    store.add([np.zeros((1000, WIDE // 8), np.uint8)], None, None)
    found = store.finish()[0]
    assert is_sparse(found)
    assert found.shape == (1002, WIDE)


# --- pairs --------------------------------------------------------------------------------------


def test_distances_of_both_forms_and_their_bound(forms, gates):
    for states in forms:
        points = pickle.loads(pickle.dumps(HammingDistances(states.packed)))
        prepared, scratch = points.prepare(slice(40, 130)), {}
        for rows in (slice(0, 64), slice(100, 150), slice(0, 64)):
            for found, layer in zip(points.between(rows, prepared, scratch), gates, strict=True):
                expected = (layer[rows, None] != layer[None, 40:130]).sum(axis=2)
                np.testing.assert_array_equal(found, expected)
    excluding = to_sparse(np.packbits(np.repeat(np.eye(2, dtype=bool), 30, axis=1), axis=1), 60)
    points = HammingDistances([excluding])
    (distances,) = points.between(slice(0, 2), points.prepare(slice(0, 2)), {})
    assert distances.max() == points.max_distances[0] == 60


def test_distances_of_queries(forms, gates, rng):
    new = [rng.random((20, layer.shape[1])) < 0.3 for layer in gates]
    queries = GatingStates.from_arrays(new)
    for states, form in itertools.product(forms, [(0, 0), (1, 0), (0, 1), (1, 1)]):
        points = HammingDistances(states.packed)
        rows = points.with_layers(in_form(queries, *form).packed)
        found = rows.between(slice(0, 20), points.prepare(slice(0, 150)), {})
        for distances, query, layer in zip(found, new, gates, strict=True):
            np.testing.assert_array_equal(distances, (query[:, None] != layer[None]).sum(axis=2))


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda without memory"])
def test_masses_of_both_forms(forms, labels_of_150, monkeypatch, device):
    if device != "cpu":
        monkeypatch.setattr(_cupy, "what_is_missing", lambda: None)
        monkeypatch.setattr(_cupy, "Gpu", FakeGpu)
        if device != "cuda":  # memory for the bits of a tile, not for those of a layer
            monkeypatch.setattr("skgate.pairwise._cuda._Samples._packed", _refuse)
    engine = Engine(device[:4].strip())
    weights, options = np.array([[0.3, 0], [0, 0.2], [0.1, 0.1]]), {"label_sets": [labels_of_150]}
    packed, *others = forms
    expected = kernel_masses(packed, weights, **options)
    queries = kernel_masses(packed, weights, queries=packed[::-1])
    for states in others:
        found = kernel_masses(states, weights, engine=engine, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        blocks, _ = block_masses(states, weights, engine=engine, **options)
        np.testing.assert_allclose(np.log(blocks.sum(axis=2)), expected, rtol=1e-12)
        found = kernel_masses(states, weights, queries=others[0][::-1], engine=engine)
        np.testing.assert_allclose(found, queries, rtol=1e-12)


def _refuse(*args):
    raise FullError


@pytest.fixture
def labels_of_150(rng):
    return rng.integers(0, 3, 150)


# --- measures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [KERNEL, Product()])
def test_measures_of_both_forms(forms, labels_of_150, density):
    options = {"density": density, "random_state": 0, "n_jobs": 1, "cv": 2}
    packed, _, *others = forms
    for function in (gating_mi, total_correlation):
        expected = function(packed, labels_of_150, **options)
        for states in others:
            found = function(states, labels_of_150, **options)
            for name, value in expected.items():
                if name not in ("density", "layer_densities"):
                    np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-10)
    expected = permutation_test(packed, labels_of_150, n_permutations=1, **options)
    found = permutation_test(others[0], labels_of_150, n_permutations=1, **options)
    np.testing.assert_allclose(found.null_mi_xy, expected.null_mi_xy, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("density", [KERNEL, Product(), ChowLiu()])
def test_likelihoods_of_both_forms(forms, rng, density):
    packed, *others = forms
    new = GatingStates.from_arrays([rng.random((20, d)) < 0.2 for d in (84, 13)])
    new = in_form(new[list(range(20))], False, True)
    both = [new, in_form(new, True, False)]
    fitted = GatingEntropy(density=density, random_state=0).fit(packed)
    expected = fitted.score_samples(packed), fitted.score_samples(new)
    for queries in both:
        np.testing.assert_allclose(fitted.score_samples(queries), expected[1], rtol=1e-10)
    for states in others:
        np.testing.assert_allclose(fitted.score_samples(states), expected[0], rtol=1e-10)


def test_gates_that_never_varied_are_a_point_mass():
    constant = to_sparse(np.full((5, 1), 0b10100000, np.uint8), 3)
    states = GatingStates([constant], [GateLayer("a", 3)])
    density = Kernel().fit(states)
    assert density.score_samples(states).tolist() == [0.0] * 5
    other = GatingStates([to_sparse(np.array([[0b11100000]], np.uint8), 3)], states.layers)
    assert density.score_samples(other).tolist() == [-np.inf]


def test_estimators_take_sparse_arrays(gates, labels_of_150):
    X = gates[0].astype(float)
    for measure in (GatingEntropy, GatingMI, TotalCorrelation):
        options = {"density": "product", "random_state": 0, "max_samples": 100}
        dense, sparse = measure(**options), measure(**options)
        dense.fit(X, labels_of_150)
        sparse.fit(scipy.sparse.csr_array(X), labels_of_150)
        assert sparse.states_ == dense.states_
        assert sparse.n_features_in_ == 84
        np.testing.assert_array_equal(
            sparse.transform(scipy.sparse.coo_array(X)), dense.transform(X)
        )
    with pytest.raises(ValueError, match="would open every gate"):
        GatingEntropy(threshold=-1).fit(scipy.sparse.csr_array(X))


# --- forests ------------------------------------------------------------------------------------


def random_gates(rng):
    """Few gates, some open often, some copies of others, and some that exclude each other."""
    n, d = int(rng.integers(5, 300)), int(rng.integers(2, 40))
    gates = rng.random((n, d)) < rng.random(d) ** rng.integers(1, 6)
    for a, b in rng.integers(0, d, (d // 3, 2)):
        gates[:, a] = gates[:, a] & ~gates[:, b] if a % 2 else gates[:, b] ^ (rng.random(n) < 0.02)
    return gates


def bits_of(rows):
    return np.ascontiguousarray(np.packbits(rows.T, axis=1))


@pytest.mark.parametrize("seed", range(12))
def test_forest_of_positions_is_that_of_bits(seed):
    gates = random_gates(np.random.default_rng(seed))
    sparse = SparseColumns(scipy.sparse.csr_array(gates))
    children, parents = sparse_edges(sparse)
    bits = BitColumns(bits_of(gates), len(gates))
    expected = forest_edges(bits, GatingStates.from_arrays(gates).layers)
    assert len(set(children)) == len(children) == len(expected[0])
    # forests of equal information differ only in ties
    found, known = (
        sorted(reference.mutual_information(gates, a, b) for a, b in zip(*edges, strict=True))
        for edges in ((children, parents), expected)
    )
    np.testing.assert_allclose(found, known, atol=1e-9)
    np.testing.assert_array_equal(sparse.open, bits.open)
    np.testing.assert_array_equal(sparse.both(*expected), bits.both(*expected))


@pytest.mark.parametrize("seed", range(4))
def test_bound_on_gates_that_exclude_each_other(seed):
    gates = random_gates(np.random.default_rng(seed))
    n, bounds = len(gates), _bounds(gates.sum(axis=0), len(gates))
    for a, b in itertools.combinations(range(gates.shape[1]), 2):
        if not (gates[:, a] & gates[:, b]).any():
            information = n * reference.mutual_information(gates, a, b)
            assert information <= bounds[a] * bounds[b] + 1e-9
    product = np.prod(_bounds(np.array([50, 50]), 100))
    assert math.isclose(product, 100 * math.log(2))  # attained where each excludes the other


def test_gates_that_exclude_each_other_are_joined():
    gates = np.repeat(np.eye(2, dtype=bool), 50, axis=0)
    (children, parents) = sparse_edges(SparseColumns(scipy.sparse.csr_array(gates)))
    assert {*children, *parents} == {0, 1}


def test_forest_likelihoods_are_those_of_bits(gates):
    """Of the same forest: edges of equal information may differ."""
    gates[1][:, :4] = gates[0][:, :4]
    states = GatingStates.from_arrays(gates)
    model = GatingEntropy(density="chow-liu", cv=None).fit(states).density_._models[-1]
    assert len(model.groups) > 1
    bounds = [(0, 1), (1, 2), (0, 2)]
    expected = model.log_likelihoods(states, bounds)
    for sparse in ((True, True), (True, False), (False, True)):
        found = model.log_likelihoods(in_form(states, *sparse), bounds)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_units_with_two_gates(rng):
    low = rng.random((200, 20)) < 0.1
    gates = np.stack([low, low & (rng.random((200, 20)) < 0.3)], axis=2).reshape(200, 40)
    layer = GateLayer("relu6", 40, "relu6", unit_size=2)
    packed = GatingStates([np.packbits(gates, axis=1)], [layer])
    for density in ("product", "chow-liu", KERNEL):
        options = {"density": density, "random_state": 0}
        expected = total_correlation(packed, **options)
        found = total_correlation(in_form(packed, True), **options)
        assert math.isclose(found.total_correlation, expected.total_correlation, abs_tol=1e-9)


# --- closed forms -------------------------------------------------------------------------------


def k_hot(d, k):
    gates = np.zeros((math.comb(d, k), d), bool)
    for row, positions in zip(gates, itertools.combinations(range(d), k), strict=True):
        row[list(positions)] = True
    return in_form(GatingStates.from_arrays(gates), True)


@pytest.mark.parametrize(("d", "k"), [(8, 2), (9, 3), (12, 1)])
def test_all_states_with_k_open_gates(d, k):
    states, bandwidth = k_hot(d, k), 0.7
    H = gating_entropy(states, density=Kernel(bandwidth=bandwidth), base=math.e).entropy
    # pairs with j positions in common are at a distance of 2 (k - j)
    shares = [math.comb(k, j) * math.comb(d - k, k - j) / math.comb(d, k) for j in range(k + 1)]
    values = [math.exp(-(k - j) / bandwidth) for j in range(k + 1)]
    assert math.isclose(H, -math.log(np.dot(shares, values)), rel_tol=1e-12)
    narrow = gating_entropy(states, density=Kernel(bandwidth=1e-3), base=2)
    assert math.isclose(narrow.entropy, math.log2(math.comb(d, k)), rel_tol=1e-12)
    assert narrow.saturated


def test_entropy_of_independent_gates(rng):
    n, d = 4000, WIDE
    rates = rng.uniform(0, 0.008, d)
    gates = rng.random((n, d), dtype=np.float32) < rates
    states = GatingStates.from_arrays(gates)
    assert is_sparse(states.packed[0])
    H = gating_entropy(states, density="product", cv=None).entropy
    counts = np.stack([gates.sum(axis=0), n - gates.sum(axis=0)])
    prior = np.array(beta_prior(counts[0], n))
    expected = -np.sum(counts * np.log2((counts + prior[:, None]) / (n + prior.sum()))) / n
    assert math.isclose(H, expected, rel_tol=1e-7)
    truth = sum(map(reference.binary_entropy, rates))
    assert math.isclose(H, truth, rel_tol=0.05)


@pytest.mark.parametrize("density", [KERNEL, "product", "chow-liu"])
def test_memory_stays_below_that_of_bits(density):
    n, d, k = 8000, 65_536, 16
    rng = np.random.default_rng(0)
    positions = np.sort(rng.integers(0, d // k, (n, k)) + np.arange(k) * (d // k), axis=1)
    entries = np.ones(n * k, bool), positions.ravel(), np.arange(0, n * k + 1, k)
    array = scipy.sparse.csr_array(entries, shape=(n, d))
    tracemalloc.start()
    states = GatingStates.from_arrays(array)
    gating_entropy(states, density=density, cv=None, n_jobs=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * d // 8
