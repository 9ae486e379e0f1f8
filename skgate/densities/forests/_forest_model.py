"""`Forest`: a fitted density of units that depend on one other at most."""

from dataclasses import dataclass

import numpy as np

from ...states import is_sparse
from ...utils.parallel import slices
from .._units import are_gates, n_units, unit_values
from ._columns import has_sparse, open_gates, with_open_partners

_BLOCK_BYTES = 1 << 21
_BLOCK_GATES = 8192


@dataclass
class EdgeGroup:
    """The edges from units of a layer to units of the same layer or another.

    Attributes
    ----------
    layers : tuple of int
        Of the children and of the parents.
    children, parents : ndarray of shape (n_edges,), dtype int
        Units, numbered within their layer.
    """

    layers: tuple
    children: np.ndarray
    parents: np.ndarray

    @property
    def ends(self):
        """The layer and the units of the children, and of the parents."""
        return zip(self.layers, (self.children, self.parents), strict=True)


def edge_groups(layers, children, parents):
    """Return an `EdgeGroup` for each pair of layers, of units that are numbered over all layers."""
    starts = np.cumsum([0, *map(n_units, layers)])
    ends = np.array([children, parents])
    layer_of = np.searchsorted(starts, ends, side="right") - 1
    units = ends - starts[layer_of]
    pairs, group = np.unique(layer_of, axis=1, return_inverse=True)
    members = [units[:, group == i] for i in range(pairs.shape[1])]
    return [EdgeGroup(tuple(p), *m) for p, m in zip(pairs.T.tolist(), members, strict=True)]


@dataclass
class Forest:
    """A density of units that depend on one other at most.

    Attributes
    ----------
    layers : tuple of GateLayer
    groups : list of EdgeGroup
    nodes : list of ndarray of shape (n_units, n_values)
        log p of the values of each unit, by layer.
    tables : list of ndarray of shape (n_edges, n_values, n_values_of_parent)
        log p(child | parent) / p(child), by group.
    """

    layers: tuple
    groups: list
    nodes: list
    tables: list

    @property
    def children(self):
        """Units that have a parent, numbered over all layers."""
        return self._numbered(0)

    @property
    def parents(self):
        return self._numbered(1)

    def _numbered(self, end):
        starts = np.cumsum([0, *map(n_units, self.layers)])
        found = [list(group.ends)[end] for group in self.groups]
        return np.concatenate([[], *(starts[at] + units for at, units in found)]).astype(int)

    def log_likelihoods(self, states, bounds):
        """Return log p of the layers of each range, (n_ranges, n_samples), nats.

        The units inside a range count, and the edges between two of them.
        """
        starts, stops = np.asarray(bounds).T[:, :, None]  # each (n_ranges, 1)
        layers = np.arange(len(self.layers))
        inside = (starts <= layers) & (layers < stops)
        node_sums = np.stack(list(map(_node_sums, states.packed, self.nodes, self.layers)))
        total = inside.astype(float) @ node_sums
        if self.groups:
            first, last = np.sort([group.layers for group in self.groups], axis=1).T
            inside = (starts <= first) & (last < stops)
            sparse = has_sparse(states) and are_gates(self.layers)
            edge_sums = self._sparse_edge_sums if sparse else self._edge_sums
            total += inside.astype(float) @ edge_sums(states)
        return total

    def _edge_sums(self, states):
        """Return the sums of the tables over edges, (n_groups, n_samples)."""
        sums = np.empty((len(self.groups), len(states)))
        used = sorted({layer for group in self.groups for layer in group.layers})
        n_gates = sum(self.layers[index].n_gates for index in used)
        for rows in slices(0, len(states), max(1, _BLOCK_BYTES // (8 * n_gates))):
            values = {}
            for index in used:
                gates = states[rows].select([index]).__array__()
                values[index] = unit_values(gates, self.layers[index])
            for place, (group, table) in enumerate(zip(self.groups, self.tables, strict=True)):
                child, parent = (values[index] for index in group.layers)
                add = _sums_of_gates if table.shape[1:3] == (2, 2) else _sums_of_units
                sums[place, rows] = add(child[:, group.children], parent[:, group.parents], table)
        return sums

    def _sparse_edge_sums(self, states):
        """Return the same of single gates, from those that are open."""
        starts = np.cumsum([0, *states.n_gates])
        sums = np.empty((len(self.groups), len(states)))
        gates, partners = open_gates(states), np.full(starts[-1], -1)
        partners[self.children] = self.parents
        pairs = with_open_partners(gates, partners)
        for place, (group, table) in enumerate(zip(self.groups, self.tables, strict=True)):
            child, parent = (starts[at] + units for at, units in group.ends)
            base, of_child, of_parent, of_both = _interaction(table)
            of_one, of_pair = np.zeros((2, starts[-1]))
            of_one[child] = of_child
            np.add.at(of_one, parent, of_parent)
            of_pair[child] = of_both
            sums[place] = base + gates @ of_one + pairs @ of_pair
        return sums


def _node_sums(gates, nodes, layer):
    """Return the log p of all units of a layer, (n_samples,)."""
    if layer.one_hot:
        base, slopes = 0, nodes
    else:
        base, slopes = nodes[:, 0].sum(), np.diff(nodes, axis=1)
    slopes = slopes.ravel()
    if is_sparse(gates):
        return base + gates @ slopes
    sums = np.zeros(len(gates))
    for own in slices(0, layer.n_gates, _BLOCK_GATES):
        width = own.stop - own.start
        for rows in slices(0, len(gates), _BLOCK_BYTES // _BLOCK_GATES):
            bits = gates[rows, own.start // 8 : -(-own.stop // 8)]
            sums[rows] += np.unpackbits(bits, axis=1, count=width).astype(float) @ slopes[own]
    return base + sums


def _interaction(table):
    """Return the sum of tables with all gates closed, and what each gate adds, and each pair."""
    (none, parent), (child, both) = np.moveaxis(table, 0, 2)
    return none.sum(), child - none, parent - none, both - child - parent + none


def _sums_of_gates(children, parents, table):
    base, of_child, of_parent, of_both = _interaction(table)
    child, parent = children.astype(float), parents.astype(float)
    return base + child @ of_child + parent @ of_parent + (child * parent) @ of_both


def _sums_of_units(children, parents, table):
    n_edges, k_child, k_parent = table.shape
    places = (np.arange(n_edges) * k_child + children) * k_parent + parents  # (n_rows, n_edges)
    return table.ravel().take(places).sum(axis=1)
