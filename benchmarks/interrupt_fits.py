"""Interrupt fits as Ctrl-C does, and time how long they take to stop.

    python benchmarks/interrupt_fits.py

Each fit, on threads, on processes of joblib or on a Dask cluster of two, is one of many seconds,
and is interrupted at a random moment of its first three. The table says how long it took until the
fit had raised KeyboardInterrupt, and what a small fit gives after that.
"""

import argparse
import contextlib
import logging
import os
import random
import signal
import threading
import time

import joblib
import numpy as np
from _common import machine_line, publish, rst_table
from distributed import Client, LocalCluster

from skgate import GatingStates
from skgate.pairwise import kernel_masses

WEIGHTS = np.array([[1e-4]])


@contextlib.contextmanager
def backend(name):
    """Compute on two threads, two processes or a cluster of two."""
    if name != "dask":
        with joblib.parallel_config(name, n_jobs=2):
            yield
        return
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        yield


def interrupted(states, delay):
    """Return the seconds between the interrupt and its end; infinity if it came to nothing."""
    sent = []

    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(delay, interrupt)
    timer.start()
    try:
        kernel_masses(states, WEIGHTS)
    except KeyboardInterrupt:
        return time.perf_counter() - sent[0]
    finally:
        timer.join()
    return float("inf")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=10, help="on each backend")
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--gates", type=int, default=16_384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", metavar="PATH", help="file to write the table to")
    args = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    rng = np.random.default_rng(args.seed)
    bits = rng.integers(0, 256, (args.samples, args.gates // 8), dtype=np.uint8)
    layers = GatingStates.from_arrays(np.zeros((1, 8 * bits.shape[1]))).layers
    states, small = GatingStates([bits], layers), GatingStates([bits[:500]], layers)
    expected, draw, rows = kernel_masses(small, WEIGHTS), random.Random(args.seed), []
    for name in ("threading", "loky", "dask"):
        with backend(name):
            seconds = [interrupted(states, draw.uniform(0.1, 3.0)) for _ in range(args.fits)]
            same = np.array_equal(kernel_masses(small, WEIGHTS), expected)
        rows.append(
            [name, f"{np.median(seconds):.2f}", f"{max(seconds):.2f}", "yes" if same else "NO"]
        )
        print(*rows[-1], flush=True)
    publish(
        [
            machine_line("dask", "distributed", "numkong"),
            f"{args.fits} interrupts each; fits of {args.samples} samples of {args.gates} gates.",
            rst_table(["backend", "median, s", "longest, s", "same bits after"], rows),
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
