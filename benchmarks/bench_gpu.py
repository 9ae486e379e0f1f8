"""Time, memory and utilisation of the entropy of one layer on a GPU, ours and by the peers.

Without a GPU the same runs on the CPU, with fewer samples.
"""

import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions

from . import peers
from ._comparison import _Comparison, kernel_weight, make_states, shape, sizes
from .bench_entropy import ours

DEVICE = "cuda" if shutil.which("nvidia-smi") else "cpu"
CUPY = packages_distributions().get("cupy", ["cupy"])[0]  # it has CUDA's version in its name
PACKAGES = "torch", "numpy", "numkong", CUPY, "pykeops"
OURS, EXACT = f"skgate, device={DEVICE!r}", "skgate, float64 on the CPU"
ALL, ONCE = "bare int8 product, all pairs", "bare int8 product, each pair once"
METHODS = {
    ALL: peers.int8_product(once=False),
    ONCE: peers.int8_product(once=True),
    "torch._int_mm + exp, each pair once": peers.int8_kernel(compiled=False),
    "the same, torch.compile": peers.int8_kernel(compiled=True),
    "torch GEMM, float32": peers.torch_gemm("float32"),
    "torch.cdist + exp, float32": peers.torch_cdist,
    "KeOps, float32": peers.keops,
}
_SAMPLED_SECONDS = 0.02  # between two readings of the device's memory


def place():
    """Return where this runs, for the machine's line."""
    if DEVICE == "cpu":
        return "; on the CPU; no GPU was used"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return f"; on {subprocess.check_output(query, text=True).strip()}"


class Gpu(_Comparison):
    """Gates are the signs of random mixtures of 4 Gaussian factors and alpha is 0.04, so that every
    kernel value counts. Ours starts from packed gates in the memory of the host, and estimates the
    bandwidth within its time; the peers are given the bandwidth, and the gates on the device as
    numbers of 1 byte (int8) or 4, and neither counts. Utilisation is the int8 operations that the
    pairs need, 2d for each of n²/2, over those that the bare product of all pairs, which does twice
    as many, did in the same time. Off is the difference from float64 on the CPU, in bits. Peak
    memory is that of the device, all of it.
    """

    param_names = "size", "method"
    params = (
        sizes(*(["50000x16384", "1000000x16384"] if DEVICE == "cuda" else ["5000x4096"])),
        [OURS, *METHODS, *([EXACT] if DEVICE == "cuda" else [])],
    )
    reference = EXACT if DEVICE == "cuda" else OURS
    columns = {"track_bits": ("H bits", ".6f")}
    targets = [
        (f"H 50000x16384 on a GPU: <= 1.5x {ALL}", ("50000x16384", OURS), ("50000x16384", ALL)),
        (f"H 50000x16384 on a GPU: <= 1.5x {ONCE}", ("50000x16384", OURS), ("50000x16384", ONCE)),
        ("H 1000000x16384 on a GPU: < 60 s", ("1000000x16384", OURS), None),
    ]

    def prepare(self, size, method):
        n, d = shape(size)
        states = make_states(n, d)
        if method in METHODS:
            return METHODS[method](states, kernel_weight(states), device=DEVICE), n
        return ours(states, device=DEVICE if method == OURS else "cpu", n_jobs=-1), n

    def track_peak(self, size, method):
        if DEVICE == "cpu" or method == EXACT:
            return float("nan")
        return peak_gpu_mb(self.call)

    def track_bits(self, size, method):
        return self.call()

    @staticmethod
    def derived(value, size, method):
        n, d = shape(size)
        product, seconds = value("time_run", size, ALL), value("time_run", size, method)
        if product is None or seconds is None:
            return {"int8 Top/s": "–", "utilisation": "–"}
        return {
            "int8 Top/s": f"{n * n * d / seconds / 1e12:.4g}",
            "utilisation": f"{product / seconds / 2:.0%}",
        }


def peak_gpu_mb(function):
    """Return the most memory that is in use on the GPU during a call, in MB."""
    try:
        from cupy.cuda import runtime

        free_and_total = runtime.memGetInfo
    except ImportError:
        from torch import cuda

        free_and_total = cuda.mem_get_info
    readings, done = [], threading.Event()

    def watch():
        while not done.wait(_SAMPLED_SECONDS):
            free, total = free_and_total()
            readings.append((total - free) / 1e6)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        function()
        done.set()
    return max(readings, default=float("nan"))


COMPARISONS = [Gpu]
