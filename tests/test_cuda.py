"""The CUDA engine, its kernel, and its errors where CUDA is not available."""

import importlib.util
import shutil
import sys
import types

import joblib
import numpy as np
import pytest
import torch
from gpu import DeviceArray, FakeGpu, FullError, compiled_masses, numpy_masses

from skgate import (
    GatingEntropy,
    GatingMI,
    GatingStates,
    KDELayerMI,
    TotalCorrelation,
    gating_entropy,
)
from skgate.densities import Kernel
from skgate.pairwise import Engine, _cuda, _cupy, block_masses, kernel_masses
from skgate.utils.arrays import on_device

WEIGHTS = np.array([[0.3, 0], [0, 0.05], [0.1, 0.1], [0, 0]])


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of NumPy that the engine takes."""
    gpu = FakeGpu()
    monkeypatch.setattr(_cupy, "what_is_missing", lambda: None)
    monkeypatch.setattr(_cupy, "Gpu", lambda: gpu)
    return gpu


@pytest.fixture
def states(rng):
    return GatingStates.from_arrays([rng.random((300, d)) < 0.4 for d in (13, 70)])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler to compile the kernel with")
    return compiled_masses(tmp_path_factory.mktemp("kernel"), compiler)


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("dtype", [np.int32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (8, 32), (9, 33), (40, 7), (70, 70)])
def test_kernel_in_c_is_that_in_numpy(rng, compiled, by_rows, dtype, shape):
    n_items, n_others = shape if by_rows else shape[::-1]
    height, width = shape[0] + 3, shape[1] + 5
    products = np.ascontiguousarray(rng.integers(0, 9, (2, height, width)), dtype)
    steps = (height * width, width, 1) if by_rows else (height * width, 1, width)
    sides = [
        (rng.random((2, n)) * 20, rng.integers(0, 3, (2, n), dtype=np.int32))
        for n in (n_items, n_others)
    ]
    sides[0][1][0, 0] = 9  # no other has this label
    terms = _cuda._sparse(WEIGHTS * 40, np)  # some sums would underflow
    results = []
    for kernel in (numpy_masses, compiled):
        leasts, sums = np.empty((2, len(WEIGHTS), 3, n_items))
        kernel(products, steps, *sides, terms, (n_items, n_others), leasts, sums)
        results.append(_cuda._log_sums(leasts, sums))
    np.testing.assert_allclose(*results, rtol=1e-13, atol=1e-14)
    assert np.isneginf(results[0][:, 1, 0]).all()


def test_parts_on_a_gpu_are_those_of_the_cpu(rng, gpu, states):
    y = rng.integers(0, 3, len(states))
    ours, parts = block_masses(states, WEIGHTS, label_sets=[y], engine=Engine("cuda"))
    theirs, other_parts = block_masses(states, WEIGHTS, label_sets=[y], engine=Engine("cpu"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_array_equal(parts, other_parts)


@pytest.mark.parametrize("limit", [70_000, 300_000])
def test_tiles_halve_where_memory_runs_out(rng, gpu, states, limit):
    y, queries = rng.integers(0, 3, len(states)), states[:201]
    cases = [
        {"label_sets": [y]},
        {"queries": queries},
        {"queries": states, "label_sets": [y], "query_label_sets": [y]},
    ]
    for case in cases:
        expected = kernel_masses(states, WEIGHTS, **case)
        gpu.xp._limit, gpu.n_releases = limit, 0
        masses = kernel_masses(states, WEIGHTS, **case, engine=Engine("cuda"))
        assert gpu.n_releases >= 1
        np.testing.assert_allclose(masses, expected, rtol=1e-12, atol=1e-12)


def test_memory_that_is_never_enough_raises(gpu, states):
    gpu.xp._limit = 3000
    with pytest.raises(FullError):
        kernel_masses(states, WEIGHTS, engine=Engine("cuda"))


def test_samples_that_do_not_fit_on_the_device_stay_on_the_host(rng, gpu):
    states = GatingStates.from_arrays(rng.random((1000, 700)) < 0.5)
    gpu.xp._limit = states.nbytes - 1
    gpu._promised = 1 << 16
    masses = kernel_masses(states, np.array([[0.01]]), engine=Engine("cuda"))
    np.testing.assert_allclose(masses, kernel_masses(states, np.array([[0.01]])), rtol=1e-12)


def test_each_pair_of_strips_is_multiplied_once(gpu, states, monkeypatch):
    areas, multiply = [], gpu.multiply
    monkeypatch.setattr(_cuda, "_MAX_ROWS", 64)
    monkeypatch.setattr(
        gpu, "multiply", lambda a, b, out: areas.append(len(a)) or multiply(a, b, out)
    )
    kernel_masses(states, WEIGHTS, engine=Engine("cuda"))
    assert len(areas) == 2 * (5 * 6 // 2)  # two layers, five strips


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_estimators_give_the_numbers_of_the_cpu(rng, gpu, dtype):
    X, y = rng.normal(size=(200, 30)).astype(dtype), rng.integers(0, 3, 200)
    for measure in [
        GatingEntropy(density=Kernel(alpha=0.3)),
        TotalCorrelation(density=Kernel(alpha=0.3)),
        KDELayerMI(noise_variance=9.0, random_state=0),
    ]:
        here = measure.set_params(device="cpu").fit(X, y).transform(X)
        there = measure.set_params(device="cuda").fit(X, y).transform(X)
        np.testing.assert_allclose(there, here, rtol=1e-9)


def test_arrays_of_host_and_device_do_not_mix():
    with pytest.raises(TypeError, match="meets"):
        np.ones(2).view(DeviceArray) + np.ones(2)


def test_auto_takes_a_gpu_for_large_work_alone(gpu, monkeypatch):
    cpu = GatingStates.from_arrays(np.eye(8, dtype=bool))
    points = types.SimpleNamespace(cost=1.0)
    assert Engine().choose(1e9, points, WEIGHTS)[0] is _cuda
    assert Engine().choose(1e6, points, WEIGHTS)[0] is not _cuda
    assert Engine("cpu").choose(1e12, points, WEIGHTS)[0] is not _cuda
    assert Engine("cuda").choose(1, points, WEIGHTS)[0] is _cuda
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert Engine().choose(1e9, points, WEIGHTS)[0] is not _cuda
    with joblib.parallel_config(n_jobs=2):
        assert Engine().choose(1e9, points, WEIGHTS)[0] is _cuda
    monkeypatch.setattr(_cupy, "what_is_missing", lambda: "all")
    assert Engine().choose(1e9, points, WEIGHTS)[0] is not _cuda
    assert gating_entropy(cpu, density=Kernel(alpha=0.5)).entropy > 0


class _Error(RuntimeError):
    pass


def _fake_cupy(monkeypatch, *, version=13000, count=1, error=None):
    def devices():
        if error:
            raise _Error(error)
        return count

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.ModuleType("cupy.cuda")
    cupy.cuda.runtime = types.SimpleNamespace(
        driverGetVersion=lambda: version, getDeviceCount=devices, CUDARuntimeError=_Error
    )
    modules = {
        "cupy": cupy,
        "cupy.cuda": cupy.cuda,
        "cupy.cuda.cublas": types.ModuleType("cupy.cuda.cublas"),
        "cupy.cuda.nvrtc": types.ModuleType("cupy.cuda.nvrtc"),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"version": 0}, "no NVIDIA driver"),
        ({"count": 0}, "no GPU is visible"),
        ({"error": "cudaErrorNoDevice: no CUDA-capable device"}, "no GPU is visible"),
        ({"error": "cudaErrorInsufficientDriver"}, "Install a newer driver"),
    ],
)
def test_cuda_says_what_is_missing(monkeypatch, found, message):
    _fake_cupy(monkeypatch, **found)
    with pytest.raises(RuntimeError, match=message):
        GatingEntropy(device="cuda").fit(np.eye(4))


def test_cuda_says_that_cupy_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"CuPy is not installed.*skgate\[cuda12\]"):
        gating_entropy(np.eye(4), device="cuda")


def test_cuda_says_why_cupy_does_not_load(monkeypatch):
    _fake_cupy(monkeypatch)
    monkeypatch.setitem(sys.modules, "cupy.cuda.cublas", None)
    with pytest.raises(RuntimeError, match="CuPy does not load"):
        gating_entropy(np.eye(4), device="cuda")


def test_nothing_is_missing_where_all_is_there(monkeypatch):
    _fake_cupy(monkeypatch)
    assert _cupy.what_is_missing() is None


class _Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU."""

    @property
    def device(self):
        return types.SimpleNamespace(type="cuda")

    def new_zeros(self, shape, dtype):
        return torch.zeros(shape, dtype=dtype).as_subclass(_Elsewhere)

    def new_tensor(self, values):
        return torch.tensor(values, dtype=self.dtype)

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def numpy(self):
        raise AssertionError("it was copied before it was packed")


