"""GatingStates: packing, indexing, files."""

import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils import _safe_indexing

from skgate import GateLayer, GatingStates


def test_2000_by_16384_gates_take_4_megabytes(rng):
    states = GatingStates.from_arrays(rng.random((2000, 16384), dtype=np.float32) - 0.5)
    assert states.nbytes == 2000 * 16384 / 8
    assert states.__sizeof__() >= states.nbytes


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 99))
def test_arrays_come_back(n, widths, seed):
    rng = np.random.default_rng(seed)
    arrays = {f"l{i}": rng.normal(size=(n, d)) for i, d in enumerate(widths)}
    states = GatingStates.from_arrays(arrays)
    expected = np.hstack(list(arrays.values())) > 0
    np.testing.assert_array_equal(np.asarray(states), expected)
    assert states.shape == expected.shape
    rates = np.concatenate(states.activation_rates())
    np.testing.assert_allclose(rates, expected.mean(axis=0), rtol=1e-15)


def test_rates_of_more_rows_than_a_byte_counts(rng):
    gates = rng.random((1000, 9)) < 0.9
    (rates,) = GatingStates.from_arrays(gates).activation_rates()
    np.testing.assert_allclose(rates, gates.mean(axis=0), rtol=1e-15)
    (some,) = GatingStates.from_arrays(gates).activation_rates(slice(100, 700))
    np.testing.assert_allclose(some, gates[100:700].mean(axis=0), rtol=1e-15)


def test_rows_index_like_an_array(states, layers):
    gates = np.hstack(list(layers.values()))
    mask = np.arange(60) % 3 == 0
    for rows in (slice(3, 20, 2), [5, 2, 2], np.array([1, -1]), mask, (mask, ...), slice(0, 0)):
        expected = gates[rows[0]] if isinstance(rows, tuple) else gates[rows]
        np.testing.assert_array_equal(np.asarray(states[rows]), expected)
    np.testing.assert_array_equal(states[7], gates[7])
    np.testing.assert_array_equal(states[-1], gates[-1])
    np.testing.assert_array_equal(_safe_indexing(states, [4, 9]), gates[[4, 9]])
    assert len(list(states)) == 60  # iteration stops at IndexError
    with pytest.raises(IndexError, match="row 60 is out of range"):
        states[60]
    with pytest.raises(IndexError, match="by rows alone"):
        states[3, 4]
    with pytest.raises(IndexError, match=r"select\('b'\)"):
        states["b"]


def test_array_protocol(states):
    assert np.asarray(states).dtype == bool
    assert np.asarray(states, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="always makes a new array"):
        np.array(states, copy=False)


def test_select_by_name_position_and_slice(states, layers):
    assert states.select("b").layer_names == ("b",)
    assert states.select(["c", "a"]).layer_names == ("c", "a")
    assert states.select(slice(-2, None)).layer_names == ("b", "c")
    assert states.select([0, -1]).layer_names == ("a", "c")
    assert (
        states.select("[bc]").layer_names == states.select(["*b", "c*"]).layer_names == ("b", "c")
    )
    np.testing.assert_array_equal(np.asarray(states.select("b")), layers["b"])
    assert np.shares_memory(states.select("b").packed[0], states.packed[1])
    with pytest.raises(KeyError, match=r"no layer 'd'.*'a', 'b', 'c'"):
        states.select("d")


def test_lists_and_images_become_layers(rng):
    images, flat = rng.normal(size=(5, 2, 3, 3)), rng.normal(size=(5, 4))
    states = GatingStates.from_arrays([images, flat], threshold=0.5)
    assert states.layer_names == ("layer0", "layer1")
    assert [layer.spatial for layer in states.layers] == [True, False]
    np.testing.assert_array_equal(
        np.asarray(states), np.hstack([images.reshape(5, -1), flat]) > 0.5
    )


@pytest.mark.parametrize("mmap", [False, True])
def test_files_come_back(states, tmp_path, mmap):
    path = tmp_path / "net.states"
    states.save(path)
    loaded = GatingStates.load(path, mmap=mmap)
    assert loaded == states
    assert isinstance(loaded.packed[0], np.memmap) == mmap
    assert loaded[3:9] == states[3:9]
    assert [p.name for p in tmp_path.iterdir()] == ["net.states"]
    layer = GateLayer("pool", 8, "max_pool2d", 4, one_hot=True, spatial=True)
    pooled = GatingStates([np.zeros((3, 1), np.uint8)], [layer])
    pooled.save(path)
    assert GatingStates.load(path, mmap=mmap).layers == (layer,)


