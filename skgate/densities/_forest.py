"""Densities of gates that factor over a forest, the same for all classes.

Rates are smoothed with a quarter of a sample in each of the four cells of a pair, so that an unseen
state keeps a finite likelihood and pairs agree with their gates; those of a class are shrunk
towards those of all classes by the number of samples that ``shrinkage`` gives.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..states import sum_open
from ._columns import columns_of, has_sparse, open_gates, with_open_partners
from ._cross_fitting import FittedDensity, choose_shrinkage

_BLOCK_BYTES = 1 << 21
#: Samples that the classes are shrunk by, from hardly to entirely.
_SHRINKAGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, np.inf)


class ForestDensity(FittedDensity):
    """Base of the densities over a forest; a subclass has ``_edges(states, columns, sizes, gpu)``.

    ``columns`` are the gates of each class, as `columns_of` returns them. It returns the gates that
    edges join, ``(children, parents)``, each gate a child once at most.
    """

    #: Number of the five inner folds on which the shrinkage of classes is judged.
    _judged_folds = 5

    def _fit_model(self, states, y_encoded, n_classes, seed, gpu):
        """Return a `Forest`, its classes shrunk by an amount chosen on held-out samples."""

        def refit(rows):
            members = [rows[y_encoded[rows] == c] for c in range(n_classes)]
            columns = [columns_of(states, m) for m in members]
            sizes = np.array([len(m) for m in members])
            edges = self._edges(states, columns, sizes, gpu)
            return _count(states, columns, *edges, sizes).forest

        shrinkage = choose_shrinkage(
            states, y_encoded, n_classes, refit, _SHRINKAGES, seed, self._judged_folds
        )
        return refit(np.arange(len(states)))(shrinkage)


@dataclass
class SufficientStatistics:
    """Counts by class, from which the rates of a forest follow.

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
        """Return the density, with the rates of the classes shrunk by ``shrinkage`` samples."""
        nodes = np.log(self._of_gates(shrinkage))
        if not len(self.children):
            self._join_units(nodes, shrinkage)
        joint = np.log(self._of_cells(shrinkage))
        edges = joint - nodes[:, None, self.children] - nodes[None, :, self.parents]
        return Forest(self.children, self.parents, nodes, edges)

    @cached_property
    def _of_gates(self):
        return _Rates(np.array([self.sizes - self.open, self.open]), 0.5, self.sizes)

    @cached_property
    def _of_cells(self):
        child, parent = self.open[self.children], self.open[self.parents]
        cells = np.array(
            [[self.sizes - child - parent + self.both, parent - self.both],
             [child - self.both, self.both]]
        )  # fmt: skip
        return _Rates(cells, 0.25, self.sizes)

    def _join_units(self, nodes, shrinkage):
        """Give each unit one distribution of its values, whose logarithm is linear in its gates."""
        first = 0
        for layer in self.layers:
            own = slice(first, first + layer.n_gates)
            first += layer.n_gates
            if layer.unit_size == 1:
                continue
            counts = self.open[own].reshape(-1, layer.unit_size, len(self.sizes))
            if not layer.one_hot:  # gates open in order: value v is v of them
                n_samples = np.broadcast_to(self.sizes, counts[:, :1].shape)
                counts = -np.diff(counts, axis=1, prepend=n_samples, append=0)
            values = np.log(_Rates(counts, 1 / counts.shape[1], self.sizes)(shrinkage))
            closed = np.zeros((len(counts), layer.unit_size, len(self.sizes)))
            if layer.one_hot:
                slopes = values
            else:
                closed[:, 0] = values[:, 0]
                slopes = np.diff(values, axis=1)
            nodes[:, own] = np.stack([closed, closed + slopes]).reshape(2, layer.n_gates, -1)


