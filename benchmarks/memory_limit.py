"""Measure many samples of many gates under a limit on the memory of the process.

    python benchmarks/memory_limit.py

H of gates that are mapped from a folder, with and without its standard error. The process that
measures them is under a limit on its address space, which is set before Python starts: the
interpreter, its libraries, the stacks of threads and the mapped file count too. Memory that is
asked for beyond it is refused, and the process fails. The gates are written before, by a process
without a limit, some rows at a time; they are correlated, so that the value is not saturated.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from _common import NONE, machine_line, publish, rst_table, timed
from bench_entropy import ALPHAS, packed_blocks
from skgate.states import GrowingFolder
from skgate.states import states_header

from skgate import GateLayer, GatingStates, gating_entropy

NOTE = (
    "Gates are the signs of random mixtures of 4 Gaussian factors, alpha is 0.04. The limit is on "
    "the address space of the process, in which the mapped file counts whole. Peaks are those of "
    "the process, with Python and its libraries, in MB; pages of the file that are in memory are "
    "resident. Each thread of several takes about 100 MB of address space, for its stack and what "
    "the allocator reserves for it, and hardly any memory. Held: memory as large as the limit was "
    "asked for in the end, and refused."
)
_WRITTEN_ROWS = 4096  # each write ends on the disk


def write_states(n, d, path):
    """Write random states to a folder, from which they can be mapped."""
    layer = GateLayer("gates", d)
    folder = GrowingFolder(path, {"layer0": (n, layer.n_bytes)}, states_header([layer]))
    for start, rows in packed_blocks(n, d, "unsaturated", _WRITTEN_ROWS):
        folder.add(start, {"layer0": rows})
    folder.finish()


def measure(path, n_jobs, standard_errors):
    """Return a record of H of the states in a folder, and of this process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    states = GatingStates.load(path, mmap=True)
    measured = partial(
        gating_entropy,
        alpha=ALPHAS["unsaturated"],
        standard_errors=standard_errors,
        n_jobs=n_jobs,
    )
    seconds, H = timed(measured, states)
    return {
        "bits": H.entropy,
        "error": H.entropy_se,
        "seconds": seconds,
        "resident": peak_mb("VmHWM"),
        "space": peak_mb("VmPeak"),
        "enforced": refuses(limit),
    }


def peak_mb(name):
    """Return a peak of this program in MB, as Linux tells it.

    That of ``getrusage`` begins with what the process held that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith(name)]
    return int(kilobytes) * 1024 / 1e6


def refuses(n_bytes):
    """Whether memory of this size is refused."""
    try:
        np.empty(n_bytes, np.uint8)
    except MemoryError:
        return True
    return False


def limited(path, n_jobs, standard_errors, limit):
    """Return the record of a process that starts under the limit, or None if it fails."""
    worker = json.dumps([str(path), n_jobs, standard_errors])
    result = subprocess.run(
        [sys.executable, __file__, "--worker", worker],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        stdout=subprocess.PIPE,
        text=True,
    )
    return None if result.returncode else json.loads(result.stdout)


def result_row(n_jobs, standard_errors, record):
    lead = [str(n_jobs), "yes" if standard_errors else "no"]
    if record is None:
        return [*lead, "failed", *[NONE] * 4]
    error = f" ± {record['error']:.4f}" if standard_errors else ""
    return [
        *lead,
        f"{record['bits']:.6f}{error}",
        f"{record['seconds']:.1f}",
        f"{record['resident']:.0f}",
        f"{record['space']:.0f}",
        "yes" if record["enforced"] else "NO",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--gates", type=int, default=65_536)
    parser.add_argument("--limit", type=int, default=2048, help="MiB of address space")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--output", metavar="PATH", help="file to write the table to")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(*json.loads(args.worker))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states"
        write_states(args.samples, args.gates, path)
        size = GatingStates.load(path, mmap=True).nbytes / 1e6
        rows = [
            result_row(n_jobs, errors, limited(path, n_jobs, errors, args.limit << 20))
            for n_jobs in args.jobs
            for errors in [True, False]
        ]
    header = ["n_jobs", "errors", "H bits", "seconds", "resident", "address space", "held"]
    publish(
        [
            machine_line("numpy", "numkong"),
            f"{args.samples} samples of {args.gates} gates, under a limit of "
            f"{(args.limit << 20) / 1e6:.0f} MB. The gates take {size:.0f} MB packed and "
            f"{8 * size:.0f} MB as bytes, all kernel values would take "
            f"{8 * args.samples**2 / 1e6:.0f} MB. {NOTE}",
            rst_table(header, rows),
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