@pytest.mark.parametrize("mmap", [False, True])
def test_groups_stay_with_their_rows(states, tmp_path, mmap):
    groups = np.arange(len(states)) // 3
    grouped = GatingStates(states.packed, states.layers, groups)
    assert grouped != states
    assert grouped.n_samples == groups[-1] + 1
    rows = [7, 2, 2]
    np.testing.assert_array_equal(grouped[rows].groups, [2, 0, 0])
    assert grouped[rows].n_samples == 2
    assert repr(grouped[rows]).startswith("GatingStates(n_rows=3, n_samples=2, ")
    np.testing.assert_array_equal(grouped.select(0).groups, groups)
    grouped.save(tmp_path / "states")
    assert GatingStates.load(tmp_path / "states", mmap=mmap) == grouped
    arrays = {"a": np.eye(4)}
    np.testing.assert_array_equal(
        GatingStates.from_arrays(arrays, groups=[3, 3, 1, 1]).groups, [3, 3, 1, 1]
    )


@pytest.mark.parametrize(
    "groups", [[0, 1], np.zeros((3, 1), int), [0.0, 1.0, 1.0], ["a", "b", "b"]]
)
def test_groups_of_another_shape_or_type_are_refused(groups):
    with pytest.raises(ValueError, match="an integer for each of 3 rows"):
        GatingStates.from_arrays(np.eye(3), groups=groups)


@pytest.mark.parametrize(
    ("shape", "spatial"), [((6,), False), ((2, 3), False), ((3, 2, 2), True), ((2, 3, 2, 2), True)]
)
def test_a_layer_knows_its_shape(rng, shape, spatial):
    (layer,) = GatingStates.from_arrays(rng.random((4, *shape))).layers
    assert layer.shape == shape
    assert layer.spatial == spatial


def test_a_shape_that_does_not_fit_is_refused():
    assert GateLayer("relu6", 12, unit_size=2).shape == (6,)
    with pytest.raises(ValueError, match=r"shape=\(5,\), with 5 units; .* make 6"):
        GateLayer("relu6", 12, unit_size=2, shape=(5,))


def test_a_save_that_fails_leaves_the_old_file(states, tmp_path, monkeypatch):
    path = tmp_path / "states.npz"
    states.save(path)

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(KeyboardInterrupt):
        states[:5].save(path)
    monkeypatch.undo()
    assert GatingStates.load(path) == states
    assert [p.name for p in tmp_path.iterdir()] == ["states.npz"]


def spoil(path, how):
    whole = path.read_bytes()
    if how == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not a states file")
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif how == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    else:
        members = dict(np.load(path))
        header = {
            "no header": None,
            "bad header": np.frombuffer(b"{broken", np.uint8),
            "other format": np.frombuffer(b'{"format": "other", "layers": []}', np.uint8),
            "unknown field": np.frombuffer(
                b'{"format": "skgate-states-1", "layers": [{"name": "a", "n_gates": 3, "x": 1}]}',
                np.uint8,
            ),
            "wrong shape": np.frombuffer(
                b'{"format": "skgate-states-1", "layers": [{"name": "a", "n_gates": 900}]}',
                np.uint8,
            ),
            "pickled member": np.array([{"a": 1}], dtype=object),
        }[how]
        del members["header"]
        if header is not None:
            members["header"] = header
        with open(path, "wb") as file:
            np.savez(file, **members)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        "cut short",
        "empty",
        "text",
        "pickle",
        "array",
        "no header",
        "bad header",
        "other format",
        "unknown field",
        "wrong shape",
        "pickled member",
    ],
)
def test_spoilt_files_are_refused(states, tmp_path, how, mmap):
    path = tmp_path / "states.npz"
    states.save(path)
    spoil(path, how)
    with pytest.raises(ValueError, match="not a complete file of gating states"):
        GatingStates.load(path, mmap=mmap)


def test_compressed_members_cannot_be_mapped(states, tmp_path):
    path, other = tmp_path / "a.npz", tmp_path / "b.npz"
    states.save(path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert GatingStates.load(other) == states
    with pytest.raises(ValueError, match="compressed"):
        GatingStates.load(other, mmap=True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "at least one layer"),
        ({"a": np.ones((3, 2)), "b": np.ones((4, 2))}, r"number of samples: \{'a': 3, 'b': 4\}"),
        ({"a": np.ones(3)}, r"got shape \(3,\)"),
        ({"a": np.ones((3, 0))}, "at least one"),
        ({"a": np.ones((0, 3))}, "at least one"),
        ({"a": np.full((2, 2), np.nan)}, "NaN or infinity"),
        ({"a": np.full((2, 2), np.inf)}, "NaN or infinity"),
        ({"a": np.ones((2, 2), complex)}, "dtype complex128"),
        ({"a": np.full((2, 2), "x")}, "real numbers"),
    ],
)
def test_bad_arrays_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        GatingStates.from_arrays(arrays)


def test_packed_arrays_must_fit_their_records():
    layer = GateLayer("a", 9)
    with pytest.raises(ValueError, match=r"shape \(4, 2\)"):
        GatingStates([np.zeros((4, 1), np.uint8)], [layer])
    with pytest.raises(ValueError, match="names must differ"):
        GatingStates([np.zeros((4, 2), np.uint8)] * 2, [layer, layer])
    with pytest.raises(ValueError, match="positive multiple"):
        GateLayer("pool", 9, unit_size=4)