class _Rates:
    """Smoothed shares of (..., n_classes) counts, as a function of the shrinkage."""

    def __init__(self, counts, smoothing, sizes):
        self._counts, self._sizes = counts, sizes
        self._pooled = (counts.sum(axis=-1, keepdims=True) + smoothing) / (sizes.sum() + 1)

    def __call__(self, shrinkage):
        if np.isinf(shrinkage):
            return np.broadcast_to(self._pooled, self._counts.shape)
        if len(self._sizes) == 1:
            return self._pooled
        return (self._counts + shrinkage * self._pooled) / (self._sizes + shrinkage)


def _count(states, columns, children, parents, sizes):
    """Return the `SufficientStatistics` of gates and edges, from the columns of each class."""
    open_, both = [c.open for c in columns], [c.both(children, parents) for c in columns]
    totals = np.stack(open_, axis=1), np.stack(both, axis=1)
    return SufficientStatistics(children, parents, sizes, *totals, states.layers)


@dataclass
class Forest:
    """A density, by class, of gates that depend on one other at most.

    Attributes
    ----------
    children, parents : ndarray of shape (n_edges,), dtype int
        Gates that the edges join, each a child once at most.
    nodes : ndarray of shape (2, n_gates, n_classes)
        log p of a closed and of an open gate.
    edges : ndarray of shape (2, 2, n_edges, n_classes)
        log p(child, parent) / p(child) p(parent).
    """

    children: np.ndarray
    parents: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray

    def log_likelihoods(self, states, bounds):
        """Return log p of the layers of each range, (n_ranges, n_samples, n_classes), nats.

        The gates inside a range count, and the edges between two of them.
        """
        groups = self._edge_groups(states)
        sums = self._sparse_sums if has_sparse(states) else self._dense_sums
        return self._summed(*sums(states, groups), groups, bounds)

    def _dense_sums(self, states, groups):
        """Return the sums of nodes by layer, (n_samples, n_layers, n_classes), and of edges."""
        n_layers, n_classes = len(states.layers), self.nodes.shape[-1]
        ends = np.cumsum([0, *states.n_gates])
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
        return node_sums, edge_sums

    def _sparse_sums(self, states, groups):
        """Return the sums of `_dense_sums` from the gates that are open."""
        n_classes, ends = self.nodes.shape[-1], np.cumsum([0, *states.n_gates])
        slopes, (none, parent), (child, both) = self.nodes[1] - self.nodes[0], *self.edges
        node_sums = np.empty((len(states), len(states.layers), n_classes))
        for layer, gates in enumerate(states.packed):
            own = slice(ends[layer], ends[layer + 1])
            node_sums[:, layer] = sum_open(gates, slopes[own]) + self.nodes[0, own].sum(axis=0)
        edge_sums = np.empty((len(states), len(groups), n_classes))
        if not groups:
            return node_sums, edge_sums
        gates, partners = open_gates(states), np.full(ends[-1], -1)
        partners[self.children] = self.parents
        pairs = with_open_partners(gates, partners)
        for place, (*_, edges) in enumerate(groups):
            of_one, of_both = np.zeros((2, ends[-1], n_classes))
            of_one[self.children[edges]] = (child - none)[edges]
            np.add.at(of_one, self.parents[edges], (parent - none)[edges])
            of_both[self.children[edges]] = (both - child - parent + none)[edges]
            edge_sums[:, place] = none[edges].sum(axis=0) + gates @ of_one + pairs @ of_both
        return node_sums, edge_sums

    def _edge_groups(self, states):
        """Return ``(first layer, last layer, edges)`` for each pair of layers that edges join."""
        layer_of = np.repeat(np.arange(len(states.layers)), states.n_gates)
        layers = np.sort([layer_of[self.children], layer_of[self.parents]], axis=0)
        pairs, group = np.unique(layers, axis=1, return_inverse=True)
        return [(*pair, np.flatnonzero(group == i)) for i, pair in enumerate(pairs.T)]

    @staticmethod
    def _summed(node_sums, edge_sums, groups, bounds):
        starts, stops = np.asarray(bounds).T[:, :, None]  # each (n_ranges, 1)
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
