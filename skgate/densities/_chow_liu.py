"""`ChowLiu`: gates on the most informative forest (Chow and Liu, 1968)."""

from functools import partial

import numkong
import numpy as np

from ..utils.arrays import to_numpy
from ._columns import has_sparse
from ._forest import ForestDensity
from ._sparse_edges import least_information, sparse_edges


class ChowLiu(ForestDensity):
    r"""Gates on a forest, each of which depends on at most one other.

    The forest is the one of maximum likelihood, without the edges whose information may be chance:

    .. math::

        \log p(\sigma) = \sum_i \log p(\sigma_i)
            + \sum_{(a,b)} \log \frac{p(\sigma_a, \sigma_b)}{p(\sigma_a) p(\sigma_b)}

    Fitting takes time with the square of the number of gates; 20,000 are about the most, unless few
    of them are open: then it takes time with the square of the gates that are open in a sample.

    Attributes
    ----------
    layers_ : tuple of GateLayer

    References
    ----------
    .. [1] C. K. Chow, C. N. Liu, "Approximating discrete probability distributions with dependence
       trees", IEEE Transactions on Information Theory 14(3), 1968.

    Examples
    --------
    Four fair gates, each there twice, have 4 bits:

    >>> import numpy as np
    >>> from skgate import GatingEntropy
    >>> from skgate.densities import ChowLiu
    >>> gates = np.random.default_rng(0).random((2000, 4)) < 0.5
    >>> measure = GatingEntropy(density=ChowLiu(), random_state=0).fit(np.hstack([gates, gates]))
    >>> round(measure.entropy_, 1)
    4.0
    """

    # each judged fold takes one tree more
    _judged_folds = 2
    _uses_gpu = True

    def _edges(self, states, columns, sizes, gpu):
        if has_sparse(states):
            return sparse_edges(columns, sizes)
        return _chow_liu_edges([c.bits() for c in columns], sizes, gpu)

    def independent(self):
        """Return the reference of the total correlation: independent units with a tree inside each.

        A forest cannot represent a window of max pooling; its error must not count as TC.
        """
        return _UnitTrees()


class _UnitTrees(ForestDensity):
    """Independent units, the gates inside each on a tree."""

    def _edges(self, states, columns, sizes, gpu):
        edges, first = [np.zeros((2, 0), np.int64)], 0
        for layer in states.layers:
            for unit in range(first, first + layer.n_gates, layer.unit_size):
                if layer.unit_size > 1:
                    own = [c.bits(slice(unit, unit + layer.unit_size)) for c in columns]
                    edges.append(unit + np.stack(_chow_liu_edges(own, sizes)))
            first += layer.n_gates
        return np.concatenate(edges, axis=1)


def _chow_liu_edges(bits, sizes, gpu=None):
    """Return the edges of the most informative forest, without those that may be chance.

    ``bits`` and ``sizes`` are those of each class; the information of a pair is that given the
    class.
    """
    n_gates = len(bits[0])
    if n_gates == 1:
        return np.zeros((2, 0), np.int64)
    children, parents, information = _spanning_tree(bits, sizes, gpu)
    kept = information > least_information(n_gates, sizes.sum())
    return children[kept], parents[kept]


def _spanning_tree(bits, sizes, gpu):
    """Return children, parents and information of the maximum spanning tree, by Prim's algorithm.

    A row of the matrix is computed when its gate joins the tree, and is not kept.
    """
    n_gates, n = len(bits[0]), sizes.sum()
    rows = [_InformationRows(b, size, gpu) for b, size in zip(bits, sizes, strict=True) if size]
    best, parent = np.full(n_gates, -np.inf), np.zeros(n_gates, np.int64)
    outside = np.ones(n_gates, bool)
    children, parents, information = np.empty((3, n_gates - 1))
    gate = 0
    for step in range(n_gates - 1):
        outside[gate], best[gate] = False, -np.inf
        gained = sum(row(gate) for row in rows)
        better = outside & (gained > best)
        best[better], parent[better] = gained[better], gate
        gate = int(best.argmax())
        children[step], parents[step], information[step] = gate, parent[gate], best[gate]
    return children.astype(np.int64), parents.astype(np.int64), information / n


class _InformationRows:
    """Rows of n times the mutual information of all pairs of gates, from counts."""

    def __init__(self, bits, n, gpu):
        xp = np if gpu is None else gpu.xp
        counts = np.arange(1, n + 1)
        self.n, self.terms = n, xp.asarray(np.concatenate([[0.0], counts * np.log(counts)]))
        self.open = xp.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))
        self.own = self.terms[self.open] + self.terms[n - self.open]  # c log c of both states
        self.bits = bits if gpu is None else gpu.words(bits)
        self.both = self._both if gpu is None else partial(gpu.open_in_both, self.bits)
        self.packed = numkong.hammings_pack(bits) if gpu is None else None

    def _both(self, gate):
        distances = np.asarray(numkong.hammings_packed(self.bits[gate : gate + 1], self.packed))
        return (self.open[gate] + self.open - distances[0].astype(np.int64)) >> 1

    def __call__(self, gate):
        n_open, terms, both = self.open[gate], self.terms, self.both(gate)
        # n I is the sum of c log c over the four cells, less that over each gate's, plus n log n
        information = terms[both]
        information += terms[n_open - both]
        information += terms[self.open - both]
        information += terms[self.n - n_open - self.open + both]
        information += terms[self.n] - self.own[gate] - self.own
        return to_numpy(information)
