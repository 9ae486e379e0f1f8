"""The CPU engine: distances, exponentials and sums in NumPy, one tile at a time."""

from bisect import bisect_left, bisect_right

import numpy as np

from ..utils.parallel import run, slices
from ._tiles import length, pair_bar, symmetric_tasks, tile_rows

# A lookup is faster than an exponential while its table fits in the first cache levels.
_MAX_TABLE = 1 << 14


class _Kernel:
    """exp(-sum_l W[t, l] D_l) on one tile, one term at a time.

    A term of one layer with integer distances reads its values from a table; terms of several
    layers share one matrix product of the weights with the distances. A tile has ``shape`` at
    most. ``max_distances`` has a value per layer, and exponents above ``cutoff`` are negligible.
    """

    def __init__(self, max_distances, weights, shape, cutoff):
        self.weights, self.cutoff = weights, cutoff
        self.layer, self.table = {}, {}
        for term, row in enumerate(weights):
            layers = np.flatnonzero(row)
            if len(layers) > 1:
                continue
            layer = self.layer[term] = layers[0] if len(layers) else 0
            if max_distances[layer] < _MAX_TABLE:
                self.table[term] = np.exp(-row[layer] * np.arange(max_distances[layer] + 1))
        # a fresh array of this size costs more in page faults than the arithmetic on it
        self.buffer = np.empty(shape[0] * shape[1])

    def __call__(self, distances):
        """Yield ``(term, kernel values)`` for the terms whose values are not negligible."""
        smallest = [d.min() for d in distances]
        terms = np.flatnonzero(self.weights @ smallest <= self.cutoff)
        n_rows, n_columns = distances[0].shape
        values = self.buffer[: n_rows * n_columns].reshape(n_rows, n_columns)
        for term in filter(self.layer.__contains__, terms):
            distance = distances[self.layer[term]]
            if term in self.table:
                # mode="clip" skips the bounds check
                yield term, np.take(self.table[term], distance, mode="clip", out=values)
            else:
                np.multiply(distance, -self.weights[term, self.layer[term]], out=values)
                yield term, np.exp(values, out=values)
        if rest := [term for term in terms if term not in self.layer]:
            exponents = _exponents(distances, self.weights[rest])
            np.exp(np.negative(exponents, out=exponents), out=exponents)
            yield from zip(rest, exponents, strict=True)


def _exponents(distances, weights):
    """Return ``sum_l W[t, l] D_l``, (n_terms, n_rows, n_columns)."""
    stacked = np.stack(distances).astype(np.float64)  # (n_layers, n_rows, n_columns)
    flat = weights @ stacked.reshape(len(stacked), -1)
    return flat.reshape(len(weights), *stacked.shape[1:])


def _symmetric_task(points, weights, label_sets, blocks, height, rows, columns):
    """Return the sums over the pairs ``row <= column`` of two ranges, for rows and for columns.

    Those for rows, by the block of the columns, have shape (n_terms, n_groups, n_blocks, n_rows),
    with the blocks that the columns are in. Those for columns, by the block of the rows, have shape
    (n_terms, n_groups, n_blocks, n_columns), with all blocks.
    """
    # each mass is at least 1, so that omitted values are below its rounding error
    cutoff = np.log(len(points) / np.finfo(float).eps)
    kernel = _Kernel(points.max_distances, weights, (height, points.tile_columns), cutoff)
    shape = len(weights), 1 + len(label_sets)
    first, last = blocks[columns.start], blocks[columns.stop - 1]
    to_rows = np.zeros((*shape, last - first + 1, length(rows)))
    to_columns = np.zeros((*shape, blocks[-1] + 1, length(columns)))
    starts = np.searchsorted(blocks, np.arange(blocks[-1] + 2)).tolist()
    scratch, ones = {}, np.ones(max(height, points.tile_columns))
    for c in slices(columns.start, columns.stop, points.tile_columns):
        prepared, across = points.prepare(c), _parts(starts, c.start, c.stop)
        for r in slices(rows.start, min(rows.stop, c.stop), height):
            # the full square on the diagonal is computed, and added to its rows only
            above = _parts(starts, r.start, min(r.stop, c.start))
            masks = [labels[r, None] == labels[None, c] for labels in label_sets]
            into_rows = to_rows[..., r.start - rows.start : r.stop - rows.start]
            into_columns = to_columns[..., c.start - columns.start : c.stop - columns.start]
            for term, values in kernel(points.between(r, prepared, scratch)):
                for group, mask in enumerate([None, *masks]):
                    in_group = values if mask is None else values * mask
                    _add_columns(in_group, across, first, into_rows[term, group], ones)
                    _add_rows(in_group, above, into_columns[term, group], ones)
    return to_rows, to_columns


