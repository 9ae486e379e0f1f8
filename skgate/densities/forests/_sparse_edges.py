r"""The forest of Chow and Liu from positions of open gates, for the cost of those open together.

Of all pairs, only those that are open together in some sample can have much information, and pairs
that exclude each other though both are open often. For two gates with rates :math:`p` and :math:`q`
that are never open together,

.. math::

    I(p, q) \le f(p) f(q), \qquad
    f(p) = \begin{cases} \alpha p & p \le 1/2 \\
        H(1 - p) / (\alpha (1 - p)) & p > 1/2 \end{cases} \qquad \alpha^2 = 4 \log 2

since :math:`I(p, q) / q` grows with :math:`q \le 1 - p`, where it is :math:`H(q) / q`, so that the
pairs that may exceed any limit are found by sorting.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.special import entr

from ._information import chance_information

_ALPHA = np.sqrt(4 * np.log(2))
#: Pairs and products of gates that are in memory at a time.
_BLOCK_PAIRS = 1 << 19


def sparse_edges(columns):
    """Return ``(children, parents)`` of the forest of `SparseColumns`."""
    n_gates, n = len(columns.open), columns.n
    if n_gates == 1:
        return np.zeros((2, 0), np.int64)
    least = chance_information(n_gates) / n
    bounds = _bounds(columns.open, n)
    order = np.argsort(-bounds, kind="stable")
    counts = _Counts(columns, order)
    edges = [np.empty((3, 0))]
    for gates, n_before in _blocks(counts, bounds[order], n * least):
        pairs, information = _block_information(counts, gates, n_before)
        kept = information / n > least
        edges.append(np.array([*pairs[:, kept], information[kept]]))
    first, second, information = np.concatenate(edges, axis=1)
    ends = order[first.astype(int)], order[second.astype(int)]
    return _rooted(minimum_spanning_tree(csr_array((-information, ends), shape=(n_gates,) * 2)))


def _bounds(n_open, n):
    """Return a number for each gate: two that are never open together have at most its product.

    That is, n times their information.
    """
    rates = n_open / n
    closed = np.maximum(1 - rates, 1 / n)
    often = (entr(closed) + entr(rates)) / (_ALPHA * closed)
    return np.sqrt(n) * np.where(rates <= 0.5, _ALPHA * rates, often)


class _Counts:
    """Open gates, in a new order of the gates."""

    def __init__(self, columns, order):
        self.n, self.open = columns.n, columns.open[order]
        self.by_gate = columns.by_gate[order].astype(np.int32)
        self.by_row = self.by_gate.T.tocsr()
        counts = np.arange(1, self.n + 1)
        self.terms = np.concatenate([[0.0], counts * np.log(counts)])
        self.own = (self.terms + self.terms[::-1])[self.open]  # c log c of both states

    def products(self):
        """Return the numbers of products that the pairs of each gate take."""
        return self.by_gate @ np.diff(self.by_row.indptr)

    def together(self, gates):
        """Return the keys of pairs with a gate before, sorted, and how often both are open."""
        counts = self.by_gate[gates] @ self.by_row[:, : gates.stop]
        counts.sort_indices()
        counts = counts.tocoo()
        first, second = counts.row + gates.start, counts.col
        before = second < first
        keys = first[before].astype(np.int64) * len(self.open) + second[before]
        return keys, counts.data[before]

    def information(self, first, second, both):
        """Return n times the mutual information of pairs."""
        a, b, terms = self.open[first], self.open[second], self.terms
        found = terms[both] + terms[a - both] + terms[b - both] + terms[self.n - a - b + both]
        return found + (terms[self.n] - self.own[first] - self.own[second])


def _blocks(counts, bounds, least):
    """Yield ranges of gates, and for each gate of one how many before it may exclude it."""
    n_gates = len(bounds)
    needed = np.divide(least, bounds, out=np.full(n_gates, np.inf), where=bounds > 0)
    n_before = np.searchsorted(-bounds, -needed)  # gates whose bound is larger
    n_before = np.minimum(n_before, np.arange(n_gates))
    work = np.cumsum(n_before + counts.products())
    start = 0
    while start < n_gates:
        limit = _BLOCK_PAIRS + (work[start - 1] if start else 0)
        stop = max(start + 1, int(np.searchsorted(work, limit)))
        yield slice(start, stop), n_before[start:stop]
        start = stop


def _block_information(counts, gates, n_before):
    """Return pairs of gates, (2, n_pairs), and n times their information."""
    n_gates = len(counts.open)
    together, n_both = counts.together(gates)
    starts = np.repeat(np.cumsum(n_before) - n_before, n_before)
    excluded = np.repeat(np.arange(gates.start, gates.stop), n_before) * n_gates
    excluded += np.arange(n_before.sum()) - starts
    # a stable sort merges what is sorted already, many times as fast as np.unique
    keys = np.sort(np.concatenate([excluded, together]), kind="stable")
    keys = keys[np.diff(keys, prepend=-1) > 0]
    first, second = np.divmod(keys, n_gates)
    both = np.zeros(len(keys), np.int64)
    both[np.searchsorted(keys, together)] = n_both
    return np.stack([first, second]), counts.information(first, second, both)


def _rooted(forest):
    """Return ``(children, parents)`` of an undirected forest, each gate a child once at most."""
    n_gates = forest.shape[0]
    _, tree = connected_components(forest, directed=False)
    roots = np.unique(tree, return_index=True)[1]
    forest = forest.tocoo()
    # an additional gate joins the trees, so that one search finds all parents
    ends = np.append(forest.row, np.full(len(roots), n_gates)), np.append(forest.col, roots)
    joined = csr_array((np.ones(len(ends[0])), ends), shape=(n_gates + 1,) * 2)
    parents = breadth_first_order(joined, n_gates, directed=False)[1][:-1]
    children = np.flatnonzero(parents < n_gates)
    return children, parents[children].astype(np.int64)
