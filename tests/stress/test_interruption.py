"""Workers that are killed, fits and extractions that are interrupted: same bits, and soon."""

import contextlib
import filecmp
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time

import joblib
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from torch import nn

from skgate import GateExtractor, GatingStates
from skgate.pairwise import kernel_masses

pytestmark = pytest.mark.stress
WEIGHTS = np.array([[1e-4], [1e-3]])


@pytest.fixture
def client():
    """A cluster of two processes, which reports no error for each kill."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def random_states(n, d):
    bits = np.random.default_rng(0).integers(0, 256, (n, d // 8), dtype=np.uint8)
    return GatingStates([bits], GatingStates.from_arrays(np.zeros((1, d))).layers)


def test_fits_whose_workers_are_killed(client, size, report):
    """A worker is killed in each fit, every other time within the first 100 ms."""
    n_fits, n, d = size((4, 3000, 2048), (20, 9000, 8192))
    states, rng, rows = random_states(n, d), random.Random(0), []
    expected = kernel_masses(states, WEIGHTS)

    def kill_one(delay):
        time.sleep(delay)
        pids = [worker.pid for worker in client.cluster.workers.values() if worker.pid]
        os.kill(rng.choice(pids), signal.SIGKILL)

    with joblib.parallel_config(backend="dask"):
        start = time.perf_counter()
        kernel_masses(states, WEIGHTS)
        undisturbed = time.perf_counter() - start
        for fit in range(n_fits):
            delay = rng.uniform(0, 0.1 if fit % 2 == 0 else undisturbed)
            killer = threading.Thread(target=kill_one, args=(delay,))
            killer.start()
            start = time.perf_counter()
            same = np.array_equal(kernel_masses(states, WEIGHTS), expected)
            seconds = time.perf_counter() - start
            killer.join()
            rows.append([str(fit + 1), f"{delay:.3f}", f"{seconds:.2f}", str(same)])
            client.cluster.scale(2)  # a new worker where the cluster gave one up
            client.wait_for_workers(2, timeout=60)
    note = f"{n} samples of {d} gates; undisturbed, a fit takes {undisturbed:.2f} s."
    header = ["fit", "killed after, s", "took, s", "same bits"]
    report(["dask", "distributed", "numkong"], note, (header, rows))
    assert {same for *_, same in rows} == {"True"}


@pytest.mark.parametrize("backend", ["threading", "loky", "dask"])
def test_fits_that_are_interrupted(backend, request, size, report):
    """Ctrl-C at a random moment; the fit raises soon, and a small fit after it is right."""
    n_fits, n, d = size((2, 30_000, 8192), (10, 50_000, 16_384))
    if backend == "dask":
        request.getfixturevalue("client")
    states, small, draw = random_states(n, d), random_states(500, d), random.Random(0)
    expected, seconds = kernel_masses(small, WEIGHTS), []
    with joblib.parallel_config(backend, **({} if backend == "dask" else {"n_jobs": 2})):
        for _ in range(n_fits):
            seconds.append(seconds_to_stop(states, draw.uniform(0.1, size(1.0, 3.0))))
        assert np.array_equal(kernel_masses(small, WEIGHTS), expected)
    row = [backend, f"{np.median(seconds):.2f}", f"{max(seconds):.2f}"]
    note = f"{n_fits} interrupts; fits of {n} samples of {d} gates."
    table = ["backend", "median, s", "longest, s"], [row]
    report(["dask", "distributed", "numkong"], note, table)
    assert max(seconds) < 5


def seconds_to_stop(states, delay):
    """Return the seconds between the interrupt and its end."""
    sent = []

    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(delay, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, the timer ends in here
        try:
            kernel_masses(states, WEIGHTS)
        finally:
            stopped = time.perf_counter()
            timer.join()
    return stopped - sent[0]


def extract(n_images, folder):
    """Write the gates of a network to a folder; this file runs it as a script."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten()]
    net, images = nn.Sequential(*layers), torch.randn(n_images, 3, 32, 32)
    GateExtractor(net).fit(images[:256]).transform_to(images, folder)


def test_extractions_that_are_killed(tmp_path, size, report):
    """A process is killed three times while it writes gates; the last one writes the rest."""
    n_images, n_kills = size((4000, 3), (20_000, 3))
    whole, broken, rng, rows = tmp_path / "whole", tmp_path / "broken", random.Random(0), []

    def start(folder):
        return subprocess.Popen([sys.executable, __file__, str(n_images), str(folder)])

    begun = time.perf_counter()
    assert start(whole).wait() == 0
    seconds = time.perf_counter() - begun
    for kill in range(n_kills):
        process, delay = start(broken), rng.uniform(0.2, 0.5) * seconds  # before its end
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(signal.SIGKILL)
        rows.append([f"{kill + 1}", f"{delay:.1f}", f"{process.wait()}"])
    assert start(broken).wait() == 0
    names = sorted(file.name for file in whole.iterdir())
    note = f"{n_images} images; undisturbed {seconds:.1f} s."
    report(["torch", "numpy"], note, (["kill", "after, s", "exit status"], rows))
    assert filecmp.cmpfiles(whole, broken, names, shallow=False)[0] == names


if __name__ == "__main__":
    extract(int(sys.argv[1]), sys.argv[2])
