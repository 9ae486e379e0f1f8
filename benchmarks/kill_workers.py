"""Kill workers of a Dask cluster in the middle of fits, and compare what the fits say.

    python benchmarks/kill_workers.py

Each fit measures the same gates on a ``LocalCluster`` of two processes, while one of them is killed
by a signal at a random moment, every other time within the first 100 ms. The verdict is computed
from the results, which have to be those of threads bit for bit.
"""

import argparse
import logging
import os
import random
import signal
import threading
import time

import joblib
import numpy as np
from _common import machine_line, publish, rst_table, timed
from distributed import Client, LocalCluster

from skgate import GatingStates
from skgate.pairwise import kernel_masses

WEIGHTS = np.array([[1e-4], [1e-3]])


def kill_one(cluster, delay, rng):
    """Kill a worker that runs, after a delay."""
    time.sleep(delay)
    pids = [worker.pid for worker in cluster.workers.values() if worker.pid]
    os.kill(rng.choice(pids), signal.SIGKILL)


def wait_for_workers(client, n_workers, patience=60):
    """Wait until the cluster has started its workers again; a new one where it gave one up."""
    client.cluster.scale(n_workers)
    client.wait_for_workers(n_workers, timeout=patience)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=20)
    parser.add_argument("--samples", type=int, default=9000)
    parser.add_argument("--gates", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", metavar="PATH", help="file to write the table to")
    args = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # each kill is an error to it
    gates = np.random.default_rng(args.seed).random((args.samples, args.gates)) < 0.5
    states = GatingStates.from_arrays(gates)
    expected = kernel_masses(states, WEIGHTS)
    rng, rows, right = random.Random(args.seed), [], 0
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        undisturbed, _ = timed(kernel_masses, states, WEIGHTS)
        for fit in range(args.fits):
            delay = rng.uniform(0, 0.1 if fit % 2 == 0 else undisturbed)
            killer = threading.Thread(target=kill_one, args=(cluster, delay, rng))
            killer.start()
            seconds, masses = timed(kernel_masses, states, WEIGHTS)
            killer.join()
            same = np.array_equal(masses, expected)
            right += same
            rows.append([str(fit + 1), f"{delay:.3f}", f"{seconds:.2f}", "yes" if same else "NO"])
            print(*rows[-1], flush=True)
            wait_for_workers(client, 2)
    publish(
        [
            machine_line("dask", "distributed", "numkong"),
            f"{args.samples} samples of {args.gates} gates; undisturbed, a fit takes "
            f"{undisturbed:.2f} s. {right} of {args.fits} fits were right.",
            rst_table(["fit", "killed after, s", "took, s", "same bits"], rows),
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
