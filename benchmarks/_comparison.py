"""Comparisons of methods by asv, and the data that they share."""

import os
import resource
import sys
import time
import warnings
from functools import cache

import numpy as np

from skgate import GateLayer, GatingStates

ALPHAS = {"saturated": 0.01, "unsaturated": 0.04}
LIMIT = float(os.environ.get("SKGATE_BENCH_LIMIT", 300))  # seconds that a single run may take

_FIRST_ROWS = 256
_TRUSTED_SECONDS = 0.3  # a run of this length predicts how long a larger one takes


def sizes(*default):
    """Return the sizes to measure, such as "2000x1024": SKGATE_BENCH_SIZES if that is set."""
    return os.environ.get("SKGATE_BENCH_SIZES", "").split() or list(default)


def shape(size):
    """Return the two numbers of a size."""
    n, d = map(int, size.split("x"))
    return n, d


def peak_mb():
    """Return the largest resident memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def seconds_of(function, *args):
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


class _Comparison:
    """A benchmark whose last parameter is the method; the first method is ours.

    Each measurement is a process of its own, and the methods take turns. ``prepare(*param)``
    returns a function and its argument. The argument is a number of rows or gates if the work grows
    with the power ``power`` of it: runs on fewer predict the time of a whole run, and one that
    would exceed the limit is skipped. It is None for work that is always run.
    """

    timeout = 20 * LIMIT
    rounds, repeat, warmup_time, min_run_count = 2, (1, 5, 10.0), 0.0, 1

    power = 2
    #: Whether the peak memory includes the data and networks that `prepare` makes.
    peak_with_data = False
    #: Times that `prepare`'s function repeats what the table gives the seconds of.
    n_steps = 1
    #: The method that values are compared with; the first one by default.
    reference = None
    #: Further columns: name of the tracking function -> header and format.
    columns = {}
    #: Whether values are compared with the reference.
    compares = True

    #: Rows ``(target, measured, over)``: seconds of the parameters ``measured``, divided by those
    #: of ``over`` unless that is None. A target ends with its bound, such as "<= 1.5x" or "< 10 s".
    targets = []

    @staticmethod
    def derived(value, *param):
        """Return further cells by header."""
        return {}

    def setup(self, *param):
        self.run, self.n, self.before = _prepared(type(self), *param)

    def time_run(self, *param):
        self.call()

    def track_peak(self, *param):
        self.call()
        return peak_mb() - self.before

    def call(self):
        """Run once; return the value, not a number if there is none."""
        value = self.run() if self.n is None else self.run(self.n)
        return float("nan") if value is None else value


@cache
def _prepared(comparison, *param):
    """Return function, argument and the peak memory before; asv calls ``setup`` for each run."""
    warnings.simplefilter("ignore")  # of saturation, which is intended here
    before = peak_mb()
    try:
        run, n = comparison().prepare(*param)
        if not comparison.peak_with_data:
            before = peak_mb()
        if n is not None and _expected_seconds(run, n, comparison.power) > LIMIT:
            raise NotImplementedError("would exceed the limit")
    except ImportError as error:
        raise NotImplementedError(error) from error  # asv skips these
    return run, n, before


def _expected_seconds(run, n, power):
    """Return how long ``n`` rows should take, from growing numbers of rows; warms up too."""
    rows = min(_FIRST_ROWS, n)
    run(rows)
    while True:
        seconds = seconds_of(run, rows)
        if rows == n or seconds >= _TRUSTED_SECONDS:
            return seconds * (n / rows) ** power
        rows = min(4 * rows, n)


def make_states(n, d, gates="unsaturated", step=128):
    """Return random packed gates, made some rows at a time so that making them sets no peak."""
    rng, packed = np.random.default_rng(0), np.empty((n, -(-d // 8)), np.uint8)
    loadings = rng.standard_normal((4, d), dtype=np.float32)
    for start in range(0, n, step):
        n_rows = min(step, n - start)
        if gates == "saturated":
            block = rng.random((n_rows, d), dtype=np.float32) < 0.3
        else:
            block = rng.standard_normal((n_rows, 4), dtype=np.float32) @ loadings > 0
        packed[start : start + n_rows] = np.packbits(block, axis=1)
    return GatingStates([packed], [GateLayer("gates", d)])


def kernel_weight(states, gates="unsaturated"):
    """Return the weight of distances in ``exp(-weight * D)``, by ``bandwidth="variance"``."""
    rates = states.activation_rates()[0]
    return 0.5 / (ALPHAS[gates] * np.sum(rates * (1 - rates)))
