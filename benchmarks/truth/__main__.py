"""Compute the stored values again, and check them.

python -m benchmarks.truth
"""

import numpy as np

from . import CASES
from ._base import Estimated
from .stored import STORED


def main():
    """Print the values of all cases, and fail where a stored one is not that computed now."""
    differ = []
    for name, case in CASES.items():
        values = f"H {case.entropy:9.4f}  TC {case.total_correlation:9.4f}"
        print(f"{name:22} {values}", "" if case.mi_xy is None else f" I {case.mi_xy:.4f}")
        if isinstance(case, Estimated):
            found = tuple(round(float(value), 5) for value in case.recompute())
            print(f'    "{case!r}": {found},')
            if not np.allclose(found, STORED.get(repr(case), np.nan), atol=1e-4):
                differ.append(name)
    if differ:
        raise SystemExit(f"The stored values of {differ} are not those computed now.")


if __name__ == "__main__":
    main()
