r"""Densities of gating states that factor over a forest (Chow & Liu 1968).

Every gate has at most one parent, the same for all classes, and given a class

.. math::

    \log p(\sigma) = \sum_i \log p(\sigma_i)
        + \sum_{(a,b)} \log \frac{p(\sigma_a, \sigma_b)}{p(\sigma_a) p(\sigma_b)},

the second sum over the edges. Without edges the gates are independent; without labels there is one
class. Rates are smoothed with a quarter of a sample in each of the four cells of a pair, so that an
unseen state keeps a finite likelihood and pairs agree with their gates; those of a class are drawn
towards those of all classes by as many samples as ``shrinkage`` says.
"""

from dataclasses import dataclass
from functools import partial

import numkong
import numpy as np

from ..utils.arrays import to_numpy

__all__ = ["Counts", "Forest", "count", "spanning_forest", "transposed", "unit_forest"]

_BLOCK_BYTES = 1 << 21


def transposed(states, rows):
    """Return the bits of all gates over some samples, (n_gates, ceil(n_rows / 8)), uint8."""
    n_gates = sum(states.n_gates)
    bits = np.empty((n_gates, -(-len(rows) // 8)), np.uint8)
    step = max(8, _BLOCK_BYTES // max(len(rows), 1) // 8 * 8)
    first = 0
    for packed, d in zip(states.packed, states.n_gates, strict=True):
        for start in range(0, d, step):
            width = min(step, d - start)
            columns = packed[rows, start // 8 : -(-(start + width) // 8)]
            gates = np.unpackbits(columns, axis=1, count=width)  # (n_rows, width)
            bits[first + start : first + start + width] = np.packbits(gates.T, axis=1)
        first += d
    return bits


def spanning_forest(bits, sizes, gpu=None):
    """Return the edges of the most informative forest, without those that may be chance.

    Of n samples of independent gates, the ``d (d - 1) / 2`` pairs have an empirical information of
    up to about ``log(d (d - 1) / 2) / n`` nats each; edges below that are left out.

    Parameters
    ----------
    bits : list of ndarray of shape (n_gates, n_bytes)
        Of each class; the information of a pair is that given the class.
    sizes : ndarray of shape (n_classes,), dtype int
        Number of samples of each class.
    gpu : Gpu, default=None
        Where informations are computed; None for the CPU.

    Returns
    -------
    children, parents : ndarray of shape (n_edges,), dtype int
    """
    n_gates = len(bits[0])
    if n_gates == 1:
        return np.zeros((2, 0), np.int64)
    children, parents, information = _spanning_tree(bits, sizes, gpu)
    kept = information > np.log(n_gates * (n_gates - 1) / 2) / sizes.sum()
    return children[kept], parents[kept]


def unit_forest(states, bits, sizes):
    """Return the edges of the most informative forest that joins no two units."""
    edges, first = [np.zeros((2, 0), np.int64)], 0
    for layer in states.layers:
        for unit in range(first, first + layer.n_gates, layer.unit_size):
            if layer.unit_size > 1:
                own = [b[unit : unit + layer.unit_size] for b in bits]
                edges.append(unit + np.stack(spanning_forest(own, sizes)))
        first += layer.n_gates
    return np.concatenate(edges, axis=1)


def _spanning_tree(bits, sizes, gpu):
    """Return children, parents and information of the maximum spanning tree, by Prim's algorithm.

    A row of the matrix of informations is made when its gate joins the tree, and none is kept.
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
    """n times the mutual information of a gate with every gate, from numbers of samples."""

    def __init__(self, bits, n, gpu):
        xp = np if gpu is None else gpu.xp
        counts = np.arange(1, n + 1)
        self.n, self.terms = n, xp.asarray(np.concatenate([[0.0], counts * np.log(counts)]))
        self.open = xp.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))
        self.own = self.terms[self.open] + self.terms[n - self.open]  # c log c of both states
        self.bits = bits if gpu is None else gpu.words(bits)
        self.both = self._both if gpu is None else partial(gpu.open_in_both, self.bits)
        self.everything = numkong.hammings_pack(bits) if gpu is None else None

    def _both(self, gate):
        distances = np.asarray(numkong.hammings_packed(self.bits[gate : gate + 1], self.everything))
        return (self.open[gate] + self.open - distances[0].astype(np.int64)) >> 1

    def __call__(self, gate):
        here, terms, both = self.open[gate], self.terms, self.both(gate)
        # n I is the sum of c log c over the four cells, less that over each gate's, plus n log n
        information = terms[both]
        information += terms[here - both]
        information += terms[self.open - both]
        information += terms[self.n - here - self.open + both]
        information += terms[self.n] - self.own[gate] - self.own
        return to_numpy(information)


@dataclass
class Counts:
    """Numbers of samples, by class, that a forest's rates are made from.

    Attributes
    ----------
    children, parents : ndarray of shape (n_edges,), dtype int
    sizes : ndarray of shape (n_classes,)
    open : ndarray of shape (n_gates, n_classes)
        Samples in which a gate is open.
    both : ndarray of shape (n_edges, n_classes)
        Samples in which both gates of an edge are.
    layers : tuple of GateLayer
        Whose units have one distribution each; those with edges inside do not.
    """

    children: np.ndarray
    parents: np.ndarray
    sizes: np.ndarray
    open: np.ndarray
    both: np.ndarray
    layers: tuple

    def forest(self, shrinkage=0.0):
        """Return the density, the classes' rates drawn together by ``shrinkage`` samples."""
        child, parent = self.open[self.children], self.open[self.parents]
        cells = np.array(
            [[self.sizes - child - parent + self.both, parent - self.both],
             [child - self.both, self.both]]
        )  # fmt: skip
        gates = np.array([self.sizes - self.open, self.open])
        nodes = np.log(_rates(gates, 0.5, self.sizes, shrinkage))
        if not len(self.children):
            self._join_units(nodes, shrinkage)
        joint = np.log(_rates(cells, 0.25, self.sizes, shrinkage))
        edges = joint - nodes[:, None, self.children] - nodes[None, :, self.parents]
        return Forest(self.children, self.parents, nodes, edges)

    def _join_units(self, nodes, shrinkage):
        """Give the gates of a unit one distribution of its values, whose log is linear in them."""
        first = 0
        for layer in self.layers:
            own = slice(first, first + layer.n_gates)
            first += layer.n_gates
            if layer.unit_size == 1:
                continue
            counts = self.open[own].reshape(-1, layer.unit_size, len(self.sizes))
            if not layer.one_hot:  # gates open in order: value v is v of them
                everyone = np.broadcast_to(self.sizes, counts[:, :1].shape)
                counts = -np.diff(counts, axis=1, prepend=everyone, append=0)
            values = np.log(_rates(counts, 1 / counts.shape[1], self.sizes, shrinkage))
            closed = np.zeros((len(counts), layer.unit_size, len(self.sizes)))
            if layer.one_hot:
                slopes = values
            else:
                closed[:, 0] = values[:, 0]
                slopes = np.diff(values, axis=1)
            nodes[:, own] = np.stack([closed, closed + slopes]).reshape(2, layer.n_gates, -1)


def _rates(counts, smoothing, sizes, shrinkage):
    """Return smoothed shares of (..., n_classes) counts."""
    pooled = (counts.sum(axis=-1, keepdims=True) + smoothing) / (sizes.sum() + 1)
    if np.isinf(shrinkage):
        return np.broadcast_to(pooled, counts.shape)
    if len(sizes) == 1:
        return pooled
    return (counts + shrinkage * pooled) / (sizes + shrinkage)


def count(states, bits, children, parents, sizes):
    """Return the `Counts` of gates and edges.

    Parameters
    ----------
    states : GatingStates
        Whose layers these are.
    bits : list of ndarray of shape (n_gates, n_bytes)
        Of each class.
    children, parents : ndarray of shape (n_edges,), dtype int
    sizes : ndarray of shape (n_classes,), dtype int
    """
    open_ = [np.bitwise_count(b).sum(axis=1, dtype=np.int64) for b in bits]
    both = [np.bitwise_count(b[children] & b[parents]).sum(axis=1, dtype=np.int64) for b in bits]
    totals = np.stack(open_, axis=1), np.stack(both, axis=1)
    return Counts(children, parents, sizes, *totals, states.layers)


@dataclass
class Forest:
    """A density, by class, of gates that depend on one other at most.

    Attributes
    ----------
    children, parents : ndarray of shape (n_edges,), dtype int
        Gates that the edges join.
    nodes : ndarray of shape (2, n_gates, n_classes)
        log p of a closed and of an open gate.
    edges : ndarray of shape (2, 2, n_edges, n_classes)
        log p(child, parent) / p(child) p(parent).
    """

    children: np.ndarray
    parents: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray

    def log_likelihoods(self, states, spans):
        """Return log p of the layers of each span, (n_spans, n_samples, n_classes), nats.

        Of a span, the gates inside it and the edges between two of them count.

        Parameters
        ----------
        states : GatingStates
            Of all the layers that the gates are of.
        spans : ndarray of shape (n_spans, 2), dtype int
            First layer, and the one after the last.
        """
        n_layers, n_classes = len(states.layers), self.nodes.shape[-1]
        ends = np.cumsum([0, *states.n_gates])
        groups = self._edge_groups(states)
        node_sums = np.empty((len(states), n_layers, n_classes))
        edge_sums = np.empty((len(states), len(groups), n_classes))
        slopes, (none, parent), (child, both) = self.nodes[1] - self.nodes[0], *self.edges
        for rows, gates in _blocks(states):
            for layer in range(n_layers):
                own = slice(ends[layer], ends[layer + 1])
                node_sums[rows, layer] = gates[:, own] @ slopes[own] + self.nodes[0, own].sum(
                    axis=0
                )
            for place, (*_, edges) in enumerate(groups):
                a, b = gates[:, self.children[edges]], gates[:, self.parents[edges]]
                edge_sums[rows, place] = (
                    none[edges].sum(axis=0)
                    + a @ (child - none)[edges]
                    + b @ (parent - none)[edges]
                    + (a * b) @ (both - child - parent + none)[edges]
                )
        return self._summed(node_sums, edge_sums, groups, spans)

    def _edge_groups(self, states):
        """Return ``(first layer, last layer, edges)`` for each pair of layers that edges join."""
        layer_of = np.repeat(np.arange(len(states.layers)), states.n_gates)
        layers = np.sort([layer_of[self.children], layer_of[self.parents]], axis=0)
        pairs, group = np.unique(layers, axis=1, return_inverse=True)
        return [(*pair, np.flatnonzero(group == i)) for i, pair in enumerate(pairs.T)]

    @staticmethod
    def _summed(node_sums, edge_sums, groups, spans):
        starts, stops = np.asarray(spans).T[:, :, None]  # each (n_spans, 1)
        layers = np.arange(node_sums.shape[1])
        inside = (starts <= layers) & (layers < stops)
        total = np.einsum("nlc,sl->snc", node_sums, inside.astype(float))
        if groups:
            first, last = np.array([group[:2] for group in groups]).T
            inside = (starts <= first) & (last < stops)
            total += np.einsum("nec,se->snc", edge_sums, inside.astype(float))
        return total


def _blocks(states):
    """Yield rows and all their gates as numbers, side by side, a block of rows at a time."""
    step = max(1, _BLOCK_BYTES // (8 * states.shape[1]))
    for start in range(0, len(states), step):
        rows = slice(start, min(start + step, len(states)))
        yield rows, states[rows].__array__(np.float64)