def _parts(starts, start, stop):
    """Return neighbouring blocks that have equally many of the rows from ``start`` to ``stop``.

    A part is ``(blocks, rows)``: slices of the blocks, and of their rows from ``start`` on.
    """
    if start >= stop:
        return []
    parts, first = [], bisect_right(starts, start) - 1
    for block in range(first, bisect_left(starts, stop)):
        begin = max(starts[block], start) - start
        size = min(starts[block + 1], stop) - start - begin
        if parts and parts[-1][2] == size:
            parts[-1][1] += 1
        else:
            parts.append([block, 1, size, begin])
    return [
        (slice(block, block + n), slice(begin, begin + n * size)) for block, n, size, begin in parts
    ]


def _add_columns(values, parts, first, into, ones):
    """Add the sums of a tile over its columns, by their block, from the ``first`` one on."""
    # on narrow tiles a product with a vector of ones is twice as fast as sum()
    for blocks, columns in parts:
        n, block = blocks.stop - blocks.start, blocks.start - first
        if n == 1:
            into[block] += values[:, columns] @ ones[: columns.stop - columns.start]
        else:
            in_parts = values[:, columns].reshape(len(values), n, -1)
            into[block : block + n] += in_parts.sum(axis=2).T


def _add_rows(values, parts, into, ones):
    """Add the sums of a tile over its rows, by their block."""
    for blocks, rows in parts:
        n, n_rows = blocks.stop - blocks.start, rows.stop - rows.start
        if n == 1:
            into[blocks.start] += ones[:n_rows] @ values[rows]
        else:
            into[blocks] += ones[: n_rows // n] @ values[rows].reshape(n, n_rows // n, -1)


def symmetric_masses(points, weights, label_sets, blocks, n_jobs, verbose):
    """Return the masses of each row over the rows of each block, computing each pair once.

    Sums are added in the order of the tasks, so that the result does not depend on ``n_jobs``.
    """
    n = len(points)
    height = tile_rows(points.tile_columns, weights.shape[1], len(weights))
    cost = len(weights) + points.cost
    ranges = symmetric_tasks(n, points.tile_columns, cost)
    work = n * n / 2 * cost
    shared = points, weights, label_sets, blocks, height
    masses = np.zeros((len(weights), 1 + len(label_sets), blocks[-1] + 1, n))
    results = run(_symmetric_task, shared, ranges, n_jobs, work)
    with pair_bar(sum(length(r) * length(c) for r, c in ranges), verbose) as bar:
        for (rows, columns), (to_rows, to_columns) in zip(ranges, results, strict=True):
            first = blocks[columns.start]
            masses[:, :, first : first + to_rows.shape[2], rows] += to_rows
            masses[..., columns] += to_columns
            bar.update(length(rows) * length(columns))
    return masses


def _cross_task(queries, points, weights, query_label_sets, label_sets, rows):
    """Return the log masses of a range of rows, from sums scaled by their smallest exponents."""
    shape = len(weights), 1 + len(label_sets), length(rows)
    smallest, masses = np.full(shape, np.inf), np.zeros(shape)
    scratch = {}
    for c in slices(0, len(points), points.tile_columns):
        exponents = _exponents(queries.between(rows, points.prepare(c), scratch), weights)
        for group in range(shape[1]):
            values = exponents  # (n_terms, n_rows, n_columns)
            if group:
                mask = query_label_sets[group - 1][rows, None] == label_sets[group - 1][None, c]
                values = np.where(mask, exponents, np.inf)
            old = smallest[:, group]
            new = np.minimum(old, values.min(axis=-1))
            shift = np.where(np.isfinite(new), new, 0.0)
            masses[:, group] *= np.exp(shift - old)
            masses[:, group] += np.exp(shift[..., None] - values).sum(axis=-1)
            smallest[:, group] = new
    with np.errstate(divide="ignore"):
        return np.log(masses) - np.where(np.isfinite(smallest), smallest, 0.0)


def cross_masses(queries, points, weights, query_label_sets, label_sets, n_jobs, verbose):
    """Return the log masses of each query over all points, which need not include the query."""
    height = tile_rows(points.tile_columns, weights.shape[1], 3 * len(weights))
    work = len(queries) * len(points) * (len(weights) + points.cost)
    shared = queries, points, weights, query_label_sets, label_sets
    tasks = [(rows,) for rows in slices(0, len(queries), height)]
    results = []
    with pair_bar(len(queries) * len(points), verbose) as bar:
        for masses in run(_cross_task, shared, tasks, n_jobs, work):
            results.append(masses)
            bar.update(masses.shape[-1] * len(points))
    return np.concatenate(results, axis=-1)
