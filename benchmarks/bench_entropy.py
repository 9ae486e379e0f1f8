"""Time and memory of the entropy of one layer, ours against other ways to the same number.

Each measurement is a fresh process. A peer whose run would take longer than ``--limit``, as
judged from fewer rows, is skipped, and the table says so.
"""

import argparse
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from _common import (
    NONE,
    fresh_process,
    machine_line,
    median,
    peak_mb,
    publish,
    rst_table,
    timed,
    verdict,
)

SIZES = [(2000, 1024), (2000, 16384), (10000, 4096), (50000, 4096)]
ALPHAS = {"saturated": 0.01, "unsaturated": 0.04}
NOTE = (
    "Saturated: independent gates, open at a rate of 0.3, and the published alpha of 0.01 for "
    "gates without positions; all kernel values between samples round off, and ours leaves their "
    "exponentials out. Unsaturated: gates that are the signs of random mixtures of 4 Gaussian "
    "factors, and the published alpha of 0.04 for gates with positions; ours computes every kernel "
    "value. Ours starts from packed gates and estimates the bandwidth within its time; the peers "
    "are given the bandwidth and the gates as floating-point numbers, 4 or 8 bytes a gate, and "
    "neither counts. Peak memory is what comes on top of each method's own input."
)

OURS, OURS_1 = "skgate, n_jobs=2", "skgate, n_jobs=1"
EXPERT, FLOOR = "torch GEMM, float32", "NumKong distances alone, 2 threads"

_BLOCK_BYTES = 1 << 27  # kernel values that a peer holds at once
_FIRST_ROWS = 256
_TRUSTED_SECONDS = 0.5  # a run of this length tells how long a larger one takes
_BUDGET_SECONDS = 20  # of the repeated runs of one process


