r"""Densities of units that factor over a forest.

A unit is a gate, or the gates that encode one value together (`_units`). A child depends on its
parent, and on nothing in a range of layers that leaves out the parent:

.. math::

    \log p(\sigma) = \sum_u \log p(\sigma_u)
        + \sum_{(u, w)} \log \frac{p(\sigma_u \mid \sigma_w)}{p(\sigma_u)}

Rates have priors that the units of a layer have in common (`_rates`), so that constant gates cost
next to nothing.
"""

import numpy as np

from .._cross_fitting import FittedDensity
from .._rates import conditional_rates, conditional_strength, value_priors, value_rates
from .._units import pair_counts, value_counts
from ._columns import columns_of
from ._forest_model import Forest, edge_groups


class ForestDensity(FittedDensity):
    """Base of the densities over a forest; a subclass has ``_edges(layers, columns, gpu)``.

    ``columns`` are the gates, as ``_columns(states)`` returns them. It returns the units that edges
    join, ``(children, parents)``, each unit a child once at most.
    """

    _columns = staticmethod(columns_of)

    def _fit_model(self, states, seed, gpu):
        columns = self._columns(states)
        return fitted_forest(states.layers, self._edges(states.layers, columns, gpu), columns)


def fitted_forest(layers, edges, columns):
    """Return the `Forest` of units and edges, with smoothed rates."""
    starts = np.cumsum([0, *(layer.n_gates for layer in layers)])
    gates = [
        start + np.arange(layer.n_gates).reshape(-1, layer.unit_size)  # (n_units, unit_size)
        for start, layer in zip(starts, layers, strict=False)
    ]
    rates = []
    for own, layer in zip(gates, layers, strict=True):
        counts = value_counts(columns.open[own], columns.n, layer)  # (n_units, n_values)
        rates.append(value_rates(counts, value_priors(counts)))
    groups, tables = edge_groups(layers, *edges), []
    for group in groups:
        child, _ = _of_ends(rates, group)
        ends, kinds = _of_ends(gates, group), [layers[index] for index in group.layers]
        counts = _pair_counts(columns, *ends, kinds)  # (n_edges, n_values, n_values_of_parent)
        given = conditional_rates(counts, child, conditional_strength(counts, child))
        tables.append(np.log(given) - np.log(child)[:, :, None])
    return Forest(layers, groups, list(map(np.log, rates)), tables)


def _of_ends(of_units, group):
    """Return what units have, by layer, of the children and of the parents of some edges."""
    child, parent = group.layers
    return of_units[child][group.children], of_units[parent][group.parents]


def _pair_counts(columns, child, parent, layers):
    """Return the counts of pairs of values, from the gates of children and parents."""
    pairs = np.broadcast_arrays(child[:, :, None], parent[:, None])
    both = columns.both(*(gates.ravel() for gates in pairs)).reshape(pairs[0].shape)
    return pair_counts(both, columns.open[child], columns.open[parent], columns.n, layers)
