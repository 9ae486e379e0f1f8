"""Arguments, statements, verdicts and records that the scripts of this folder share.

Each script reproduces one figure or table. It checks each statement of the paper against the
numbers that it has just computed, and writes a record, from which ``run_all.py`` makes the summary.
"""

import argparse
import json
import os
import sys
import time
from functools import wraps
from pathlib import Path

import joblib
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
#: Where records and figures go by default.
RECORDS = HERE.parents[1] / "doc" / "reproduction"
WORDS = {True: "yes", False: "NO", None: "open"}


class Reproduction:
    """One figure or table: its arguments, its statements and its record.

    Parameters
    ----------
    item : str
        The figure or table, such as "Complexity paper, Fig. 1". The record is named after the
        script.
    found : str
        The finding of the paper, in a sentence.
    n_seeds : int
        Number of seeds of the small version.

    Attributes
    ----------
    full : bool
        Whether to run at the published size.
    seeds : range
    """

    def __init__(self, item, found, *, n_seeds=3):
        parser = argparse.ArgumentParser(description=f"{item}: {found}")
        parser.add_argument("--full", action="store_true", help="at the published size")
        parser.add_argument("--seeds", type=int, default=n_seeds, help="how many")
        parser.add_argument("--output", type=Path, default=RECORDS, metavar="FOLDER")
        args = parser.parse_args()
        self.item, self.found = item, found
        self.full, self.seeds, self._output = args.full, range(args.seeds), args.output
        self.name = Path(sys.argv[0]).stem
        self._claims, self._notes, self._start = [], [], time.perf_counter()
        self._memory = joblib.Memory(HERE / ".cache", verbose=0)
        print(f"{item}\n    {found}")

    def cache(self, function):
        """Keep the results of a function on disk, so that a killed run can resume.

        The record counts the seconds that a result took even if it is found on disk.
        """
        kept = self._memory.cache(function)

        @wraps(function)
        def call(*args, **kwargs):
            found = kept.check_call_in_cache(*args, **kwargs)
            value = kept.call_and_shelve(*args, **kwargs)
            if found:
                self._start -= value.duration
            return value.get()

        return call

    def claim(self, statement, holds):
        """Keep a statement of the paper: True, False, or None if the seeds cannot tell."""
        holds = None if holds is None else bool(holds)
        self._claims.append({"statement": statement, "holds": holds})
        print(f"    {WORDS[holds]:4}  {statement}", flush=True)

    def note(self, text):
        """Print a line, and keep it in the record."""
        self._notes.append(text)
        print(f"    {text}", flush=True)

    def table(self, header, rows):
        """Print rows of text or numbers under a header, and keep them in the record."""
        rows = [[v if isinstance(v, str) else f"{v:.4g}" for v in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for row in [header, *rows]:
            self.note("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)))

    def finish(self, figure=None, *, tried=None):
        """Print the verdict and write the record, and the figure beside it.

        Parameters
        ----------
        figure : matplotlib Figure, default=None
        tried : str, default=None
            What was tried if a statement does not hold, and possible reasons. The summary shows it
            only in that case.
        """
        failed = [claim["statement"] for claim in self._claims if claim["holds"] is False]
        held = [claim for claim in self._claims if claim["holds"]]
        open_ = [claim["statement"] for claim in self._claims if claim["holds"] is None]
        verdict = "reproduced" if held else "open"
        if failed:
            verdict = f"not reproduced: {'; '.join(failed)}"
        elif held and open_:
            verdict += f" (open: {'; '.join(open_)})"
        print(f"  {verdict}")
        self._output.mkdir(parents=True, exist_ok=True)
        if figure is not None:
            path = self._output / f"{self.name}.png"
            figure.savefig(path, dpi=120)
            with Image.open(path) as picture:  # a palette takes a third of the space
                palette = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
            palette.save(path, optimize=True)
        record = {
            "item": self.item,
            "found": self.found,
            "verdict": verdict,
            "claims": self._claims,
            "notes": self._notes,
            "tried": tried,
            "full": self.full,
            "n_seeds": len(self.seeds),
            "seconds": round(time.perf_counter() - self._start, 1),
        }
        path = self._output / f"{self.name}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)


def standard_error(values):
    """Return the standard error of a mean, 0 for one value."""
    values = np.asarray(values)
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0


def show(values, digits=2):
    """Return a mean with its standard error as text."""
    return f"{np.mean(values):.{digits}f} ±{standard_error(values):.{digits}f}"


def near(values, published, tolerance):
    """Return whether a mean is within a tolerance of the published value."""
    return bool(abs(np.mean(values) - published) <= tolerance)


def below(differences):
    """Return whether differences, one a seed, are below 0 by two standard errors.

    None if their mean is, but the seeds are too few to tell.
    """
    mean, error = np.mean(differences), standard_error(differences)
    if mean >= 0:
        return False
    return True if len(differences) > 1 and mean <= -2 * error else None


def at_least(a, b):
    """Return whether a ≥ b on average, as far as the seeds can tell."""
    differences = np.asarray(a) - np.asarray(b)
    return bool(differences.mean() >= -2 * standard_error(differences) - 1e-3)
