"""How the pairs are cut into tiles, and how tasks of several tiles are run in parallel."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from joblib import Parallel, delayed
from joblib._parallel_backends import ThreadingBackend
from joblib.parallel import get_active_backend
from sklearn import get_config
from threadpoolctl import ThreadpoolController

# Measured: packs of 64 rows give NumKong its best rate from 2048 gates on, and a good one below.
TILE_COLUMNS = 64
# What stays in the second-level cache of one core; between 1 and 8 MiB it hardly matters.
_CACHE_BYTES = 2 << 20
_MAX_TASK_ROWS = 4096
_LITTLE_WORK = 5e6  # about 5 ms


def tile_rows(n_layers, n_terms):
    """Return the height of a tile whose distances and exponents fit in cache.

    Within scikit-learn's ``working_memory``, and independent of the number of threads, so
    that the same input gives the same bits on any number of them.
    """
    budget = min(_CACHE_BYTES, get_config()["working_memory"] * 2**20)
    rows = budget / (8 * TILE_COLUMNS * (2 * n_layers + n_terms + 1))
    return int(np.clip(rows // 64 * 64, 64, 1024))


def slices(start, stop, step):
    """Cut a range into slices of ``step``."""
    return [slice(s, min(s + step, stop)) for s in range(start, stop, step)]


def symmetric_tasks(n):
    """Return the ``(rows, columns)`` of tasks that cover each pair ``row <= column``."""
    step = min(-(-n // (16 * TILE_COLUMNS)) * TILE_COLUMNS, _MAX_TASK_ROWS)  # 16 tasks or more
    return [
        (rows, columns)
        for columns in slices(0, n, step)
        for rows in slices(0, columns.stop, _MAX_TASK_ROWS)
    ]


@cache
def _libraries():
    return ThreadpoolController()  # half a millisecond to find them


def run(function, tasks, n_jobs, work):
    """Yield ``function(*task)`` for each task, in order, on joblib's threads or workers.

    joblib says where and on how many workers. For its threads a plain pool is used: joblib
    looks for results every 10 ms, which is as long as an entropy of 2000 samples takes.

    ``work`` is the number of pairs times their cost, a kernel value or the distance of 256
    bytes each counting 1. Little work runs at once, where threads would cost more than they save.
    """
    backend, active_jobs = get_active_backend(prefer="threads")
    n_workers = min(backend.effective_n_jobs(active_jobs if n_jobs is None else n_jobs), len(tasks))
    if work < _LITTLE_WORK and isinstance(backend, ThreadingBackend):
        n_workers = 1
    # the tasks are the parallelism; a matrix product inside one must not start more threads
    with _libraries().limit(limits=1, user_api="blas"):
        if n_workers == 1:
            yield from (function(*task) for task in tasks)
        elif isinstance(backend, ThreadingBackend):
            with ThreadPoolExecutor(n_workers) as pool:
                try:
                    yield from pool.map(function, *zip(*tasks, strict=True))
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)
        else:
            workers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
            yield from workers(delayed(function)(*task) for task in tasks)
