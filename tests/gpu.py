"""A GPU made of NumPy, to run all of the CUDA engine but its kernel, and the kernel on the CPU."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np

import skgate.pairwise

SOURCE = Path(skgate.pairwise.__file__).with_name("_masses.cu")
#: What CUDA C has and C++ has not. Threads of a block take turns; a barrier cuts the kernel in two.
SHIM = """
#include <cmath>
#include <cstring>
using std::exp;
struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, gridDim;
#define __device__
#define __global__
#define __shared__ static
static bool first_half;
#define __syncthreads() if (first_half) return
"""
LAUNCH = """
extern "C" void launch(unsigned x, unsigned y, unsigned z, void** a) {
  gridDim = {x, y, z};
  for (unsigned k = 0; k < z; ++k) for (unsigned j = 0; j < y; ++j) for (unsigned i = 0; i < x; ++i)
    for (int half = 0; half < 2; ++half) for (unsigned v = 0; v < 8; ++v)
      for (unsigned u = 0; u < 32; ++u) {
        blockIdx = {i, j, k}; threadIdx = {u, v, 0}; first_half = half == 0;
        // the second half repeats the first, and continues after the barrier
        masses((const PRODUCT*)a[0], *(long long*)a[1], *(long long*)a[2], *(long long*)a[3],
               (const double*)a[4], (const double*)a[5], (const int*)a[6], (const int*)a[7],
               (const int*)a[8], (const int*)a[9], (const double*)a[10],
               *(int*)a[11], *(int*)a[12], (double*)a[13], (double*)a[14]);
      }
}
"""


class FullError(MemoryError):
    pass


class DeviceArray(np.ndarray):
    """An array that refuses to be mixed with those of the host, as CuPy's do."""

    __cuda_array_interface__ = {}

    def get(self):
        return np.array(self)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        for array in inputs:
            if type(array) is np.ndarray and array.ndim:
                raise TypeError("an array of the host meets one of the device")
        inputs = [np.asarray(a) if isinstance(a, DeviceArray) else a for a in inputs]
        if out is not None:
            kwargs["out"] = tuple(np.asarray(a) for a in out)
        result = getattr(ufunc, method)(*inputs, **kwargs)
        return out[0] if out is not None else _moved(result, type(self))


def _moved(array, kind=DeviceArray):
    return np.array(array).view(kind) if np.ndim(array) else array


class _Module:
    """NumPy, with arrays of the device, and no memory beyond a limit."""

    def __init__(self, limit):
        self._limit = limit

    def __getattr__(self, name):
        function = getattr(np, name)

        def on_device(*args, **kwargs):
            result = _moved(function(*args, **kwargs))
            if getattr(result, "nbytes", 0) > self._limit:
                raise FullError(f"{name} of {result.nbytes} bytes")
            return result

        return on_device


class FakeGpu:
    """What `skgate.pairwise._cupy.Gpu` offers, on the CPU."""

    out_of_memory = FullError

    def __init__(self, limit=1 << 40, promised=1 << 40):
        self.xp, self._promised, self.n_releases = _Module(limit), promised, 0

    def free_bytes(self):
        return self._promised

    def release(self):
        self.n_releases += 1

    def multiply(self, a, b, out):
        if a.dtype == np.int8:
            assert not {*a.shape, len(b)} & {s for s in (*a.shape, len(b)) if s % 16}
            a, b = a.astype(np.int32), b.astype(np.int32)
        out[...] = a @ b.T

    def words(self, bits):
        return _moved(bits)

    def open_in_both(self, words, row):
        return np.bitwise_count(words & words[row]).sum(axis=1, dtype=np.int64)

    def masses(self, products, steps, items, others, terms, sizes, leasts, sums):
        numpy_masses(*map(_flat, (products, steps, items, others, terms, sizes)), leasts, sums)


def _flat(arrays):
    if isinstance(arrays, DeviceArray):
        return np.asarray(arrays)
    return [_flat(a) if isinstance(a, DeviceArray) else a for a in arrays]


def numpy_masses(products, steps, items, others, terms, sizes, leasts, sums):
    """The kernel of ``_masses.cu``, in NumPy."""
    (a, a_labels), (b, b_labels), (starts, layers, weights) = items, others, terms
    flat, (n_items, n_others) = np.ascontiguousarray(products).ravel(), sizes
    i, k = np.arange(n_items)[:, None] * steps[1], np.arange(n_others) * steps[2]
    distances = [
        np.maximum(a[at][:, None] + b[at] - 2.0 * flat[at * steps[0] + i + k], 0)
        for at in range(len(a))
    ]
    for term, group in np.ndindex(leasts.shape[:2]):
        exponents = np.zeros((n_items, n_others))
        for at in range(starts[term], starts[term + 1]):
            exponents += weights[at] * distances[layers[at]]
        if group:
            own = a_labels[group - 1][:, None] == b_labels[group - 1]
            exponents[~own] = np.inf
        least = exponents.min(axis=1)
        there = np.isfinite(least)
        leasts[term, group] = np.where(there, least, 1e308)
        shifted = exponents - np.where(there, least, 0.0)[:, None]
        sums[term, group] = np.exp(-shifted).sum(axis=1)


def compiled_masses(folder, compiler):
    """Compile the kernel for the CPU, and return it with the arguments of `numpy_masses`."""
    libraries = {}
    for product in ("int", "double"):
        text = "\n".join([SHIM, f"#define PRODUCT {product}", SOURCE.read_text(), LAUNCH])
        source, library = folder / f"{product}.cpp", folder / f"{product}.so"
        source.write_text(text)
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-std=c++17", "-o", library, source], check=True
        )
        libraries[product] = ctypes.CDLL(str(library)).launch

    def masses(products, steps, items, others, terms, sizes, leasts, sums):
        n_terms, n_groups, n_items = leasts.shape
        blocks = -(-n_items // (32 if steps[1] == 1 else 8)), n_terms, n_groups
        (a, a_labels), (b, b_labels) = items, others
        arrays = [products, *map(np.int64, steps), a, b, a_labels, b_labels, *terms]
        arrays = [np.ascontiguousarray(v) for v in [*arrays, *map(np.int32, sizes)]]
        pointers = [v.ctypes.data for v in [*arrays, leasts, sums]]
        product = "int" if products.dtype == np.int32 else "double"
        libraries[product](*blocks, (ctypes.c_void_p * len(pointers))(*pointers))

    return masses