@pytest.fixture(params=["torch", "cupy"])
def moved(request, monkeypatch):
    """Return an array in the memory of a device that is not there."""
    if request.param == "torch":
        return lambda X: torch.tensor(X).as_subclass(_Elsewhere)
    cupy = types.SimpleNamespace(
        zeros=lambda *args: np.zeros(*args).view(DeviceArray),
        packbits=lambda bits: np.packbits(np.asarray(bits)).view(DeviceArray),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return lambda X: np.array(X).view(DeviceArray)


@pytest.mark.parametrize("d", [1, 7, 8, 9, 64])
def test_arrays_of_a_device_are_packed_there(rng, moved, d):
    X = rng.normal(size=(20, d))
    assert on_device(moved(X))
    expected = GatingStates.from_arrays(X, threshold=0.3)
    assert GatingStates.from_arrays(moved(X), threshold=0.3) == expected
    measure = GatingEntropy(density=Kernel(alpha=0.5), threshold=0.3).fit(moved(X))
    assert measure.states_ == expected
    assert measure.n_features_in_ == d
    with pytest.raises(ValueError, match="expecting"):
        measure.transform(moved(np.ones((3, d + 1))))


def test_arrays_of_a_device_are_checked_there(moved):
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            GatingStates.from_arrays(moved(np.array([[0.0, bad]])))
    with pytest.raises(ValueError, match="at least one"):
        GatingStates.from_arrays(moved(np.ones((0, 3))))
    with pytest.raises(ValueError, match="complex"):
        GatingStates.from_arrays(moved(np.ones((2, 3), complex)))
    with pytest.warns(UserWarning, match="All gates are open"):
        GatingEntropy(density=Kernel(alpha=0.5)).fit(moved(np.ones((4, 3))))


def test_trees_on_a_gpu_are_those_of_the_cpu(rng, gpu, monkeypatch):
    Z = rng.normal(size=(150, 3)) @ rng.normal(size=(3, 45)) + 0.5 * rng.normal(size=(150, 45))
    asked, count = [], gpu.open_in_both
    monkeypatch.setattr(
        gpu, "open_in_both", lambda words, row: asked.append(row) or count(words, row)
    )
    y = rng.integers(0, 2, 150)
    here, there = (
        GatingMI(density="chow-liu", cv=2, random_state=0, device=device).fit(Z, y)
        for device in ("cpu", "cuda")
    )
    assert len(asked) > 44
    np.testing.assert_allclose(there.mi_x_, here.mi_x_, rtol=1e-12)
    np.testing.assert_allclose(there.transform(Z), here.transform(Z), rtol=1e-12)
