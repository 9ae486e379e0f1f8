"""How the pairs are cut into tiles, and tiles put together into tasks."""

from itertools import pairwise

import numpy as np
from sklearn import get_config
from tqdm import tqdm

from ..utils.parallel import slices

# What stays in the second-level cache of one core; between 1 and 8 MiB it hardly matters.
_CACHE_BYTES = 2 << 20
_MAX_TASK_ROWS = 4096
# Nanoseconds, roughly: an interrupted fit waits for the tasks that run.
_MAX_TASK_WORK = 3e8
#: Parts of the columns whose sums can be told apart.
N_BLOCKS = 16


def tile_rows(n_columns, n_layers, n_terms):
    """Return the height of a tile of ``n_columns`` whose distances and exponents fit in cache.

    Within scikit-learn's ``working_memory``, and independent of the number of threads, so
    that the same input gives the same bits on any number of them.
    """
    budget = min(_CACHE_BYTES, get_config()["working_memory"] * 2**20)
    rows = budget / (8 * n_columns * (2 * n_layers + n_terms + 1))
    return int(np.clip(rows // 64 * 64, 64, 1024))


def column_blocks(n):
    """Return the block of each column: 16 of one size, and what is left over in one more."""
    size = max(1, n // N_BLOCKS)
    return np.minimum(np.arange(n) // size, N_BLOCKS)


def block_slices(blocks):
    """Return the slice of each block, from numbers of blocks that rise."""
    edges = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(blocks)]
    return [slice(start, stop) for start, stop in pairwise(edges) if stop > start]


def symmetric_tasks(blocks, n_columns, cost):
    """Return the ``(rows, columns)`` of tasks that cover each pair ``row <= column``.

    There are 16 or more, of whole tiles of ``n_columns`` where that can be, and the columns of a
    task are of one block. ``cost`` is that of a pair, in nanoseconds.
    """
    n = len(blocks)
    most = min(_MAX_TASK_ROWS, max(1, int((_MAX_TASK_WORK / cost) ** 0.5) // n_columns) * n_columns)
    step = min(-(-n // (16 * n_columns)) * n_columns, most)
    return [
        (rows, columns)
        for block in block_slices(blocks)
        for columns in slices(block.start, block.stop, step)
        for rows in slices(0, columns.stop, most)
    ]


def length(s):
    """Return the number of rows in a slice."""
    return s.stop - s.start


def pair_bar(n_pairs, verbose):
    """Return a progress bar of pairs, which shows nothing unless ``verbose``."""
    return tqdm(total=n_pairs, unit=" pairs", unit_scale=True, disable=not verbose)
