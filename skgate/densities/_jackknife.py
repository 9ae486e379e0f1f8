"""Sampling error of a kernel entropy: block-jackknife standard errors, and smaller samples.

Samples are put into 16 blocks at random, and one pass over the pairs gives each row's mass over
each block. Leaving a block out, or all but some, then needs no distances. (A bootstrap would not
do: duplicates enlarge the self term.)
"""

import numpy as np

from ..pairwise import N_PARTS, kernel_masses, part_masses, part_slices
from ._surprisals import conditional_entropy

__all__ = ["jackknife", "subsample_entropies"]

_SLOPE_SAMPLES = 512
_STEP = 1e-4


def jackknife(states, weights, spreads, *, labelings=(), engine):
    """Return log masses, and the entropies without each block of the samples.

    The bandwidth depends on the samples too. Its change follows from the activation rates, and is
    propagated to the entropy to first order, with the slope estimated on a subsample.

    Parameters
    ----------
    states : GatingStates
    weights : ndarray of shape (n_terms, n_layers)
    spreads : callable
        Takes activation rates, returns what the bandwidths of each term are proportional to,
        (n_directions, n_terms): of all layers alike, or one of each layer.
    labelings : sequence of ndarray of shape (n_samples,), dtype int
    engine : Engine

    Returns
    -------
    log_masses : ndarray of shape (n_terms, 1 + n_labelings, n_samples)
        As `kernel_masses` returns them.
    left_out : ndarray of shape (n_terms, 1 + n_labelings, n_parts)
        H, and H(.|Y) of each labeling; nats.
    """
    order = np.random.default_rng(0).permutation(len(states))
    states, labelings = states[order], [codes[order] for codes in labelings]
    masses, parts = part_masses(states, weights, labelings=labelings, engine=engine)
    totals = masses.sum(axis=2)
    groups = [np.zeros_like(parts), *labelings]
    left_out = np.stack(
        [_without_parts(masses[:, g], totals[:, g], parts, c) for g, c in enumerate(groups)], axis=1
    )
    changes, vanished = _log_changes(states, parts, spreads)
    for layers, change in changes:
        slopes = _slopes(states, weights, layers, totals, groups)  # (n_terms, n_groups)
        left_out -= slopes[..., None] * change[:, None]
    left_out = np.where(vanished[:, None], 0.0, left_out)
    log_masses = np.empty_like(totals)
    log_masses[..., order] = np.log(totals)
    return log_masses, left_out


def _n_left_out(parts):
    return min(N_PARTS, len(parts))


def _without_parts(masses, totals, parts, codes):
    """Return H(.|Y) without each part, (n_terms, n_parts), from (n_terms, n_parts, n) masses."""
    left_out = np.full((len(masses), _n_left_out(parts)), np.nan)
    for part in range(left_out.shape[1]):
        rows = parts != part
        if rows.any():
            rest = np.log(totals[:, rows] - masses[:, part, rows])
            left_out[:, part] = conditional_entropy(rest, codes[rows])
    return left_out


def _slopes(states, weights, layers, totals, groups):
    """Return d H / d log W of each term and group, W of some layers, from pairs of some samples."""
    some = slice(0, min(len(states), _SLOPE_SAMPLES))  # the order is random
    grids = np.concatenate([weights, weights * (1 + _STEP * layers)])
    labelings = [codes[some] for codes in groups[1:]]
    at, beyond = np.split(np.exp(kernel_masses(states[some], grids, labelings=labelings)), 2)
    slopes = np.zeros(totals.shape[:2])
    for group, codes in enumerate(groups):
        # a row's pairs with its own class stand for all of these, but for the row itself
        everyone, here = np.bincount(codes), np.bincount(codes[some], minlength=codes.max() + 1)
        scale = (everyone - 1) / np.maximum(here - 1, 1)
        falls = (at[:, group] - beyond[:, group]) / _STEP * scale[codes[some]]
        slopes[:, group] = np.mean(falls / totals[:, group, some], axis=1)
    return slopes


def _log_changes(states, parts, spreads):
    """Return what leaving out each part does to log bandwidths, and where nothing varies any more.

    Returns
    -------
    changes : list of (layers, change)
        Layers whose weights change alike, (n_layers,), and by how much, (n_terms, n_parts).
    vanished : ndarray of shape (n_terms, n_parts), dtype bool
    """
    n, n_parts = len(states), _n_left_out(parts)
    slices = part_slices(parts)
    # number of samples in which each gate is open, by part
    counts = [
        [rate * (rows.stop - rows.start) for rate in states.activation_rates(rows)]
        for rows in slices
    ]
    totals = [np.sum(layer, axis=0) for layer in zip(*counts, strict=True)]
    whole = spreads([total / n for total in totals])  # (n_directions, n_terms)
    ratios = np.ones((*whole.shape, n_parts))
    for part, (rows, own) in enumerate(zip(slices[:n_parts], counts, strict=False)):
        size = max(n - (rows.stop - rows.start), 1)
        rest = [(total - count) / size for total, count in zip(totals, own, strict=True)]
        # rounding of rates leaves a variance of 1e-16 where there is none
        left = np.where(spreads(rest) > 1e-12 * whole, spreads(rest), 0.0)
        ratios[..., part] = np.divide(left, whole, out=np.ones_like(whole), where=whole > 0)
    vanished = (ratios == 0).all(axis=0)
    # a straight line holds for small changes
    logs = np.log(np.clip(ratios, 0.5, 2.0))
    masks = np.eye(len(states.layers)) if len(whole) > 1 else np.ones((1, len(states.layers)))
    return [(m, c) for m, c in zip(masks, logs, strict=True) if c.any()], vanished


def subsample_entropies(states, weights, engine):
    """Return numbers of samples, and the mean entropies of so many, nats.

    Returns
    -------
    n_samples : ndarray of shape (n_parts,), dtype int
    entropies : ndarray of shape (n_terms, n_parts)
        Over all runs of so many neighbouring parts, the last joined to the first.
    """
    n = len(states)
    order = np.random.default_rng(0).permutation(n)
    masses, parts = part_masses(states[order], weights, engine=engine)
    n_parts = _n_left_out(parts)
    sizes = n // n_parts * np.arange(1, n_parts + 1)
    sizes[-1] = n  # with what is left over
    entropies = np.zeros((len(weights), n_parts))
    for first in range(n_parts):
        run = (first + np.arange(n_parts)) % n_parts
        sums = np.cumsum(masses[:, 0, run], axis=1)  # over the parts of the run so far
        sums[:, -1] = masses[:, 0].sum(axis=1)
        for length, size in enumerate(sizes):
            rows = np.isin(parts, run[: length + 1]) | (size == n)
            entropies[:, length] += np.mean(np.log(size) - np.log(sums[:, length, rows]), axis=1)
    return sizes, entropies / n_parts
