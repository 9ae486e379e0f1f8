"""Sums of Gaussian kernels over pairs of samples, without an n x n matrix.

Let ``D_l[j, k]`` be the squared distance of samples ``j`` and ``k`` in layer ``l`` (for bits, their
Hamming distance), and ``W`` a matrix of weights with one row per term. An engine computes *row
masses* and nothing else,

    mass[t, g, j] = sum_k  [k in group g of j]  exp(-sum_l W[t, l] D_l[j, k])

and returns their logarithms:

    samples --_tiles--> tiles --_distances--> D --_cpu--> exponents, sums --> log masses (t, g, j)
                                 --_cuda--> products --_masses.cu--> sums --/

One pass over the pairs serves every row of ``W``, so that layers, prefixes, suffixes, bounds
and bandwidths share the distances. Group 0 has all samples; each set of labels adds a group of the
samples that share the label of ``j``. Since a row needs only its own class, the result has O(n)
numbers per set of labels for any number of classes, and the rows need no sorting. The permutation
test has hundreds of sets, for which ``_by_class`` multiplies blocks of kernel values with
indicators of the classes.

The packages above this one only handle arrays of size O(n), in NumPy.
"""

from dataclasses import dataclass

import numpy as np

from ..states import GatingStates
from ..utils.parallel import in_this_process
from ..utils.samples import Samples
from . import _cpu, _cuda, _cupy
from ._by_class import class_sums, gate_information, own_class_masses, work_of_class_sums
from ._distances import HammingDistances, SquaredEuclideanDistances
from ._tiles import N_BLOCKS, block_slices, column_blocks

__all__ = [
    "N_BLOCKS",
    "Engine",
    "block_masses",
    "block_slices",
    "class_sums",
    "column_blocks",
    "gate_information",
    "kernel_masses",
    "work_of_class_sums",
]

# Nanoseconds of one core above which "auto" uses a GPU. Starting it and compiling the kernel take
# about a second, once per process.
_MIN_GPU_WORK = 2e9
# With more sets of labels, the rows of a class are summed by matrix products of blocks.
_FEW_SETS = 8


@dataclass(frozen=True)
class Engine:
    """Device on which pairs are computed, and whether progress is shown.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}, default="auto"
        ``"auto"`` uses CUDA for work of more than about two seconds if CuPy finds a GPU, unless
        joblib is configured to compute in other processes.
    n_jobs : int, default=None
        Number of CPU threads; ``joblib.parallel_config`` determines the meaning of ``None``.
    verbose : int, default=0
        Whether to show a progress bar of pairs.

    Raises
    ------
    RuntimeError
        If ``device="cuda"`` is not available; the error gives the reason.
    """

    device: str = "auto"
    n_jobs: int | None = None
    verbose: int = 0

    def __post_init__(self):
        if self.device == "cuda" and (missing := _cupy.what_is_missing()):
            raise RuntimeError(
                f"device='cuda' is not available: {missing} Or use device='cpu' or device='auto'."
            )

    def choose(self, n_pairs, points, weights):
        """Return the module that computes the pairs, and keyword arguments of its functions."""
        gpu = self.gpu(n_pairs * (len(weights) + points.cost))
        if gpu is None:
            return _cpu, {"n_jobs": self.n_jobs, "verbose": self.verbose}
        return _cuda, {"gpu": gpu, "verbose": self.verbose}

    def gpu(self, work):
        """Return the GPU for ``work`` nanoseconds of one core, or None to use the CPU."""
        use_gpu = self.device == "cuda"
        if self.device == "auto" and work > _MIN_GPU_WORK and in_this_process():
            use_gpu = _cupy.what_is_missing() is None
        return _cupy.Gpu() if use_gpu else None


def kernel_masses(
    states, weights, *, label_sets=(), queries=None, query_label_sets=(), engine=Engine()
):
    """Return log-sums of kernel values, one per term, group and row.

    Parameters
    ----------
    states : GatingStates, or sequence of ndarray of shape (n_samples, n_units)
        The columns ``k``, and also the rows ``j`` if ``queries`` is None. Bits, or one array of
        real numbers per layer.
    weights : ndarray of shape (n_terms, n_layers)
        ``W``, finite and not negative.
    label_sets : sequence of ndarray of shape (n_samples,), dtype int
        Labels of the columns; each array adds a group.
    queries : as ``states``, default=None
        Rows of the same layers that replace ``states`` as the rows.
    query_label_sets : sequence of ndarray of shape (n_queries,), dtype int
        Labels of the queries, one array per array of ``label_sets``.
    engine : Engine

    Returns
    -------
    log_masses : ndarray of shape (n_terms, 1 + n_label_sets, n_rows)
        Natural logarithms, float64; ``-inf`` for a row that has no columns in its group.
    """
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    has_bits = isinstance(states, GatingStates)
    if has_bits:
        points = HammingDistances(states.packed)
    else:
        points = SquaredEuclideanDistances(states, weights)
    if queries is None:
        blocks, many = np.zeros(len(points), int), has_bits and len(label_sets) > _FEW_SETS
        if many and engine.choose(len(points) ** 2 / 2, points, weights)[0] is _cpu:
            masses = _symmetric(points, weights, (), blocks, engine)[:, :, 0]
            own = own_class_masses(points, weights, label_sets, engine)
            return np.log(np.concatenate([masses, own], axis=1))
        masses = _symmetric(points, weights, label_sets, blocks, engine)
        return np.log(masses[:, :, 0])  # a row is at distance 0 from itself: no sum underflows
    rows = points.with_layers(queries.packed if has_bits else queries)
    module, options = engine.choose(len(rows) * len(points), points, weights)
    return module.cross_masses(rows, points, weights, query_label_sets, label_sets, **options)


def block_masses(states, weights, *, label_sets=(), engine=Engine()):
    """Return ``(masses, blocks)``: the sums of `kernel_masses` over each block of the columns.

    ``masses`` has shape (n_terms, 1 + n_label_sets, n_blocks, n_rows), and ``blocks`` the block of
    each row, as `column_blocks` returns it. The rows of a sample must follow each other.
    """
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    blocks = column_blocks(Samples(states.groups, len(states)).of_rows)
    return _symmetric(HammingDistances(states.packed), weights, label_sets, blocks, engine), blocks


def _symmetric(points, weights, label_sets, blocks, engine):
    module, options = engine.choose(len(points) ** 2 / 2, points, weights)
    return module.symmetric_masses(points, weights, label_sets, blocks, **options)
