"""The same numbers from threads, processes, a cluster and a GPU, and what is shown meanwhile."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import joblib
import numpy as np
import pytest
from gpu import FakeGpu

from skgate import (
    GatingEntropy,
    GatingMI,
    GatingStates,
    KDELayerMI,
    TotalCorrelation,
    entropy_curve,
    permutation_test,
)
from skgate.densities import Kernel
from skgate.pairwise import _cupy

N = 2500  # enough for the work to be shared out
MEASURES = [
    GatingEntropy(density=Kernel(alpha=0.5)),
    GatingMI(density=Kernel(alpha=0.5), random_state=0),
    TotalCorrelation(density=Kernel(alpha=0.5)),
    KDELayerMI(noise_variance=40.0, random_state=0),
    GatingEntropy(density="chow-liu", cv=2, random_state=0),
]


@contextlib.contextmanager
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made,
        distributed.Client(made),
        joblib.parallel_config(backend="dask"),
    ):
        yield


@pytest.fixture(scope="module", params=["threads", "loky", "dask", "cuda", "cuda on NumPy"])
def backend(request):
    """Computing somewhere else than on one thread; yields the device."""
    with contextlib.ExitStack() as stack:
        if request.param == "dask":
            stack.enter_context(cluster())
        elif not request.param.startswith("cuda"):
            names = {"threads": "threading", "loky": "loky"}
            stack.enter_context(joblib.parallel_config(names[request.param], n_jobs=2))
        elif request.param == "cuda on NumPy":
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(_cupy, "what_is_missing", lambda: None)
            patch.setattr(_cupy, "Gpu", FakeGpu)
        elif missing := _cupy.what_is_missing():
            pytest.skip(missing)
        yield request.param.split()[0]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    gates = rng.normal(size=(N, 4)) @ rng.normal(size=(4, 40)) + rng.normal(size=(N, 40))
    return gates.astype(np.float32), rng.integers(0, 3, N)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: type(measure).__name__)
def test_every_backend_gives_the_same_numbers(backend, data, measure):
    X, y = data

    def fitted(device):
        values = vars(measure.set_params(device=device).fit(X, y))
        values = {**values, "of new samples": measure.transform(X[:50])}
        return {k: v for k, v in values.items() if isinstance(v, float | np.ndarray)}

    with joblib.parallel_config("threading", n_jobs=1):
        expected = fitted("cpu")
    found = fitted("cuda" if backend == "cuda" else "cpu")
    assert len(found) > 5
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: type(measure).__name__)
def test_verbose_shows_what_is_done(data, capsys, measure):
    X, y = (part[:300] for part in data)
    measure.set_params(device="cpu", verbose=0).fit(X, y)
    assert capsys.readouterr().err == ""
    measure.set_params(verbose=1).fit(X, y)
    shown = capsys.readouterr().err
    measure.set_params(verbose=0)
    assert "100%" in shown
    is_kernel = measure.get_params().get("density") != "chow-liu"
    assert ("pairs" if is_kernel else "layer layer0") in shown


def test_functions_show_what_is_done(data, capsys):
    X, y = (part[:300] for part in data)
    entropy_curve(X, density=Kernel(alpha=0.5), verbose=1)
    assert "pairs" in capsys.readouterr().err
    permutation_test(X, y, density=Kernel(alpha=0.5), n_permutations=3, verbose=1, random_state=0)
    assert "pairs" in capsys.readouterr().err


def test_gpu_shows_the_pairs(data, capsys, monkeypatch):
    monkeypatch.setattr(_cupy, "what_is_missing", lambda: None)
    monkeypatch.setattr(_cupy, "Gpu", FakeGpu)
    states = GatingStates.from_arrays(data[0][:300])
    GatingEntropy(density=Kernel(alpha=0.5), device="cuda", verbose=1).fit(states)
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "pairs" in shown


def runs(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name == "nt", reason="signals are others on Windows")
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_interrupted_fit_leaves_nothing_running(backend):
    script = f"""
        import signal, joblib, numpy as np
        from skgate import GatingEntropy, GatingStates
        from skgate.densities import Kernel
        # whoever started this one, a shell in the background or nohup, may ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        rng = np.random.default_rng(0)
        states = GatingStates.from_arrays(rng.random((20_000, 8192)) < 0.5)
        measure = GatingEntropy(density=Kernel(alpha=1e4))
        try:
            with joblib.parallel_config("{backend}", n_jobs=2):
                print("go", flush=True)
                measure.fit(states)
        except KeyboardInterrupt:
            print("stopped", hasattr(measure, "entropy_"), flush=True)
        small = measure.set_params(density__alpha=1.0).fit(states[:50])
        print("works on", small.entropy_ > 0, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "go\n"
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert out.split("\n")[:2] == ["stopped False", "works on True"]
    patience = time.monotonic() + 60  # workers of joblib leave a moment later
    while runs(process.pid):
        assert time.monotonic() < patience
        time.sleep(0.1)
