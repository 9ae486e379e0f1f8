"""The interface of the CUDA engine to CuPy: memory, int8 matrix products, and the CUDA kernel."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np

_INSTALL = 'Install it with pip install "skgate[cuda12]", or "skgate[cuda13]" for CUDA 13.'
# values of cudaDataType that CuPy does not export
_INT8, _INT32 = 3, 10
_THREADS = (32, 8)


def what_is_missing():
    """Return why CUDA is not available, and a remedy, or None if it is available."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed. {_INSTALL}"
    try:
        import cupy.cuda.cublas
        import cupy.cuda.nvrtc
    except ImportError as error:
        return f"CuPy does not load: {str(error).splitlines()[0]}. {_INSTALL}"
    runtime = cupy.cuda.runtime
    if runtime.driverGetVersion() == 0:
        return "there is no NVIDIA driver. Install one, so that nvidia-smi lists your GPU."
    try:
        n_devices = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "NoDevice" not in str(error):
            return f"the NVIDIA driver does not support CuPy: {error}. Install a newer driver."
        n_devices = 0
    if n_devices == 0:
        return "no GPU is visible. Check nvidia-smi and the variable CUDA_VISIBLE_DEVICES."
    return None


class Gpu:
    """The current CUDA device of CuPy; ``xp`` has NumPy's functions for its arrays."""

    def __init__(self):
        import cupy

        self.xp = cupy
        self.out_of_memory = cupy.cuda.memory.OutOfMemoryError

    def __reduce__(self):
        return Gpu, ()  # unpickling takes the device of that process

    def free_bytes(self):
        """Return the number of bytes that can be allocated."""
        pool = self.xp.get_default_memory_pool()
        return self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()

    def release(self):
        """Return the unused memory of CuPy's pool to the device."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def multiply(self, a, b, out):
        """Write ``a @ b.T`` to ``out``, int32 for int8 factors and float64 otherwise.

        Tensor cores require that int8 factors have multiples of 16 rows and columns.
        """
        if a.dtype != np.int8:
            self.xp.matmul(a, b.T, out=out)
            return
        cublas = self.xp.cuda.cublas
        one, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
        (n_rows, n_units), n_columns = a.shape, len(b)
        handle = self.xp.cuda.device.get_cublas_handle()
        mode = cublas.getPointerMode(handle)
        cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
        try:
            # cuBLAS is column-major: out.T = b @ a.T
            cublas.gemmEx(
                handle, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, n_columns, n_rows, n_units,
                one.ctypes.data, b.data.ptr, _INT8, n_units, a.data.ptr, _INT8, n_units,
                zero.ctypes.data, out.data.ptr, _INT32, n_columns,
                cublas.CUBLAS_COMPUTE_32I, cublas.CUBLAS_GEMM_DEFAULT,
            )  # fmt: skip
        finally:
            cublas.setPointerMode(handle, mode)

    def masses(self, products, steps, items, others, terms, sizes, minima, sums):
        """Run the kernel of ``_masses.cu``, which describes the arguments."""
        n_terms, n_groups, n_items = minima.shape
        items_a_block = _THREADS[0] if steps[1] == 1 else _THREADS[1]
        blocks = -(-n_items // items_a_block), n_terms, n_groups
        (item_norms, item_labels), (other_norms, other_labels) = items, others
        _kernel("int" if products.dtype == np.int32 else "double")(
            blocks, _THREADS,
            (products, *map(np.int64, steps), item_norms, other_norms, item_labels, other_labels,
             *terms, *map(np.int32, sizes), minima, sums),
        )  # fmt: skip

    def words(self, bits):
        """Return packed rows on the device, as words of 32 bits."""
        padded = np.zeros((len(bits), -(-bits.shape[1] // 4) * 4), np.uint8)
        padded[:, : bits.shape[1]] = bits
        return self.xp.asarray(padded).view(np.uint32)

    def open_in_both(self, words, row):
        """Return the number of open gates that each row shares with ``words[row]``, int64."""
        return _count()(words, words[row], axis=1)


@cache
def _count():
    import cupy

    return cupy.ReductionKernel(
        "uint32 a, uint32 b", "int64 n", "(long long)__popc(a & b)", "a + b", "n = a", "0", "both"
    )


@cache
def _kernel(product):
    import cupy

    source = Path(__file__).with_name("_masses.cu").read_text(encoding="utf-8")
    return cupy.RawKernel(source, "masses", options=(f"-DPRODUCT={product}", "-std=c++17"))
