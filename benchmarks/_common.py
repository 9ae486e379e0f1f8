"""What the benchmarks share: fresh processes, timing, the machine's name, RST tables."""

import os
import platform
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from statistics import median

__all__ = [
    "NONE",
    "fresh_process",
    "interleaved",
    "machine_line",
    "median",
    "peak_mb",
    "publish",
    "rst_table",
    "timed",
    "verdict",
]

NONE = "–"


def fresh_process(function, *args):
    """Return ``function(*args)`` of a new Python process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_mb():
    """Return the largest resident memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def timed(function, *args):
    """Return the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def interleaved(functions, repeats):
    """Return lists of seconds by name; each round calls every function once, against drift.

    Each round starts with another one, since what ran before leaves memory behind.
    """
    seconds = {name: [] for name in functions}
    names = list(functions)
    for round_ in range(repeats + 1):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            elapsed, _ = timed(functions[name])
            if round_:  # the first one warms up
                seconds[name].append(elapsed)
    return seconds


def machine_line(*packages):
    """Return processor, cores and versions in one line."""
    parts = [f"{_processor()}, {os.cpu_count()} cores", f"Python {platform.python_version()}"]
    return "; ".join(parts + [f"{package} {_version(package)}" for package in packages])


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def verdict(met):
    """Return what a target's row says; ``None`` is a target that was not measured."""
    return {None: "not measured", True: "met", False: "not met"}[met]


def rst_table(header, rows):
    """Return a simple RST table; numbers come as strings."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def publish(parts, path):
    """Print paragraphs and tables, and write them to ``path`` unless it is None."""
    text = "\n\n".join(parts) + "\n"
    print(text)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
