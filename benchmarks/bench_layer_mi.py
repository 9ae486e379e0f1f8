"""Time and memory of the information of a layer, ours against other ways to the same numbers.

Each measurement is a fresh process. Before it is timed, a method has to agree with ours on the
first rows to the precision of its table, or the benchmark stops. A peer whose run would take longer
than ``--limit``, as judged from fewer rows, is skipped, and the table says so.
"""

import argparse
import sys
import warnings
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

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
)

N_CLASSES = 10
OURS, OURS_1 = "skgate, n_jobs=2", "skgate, n_jobs=1"
SAME, DOUBLE, SINGLE = 1e-12, 1e-10, 1e-4  # bits that values may differ by
NOTE = (
    "Activations of one layer, 10 classes, labels without meaning. A value is the median of "
    "fresh processes. Ratios are to the first row of each size. Peak memory is what comes on "
    "top of the activations. Before it was timed, each method agreed with ours on 512 rows to "
    f"{DOUBLE:.0e} bits, or to {SINGLE:.0e} if it works in float32; the last column is the larger "
    "difference of the two values on all rows."
)

_BLOCK_BYTES = 1 << 27  # kernel values that a peer holds at once
_CHECKED_ROWS = 512  # on which values are compared before anything is timed
_FIRST_ROWS = 1024
_TRUSTED_SECONDS = 0.3  # a run of this length tells how long a larger one takes
_BUDGET_SECONDS = 2  # of the repeated runs of one process
_MIN_RUNS = 3

NOTES = {
    "gibbs": (
        "Gibbs. The activations are float32, rectified, of a standard deviation of 2 before. The "
        "softmax of torch or SciPy is one step of the information plane, whose other steps are "
        "the class means and the entropies. The dense versions hold the probabilities and their "
        "logarithms of all samples."
    ),
    "kde": (
        "Kernel density. The activations are float32, rectified mixtures of 4 Gaussian factors, "
        "and the noise has 0.04 of their variance, so that every kernel value counts. The peers "
        "compute all pairs, a block of rows at a time, and the sums of each class by a product "
        "with indicators, or, with logsumexp, from the columns of the class."
    ),
    "binned": (
        "Binning. The activations are float32; the 1024 units repeat 20,000 vectors, the 10 units "
        "are Gaussian with a standard deviation of 3; bins are 2 wide. The peers hold the bins as "
        "int32, and count the classes in each cell by a second np.unique on what the first one "
        "returns."
    ),
}


