"""Tasks in parallel, in order, on joblib's threads or workers."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

from joblib import Parallel, delayed
from joblib._parallel_backends import ThreadingBackend
from joblib.parallel import get_active_backend
from threadpoolctl import ThreadpoolController

__all__ = ["run", "slices"]

_LITTLE_WORK = 5e6  # about 5 ms


def slices(start, stop, step):
    """Cut a range into slices of ``step``."""
    return [slice(s, min(s + step, stop)) for s in range(start, stop, step)]


@cache
def _libraries():
    return ThreadpoolController()  # half a millisecond to find them


def run(function, tasks, n_jobs, work):
    """Yield ``function(*task)`` for each task, in order, on joblib's threads or workers.

    joblib says where and on how many workers. For its threads a plain pool is used: joblib
    looks for results every 10 ms, which is as long as an entropy of 2000 samples takes.

    ``work`` is about the number of nanoseconds that all tasks take. Little work runs at once, where
    threads would cost more than they save.
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
