"""How the examples compare and print."""

import numpy as np

WORDS = {True: "yes", False: "NO", None: "open"}


class Claims:
    """Statements of the paper about one figure, each held against the numbers."""

    def __init__(self):
        self.held = {}

    def check(self, statement, holds):
        """Keep a statement that is true, false, or None: open."""
        self.held[statement] = None if holds is None else bool(holds)

    def report(self):
        for statement, holds in self.held.items():
            print(f"    {WORDS[holds]:4}  {statement}")
        failed = [statement for statement, holds in self.held.items() if holds is False]
        open_ = [statement for statement, holds in self.held.items() if holds is None]
        verdict = f"not reproduced: {'; '.join(failed)}" if failed else "reproduced"
        print(f"  {verdict}" + (f" (open: {'; '.join(open_)})" if open_ else ""))


def standard_error(values):
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0


def table(header, rows):
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("    " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)))
