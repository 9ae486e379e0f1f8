"""Sampling error of a kernel entropy: block-jackknife standard errors, and smaller samples.

Samples are put into 16 blocks at random, each with all its rows, and one pass over the pairs gives
each row's mass over each block. Leaving a block out, or all but some, then needs no distances. (A
bootstrap would not do: duplicates enlarge the self term.)
"""

import numpy as np
from scipy.special import xlogy

from ...pairwise import N_BLOCKS, block_masses, block_slices, column_blocks, kernel_masses
from ...states import count_open
from ...utils.samples import Samples

# Rows from which the slope of an entropy is estimated: by their pairs, or by those with all rows.
_SLOPE_ROWS = 384
_SLOPE_QUERIES = 512
_STEP = 1e-4


def jackknife(shuffled, weights, bandwidth_scales, *, label_sets=(), engine):
    """Return log masses, and the entropies without each block of the samples.

    The bandwidth depends on the samples too. Its change follows from the activation rates, and is
    propagated to the entropy to first order, with the slope estimated on a subsample.

    ``shuffled`` are the `Shuffled` states; label sets and log masses have the order before that.
    ``bandwidth_scales`` takes activation rates and returns quantities that the bandwidths are
    proportional to, (n_directions, n_ranges): one of all layers, or one of each.

    Returns
    -------
    log_masses : ndarray of shape (n_ranges, 1 + n_label_sets, n_rows)
        As `kernel_masses` returns them.
    left_out : ndarray of shape (n_ranges, 1 + n_label_sets, n_blocks)
        H, and H(.|Y) of each set of labels; nats.
    """
    order, states = shuffled.order, shuffled.states
    label_sets = [y_encoded[order] for y_encoded in label_sets]
    masses, blocks = block_masses(states, weights, label_sets=label_sets, engine=engine)
    totals = masses.sum(axis=2)
    groups = [np.zeros_like(blocks), *label_sets]
    per_group = zip(np.moveaxis(masses, 1, 0), np.moveaxis(totals, 1, 0), groups, strict=True)
    left_out = np.stack([_without_blocks(m, t, blocks, y) for m, t, y in per_group], axis=1)
    changes, vanished = _log_changes(shuffled, bandwidth_scales)
    for layers, change in changes:
        slopes = _slopes(states, weights, layers, totals, groups, engine)  # (n_ranges, n_groups)
        left_out -= slopes[..., None] * change[:, None]
    left_out = np.where(vanished[:, None], 0.0, left_out)
    log_masses = np.empty_like(totals)
    log_masses[..., order] = np.log(totals)
    return log_masses, left_out


class Shuffled:
    """States in random order, and how often gates are open in each block of the samples.

    Attributes
    ----------
    order : ndarray of shape (n_rows,)
    states : GatingStates
    slices : list of slice
        The rows of each block; what is left over is the last.
    n_open : list of ndarray of shape (n_slices, n_gates)
    """

    def __init__(self, states):
        self.order = Samples(states.groups, len(states)).shuffled_rows(0)
        self.states = states[self.order]
        blocks = column_blocks(Samples(self.states.groups, len(states)).of_rows)
        self.slices, self.n_left_out = block_slices(blocks), _n_left_out(blocks)
        self.n_open = [
            np.stack([count_open(gates[rows], layer.n_gates) for rows in self.slices])
            for gates, layer in zip(self.states.packed, states.layers, strict=True)
        ]

    def rates(self):
        """Return the activation rates of all rows."""
        return [n_open.sum(axis=0) / len(self.states) for n_open in self.n_open]

    def rates_without_blocks(self):
        """Return those of the other rows, for each block that is left out."""
        sizes = [rows.stop - rows.start for rows in self.slices[: self.n_left_out]]
        n_rest = np.maximum(len(self.states) - np.array(sizes), 1)[:, None]
        counts = [(n_open.sum(axis=0), n_open[: self.n_left_out]) for n_open in self.n_open]
        return [(total - own) / n_rest for total, own in counts]


def _n_left_out(blocks):
    return min(N_BLOCKS, blocks[-1] + 1)


def _without_blocks(masses, totals, blocks, y_encoded):
    """Return H(.|Y) without each block, (n_ranges, n_blocks)."""
    slices, n_classes = block_slices(blocks)[: _n_left_out(blocks)], y_encoded.max() + 1
    in_block = np.stack([np.bincount(y_encoded[own], minlength=n_classes) for own in slices])
    counts = np.bincount(y_encoded) - in_block  # (n_blocks, n_classes)
    left_out = np.full((len(masses), len(slices)), np.nan)
    for index, total in enumerate(totals):
        rest = total - masses[index, : len(slices)]  # (n_blocks, n_rows)
        for block, own in enumerate(slices):
            rest[block, own] = 1.0
        left_out[index] = xlogy(counts, counts).sum(axis=1) - _sums_of_logs(rest)
    # a single block leaves nothing behind
    n_rows = counts.sum(axis=1)
    return np.divide(left_out, n_rows, out=np.full_like(left_out, np.nan), where=n_rows > 0)


