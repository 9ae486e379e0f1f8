"""The division of pairs into tiles, and of tiles into tasks."""

from itertools import pairwise

import numpy as np
from sklearn import get_config
from tqdm import tqdm

from ..utils.parallel import slices

# About the second-level cache of one core; timings are flat between 1 and 8 MiB.
_CACHE_BYTES = 2 << 20
_MAX_TASK_ROWS = 4096
# Rough nanoseconds; small because an interrupted fit waits for the running tasks.
_MAX_TASK_WORK = 3e8
#: Number of blocks of columns, of equally many samples, that have separate sums.
N_BLOCKS = 16


def tile_rows(n_columns, n_layers, n_terms):
    """Return the number of rows for which the distances and exponents of a tile fit in cache.

    They also fit in scikit-learn's ``working_memory``. The height does not depend on the number of
    threads, so that results are equal bit for bit on any number of them.
    """
    budget = min(_CACHE_BYTES, get_config()["working_memory"] * 2**20)
    rows = budget / (8 * n_columns * (2 * n_layers + n_terms + 1))
    return int(np.clip(rows // 64 * 64, 64, 1024))


def column_blocks(samples):
    """Return the block of each column: 16 blocks of as many samples, and one for the remainder.

    ``samples`` are the numbers of the samples of the columns, in order.
    """
    size = max(1, (samples[-1] + 1) // N_BLOCKS)
    return np.minimum(samples // size, N_BLOCKS)


def block_slices(blocks):
    """Return the slice of each block of a sorted array of block numbers."""
    bounds = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(blocks)]
    return [slice(start, stop) for start, stop in pairwise(bounds) if stop > start]


def symmetric_tasks(n, n_columns, cost):
    """Return the ``(rows, columns)`` of tasks that cover each pair ``row <= column``.

    A task has columns in whole tiles of ``n_columns`` except at its end, and there are 16 tasks or
    more if ``n`` allows. ``cost`` is the nanoseconds per pair.
    """
    height = max(1, int((_MAX_TASK_WORK / cost) ** 0.5) // n_columns) * n_columns
    height = min(_MAX_TASK_ROWS, height)
    width = min(-(-n // (16 * n_columns)) * n_columns, height)
    return [
        (rows, columns)
        for columns in slices(0, n, width)
        for rows in slices(0, columns.stop, height)
    ]


def length(s):
    """Return the number of rows in a slice."""
    return s.stop - s.start


def pair_bar(n_pairs, verbose):
    """Return a progress bar of pairs, hidden unless ``verbose``."""
    return tqdm(total=n_pairs, unit=" pairs", unit_scale=True, disable=not verbose)
