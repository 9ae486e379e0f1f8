"""Run every script of this folder, small, and write the summary of their verdicts.

    SKGATE_DATA=folder python examples/reproduce/run_all.py            # what has no record yet
    SKGATE_DATA=folder python examples/reproduce/run_all.py --again    # all
    python examples/reproduce/run_all.py --summary                     # only the summary

Two scripts run at a time, on one core each. A run that was killed goes on: scripts that are done
have their record, and the others find what they computed on disk.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from _reproduction import HERE, RECORDS
from joblib import Parallel, delayed

SUMMARY = RECORDS.parent / "reproduction_table.inc"
#: Figures and tables of the papers whose data are not at hand.
NO_DATA = {
    "Complexity paper, VGG-16 of Fig. 3b": "Pascal VOC and CelebA",
    "Complexity paper, Fig. 4, 7 and 8 on Pascal VOC, Tiny ImageNet and CelebA": "these datasets",
    "Complexity paper, Table 1b": "CelebA",
}


def scripts():
    return sorted(p for p in HERE.glob("*.py") if p.stem[0] != "_" and p.stem != "run_all")


def run(script):
    """Run one script; return its name, its exit status and its seconds."""
    start = time.perf_counter()
    threads = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    log = RECORDS / f"{script.stem}.log"
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(
            [sys.executable, str(script)], env=os.environ | threads, stdout=file, stderr=file
        ).returncode
    if status == 0:
        log.unlink()  # the record has it all
    seconds = time.perf_counter() - start
    print(f"{script.stem}: exit status {status}, {seconds:.0f} s", flush=True)
    return script.stem, status, seconds


def summary():
    """Return the table of verdicts as reStructuredText."""
    records = {s.stem: RECORDS / f"{s.stem}.json" for s in scripts()}
    records = {
        k: json.loads(p.read_text(encoding="utf-8")) for k, p in records.items() if p.exists()
    }
    n_reproduced = sum(r["verdict"].startswith("reproduced") for r in records.values())
    lines = [
        f"{n_reproduced} of {len(records)} reproduced; {len(NO_DATA)} more have no data at hand.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 18 30 40 6 6",
        "",
        *_row("figure or table", "the paper found", "verdict", "seeds", "seconds"),
    ]
    for name, r in sorted(records.items(), key=lambda item: item[1]["item"]):
        item = f"{r['item']} (``{name}.py``)"
        lines += _row(item, r["found"], r["verdict"], r["n_seeds"], round(r["seconds"]))
    for item, data in NO_DATA.items():
        lines += _row(item, "", f"data not at hand: {data}", "", "")
    missed = {k: r for k, r in records.items() if not r["verdict"].startswith("reproduced")}
    for name, r in missed.items():
        lines += ["", f"**{r['item']}** (``{name}.py``): {r['tried'] or 'nothing else was tried.'}"]
    return "\n".join(lines) + "\n"


def _row(*cells):
    first, *rest = [str(cell).replace("*", r"\*").replace("|", r"\|") for cell in cells]
    return [f"   * - {first}", *(f"     - {cell}".rstrip() for cell in rest)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="run also what has a record")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="scripts at a time")
    args = parser.parse_args()
    RECORDS.mkdir(exist_ok=True)
    wanted = [s for s in scripts() if args.again or not (RECORDS / f"{s.stem}.json").exists()]
    failed = []
    if not args.summary:
        start = time.perf_counter()
        done = Parallel(n_jobs=args.jobs, prefer="threads")(delayed(run)(s) for s in wanted)
        print(f"{len(done)} scripts in {(time.perf_counter() - start) / 60:.1f} minutes")
        failed = [f"{name}.log" for name, status, _ in done if status]
    SUMMARY.write_text(summary(), encoding="utf-8")
    if failed:
        raise SystemExit(f"These failed, see {RECORDS}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