def packed_blocks(n, d, gates, step=128):
    """Yield random packed gates, some rows at a time, so that making them sets no peak."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((4, d), dtype=np.float32)
    for start in range(0, n, step):
        n_rows = min(step, n - start)
        if gates == "saturated":
            block = rng.random((n_rows, d), dtype=np.float32) < 0.3
        else:
            block = rng.standard_normal((n_rows, 4), dtype=np.float32) @ loadings > 0
        yield start, np.packbits(block, axis=1)


def make_states(n, d, gates):
    """Return random packed gates."""
    from skgate import GateLayer, GatingStates

    packed = np.empty((n, -(-d // 8)), np.uint8)
    for start, rows in packed_blocks(n, d, gates):
        packed[start : start + len(rows)] = rows
    return GatingStates([packed], [GateLayer("gates", d)])


def unpacked(states, dtype):
    """Return the gates as numbers."""
    X = np.empty(states.shape, dtype)
    for rows, gates in states.iter_unpacked(0):
        X[rows] = gates
    return X


def variance(states, alpha):
    """Return the variance of the kernel, as ``bandwidth="variance"`` sets it."""
    rates = states.activation_rates()[0]
    return alpha * np.sum(rates * (1 - rates))


def _blocks(n, itemsize):
    step = max(1, _BLOCK_BYTES // (itemsize * n))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


# Each function below imports what it needs and converts the gates, which is not timed, and
# returns a function from a number of rows to their entropy in nats.


def ours(n_jobs):
    """Return the method that is `gating_entropy` on ``n_jobs`` threads."""

    def prepare(states, alpha):
        from skgate import gating_entropy

        return lambda n: (
            gating_entropy(
                states[:n],
                alpha=alpha,
                bandwidth="variance",
                base=np.e,
                standard_errors=False,
                n_jobs=n_jobs,
            ).entropy
        )

    return prepare


def torch_gemm(states, alpha):
    """D = s_i + s_j - 2 X X^T in one call a block, and everything after it in place."""
    import torch

    X, scale = torch.from_numpy(unpacked(states, np.float32)), -0.5 / variance(states, alpha)

    @torch.inference_mode()
    def run(n):
        x, total = X[:n], 0.0
        squares = x.sum(1)  # gates are their own squares
        for rows in _blocks(n, 4):
            kernel = torch.addmm(squares, x[rows], x.T, alpha=-2)
            kernel.add_(squares[rows, None]).mul_(scale).exp_()
            total += kernel.sum(1).log_().double().sum().item()
        return np.log(n) - total / n

    return run


def torch_cdist(states, alpha):
    """`torch.cdist`, squared again."""
    import torch

    X, scale = torch.from_numpy(unpacked(states, np.float32)), -0.5 / variance(states, alpha)

    @torch.inference_mode()
    def run(n):
        x, total = X[:n], 0.0
        for rows in _blocks(n, 4):
            kernel = torch.cdist(x[rows], x).square_().mul_(scale).exp_()
            total += kernel.sum(1).log_().double().sum().item()
        return np.log(n) - total / n

    return run


def sklearn_distances(states, alpha):
    """`euclidean_distances` and `logsumexp`."""
    from scipy.special import logsumexp
    from sklearn.metrics.pairwise import euclidean_distances

    X, scale = unpacked(states, np.float32), -0.5 / variance(states, alpha)

    def run(n):
        x, total = X[:n], 0.0
        for rows in _blocks(n, 4):
            distances = euclidean_distances(x[rows], x, squared=True)
            total += np.sum(logsumexp(scale * distances, axis=1), dtype=float)
        return np.log(n) - total / n

    return run


def sklearn_density(states, alpha):
    """`KernelDensity`, without the normaliser of its Gaussian."""
    from sklearn.neighbors import KernelDensity

    X, sigma2 = unpacked(states, np.float64), variance(states, alpha)

    def run(n):
        density = KernelDensity(bandwidth=np.sqrt(sigma2)).fit(X[:n])
        return -density.score_samples(X[:n]).mean() - X.shape[1] / 2 * np.log(2 * np.pi * sigma2)

    return run


def scipy_cdist(states, alpha):
    """`scipy.spatial.distance.cdist`, whose own type is float64."""
    from scipy.spatial.distance import cdist

    X, scale = unpacked(states, np.float64), -0.5 / variance(states, alpha)

    def run(n):
        x, total = X[:n], 0.0
        for rows in _blocks(n, 8):
            kernel = cdist(x[rows], x, "sqeuclidean")
            kernel *= scale
            total += np.log(np.exp(kernel, out=kernel).sum(axis=1)).sum()
        return np.log(n) - total / n

    return run


def keops(states, alpha):
    """A symbolic matrix of KeOps, reduced without being held."""
    import torch
    from pykeops.torch import LazyTensor

    X, scale = torch.from_numpy(unpacked(states, np.float32)), -0.5 / variance(states, alpha)

    def run(n):
        x = X[:n].contiguous()
        distances = ((LazyTensor(x[:, None, :]) - LazyTensor(x[None, :, :])) ** 2).sum(-1)
        return np.log(n) - (scale * distances).logsumexp(1).double().mean().item()

    return run


def distances_alone(states, alpha):
    """Every pair's distance once and nothing else: what no entropy can be faster than."""
    import numkong

    (packed,) = states.packed

    def slab(start, stop):
        columns = numkong.hammings_pack(packed[start:stop])
        for row in range(0, stop, 1024):
            numkong.hammings_packed(packed[row : min(row + 1024, stop)], columns)

    def run(n):
        starts = range(0, n, 64)[::-1]  # the longest first, so that the threads end together
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(slab, starts, [min(start + 64, n) for start in starts]))

    return run


METHODS = {
    OURS: ours(2),
    FLOOR: distances_alone,
    OURS_1: ours(1),
    EXPERT: torch_gemm,
    "torch.cdist + exp": torch_cdist,
    "sklearn euclidean_distances + logsumexp": sklearn_distances,
    "sklearn KernelDensity": sklearn_density,
    "scipy cdist + exp": scipy_cdist,
    "KeOps": keops,
}


def expected_seconds(run, n):
    """Return how long ``n`` rows should take, from growing numbers of rows; warms up too."""
    rows = min(_FIRST_ROWS, n)
    run(rows)
    while True:
        seconds, _ = timed(run, rows)
        if rows == n or seconds >= _TRUSTED_SECONDS:
            return seconds * (n / rows) ** 2
        rows = min(4 * rows, n)


