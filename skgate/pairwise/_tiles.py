"""How the pairs are cut into tiles, and tiles put together into tasks."""

import numpy as np
from sklearn import get_config

from .._parallel import slices

# What stays in the second-level cache of one core; between 1 and 8 MiB it hardly matters.
_CACHE_BYTES = 2 << 20
_MAX_TASK_ROWS = 4096


def tile_rows(n_columns, n_layers, n_terms):
    """Return the height of a tile of ``n_columns`` whose distances and exponents fit in cache.

    Within scikit-learn's ``working_memory``, and independent of the number of threads, so
    that the same input gives the same bits on any number of them.
    """
    budget = min(_CACHE_BYTES, get_config()["working_memory"] * 2**20)
    rows = budget / (8 * n_columns * (2 * n_layers + n_terms + 1))
    return int(np.clip(rows // 64 * 64, 64, 1024))


def symmetric_tasks(n, n_columns):
    """Return the ``(rows, columns)`` of tasks that cover each pair ``row <= column``."""
    step = min(-(-n // (16 * n_columns)) * n_columns, _MAX_TASK_ROWS)  # 16 tasks or more
    return [
        (rows, columns)
        for columns in slices(0, n, step)
        for rows in slices(0, columns.stop, _MAX_TASK_ROWS)
    ]