def _sums_of_logs(values):
    """Return sums of logarithms along the last axis, of values from 1 to the number of rows.

    Products of 16 do not overflow, and take a sixteenth of the time.
    """
    n = values.shape[-1] // 16 * 16
    products = values[:, :n].reshape(len(values), 16, -1).prod(axis=1)
    return np.log(products).sum(axis=1) + np.log(values[:, n:]).sum(axis=1)


def _slopes(states, weights, layers, totals, groups, engine):
    """Return d H / d log W of each range and group, W of some layers, from pairs of a subsample."""
    n = len(states)
    subset = columns = slice(0, min(n, _SLOPE_ROWS))  # the order is random
    options = {"label_sets": [y_encoded[columns] for y_encoded in groups[1:]]}
    if not Samples(states.groups, n).are_rows:
        # neighbouring rows are of one sample, most like each other: rows of many, with all pairs
        n_queries = min(n, _SLOPE_QUERIES)
        subset, columns = np.arange(n_queries) * n // n_queries, slice(None)
        queries = {"queries": states[subset], "query_label_sets": [y[subset] for y in groups[1:]]}
        options = {"label_sets": groups[1:], "engine": engine, **queries}
    grids = np.concatenate([weights, weights * (1 + _STEP * layers)])
    at, beyond = np.split(np.exp(kernel_masses(states[columns], grids, **options)), 2)
    slopes = np.zeros(totals.shape[:2])
    for group, y_encoded in enumerate(groups):
        # a row's pairs with its own class stand for all of these, but for the row itself
        y_subset, n_all = y_encoded[subset], np.bincount(y_encoded)
        n_columns = np.bincount(y_encoded[columns], minlength=len(n_all))
        scale = (n_all - 1) / np.maximum(n_columns - 1, 1)
        falls = (at[:, group] - beyond[:, group]) / _STEP * scale[y_subset]
        slopes[:, group] = np.mean(falls / totals[:, group, subset], axis=1)
    return slopes


def _log_changes(shuffled, bandwidth_scales):
    """Return the changes of log bandwidths without each block, and where nothing varies then.

    Returns
    -------
    changes : list of (layers, change)
        Layers whose weights change alike, (n_layers,), and by how much, (n_ranges, n_blocks).
    vanished : ndarray of shape (n_ranges, n_blocks), dtype bool
    """
    at_all = bandwidth_scales(shuffled.rates())  # (n_directions, n_ranges)
    at_rest = bandwidth_scales(shuffled.rates_without_blocks())
    # rounding of rates leaves a variance of 1e-16 where there is none
    at_rest[at_rest <= 1e-12 * at_all] = 0.0
    ratios = np.divide(at_rest, at_all, out=np.ones_like(at_rest), where=at_all > 0)
    ratios = np.moveaxis(ratios, 0, -1)  # (n_directions, n_ranges, n_blocks)
    vanished = (ratios == 0).all(axis=0)
    # a straight line holds for small changes
    logs = np.log(np.clip(ratios, 0.5, 2.0))
    n_layers = len(shuffled.n_open)
    masks = np.eye(n_layers) if len(at_all) > 1 else np.ones((1, n_layers))
    return [(m, c) for m, c in zip(masks, logs, strict=True) if c.any()], vanished


def subsample_entropies(states, weights, engine):
    """Return numbers of samples, and the mean entropies of all rows of so many, nats.

    Returns
    -------
    n_samples : ndarray of shape (n_blocks,), dtype int
    entropies : ndarray of shape (n_ranges, n_blocks)
        Over all runs of so many neighbouring blocks, the last joined to the first.
    """
    samples = Samples(states.groups, len(states))
    masses, blocks = block_masses(states[samples.shuffled_rows(0)], weights, engine=engine)
    n_blocks = _n_left_out(blocks)
    sizes = len(samples) // n_blocks * np.arange(1, n_blocks + 1)
    sizes[-1] = len(samples)  # with what is left over
    entropies = np.zeros((len(weights), n_blocks))
    for first in range(n_blocks):
        run = (first + np.arange(n_blocks)) % n_blocks
        sums = np.cumsum(masses[:, 0, run], axis=1)  # over the blocks of the run so far
        sums[:, -1] = masses[:, 0].sum(axis=1)
        for length, size in enumerate(sizes):
            rows = np.isin(blocks, run[: length + 1]) | (size == len(samples))
            logs = np.log(rows.sum()) - np.log(sums[:, length, rows])
            entropies[:, length] += np.mean(logs, axis=1)
    return sizes, entropies / n_blocks
