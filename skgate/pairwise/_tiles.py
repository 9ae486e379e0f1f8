"""How the pairs are cut into tiles, and tiles put together into tasks."""

from itertools import pairwise

import numpy as np
from sklearn import get_config

from .._parallel import slices

# What stays in the second-level cache of one core; between 1 and 8 MiB it hardly matters.
_CACHE_BYTES = 2 << 20
_MAX_TASK_ROWS = 4096
#: Parts of the columns whose sums can be told apart.
N_PARTS = 16


def tile_rows(n_columns, n_layers, n_terms):
    """Return the height of a tile of ``n_columns`` whose distances and exponents fit in cache.

    Within scikit-learn's ``working_memory``, and independent of the number of threads, so
    that the same input gives the same bits on any number of them.
    """
    budget = min(_CACHE_BYTES, get_config()["working_memory"] * 2**20)
    rows = budget / (8 * n_columns * (2 * n_layers + n_terms + 1))
    return int(np.clip(rows // 64 * 64, 64, 1024))


def column_parts(n):
    """Return the part of each column: 16 of one size, and what is left over in one more."""
    size = max(1, n // N_PARTS)
    return np.minimum(np.arange(n) // size, N_PARTS)


def part_slices(parts):
    """Return the slice of each part, from numbers of parts that rise."""
    edges = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
    return [slice(start, stop) for start, stop in pairwise(edges) if stop > start]


def symmetric_tasks(parts, n_columns):
    """Return the ``(rows, columns)`` of tasks that cover each pair ``row <= column``.

    There are 16 or more, of whole tiles of ``n_columns`` where that can be, and the columns of a
    task are of one part.
    """
    n = len(parts)
    step = min(-(-n // (16 * n_columns)) * n_columns, _MAX_TASK_ROWS)
    return [
        (rows, columns)
        for part in part_slices(parts)
        for columns in slices(part.start, part.stop, step)
        for rows in slices(0, columns.stop, _MAX_TASK_ROWS)
    ]
