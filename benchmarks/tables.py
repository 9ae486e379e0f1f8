"""Run benchmarks by asv and write their tables as RST.

    python -m benchmarks.tables entropy --sizes 500x256 --output entropy.inc
    python -m benchmarks.tables layer_mi densities --write

``--write`` replaces the tables of the documentation. The results stay in ``.asv/results``, where
``asv compare`` and ``asv publish`` find them. asv files results by commit: it needs a checkout.
A row without a package, over the time limit or that failed is not measured; asv says which.
"""

import argparse
import ast
import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["entropy", "gpu", "layer_mi", "densities", "sparse", "capture", "training"]
NONE = "–"


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


def measured(name, sizes, limit):
    """Run one module of benchmarks and return its values by function and parameters."""
    env = os.environ | {"SKGATE_BENCH_SIZES": " ".join(sizes), "ASV_PYTHONPATH": str(ROOT)}
    if limit is not None:
        env["SKGATE_BENCH_LIMIT"] = str(limit)
    asv = [sys.executable, "-m", "asv"]
    subprocess.run([*asv, "machine", "--yes"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    options = ["--python=same", "--set-commit-hash=HEAD", "--launch-method=spawn", "--show-stderr"]
    command = [*asv, "run", *options, f"--bench=^bench_{name}\\."]
    if subprocess.run(command, cwd=ROOT, env=env).returncode not in (0, 2):  # 2: some failed
        raise SystemExit(f"asv could not run bench_{name}")
    paths = (ROOT / ".asv/results").glob("*/*-*.json")
    stored = json.loads(max(paths, key=lambda path: path.stat().st_mtime).read_text())
    values = {}
    for key, row in stored["results"].items():
        record = dict(zip(stored["result_columns"], row, strict=False))
        axes = [[ast.literal_eval(value) for value in axis] for axis in record["params"]]
        results = record["result"] or itertools.repeat(None)
        for param, result in zip(itertools.product(*axes), results, strict=False):
            values[key, param] = None if result is None or math.isnan(result) else result
    return values


def tables(comparison, values):
    """Return the note on a comparison, its table, and the table of its targets if it has any."""
    module = comparison.__module__.rpartition(".")[2]
    prefix = f"{module}.{comparison.__name__}."

    def value(function, *param):
        return values.get((prefix + function, param))

    *_, methods = comparison.params
    rows = [
        row_of(comparison, value, param, methods[0])
        for param in itertools.product(*comparison.params)
    ]
    parts = [
        " ".join(comparison.__doc__.split()),
        rst_table(list(rows[0]), [[*row.values()] for row in rows]),
    ]
    if not comparison.targets:
        return parts
    rows = [target_row(value, *target) for target in comparison.targets]
    return [*parts, rst_table(["target", "measured", "verdict"], rows)]


def target_row(value, target, measured, over):
    """Return a target, the seconds or the ratio that were measured, and the verdict."""
    found = value("time_run", *measured)
    base = 1 if over is None else value("time_run", *over)
    if None in (found, base):
        return [target, NONE, "not measured"]
    how, bound = re.search(r"([<>]=?) ([\d.]+)", target).groups()
    result, bound = found / base, float(bound)
    met = result >= bound if how == ">=" else result <= bound
    unit = " s" if over is None else "x"
    return [target, f"{result:.3g}{unit}", "met" if met else "not met"]


def row_of(comparison, value, param, first):
    """Return the cells of one measurement by header."""
    case, cells = param[:-1], {}
    for name, own in zip(comparison.param_names, param, strict=True):
        if name == "size":
            cells["n"], cells["d"] = own.split("x")
        else:
            cells[name] = str(own)

    def text(number, how, scale=1):
        return NONE if number is None else format(number / scale, how)

    seconds, ours = value("time_run", *param), value("time_run", *case, first)
    shown = text(seconds, ".4g", comparison.n_steps)
    cells["seconds"] = "not measured" if seconds is None else shown
    cells["ratio"] = NONE if None in (seconds, ours) else f"{seconds / ours:.2f}"
    cells |= comparison.derived(value, *param)
    if comparison.track_peak:
        cells["peak MB"] = text(value("track_peak", *param), ".0f")
    off = []
    for function, (header, how) in comparison.columns.items():
        found = value(function, *param)
        expected = value(function, *case, comparison.reference or first)
        off.append(None if None in (found, expected) else abs(found - expected))
        cells[header] = text(found, how)
    if comparison.columns and comparison.compares:
        cells["off"] = NONE if None in off else f"{max(off):.0e}"
    return cells


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=NAMES)
    parser.add_argument("--sizes", nargs="+", default=[], metavar="NxD", help="in place of all")
    parser.add_argument("--limit", type=float, help="seconds a single run may take")
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    parser.add_argument("--write", action="store_true", help="write the tables of the pages")
    args = parser.parse_args()
    for name in args.names:
        os.environ["SKGATE_BENCH_SIZES"] = " ".join(args.sizes)
        module = import_module(f"benchmarks.bench_{name}")
        values = measured(name, args.sizes, args.limit)
        place = module.place() if hasattr(module, "place") else ""
        parts = [machine_line(*module.PACKAGES) + place]
        for comparison in module.COMPARISONS:
            parts += tables(comparison, values)
        publish(parts, ROOT / f"doc/bench_{name}.inc" if args.write else args.output)


if __name__ == "__main__":
    main()
