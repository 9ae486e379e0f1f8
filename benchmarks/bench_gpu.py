"""Time, memory and utilisation of the entropy of one layer on a GPU, ours against other ways.

    python benchmarks/bench_gpu.py

Each measurement is a fresh process, and all run on the same device. A peer whose run would take
longer than ``--limit``, as judged from fewer rows, is skipped, and the table says so. Where there
is no GPU the same runs on the CPU, with fewer samples, and the targets are told as not measured.
"""

import argparse
import sys
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
from _common import (
    NONE,
    fresh_process,
    machine_line,
    median,
    publish,
    rst_table,
    timed,
    verdict,
)
from bench_entropy import ALPHAS, expected_seconds, variance

from skgate import GateLayer, GatingStates, gating_entropy

SIZES = {"cuda": [(50_000, 16_384), (1_000_000, 16_384)], "cpu": [(5000, 4096)]}
NOTE = (
    "Gates are the signs of random mixtures of 4 Gaussian factors and alpha is 0.04, so that every "
    "kernel value counts. Ours starts from packed gates in the memory of the host, and estimates "
    "the bandwidth within its time; the peers are given the bandwidth, and the gates on the device "
    "as numbers of 1 byte (int8) or 4, and neither counts. Utilisation is the operations of int8 "
    "that the pairs need, 2d for each of n²/2, over what the bare product did in the same time at "
    "the top of the table. Off is the difference from float64 on the CPU, in bits. Peak memory is "
    "that of the device, all of it."
)

OURS, ALL, ONCE = "skgate", "bare int8 product, all pairs", "bare int8 product, each pair once"
MOST_OF_PRODUCT, MOST_SECONDS = 1.5, 60

_TILE = {"cuda": 16_384, "cpu": 1024}  # rows and columns of a tile of a peer
_BLOCK_BYTES = {"cuda": 1 << 32, "cpu": 1 << 27}  # kernel values that cdist holds at once
_MADE_ROWS = 1024
_REFERENCE_PAIRS = 50_000**2  # to which float64 on the CPU is the reference
_BUDGET_SECONDS = 10  # of the repeated runs of one process
_SAMPLED_SECONDS = 0.02  # between two looks at the device's memory
_CEILING_SECONDS = 1.0


def find_device():
    """Return "cuda" where CuPy or torch finds a GPU, else "cpu", and the name of the GPU."""
    try:
        import cupy

        return "cuda", cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    except Exception:  # not installed, or without a driver, each with an error of its own
        pass
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    return "cpu", None


def write_states(n, d, path):
    """Write random states to a file, made on all cores."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((4, d), dtype=np.float32)
    factors = rng.standard_normal((n, 4), dtype=np.float32)
    packed = np.empty((n, -(-d // 8)), np.uint8)

    def make(start):
        rows = slice(start, start + _MADE_ROWS)
        packed[rows] = np.packbits(factors[rows] @ loadings > 0, axis=1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(0, n, _MADE_ROWS)))
    GatingStates([packed], [GateLayer("gates", d)]).save(path)


# Each function below takes states and a device, converts the gates, which is not timed, and returns
# a function from a number of rows to their entropy in nats, or to None.


def ours(states, device):
    """Return the method that is `gating_entropy`."""
    return lambda n: (
        gating_entropy(
            states[:n],
            alpha=ALPHAS["unsaturated"],
            base=np.e,
            standard_errors=False,
            device=device,
            n_jobs=None if device == "cuda" else -1,
        ).entropy
    )


def on_torch(states, device, dtype, *, signs=False):
    """Return the gates as 0 and 1, or as -1 and 1, on torch's device."""
    import torch

    _require_torch(device)
    X = torch.empty(states.shape, dtype=dtype, device=device)
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
    whole = torch.from_numpy(states.packed[0])
    for own, packed in zip(X.split(_MADE_ROWS), whole.split(_MADE_ROWS), strict=True):
        bits = packed.to(device)[..., None].bitwise_right_shift(places).bitwise_and_(1)
        own.copy_(bits.flatten(1)[:, : own.shape[1]])
    return X.mul_(2).sub_(1) if signs else X


def scale_of(states):
    """Return what distances are multiplied by."""
    return float(-0.5 / variance(states, ALPHAS["unsaturated"]))


def _require_torch(device):
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ImportError("torch sees no GPU")


def _tiles(n, size, *, once):
    """Return pairs of slices; each pair of rows once, or both ways."""
    ranges = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    return [(r, c) for i, r in enumerate(ranges) for c in (ranges[i:] if once else ranges)]


def product(*, once):
    """Return the method that is the matrix product of int8 alone, tile by tile."""

    def prepare(states, device):
        import torch

        X = on_torch(states, device, torch.int8)

        @torch.inference_mode()
        def run(n):
            for rows, columns in _tiles(n, _TILE[device], once=once):
                torch._int_mm(X[rows], X[columns].T)
            _synchronize(device)

        return run

    return prepare


