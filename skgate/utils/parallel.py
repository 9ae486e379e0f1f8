"""Parallel tasks on joblib's threads or workers, with results in order."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

from joblib import Parallel, delayed
from joblib._parallel_backends import SequentialBackend, ThreadingBackend
from joblib.parallel import get_active_backend
from threadpoolctl import ThreadpoolController

_MIN_PARALLEL_WORK = 5e6  # nanoseconds


def slices(start, stop, step):
    """Split a range into slices of length ``step``; the last one may be shorter."""
    return [slice(s, min(s + step, stop)) for s in range(start, stop, step)]


@cache
def _libraries():
    return ThreadpoolController()  # finding them takes half a millisecond


def in_this_process():
    """Return whether joblib's active backend runs tasks in this process."""
    return isinstance(get_active_backend(prefer="threads")[0], ThreadingBackend | SequentialBackend)


def run(function, shared, tasks, n_jobs, work):
    """Yield ``function(*shared, *task)`` for each task, in order.

    joblib's configuration determines the backend and the number of workers. Its threads are
    replaced by a plain pool, since joblib polls for results every 10 ms, which is as long as an
    entropy of 2000 samples takes; its Dask backend is replaced by the client.

    ``work`` estimates the nanoseconds that all tasks take together. If it is small, this thread
    runs them, since other threads would cost more time than they save.
    """
    backend, active_jobs = get_active_backend(prefer="threads")
    n_workers = min(backend.effective_n_jobs(active_jobs if n_jobs is None else n_jobs), len(tasks))
    on_cluster = hasattr(backend, "client")
    if work < _MIN_PARALLEL_WORK and (on_cluster or isinstance(backend, ThreadingBackend)):
        n_workers = 1
    # tasks run in parallel already, so that their matrix products must not start threads
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
            with backend.retrieval_context():  # a waiting worker frees its slot
                yield from _on_cluster(backend.client, function, shared, tasks)
        else:
            workers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
            yield from workers(delayed(function)(*shared, *task) for task in tasks)


def _on_cluster(client, function, shared, tasks):
    """Yield the results of tasks on a Dask cluster, also if workers die.

    Shared data is a task result, so the scheduler can recompute it if its worker dies. Data that
    joblib scatters would be lost with the worker that holds it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        data = client.submit(_identity, shared, pure=False)
        futures = [client.submit(_apply, function, data, task, pure=False) for task in tasks]
    try:
        while futures:
            yield futures[0].result()
            del futures[0]  # the cluster frees results without references
    finally:
        client.cancel([data, *futures])


def _identity(shared):
    return shared


def _apply(function, shared, task):
    # a worker may run several tasks at a time, one per thread
    with _libraries().limit(limits=1, user_api="blas"):
        return function(*shared, *task)
