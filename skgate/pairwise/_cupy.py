"""What the CUDA engine asks of CuPy: memory, an int8 matrix product, and one kernel of our own."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np

_INSTALL = 'Install it with pip install "skgate[cuda12]", or "skgate[cuda13]" for CUDA 13.'
# cudaDataType, of which CuPy names only some
_INT8, _INT32 = 3, 10
_THREADS = (32, 8)


def what_is_missing():
    """Return what keeps CUDA from being used and how to mend it; None if nothing does."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed. {_INSTALL}"
    try:
        import cupy.cuda.cublas
        import cupy.cuda.nvrtc
    except ImportError as error:
        return f"CuPy does not load: {str(error).splitlines()[0]}. {_INSTALL}"
    runtime = cupy.cuda.runtime
    if runtime.driverGetVersion() == 0:
        return "there is no NVIDIA driver. Install the one of your GPU; nvidia-smi should list it."
    try:
        n_devices = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "NoDevice" not in str(error):
            return f"the NVIDIA driver does not serve CuPy: {error}. Install a newer driver."
        n_devices = 0
    if n_devices == 0:
        return "no GPU is visible. See nvidia-smi, and the variable CUDA_VISIBLE_DEVICES."
    return None


class Gpu:
    """The current CUDA device of CuPy.

    Attributes
    ----------
    xp : module
        NumPy's functions on the device.
    out_of_memory : type
        What is raised when the device has no memory left.
    """

    def __init__(self):
        import cupy

        self.xp = cupy
        self.out_of_memory = cupy.cuda.memory.OutOfMemoryError

    def __reduce__(self):
        return Gpu, ()  # wherever it is unpickled

    def free_bytes(self):
        """Return how much memory may be asked for."""
        pool = self.xp.get_default_memory_pool()
        return self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()

    def release(self):
        """Give back the memory that nothing refers to any more."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def multiply(self, a, b, out):
        """Write ``a @ b.T`` to ``out``, int8 to int32 or float64.

        Rows of ``a`` and ``b``, and columns, come in multiples of 16 of int8: tensor cores want it.
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
            # cuBLAS has columns first: out.T = b @ a.T
            cublas.gemmEx(
                handle, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, n_columns, n_rows, n_units,
                one.ctypes.data, b.data.ptr, _INT8, n_units, a.data.ptr, _INT8, n_units,
                zero.ctypes.data, out.data.ptr, _INT32, n_columns,
                cublas.CUBLAS_COMPUTE_32I, cublas.CUBLAS_GEMM_DEFAULT,
            )  # fmt: skip
        finally:
            cublas.setPointerMode(handle, mode)

    def masses(self, products, steps, items, others, terms, sizes, leasts, sums):
        """Run the kernel of ``_masses.cu``, whose arguments these are."""
        n_terms, n_groups, n_items = leasts.shape
        items_a_block = _THREADS[0] if steps[1] == 1 else _THREADS[1]
        blocks = -(-n_items // items_a_block), n_terms, n_groups
        (item_norms, item_labels), (other_norms, other_labels) = items, others
        _kernel("int" if products.dtype == np.int32 else "double")(
            blocks, _THREADS,
            (products, *map(np.int64, steps), item_norms, other_norms, item_labels, other_labels,
             *terms, *map(np.int32, sizes), leasts, sums),
        )  # fmt: skip

    def words(self, bits):
        """Return packed rows on the device, in words of 32 bits."""
        padded = np.zeros((len(bits), -(-bits.shape[1] // 4) * 4), np.uint8)
        padded[:, : bits.shape[1]] = bits
        return self.xp.asarray(padded).view(np.uint32)

    def open_in_both(self, words, row):
        """Return the number of bits that each row shares with one of them, (n_rows,), int64."""
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