def _synchronize(device):
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _row_and_column_sums(gram, d, scale):
    """Return the sums of a tile of kernel values; ``gram`` is of -1 and 1, and so is exact."""
    kernel = ((gram - d) * (-0.5 * scale)).exp()
    return kernel.sum(1), kernel.sum(0)


def _row_and_column_sums_in_place(gram, d, scale):
    kernel = gram.sub_(d).mul(-0.5 * scale).exp_()
    return kernel.sum(1), kernel.sum(0)


def int8_gram(*, compiled):
    """Return the method of `torch._int_mm`, each pair once, and its kernel values a tile at a time.

    With gates as -1 and 1, the Hamming distance is half of what the product lacks to d. Compiled,
    kernel values and both sums are one kernel; otherwise they are as many passes as calls.
    """

    def prepare(states, device):
        import torch

        X = on_torch(states, device, torch.int8, signs=True)
        d, scale = X.shape[1], scale_of(states)
        sums = _row_and_column_sums_in_place
        if compiled:
            sums = torch.compile(_row_and_column_sums, dynamic=True)

        @torch.inference_mode()
        def run(n):
            masses = torch.zeros(n, dtype=torch.float64, device=device)
            for rows, columns in _tiles(n, _TILE[device], once=True):
                to_rows, to_columns = sums(torch._int_mm(X[rows], X[columns].T), d, scale)
                masses[rows] += to_rows
                if rows != columns:
                    masses[columns] += to_columns
            return np.log(n) - masses.log().mean().item()

        return run

    return prepare