def measure(method, n, d, gates, repeats, limit):
    """Return a record of one method in this process: seconds, peak and value, or why not."""
    warnings.simplefilter("ignore")  # of saturation, which is intended here
    try:
        states = make_states(n, d, gates)
        run = METHODS[method](states, ALPHAS[gates])
        before = peak_mb()
        expected = expected_seconds(run, n)
        if expected > limit:
            return {"failure": f"skipped (est. {expected:.0f} s)"}
        repeats = int(np.clip(_BUDGET_SECONDS / expected, 1, repeats))
        runs = [timed(run, n) for _ in range(repeats)]
    except ImportError:
        return {"failure": "not installed"}
    except Exception as error:
        return {"failure": f"failed ({type(error).__name__})"}
    value = runs[0][1]
    return {
        "seconds": [seconds for seconds, _ in runs],
        "peak": peak_mb() - before,
        "bits": None if value is None else value / np.log(2),
    }


def measure_all(sizes, repeats, rounds, limit):
    """Return records by ``(n, d, gates, method)``; short runs are taken in several rounds."""
    records = {}
    for n, d in sizes:
        for gates in ALPHAS:
            for _ in range(rounds):
                for method in METHODS:
                    key = n, d, gates, method
                    old = records.get(key, {"seconds": [], "peak": 0.0})
                    if "failure" in old or sum(old["seconds"]) > _BUDGET_SECONDS:
                        continue
                    print(*key, sep=", ", file=sys.stderr)
                    records[key] = _joined(old, _record(*key, repeats, limit))
    return records


def _record(n, d, gates, method, repeats, limit):
    try:
        return fresh_process(measure, method, n, d, gates, repeats, limit)
    except BrokenProcessPool:
        return {"failure": "failed (killed, for memory perhaps)"}


def _joined(old, new):
    if "failure" in new:
        return new
    seconds, peak = old["seconds"] + new["seconds"], max(old["peak"], new["peak"])
    return {**new, "seconds": seconds, "peak": peak, "median": median(seconds)}


def result_table(records):
    """Return the table of all measurements."""
    header = ["n", "d", "gates", "method", "seconds", "ratio", "peak MB", "H bits", "off ours"]
    rows = []
    for (n, d, gates, method), record in records.items():
        own = records[n, d, gates, OURS]
        lead = [str(n), str(d), gates, method]
        if "failure" in record:
            rows.append([*lead, record["failure"], *[NONE] * 4])
            continue
        bits, own_bits = record["bits"], own.get("bits")
        rows.append(
            [
                *lead,
                f"{record['median']:.4g}",
                f"{record['median'] / own['median']:.2f}" if "median" in own else NONE,
                f"{record['peak']:.0f}",
                NONE if bits is None else f"{bits:.6f}",
                NONE if None in (bits, own_bits) else f"{bits - own_bits:.0e}",
            ]
        )
    return rst_table(header, rows)


def target_table(records):
    """Return what the project set out for, and whether it is there."""
    header = ["target", "gates", "measured", "verdict"]
    rows = []
    for gates in ALPHAS:
        for n, d, least in [(2000, 16384, 40), (2000, 1024, 9)]:
            ratio = _ratio(records, (n, d, gates), EXPERT, OURS)
            target = f"H n={n} d={d} >= {least}x expert GEMM"
            measured = NONE if ratio is None else f"{ratio:.1f}x"
            rows.append([target, gates, measured, verdict(ratio and ratio >= least)])
        ratio = _ratio(records, (50000, 4096, gates), OURS, FLOOR)
        target = "H n=50000 d=4096 <= 1.35x bare distance pass, <= 300 MB above packed input"
        measured, met = NONE, None
        if ratio is not None:
            peak = records[50000, 4096, gates, OURS]["peak"]
            measured, met = f"{ratio:.2f}x, {peak:.0f} MB", ratio <= 1.35 and peak <= 300
        rows.append([target, gates, measured, verdict(met)])
    return rst_table(header, rows)


def _ratio(records, case, above, below):
    a, b = (records.get((*case, method), {}).get("median") for method in (above, below))
    return None if a is None or b is None else a / b


def _size(text):
    n, d = map(int, text.split("x"))
    return n, d


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=_size, default=SIZES, metavar="NxD")
    parser.add_argument("--repeats", type=int, default=5, help="runs of a process, at most")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each short method")
    parser.add_argument("--limit", type=float, default=300, help="seconds a single run may take")
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    records = measure_all(args.sizes, args.repeats, args.rounds, args.limit)
    machine = machine_line("torch", "numpy", "numkong", "scikit-learn", "scipy", "pykeops")
    publish([machine, NOTE, result_table(records), target_table(records)], args.output)


if __name__ == "__main__":
    main()
