"""Many samples of many gates, mapped from a folder, under a limit on the memory of the process."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from skgate import GateLayer, GatingStates, gating_entropy
from skgate.densities import Kernel

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
NOTE = (
    "Gates are the signs of random mixtures of 4 Gaussian factors, alpha is 0.04. The limit is on "
    "the address space of the process, in which the mapped file counts whole. Peaks are those of "
    "the process, with Python and its libraries, in MB; pages of the file that are in memory are "
    "resident. Each thread of several takes about 100 MB of address space, for its stack and what "
    "the allocator reserves for it, and hardly any memory. Held: memory as large as the limit was "
    "asked for in the end, and refused."
)


def measure(path, n_jobs, standard_errors):
    """Return a record of H of the states in a folder, and of this process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    states, start = GatingStates.load(path, mmap=True), time.perf_counter()
    options = {"standard_errors": standard_errors, "n_jobs": n_jobs}
    H = gating_entropy(states, density=Kernel(alpha=0.04), **options)
    return {
        "bits": H.entropy,
        "error": H.entropy_se,
        "seconds": time.perf_counter() - start,
        "resident": peak_mb("VmHWM"),
        "space": peak_mb("VmPeak"),
        "held": refuses(limit),
    }


def peak_mb(name):
    """Return a peak of this program in MB, from Linux; that of getrusage includes its parent's."""
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


def limited(limit, *args):
    """Return the record of a process that starts under the limit on its address space.

    The limit is set before Python starts: the interpreter, its libraries, the stacks of threads
    and the mapped file count too.
    """
    result = subprocess.run(
        [sys.executable, __file__, json.dumps(args)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def test_entropy_under_a_limit_on_memory(tmp_path, size, report):
    n, d, limit = size((4000, 16_384, 1536 << 20), (50_000, 65_536, 2048 << 20))
    rng, rows, values = np.random.default_rng(0), [], set()
    loadings = rng.standard_normal((4, d), dtype=np.float32)
    packed = np.empty((n, d // 8), np.uint8)
    for start in range(0, n, 4096):
        factors = rng.standard_normal((min(4096, n - start), 4), dtype=np.float32)
        packed[start : start + 4096] = np.packbits(factors @ loadings > 0, axis=1)
    GatingStates([packed], [GateLayer("gates", d)]).save(tmp_path / "states")
    for n_jobs in (1, 2):
        for errors in (True, False):
            record = limited(limit, str(tmp_path / "states"), n_jobs, errors)
            assert record["held"]
            values.add(record["bits"])
            error = f" ± {record['error']:.4f}" if errors else ""
            bits, seconds = f"{record['bits']:.6f}{error}", f"{record['seconds']:.1f}"
            peaks = [f"{record[name]:.0f}" for name in ("resident", "space")]
            rows.append([str(n_jobs), "yes" if errors else "no", bits, seconds, *peaks, "yes"])
    assert max(values) - min(values) < 1e-9
    note = (
        f"{n} samples of {d} gates, under a limit of {limit / 1e6:.0f} MB. The gates take "
        f"{packed.nbytes / 1e6:.0f} MB packed and {8 * packed.nbytes / 1e6:.0f} MB as bytes, all "
        f"kernel values would take {8 * n**2 / 1e6:.0f} MB. {NOTE}"
    )
    header = ["n_jobs", "errors", "H bits", "seconds", "resident", "address space", "held"]
    report(["numpy", "numkong"], note, (header, rows), name="memory_limit.inc")


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
