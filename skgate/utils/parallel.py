"""Tasks in parallel, in order, on joblib's threads or workers."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

from joblib import Parallel, delayed
from joblib._parallel_backends import SequentialBackend, ThreadingBackend
from joblib.parallel import get_active_backend
from threadpoolctl import ThreadpoolController

__all__ = ["in_this_process", "run", "slices"]

_LITTLE_WORK = 5e6  # about 5 ms


def slices(start, stop, step):
    """Cut a range into slices of ``step``."""
    return [slice(s, min(s + step, stop)) for s in range(start, stop, step)]


@cache
def _libraries():
    return ThreadpoolController()  # half a millisecond to find them


def in_this_process():
    """Return whether joblib computes in threads, and not in processes or on a cluster."""
    return isinstance(get_active_backend(prefer="threads")[0], ThreadingBackend | SequentialBackend)


def run(function, shared, tasks, n_jobs, work):
    """Yield ``function(*shared, *task)`` for each task, in order, on joblib's threads or workers.

    joblib says where and on how many workers; ``shared`` goes to each of them once. For its threads
    a plain pool is used: joblib looks for results every 10 ms, which is as long as an entropy of
    2000 samples takes. For ``backend="dask"`` its client is.

    ``work`` is about the number of nanoseconds that all tasks take. Little work runs at once, where
    threads would cost more than they save.
    """
    backend, active_jobs = get_active_backend(prefer="threads")
    n_workers = min(backend.effective_n_jobs(active_jobs if n_jobs is None else n_jobs), len(tasks))
    on_cluster = hasattr(backend, "client")
    if work < _LITTLE_WORK and (on_cluster or isinstance(backend, ThreadingBackend)):
        n_workers = 1
    # the tasks are the parallelism; a matrix product inside one must not start more threads
    with _libraries().limit(limits=1, user_api="blas"):
        if n_workers == 1:
            yield from (function(*shared, *task) for task in tasks)
        elif isinstance(backend, ThreadingBackend):
            with ThreadPoolExecutor(n_workers) as pool:
                try:
                    yield from pool.map(partial(function, *shared), *zip(*tasks, strict=True))
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)
        elif on_cluster:
            with backend.retrieval_context():  # a worker that waits makes room for another
                yield from _on_cluster(backend.client, function, shared, tasks)
        else:
            workers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
            yield from workers(delayed(function)(*shared, *task) for task in tasks)


def _on_cluster(client, function, shared, tasks):
    """Yield the results of tasks on a Dask cluster, whatever becomes of its workers.

    What is shared goes along as the argument of a task, which the scheduler keeps: it has whatever
    died with a worker done again. Data that joblib scatters would be with some worker alone.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        held = client.submit(_held, shared, pure=False)
        futures = [client.submit(_apply, function, held, task, pure=False) for task in tasks]
    try:
        while futures:
            yield futures[0].result()
            del futures[0]  # the cluster forgets a result that nobody refers to
    finally:
        client.cancel([held, *futures])


def _held(shared):
    return shared


def _apply(function, shared, task):
    # workers may have several threads, each of them with a task
    with _libraries().limit(limits=1, user_api="blas"):
        return function(*shared, *task)
