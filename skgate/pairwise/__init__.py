"""Sums of Gaussian kernels over pairs of samples, without an n x n matrix.

The seam between processors is the *row mass*. With ``D_l[j, k]`` the squared distance of samples
``j`` and ``k`` in layer ``l``, which of bits is their Hamming distance, and ``W`` a matrix of
weights, one row a term,

    mass[t, g, j] = sum_k  [k in group g of j]  exp(-sum_l W[t, l] D_l[j, k])

is all that an engine computes, and its logarithm all that leaves it:

    samples --_tiles--> tiles --_distances--> D --_cpu--> exponents, sums --> log masses (t, g, j)
                                 --_cuda--> products --_masses.cu--> sums --/

One pass over the pairs serves every row of ``W``, so that layers, prefixes, suffixes, bounds
and bandwidths share the distances. Group 0 is all samples; then, for each set of labels, the
samples that share the label of ``j``. A row needs its own class alone, so the result holds
O(n) numbers a set of labels, whatever the number of classes, and the rows need no sorting.

Everything above this package is NumPy on arrays of O(n).
"""

from dataclasses import dataclass

import numpy as np

from ..states import GatingStates
from ..utils.parallel import in_this_process
from . import _cpu, _cuda, _cupy
from ._distances import Bits, Reals
from ._tiles import N_BLOCKS, block_slices, column_blocks

__all__ = ["N_BLOCKS", "Engine", "block_masses", "block_slices", "kernel_masses"]

# Nanoseconds of one core from which on "auto" takes a GPU: to start with it and to compile for it
# take about a second, once.
_WORK_FOR_GPU = 2e9


@dataclass(frozen=True)
class Engine:
    """Where pairs are computed, and whether that is shown.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}, default="auto"
        ``"auto"`` is CUDA for work of more than about two seconds, where CuPy has a GPU and joblib
        is not told to compute elsewhere.
    n_jobs : int, default=None
        Number of threads of the CPU; ``joblib.parallel_config`` governs ``None``.
    verbose : int, default=0
        Whether to show the pairs that are done, and the time left.

    Raises
    ------
    RuntimeError
        If ``device="cuda"`` cannot be had; the error says what is missing.
    """

    device: str = "auto"
    n_jobs: int | None = None
    verbose: int = 0

    def __post_init__(self):
        if self.device == "cuda" and (missing := _cupy.what_is_missing()):
            raise RuntimeError(
                f"device='cuda' was asked for, but {missing} Or take device='cpu', or 'auto'."
            )

    def choose(self, n_pairs, points, weights):
        """Return the module that computes so many pairs, and what its functions want of us."""
        gpu = self.gpu(n_pairs * (len(weights) + points.cost))
        if gpu is None:
            return _cpu, {"n_jobs": self.n_jobs, "verbose": self.verbose}
        return _cuda, {"gpu": gpu, "verbose": self.verbose}

    def gpu(self, work):
        """Return the GPU for so many nanoseconds of one core, None where the CPU is to do it."""
        wanted = self.device == "cuda"
        if self.device == "auto" and work > _WORK_FOR_GPU and in_this_process():
            wanted = _cupy.what_is_missing() is None
        return _cupy.Gpu() if wanted else None


def kernel_masses(
    states, weights, *, label_sets=(), queries=None, query_label_sets=(), engine=Engine()
):
    """Return log-sums of kernel values, one a term, group and row.

    Parameters
    ----------
    states : GatingStates, or sequence of ndarray of shape (n_samples, n_units)
        The columns ``k``; the rows ``j`` too, unless ``queries`` are given. Bits, or an array of
        real numbers a layer.
    weights : ndarray of shape (n_terms, n_layers)
        ``W``, finite and not negative.
    label_sets : sequence of ndarray of shape (n_samples,), dtype int
        Labels of the columns; each adds a group.
    queries : as ``states``, default=None
        Other rows, of the same layers.
    query_label_sets : sequence of ndarray of shape (n_queries,), dtype int
        Labels of the queries, one array a set of labels.
    engine : Engine

    Returns
    -------
    log_masses : ndarray of shape (n_terms, 1 + n_label_sets, n_rows)
        Natural logarithms, float64; ``-inf`` for a row without columns in its group.
    """
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    has_bits = isinstance(states, GatingStates)
    points = Bits(states.packed) if has_bits else Reals(states, weights)
    if queries is None:
        masses = _symmetric(points, weights, label_sets, np.zeros(len(points), int), engine)
        return np.log(masses[:, :, 0])  # a row is at distance 0 from itself: no sum underflows
    rows = Bits(queries.packed) if has_bits else points.of(queries)
    module, how = engine.choose(len(rows) * len(points), points, weights)
    return module.cross_masses(rows, points, weights, query_label_sets, label_sets, **how)


def block_masses(states, weights, *, label_sets=(), engine=Engine()):
    """Return the sums of kernel values of each row over each block of the columns.

    The same pass over the pairs as that of `kernel_masses`, which returns sums over all blocks.

    Returns
    -------
    masses : ndarray of shape (n_terms, 1 + n_label_sets, n_blocks, n_samples)
    blocks : ndarray of shape (n_samples,), dtype int
        Part of each sample: `N_BLOCKS` of one size, and what is left over in one more.
    """
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    blocks = column_blocks(len(states))
    return _symmetric(Bits(states.packed), weights, label_sets, blocks, engine), blocks


def _symmetric(points, weights, label_sets, blocks, engine):
    module, how = engine.choose(len(points) ** 2 / 2, points, weights)
    return module.symmetric_masses(points, weights, label_sets, blocks, **how)