def torch_cdist(states, device):
    """`torch.cdist` in float32, squared again, all pairs."""
    import torch

    X = on_torch(states, device, torch.float32)
    scale = scale_of(states)

    @torch.inference_mode()
    def run(n):
        step = max(1, _BLOCK_BYTES[device] // (4 * n))
        total = 0.0
        for rows in X[:n].split(step):
            kernel = torch.cdist(rows, X[:n]).square_().mul_(scale).exp_()
            total += kernel.sum(1).log_().double().sum().item()
        return np.log(n) - total / n

    return run


def keops(states, device):
    """A symbolic matrix of KeOps, reduced without being held."""
    import torch
    from pykeops.torch import LazyTensor

    X = on_torch(states, device, torch.float32)
    scale = scale_of(states)

    def run(n):
        x = X[:n].contiguous()
        distances = ((LazyTensor(x[:, None, :]) - LazyTensor(x[None, :, :])) ** 2).sum(-1)
        return np.log(n) - (scale * distances).logsumexp(1).double().mean().item()

    return run


METHODS = {
    ALL: product(once=False),
    ONCE: product(once=True),
    OURS: ours,
    "torch._int_mm + exp, each pair once": int8_gram(compiled=False),
    "the same, torch.compile": int8_gram(compiled=True),
    "torch.cdist + exp, float32": torch_cdist,
    "KeOps, float32": keops,
}


def ceiling(d, device):
    """Return the int8 operations a second of one large matrix product, or None."""
    import torch

    try:
        _require_torch(device)
    except ImportError:
        return None
    size = _TILE[device]
    X = torch.randint(0, 2, (size, d), dtype=torch.int8, device=device)

    def run():
        torch._int_mm(X, X.T)
        _synchronize(device)

    run()
    once, _ = timed(run)
    repeats = int(np.clip(_CEILING_SECONDS / once, 3, 100))
    return 2 * size * size * d / median(timed(run)[0] for _ in range(repeats))


@contextmanager
def peak_gpu_mb(device):
    """Yield a list that in the end holds the most memory that was in use on the device, in MB."""
    found = []
    if device == "cpu":
        yield found
        return
    used, stop = _memory_in_use(), threading.Event()
    most = used()

    def watch():
        nonlocal most
        while not stop.wait(_SAMPLED_SECONDS):
            most = max(most, used())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
        # what pools keep counts too, so that the peak of a short run is not missed
        found.append(max(most, used()) / 1e6)


def _memory_in_use():
    """Return a function that tells the bytes in use on the device."""
    try:
        from cupy.cuda import runtime

        free_and_total = runtime.memGetInfo
    except ImportError:
        import torch

        free_and_total = torch.cuda.mem_get_info

    def used():
        free, total = free_and_total()
        return total - free

    return used


def measure(method, path, device, repeats, limit):
    """Return a record of one method in this process: seconds, peak and value, or why not."""
    warnings.simplefilter("ignore")
    try:
        states = GatingStates.load(path)
        with peak_gpu_mb(device) as peak:
            run = METHODS[method](states, device)
            expected = expected_seconds(run, len(states))
            if expected > limit:
                return {"failure": f"skipped (est. {expected:.0f} s)"}
            repeats = int(np.clip(_BUDGET_SECONDS / expected, 1, repeats))
            runs = [timed(run, len(states)) for _ in range(repeats)]
    except ImportError as error:
        return {"failure": str(error) if "GPU" in str(error) else "not installed"}
    except Exception as error:
        return {"failure": f"failed ({type(error).__name__})"}
    return {
        "seconds": median(seconds for seconds, _ in runs),
        "nats": runs[0][1],
        "peak": peak[0] if peak else None,
    }


def reference(path):
    """Return H in nats as float64 on the CPU has it."""
    warnings.simplefilter("ignore")
    return ours(states := GatingStates.load(path), "cpu")(len(states))


def measure_size(n, d, device, methods, repeats, limit):
    """Return records by method, the value of float64 or None, and the ceiling or None."""
    records = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states.npz"
        write_states(n, d, path)
        top = fresh_process(ceiling, d, device)
        for method in methods:
            print(n, d, method, sep=", ", file=sys.stderr)
            try:
                record = fresh_process(measure, method, path, device, repeats, limit)
            except BrokenProcessPool:
                record = {"failure": "failed (killed, for memory perhaps)"}
            records[method] = record
        exact = fresh_process(reference, path) if n * n <= _REFERENCE_PAIRS else None
    return records, exact, top


def result_table(results, device):
    """Return the table of all measurements."""
    header = ["n", "d", "method", "seconds", "ratio", "utilisation", "peak MB", "H bits", "off"]
    rows = []
    for (n, d), (records, exact, top) in results.items():
        if top is not None:
            lead = [str(n), str(d), f"one product, {top / 1e12:.4g} int8 Top/s"]
            rows.append([*lead, NONE, NONE, "100%", *[NONE] * 3])
        own = records.get(OURS, {}).get("seconds")
        for method, record in records.items():
            lead = [str(n), str(d), method if method != OURS else f"{OURS}, device={device!r}"]
            if "failure" in record:
                rows.append([*lead, record["failure"], *[NONE] * 5])
                continue
            seconds, nats, peak = record["seconds"], record["nats"], record["peak"]
            rows.append(
                [
                    *lead,
                    f"{seconds:.4g}",
                    NONE if own is None else f"{seconds / own:.2f}",
                    NONE if top is None else f"{n * n * d / seconds / top:.0%}",
                    NONE if peak is None else f"{peak:.0f}",
                    NONE if nats is None else f"{nats / np.log(2):.6f}",
                    NONE if None in (nats, exact) else f"{(nats - exact) / np.log(2):.0e}",
                ]
            )
    return rst_table(header, rows)


def target_table(results, device):
    """Return what the project set out for on a GPU, and whether it is there."""
    rows = []
    for product_ in [ALL, ONCE]:
        own, bare = (_seconds(results, device, 50_000, method) for method in [OURS, product_])
        ratio = None if None in (own, bare) else own / bare
        rows.append(
            [
                f"H n=50000 d=16384 <= {MOST_OF_PRODUCT}x {product_}",
                NONE if ratio is None else f"{ratio:.2f}x",
                verdict(ratio and ratio <= MOST_OF_PRODUCT),
            ]
        )
    own = _seconds(results, device, 1_000_000, OURS)
    rows.append(
        [
            f"H n=1000000 d=16384 < {MOST_SECONDS} s",
            NONE if own is None else f"{own:.3g} s",
            verdict(own and own < MOST_SECONDS),
        ]
    )
    return rst_table(["target, on a GPU", "measured", "verdict"], rows)


def _seconds(results, device, n, method):
    if device != "cuda":
        return None
    records, *_ = results.get((n, 16_384), ({},))
    return records.get(method, {}).get("seconds")


def _size(text):
    n, d = map(int, text.split("x"))
    return n, d


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--sizes", nargs="+", type=_size, metavar="NxD")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5, help="runs of a process, at most")
    parser.add_argument("--limit", type=float, default=120, help="seconds a single run may take")
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    device, gpu = fresh_process(find_device)
    if args.device != "auto":
        device = args.device
    results = {
        size: measure_size(*size, device, args.methods, args.repeats, args.limit)
        for size in args.sizes or SIZES[device]
    }
    cupy = packages_distributions().get("cupy", ["cupy"])[0]  # it has CUDA's version in its name
    machine = machine_line("torch", "numpy", "numkong", cupy, "pykeops")
    where = f"on {gpu or 'a GPU'}" if device == "cuda" else "on the CPU; no GPU was used"
    publish(
        [
            f"{machine}; {where}",
            NOTE,
            result_table(results, device),
            target_table(results, device),
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