def make_data(kind, n, d):
    """Return random activations and labels, made in place so that making them sets no peak."""
    rng = np.random.default_rng(0)
    X, y = np.empty((n, d), np.float32), rng.integers(0, N_CLASSES, n)
    if kind == "binned" and d > 16:
        known = rng.standard_normal((n // 3, d), dtype=np.float32)
        np.take(known, rng.integers(0, len(known), n), axis=0, out=X, mode="clip")
        X *= 3
    elif kind == "kde":
        factors = rng.standard_normal((n, 4), dtype=np.float32)
        np.matmul(factors, rng.standard_normal((4, d), dtype=np.float32), out=X)
        np.maximum(X, 0, out=X)
    else:
        rng.standard_normal(out=X, dtype=np.float32)
        X *= 3 if kind == "binned" else 2
        if kind == "gibbs":
            np.maximum(X, 0, out=X)
    return X, y


# Each function below imports what it needs, which is not timed, and returns a function from a
# number of rows to I(X;T) and I(Y;T) in bits, or to None where it does only a part of the work.


def gibbs(n_jobs):
    """Return the method that is `gibbs_layer_mi` on ``n_jobs`` threads."""

    def prepare(X, y):
        from skgate import gibbs_layer_mi

        return lambda n: _values(gibbs_layer_mi(X[:n], y[:n], n_jobs=n_jobs))

    return prepare


def torch_softmax(n_threads, *, out):
    """Return the method that is `torch.softmax`, into memory that is there already or is not."""

    def prepare(X, y):
        import torch

        torch.set_num_threads(n_threads)
        t = torch.from_numpy(X)
        into = torch.zeros_like(t) if out else None

        @torch.inference_mode()
        def run(n):
            torch.softmax(t[:n], 1, **({} if into is None else {"out": into[:n]}))

        return run

    return prepare


def scipy_softmax(X, y):
    """`scipy.special.softmax`."""
    from scipy.special import softmax

    def run(n):
        softmax(X[:n], axis=1)

    return run


def torch_plane(dtype, n_threads):
    """Return the method that is the information plane as one would write it down."""

    def prepare(X, y):
        import torch

        torch.set_num_threads(n_threads)
        t, labels = torch.from_numpy(X), torch.from_numpy(y)

        @torch.inference_mode()
        def run(n):
            log_p = torch.log_softmax(t[:n].to(getattr(torch, dtype)), 1)
            p = log_p.exp()
            given_x = -(p * log_p).sum(1).double().mean()
            sums = torch.zeros(N_CLASSES, t.shape[1], dtype=p.dtype).index_add_(0, labels[:n], p)
            counts = torch.bincount(labels[:n], minlength=N_CLASSES).double()
            given = sums.double() / counts[:, None]
            weights = counts / n
            total = torch.special.entr(weights @ given).sum()
            given_y = weights @ torch.special.entr(given).sum(1)
            return _bits(total - given_x, total - given_y)

        return run

    return prepare


def kde(n_jobs):
    """Return the method that is `kde_layer_mi` on ``n_jobs`` threads."""

    def prepare(X, y):
        from skgate import kde_layer_mi

        noise = _noise(X)
        return lambda n: _values(
            kde_layer_mi(X[:n], y[:n], noise_variance=noise, n_jobs=n_jobs, device="cpu")
        )

    return prepare


def torch_gemm(dtype):
    """Return the method that is D = s_i + s_j - 2 X X^T in one call a block, the rest in place."""

    def prepare(X, y):
        import torch

        t, scale = torch.from_numpy(X).to(getattr(torch, dtype)), -0.5 / _noise(X)
        t = t - t.mean(0)
        indicators = torch.nn.functional.one_hot(torch.from_numpy(y), N_CLASSES).to(t.dtype)

        @torch.inference_mode()
        def run(n):
            x, own = t[:n], indicators[:n]
            squares, sums = (x * x).sum(1), torch.empty(n, N_CLASSES, dtype=t.dtype)
            for rows in _blocks(n, x.element_size()):
                kernel = torch.addmm(squares, x[rows], x.T, alpha=-2)
                kernel.add_(squares[rows, None]).clamp_(min=0).mul_(scale).exp_()
                torch.mm(kernel, own, out=sums[rows])
            return _of_class_sums(sums.double().numpy(), y[:n])

        return run

    return prepare


def sklearn_distances(X, y):
    """`euclidean_distances` and `logsumexp`, over all columns and over those of the class."""
    from scipy.special import logsumexp
    from sklearn.metrics.pairwise import euclidean_distances

    scale = -0.5 / _noise(X)

    def run(n):
        order = np.argsort(y[:n], kind="stable")
        x, codes = X[:n][order], y[:n][order]
        bounds = np.searchsorted(codes, np.arange(N_CLASSES + 1))
        total = given = 0.0
        for rows in _blocks(n, 4):
            exponents = scale * euclidean_distances(x[rows], x, squared=True)
            total += logsumexp(exponents, axis=1).sum(dtype=float)
            own = codes[rows]
            for m in np.unique(own):
                part = exponents[own == m, bounds[m] : bounds[m + 1]]
                masses = logsumexp(part, axis=1).sum(dtype=float)
                given += masses - len(part) * np.log(part.shape[1])
        mi_x, rest = np.log(n) - total / n, -given / n
        return _bits(mi_x, mi_x - rest)

    return run


def scipy_cdist(X, y):
    """`scipy.spatial.distance.cdist`, whose own type is float64."""
    from scipy.spatial.distance import cdist

    scale, indicators = -0.5 / _noise(X), np.eye(N_CLASSES)[y]

    def run(n):
        x, sums = X[:n], np.empty((n, N_CLASSES))
        for rows in _blocks(n, 8):
            kernel = cdist(x[rows], x, "sqeuclidean")
            kernel *= scale
            np.matmul(np.exp(kernel, out=kernel), indicators[:n], out=sums[rows])
        return _of_class_sums(sums, y[:n])

    return run


def binned(X, y):
    """`binned_layer_mi`."""
    from skgate import binned_layer_mi

    return lambda n: _values(binned_layer_mi(X[:n], y[:n], bin_size=2.0))


def unique_rows(X, y):
    """`numpy.unique` along an axis."""
    return lambda n: _of_cells(*_unique(_bins(X[:n]), axis=0), y[:n])


def unique_views(X, y):
    """`numpy.unique` of rows that are viewed as one item of bytes each."""

    def run(n):
        bins = _bins(X[:n])
        rows = bins.view(np.dtype((np.void, bins.itemsize * bins.shape[1]))).ravel()
        return _of_cells(*_unique(rows), y[:n])

    return run


def _values(result):
    return float(result.mi_x[0]), float(result.mi_y[0])


def _bits(*nats):
    return tuple(float(value / np.log(2)) for value in nats)


def _noise(X):
    """Return the variance of the noise, of the first rows so that it takes no memory."""
    return 0.04 * float(X[:1000].var(axis=0, dtype=np.float64).sum())


def _blocks(n, itemsize):
    step = max(1, _BLOCK_BYTES // (itemsize * n))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _of_class_sums(sums, codes):
    """Return the information from the sums of kernel values over each class, (n, n_classes)."""
    n = len(codes)
    own = sums[np.arange(n), codes] / np.bincount(codes)[codes]
    mi_x = -np.log(sums.sum(axis=1) / n).mean()
    return _bits(mi_x, mi_x + np.log(own).mean())


def _bins(X):
    return np.floor(X / np.float32(2)).astype(np.int32)


def _unique(values, **axis):
    _, cells, sizes = np.unique(values, return_inverse=True, return_counts=True, **axis)
    return cells, sizes


def _of_cells(cells, sizes, codes):
    """Return the information from the cell of each sample."""
    n = len(codes)
    pairs = np.unique(cells * N_CLASSES + codes, return_counts=True)[1]
    mi_x = np.log(n) - sizes @ np.log(sizes) / n
    classes = np.bincount(codes)
    given = (classes @ np.log(classes) - pairs @ np.log(pairs)) / n
    return _bits(mi_x, mi_x - given)


class Peer(NamedTuple):
    """How a method is prepared, and how many bits it may differ by; None if it has no values."""

    prepare: object
    tolerance: float | None = None


# The order is that of the runs. Work grows with the power of the number of rows.
METHODS = {
    "gibbs": {
        OURS: Peer(gibbs(2), SAME),
        OURS_1: Peer(gibbs(1), SAME),
        "torch.softmax, 1 thread": Peer(torch_softmax(1, out=False)),
        "torch.softmax, 2 threads": Peer(torch_softmax(2, out=False)),
        "torch.softmax with out=, 1 thread": Peer(torch_softmax(1, out=True)),
        "torch.softmax with out=, 2 threads": Peer(torch_softmax(2, out=True)),
        "scipy softmax": Peer(scipy_softmax),
        "torch dense plane, float32, 1 thread": Peer(torch_plane("float32", 1), SINGLE),
        "torch dense plane, float32, 2 threads": Peer(torch_plane("float32", 2), SINGLE),
        "torch dense plane, float64, 2 threads": Peer(torch_plane("float64", 2), DOUBLE),
    },
    "kde": {
        OURS: Peer(kde(2), SAME),
        OURS_1: Peer(kde(1), SAME),
        "torch GEMM + exp, float32": Peer(torch_gemm("float32"), SINGLE),
        "torch GEMM + exp, float64": Peer(torch_gemm("float64"), DOUBLE),
        "sklearn euclidean_distances + logsumexp": Peer(sklearn_distances, SINGLE),
        "scipy cdist + exp": Peer(scipy_cdist, DOUBLE),
    },
    "binned": {
        "skgate": Peer(binned, SAME),
        "numpy unique of void views": Peer(unique_views, DOUBLE),
        "numpy unique(axis=0)": Peer(unique_rows, DOUBLE),
    },
}
POWERS = {"gibbs": 1, "kde": 2, "binned": 1}
SIZES = {
    "gibbs": [(60000, 1024)],
    "kde": [(2000, 1024), (10000, 1024), (10000, 16)],
    "binned": [(60000, 1024), (60000, 10)],
}


def require_agreement(kind, method, run, X, y):
    """Raise if a method differs from ours on the first rows by more than its tolerance."""
    own, tolerance = next(iter(METHODS[kind].values())), METHODS[kind][method].tolerance
    if tolerance is None:
        return
    n = min(_CHECKED_ROWS, len(X))
    expected, values = own.prepare(X, y)(n), run(n)
    off = np.abs(np.subtract(values, expected)).max()
    if off > tolerance:
        raise AssertionError(f"{kind}, {method}: {values} against {expected}, {off:.0e} bits off")


def expected_seconds(run, n, power):
    """Return how long ``n`` rows should take, from growing numbers of rows; warms up too."""
    rows = min(_FIRST_ROWS, n)
    run(rows)
    while True:
        seconds, _ = timed(run, rows)
        if rows == n or seconds >= _TRUSTED_SECONDS:
            return seconds * (n / rows) ** power
        rows = min(4 * rows, n)


def measure(kind, method, n, d, limit):
    """Return a record of one method in this process: seconds, peak and values, or why not."""
    warnings.simplefilter("ignore")  # of saturation, which the first rows bring about
    X, y = make_data(kind, n, d)
    run = METHODS[kind][method].prepare(X, y)
    require_agreement(kind, method, run, X, y)
    before = peak_mb()
    try:
        expected = expected_seconds(run, n, POWERS[kind])
        if expected > limit:
            return {"failure": f"skipped (est. {expected:.0f} s)"}
        repeats = max(_MIN_RUNS, int(_BUDGET_SECONDS / expected)) if expected < limit / 5 else 1
        runs = [timed(run, n) for _ in range(min(repeats, 15))]
    except MemoryError:
        return {"failure": "out of memory"}
    return {
        "seconds": [seconds for seconds, _ in runs],
        "peak": peak_mb() - before,
        "values": runs[0][1],
    }


def measure_all(sizes, rounds, limit):
    """Return records by ``(kind, method, n, d)``; short runs are taken in several rounds."""
    records = {}
    for kind, shapes in sizes.items():
        for n, d in shapes:
            for _ in range(rounds):
                for method in METHODS[kind]:
                    key = kind, method, n, d
                    old = records.get(key, {"seconds": [], "peak": 0.0})
                    if "failure" in old or sum(old["seconds"]) > 2 * _BUDGET_SECONDS:
                        continue
                    print(*key, sep=", ", file=sys.stderr)
                    records[key] = _joined(old, _record(*key, limit))
    return records


def _record(*args):
    try:
        return fresh_process(measure, *args)
    except BrokenProcessPool:
        return {"failure": "failed (killed, for memory perhaps)"}


def _joined(old, new):
    if "failure" in new:
        return new
    seconds, peak = old["seconds"] + new["seconds"], max(old["peak"], new["peak"])
    return {**new, "seconds": seconds, "peak": peak, "median": median(seconds)}


def result_table(records, kind):
    """Return the table of all measurements of one kind."""
    header = ["n", "d", "method", "seconds", "ratio", "peak MB", "I(X;T)", "I(Y;T)", "off ours"]
    ours = next(iter(METHODS[kind]))
    rows = []
    for (own_kind, method, n, d), record in records.items():
        if own_kind != kind:
            continue
        own = records[kind, ours, n, d]
        if "failure" in record:
            rows.append([str(n), str(d), method, record["failure"], *[NONE] * 5])
            continue
        values = record["values"]
        off = None if None in (values, own.get("values")) else np.subtract(values, own["values"])
        rows.append(
            [
                *(str(n), str(d), method, f"{record['median']:.4g}"),
                f"{record['median'] / own['median']:.2f}" if "median" in own else NONE,
                f"{record['peak']:.0f}",
                *([NONE] * 2 if values is None else [f"{value:.6f}" for value in values]),
                NONE if off is None else f"{np.abs(off).max():.0e}",
            ]
        )
    return rst_table(header, rows)


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=2, help="processes of each short method")
    parser.add_argument("--limit", type=float, default=40, help="seconds a single run may take")
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    records = measure_all({kind: SIZES[kind] for kind in args.kinds}, args.rounds, args.limit)
    parts = [machine_line("torch", "numpy", "scikit-learn", "scipy"), NOTE]
    for kind in args.kinds:
        parts += [NOTES[kind], result_table(records, kind)]
    publish(parts, args.output)


if __name__ == "__main__":
    main()
