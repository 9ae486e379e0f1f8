"""Tasks in processes and on a Dask cluster give the same bits, also if workers die."""

import os
import signal
import threading

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from skgate import GatingEntropy, GatingMI, GatingStates, GibbsLayerMI
from skgate.densities import Kernel
from skgate.pairwise import kernel_masses
from skgate.utils.parallel import run

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")

WEIGHTS = np.array([[1e-3, 0.0], [1e-3, 2e-3]])


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        yield cluster


@pytest.fixture(scope="module")
def states():
    rng = np.random.default_rng(0)
    return GatingStates.from_arrays([rng.random((2500, 2048)) < 0.4, rng.random((2500, 300)) < 0.1])


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 3, 2500)


def on_threads(function):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        return function()


def where(*_):
    return os.getpid()


def test_tasks_run_on_the_workers(cluster):
    pids = set(run(where, (), [(i,) for i in range(8)], None, 1e9))
    assert pids <= {worker.pid for worker in cluster.workers.values()}


def test_masses_on_a_cluster_are_those_of_threads(cluster, states, labels):
    def masses():
        return (
            kernel_masses(states, WEIGHTS, label_sets=[labels]),
            kernel_masses(states[:2000], WEIGHTS, queries=states[2000:]),
            kernel_masses([np.asarray(states, float)[:, :40]], WEIGHTS[:1, :1]),
        )

    for ours, theirs in zip(masses(), on_threads(masses), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "measure",
    [
        GatingMI(random_state=0, n_jobs=2),
        GatingEntropy(density="chow-liu", cv=3, random_state=0),
        GibbsLayerMI(random_state=0),
    ],
    ids=lambda measure: type(measure).__name__,
)
def test_estimators_on_a_cluster(cluster, states, labels, measure):
    X = np.asarray(states.select(1), dtype=np.float64) + 0.5
    X = X if isinstance(measure, GibbsLayerMI) else states.select(1)

    def fitted():
        values = vars(measure.fit(X, labels))
        return {k: np.copy(v) for k, v in values.items() if isinstance(v, float | np.ndarray)}

    ours, theirs = fitted(), on_threads(fitted)
    assert len(ours) > 3
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_search_on_a_cluster_whose_workers_measure_there_too(cluster, states):
    search = GridSearchCV(GatingEntropy(density=Kernel()), {"density__alpha": [0.1, 1.0]}, cv=2)
    expected = on_threads(lambda: search.fit(states).cv_results_["mean_test_score"])
    np.testing.assert_array_equal(search.fit(states).cv_results_["mean_test_score"], expected)


def fails(_):
    raise ZeroDivisionError("of a task")


def test_errors_of_a_task_come_through(cluster):
    with pytest.raises(ZeroDivisionError, match="of a task"):
        list(run(fails, (), [(0,), (1,)], None, 1e9))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_a_killed_worker_is_made_up_for(cluster, delay, monkeypatch):
    rng = np.random.default_rng(2)
    states = GatingStates.from_arrays(rng.random((6000, 8192)) < 0.5)
    weights = np.array([[1e-4]])
    expected = on_threads(lambda: kernel_masses(states, weights))
    victim = next(worker.pid for worker in cluster.workers.values() if worker.pid)
    killer = threading.Timer(delay, os.kill, (victim, signal.SIGKILL))
    killer.start()
    masses = kernel_masses(states, weights)
    killer.join()
    np.testing.assert_array_equal(masses, expected)
