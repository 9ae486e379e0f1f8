"""Sums of Gaussian kernels over pairs of samples, without an n x n matrix.

The seam between processors is the *row mass*. With ``D_l[j, k]`` the squared distance of samples
``j`` and ``k`` in layer ``l``, which of bits is their Hamming distance, and ``W`` a matrix of
weights, one row a term,

    mass[t, g, j] = sum_k  [k in group g of j]  exp(-sum_l W[t, l] D_l[j, k])

is all that an engine computes, and its logarithm all that leaves it:

    samples --_tiles--> tiles --_distances--> D --_cpu--> exponents, sums --> log masses (t, g, j)

One pass over the pairs serves every row of ``W``, so that layers, prefixes, suffixes, bounds
and bandwidths share the distances. Group 0 is all samples; then, for each labeling, the
samples that share the label of ``j``. A row needs its own class alone, so the result holds
O(n) numbers a labeling, whatever the number of classes, and the rows need no sorting.

Everything above this package is NumPy on arrays of O(n).
"""

import numpy as np

from .._states import GatingStates
from ._cpu import cross_masses, symmetric_masses
from ._distances import Bits, Reals
from ._tiles import N_PARTS, column_parts, part_slices

__all__ = ["N_PARTS", "kernel_masses", "part_masses", "part_slices", "resolve_device"]


def resolve_device(device):
    """Return the engine's device for ``"auto"``, ``"cpu"`` or ``"cuda"``."""
    if device == "cuda":
        raise RuntimeError(
            "device='cuda' was asked for, but this version of skgate has no CUDA engine yet. "
            "Use device='auto' or device='cpu'."
        )
    return "cpu"


def kernel_masses(states, weights, *, labelings=(), queries=None, query_labelings=(), n_jobs=None):
    """Return log-sums of kernel values, one a term, group and row.

    Parameters
    ----------
    states : GatingStates, or sequence of ndarray of shape (n_samples, n_units)
        The columns ``k``; the rows ``j`` too, unless ``queries`` are given. Bits, or an array of
        real numbers a layer.
    weights : ndarray of shape (n_terms, n_layers)
        ``W``, finite and not negative.
    labelings : sequence of ndarray of shape (n_samples,), dtype int
        Labels of the columns; each adds a group.
    queries : as ``states``, default=None
        Other rows, of the same layers.
    query_labelings : sequence of ndarray of shape (n_queries,), dtype int
        Labels of the queries, one array a labeling.
    n_jobs : int, default=None
        Number of threads; ``joblib.parallel_config`` governs ``None``.

    Returns
    -------
    log_masses : ndarray of shape (n_terms, 1 + n_labelings, n_rows)
        Natural logarithms, float64; ``-inf`` for a row without columns in its group.
    """
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    has_bits = isinstance(states, GatingStates)
    points = Bits(states.packed) if has_bits else Reals(states, weights)
    if queries is None:
        everyone = np.zeros(len(points), int)
        # a row is at distance 0 from itself, so that no sum underflows
        return np.log(symmetric_masses(points, weights, labelings, everyone, n_jobs)[:, :, 0])
    rows = Bits(queries.packed) if has_bits else points.of(queries)
    return cross_masses(rows, points, weights, query_labelings, labelings, n_jobs)


def part_masses(states, weights, *, labelings=(), n_jobs=None):
    """Return the sums of kernel values of each row over each part of the columns.

    The same pass over the pairs as that of `kernel_masses`, which returns sums over all parts.

    Parameters
    ----------
    states : GatingStates
    weights : ndarray of shape (n_terms, n_layers)
    labelings : sequence of ndarray of shape (n_samples,), dtype int
    n_jobs : int, default=None

    Returns
    -------
    masses : ndarray of shape (n_terms, 1 + n_labelings, n_parts, n_samples)
    parts : ndarray of shape (n_samples,), dtype int
        Part of each sample: `N_PARTS` of one size, and what is left over in one more.
    """
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    parts = column_parts(len(states))
    return symmetric_masses(Bits(states.packed), weights, labelings, parts, n_jobs), parts
