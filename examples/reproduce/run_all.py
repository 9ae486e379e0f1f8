"""Run every script of this folder, and write the summary of their verdicts.

    SKGATE_DATA=folder python examples/reproduce/run_all.py            # scripts without a record
    SKGATE_DATA=folder python examples/reproduce/run_all.py --again    # all
    SKGATE_DATA=folder python examples/reproduce/run_all.py --full     # at the published size
    python examples/reproduce/run_all.py --summary                     # only the summary

Two scripts run at a time, on one core each. A killed run can resume: finished scripts have their
record, and the others find their intermediate results on disk.
"""

import argparse
import json
import os
import re
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


def record(script):
    """Return what a script recorded, None if it has not run."""
    path = RECORDS / f"{script.stem}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def run(script, *options):
    """Run one script with options; return its name, its exit status and its seconds."""
    start = time.perf_counter()
    threads = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    log = RECORDS / f"{script.stem}.log"
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(
            [sys.executable, str(script), *options],
            env=os.environ | threads,
            stdout=file,
            stderr=file,
        ).returncode
    if status == 0:
        log.unlink()  # the record has everything
    seconds = time.perf_counter() - start
    print(f"{script.stem}: exit status {status}, {seconds:.0f} s", flush=True)
    return script.stem, status, seconds


def summary():
    """Return a table of verdicts for each paper, and the failed statements, in reStructuredText."""
    records = {script.stem: record(script) for script in scripts()}
    records = {name: r for name, r in records.items() if r is not None}
    n_reproduced = sum(map(_reproduced, records.values()))
    n = len(records)
    holds = [claim["holds"] for r in records.values() for claim in r["claims"]]
    lines = [
        f"{n_reproduced} of {n} reproduced; {len(NO_DATA)} more have no data at hand. Of their "
        f"{len(holds)} statements {holds.count(True)} hold, {holds.count(False)} fail and "
        f"{holds.count(None)} are open."
    ]
    for paper in sorted({r["item"].partition(", ")[0] for r in records.values()}):
        of_paper = {k: r for k, r in records.items() if r["item"].startswith(f"{paper}, ")}
        of_paper = dict(sorted(of_paper.items(), key=lambda pair: _natural(pair[1]["item"])))
        lines += ["", paper, "~" * len(paper), ""]
        lines += [".. list-table::", "   :header-rows: 1", "   :widths: 22 16 48 6 8", ""]
        lines += _row("verdict", "item", "the paper found", "seeds", "seconds")
        for name, r in of_paper.items():
            lines += _row(
                _verdict(r),
                _link(name, r) + ", full size" * r["full"],
                _text(r["found"]),
                r["n_seeds"],
                round(r["seconds"]),
            )
        for item, data in NO_DATA.items():
            of, _, rest = item.partition(", ")
            if of == paper:
                lines += _row("**no data at hand**", _text(rest), f"needs {_text(data)}", "", "")
        missed = {k: r for k, r in of_paper.items() if not _reproduced(r)}
        if missed:
            lines += ["", "What does not hold, and what was tried:"]
        for name, r in missed.items():
            lines += ["", _link(name, r)]
            for claim in r["claims"]:
                if claim["holds"] is False:
                    lines.append(f"    - {_text(claim['statement'])}")
            lines += ["", f"    {_text(r['tried'] or 'Nothing else was tried.')}"]
    return "\n".join(lines) + "\n"


def _reproduced(record):
    return record["verdict"].startswith("reproduced")


def _verdict(record):
    """Return the verdict in a word or two, and how many statements hold unless all do."""
    held = [claim["holds"] for claim in record["claims"]]
    counts = {"hold": held.count(True), "fail": held.count(False), "open": held.count(None)}
    words = record["verdict"].partition(":")[0].partition(" (")[0]
    if counts["hold"] == len(held):
        return f"**{words}**"
    return f"**{words}**: " + ", ".join(f"{n} {what}" for what, n in counts.items() if n)


def _link(name, record):
    """Return a link to the page of a script in the gallery."""
    item = record["item"].partition(", ")[2]
    return f":ref:`{item[0].upper()}{item[1:]} <sphx_glr_auto_examples_reproduce_{name}.py>`"


def _natural(text):
    """Return a key that sorts Fig. 9 before Fig. 10."""
    return [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _text(words):
    """Return words in which reStructuredText finds no markup."""
    return re.sub(r"([*|`\\]|_(?!\w))", r"\\\1", words)


def _row(*cells):
    first, *rest = cells
    return [f"   * - {first}", *(f"     - {cell}".rstrip() for cell in rest)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="run scripts that have a record, too")
    parser.add_argument(
        "--full", action="store_true", help="run scripts without a full-size record"
    )
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="scripts at a time")
    args = parser.parse_args()
    RECORDS.mkdir(exist_ok=True)
    records = {script: record(script) for script in scripts()}
    wanted = [s for s, r in records.items() if args.again or not r or args.full > r["full"]]
    options = ["--full"] if args.full else []
    failed = []
    if not args.summary:
        start = time.perf_counter()
        done = Parallel(n_jobs=args.jobs, prefer="threads")(
            delayed(run)(s, *options) for s in wanted
        )
        print(f"{len(done)} scripts in {(time.perf_counter() - start) / 60:.1f} minutes")
        failed = [f"{name}.log" for name, status, _ in done if status]
    SUMMARY.write_text(summary(), encoding="utf-8")
    if failed:
        raise SystemExit(f"These failed, see {RECORDS}: {', '.join(failed)}")


if __name__ == "__main__":
    main()
