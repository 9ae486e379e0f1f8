r"""Densities of units that factor over a forest, the same for all classes.

A unit is a gate, or the gates that encode one value together (`_units`). A child depends on its
parent, and on nothing in a range of layers that leaves out the parent:

.. math::

    \log p(\sigma) = \sum_u \log p(\sigma_u)
        + \sum_{(u, w)} \log \frac{p(\sigma_u \mid \sigma_w)}{p(\sigma_u)}

The rates of all samples have priors that the units of a layer have in common (`_rates`), so that
constant gates cost next to nothing. With :math:`n_c` samples of a class and a :math:`\lambda`
chosen on held-out samples, the shares of a class are drawn towards those of all samples:

.. math::

    p_c = \frac{n_c \hat p_c + \lambda p}{n_c + \lambda}
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise

import numpy as np

from ...utils.parallel import slices
from ...utils.samples import Samples
from .._cross_fitting import FittedDensity, largest_no_worse, pointwise_information
from .._rates import conditional_rates, conditional_strength, value_priors, value_rates
from .._units import pair_counts, value_counts
from ._columns import columns_of
from ._forest_model import Forest, edge_groups

#: Samples that the classes are shrunk by, from hardly to entirely.
_SHRINKAGES = (10.0, 100.0, 1e3, 1e4, np.inf)
#: The shrinkage is judged on about as many rows, one fold of five or more at least.
_JUDGED_ROWS = 250
_INNER_FOLDS = 5
#: Bytes of the tables of several strengths of shrinkage that are scored at a time.
_JUDGED_BYTES = 1 << 26


class ForestDensity(FittedDensity):
    """Base of the densities over a forest; a subclass has ``_edges(states, columns, sizes, gpu)``.

    ``columns`` are the gates of each class, as ``_columns(states, rows)`` returns them. It returns
    the units that edges join, ``(children, parents)``, each unit a child once at most.
    """

    #: Most inner folds on which the shrinkage of classes is judged. Edges leave out the first.
    _judged_folds = 5
    _columns = staticmethod(columns_of)

    def _fit_model(self, states, y_encoded, n_classes, seed, gpu):
        """Return a `Forest`, its classes shrunk by an amount chosen on held-out samples."""
        samples, n = Samples(states.groups, len(states)), len(states)

        def by_class(rows):
            members = [rows[y_encoded[rows] == c] for c in range(n_classes)]
            return [self._columns(states, m) for m in members], np.array([len(m) for m in members])

        if n_classes == 1 or len(samples) < 2 * _INNER_FOLDS:
            columns, sizes = by_class(np.arange(n))
            edges = self._edges(states, columns, sizes, gpu)
            return _count(states.layers, edges, columns, sizes).forest(np.inf)
        n_folds = max(_INNER_FOLDS, min(n // _JUDGED_ROWS, len(samples)))
        n_judged = min(self._judged_folds, -(-_JUDGED_ROWS * n_folds // n))
        folds = list(islice(samples.folds(n_folds, seed), n_judged))
        columns, sizes = by_class(folds[0][0])
        edges = self._edges(states, columns, sizes, gpu)
        rest = _count(states.layers, edges, columns, sizes)
        held_out = [_count(states.layers, edges, *by_class(judged)) for _, judged in folds]
        total = rest + held_out[0]
        priors, tests = np.bincount(y_encoded, minlength=n_classes) / n, []
        for own, (_, judged) in zip(held_out, folds, strict=True):
            tests.append((total - own, states[judged], y_encoded[judged], priors))

        def gains(shrinkages):
            found = [_gains(*test, shrinkages) for test in tests]
            return np.concatenate(found, axis=1)  # (n_shrinkages, n_judged)

        rows = np.concatenate([judged for _, judged in folds])
        return total.forest(_choose(gains, Samples(samples.of_rows[rows], len(rows))))


def _choose(gains, judged):
    """Return the largest shrinkage no worse than the best, of the grid and around its best."""
    found = gains(_SHRINKAGES)
    best = int(found.mean(axis=1).argmax())
    finite = [s for s in _SHRINKAGES[max(best - 1, 0) : best + 2] if np.isfinite(s)]
    between = tuple(np.sqrt(a * b) for a, b in pairwise(finite))
    found = np.concatenate([found, gains(between)])
    return largest_no_worse(_SHRINKAGES + between, found, judged)


@dataclass
class Counts:
    """Counts by class, from which the rates of a forest follow.

    Attributes
    ----------
    layers : tuple of GateLayer
    groups : list of EdgeGroup
    sizes : ndarray of shape (n_classes,)
    values : list of ndarray of shape (n_units, n_values, n_classes)
        Samples in which the units of a layer have each value.
    pairs : list of ndarray of shape (n_edges, n_values, n_values_of_parent, n_classes)
        Samples in which child and parent have each pair of values, by group.
    """

    layers: tuple
    groups: list
    sizes: np.ndarray
    values: list
    pairs: list

    def __add__(self, other):
        values = [a + b for a, b in zip(self.values, other.values, strict=True)]
        pairs = [a + b for a, b in zip(self.pairs, other.pairs, strict=True)]
        return replace(self, sizes=self.sizes + other.sizes, values=values, pairs=pairs)

    def __sub__(self, other):
        """Return the counts of the samples that are left, with the priors of all."""
        values = [a - b for a, b in zip(self.values, other.values, strict=True)]
        pairs = [a - b for a, b in zip(self.pairs, other.pairs, strict=True)]
        rest = replace(self, sizes=self.sizes - other.sizes, values=values, pairs=pairs)
        rest.priors = self.priors
        return rest

    def forest(self, shrinkage):
        """Return the density, with the shares of the classes shrunk by ``shrinkage`` samples."""
        rates, joint = self._rates
        nodes = [np.log(self._shrunk(*r, shrinkage)) for r in zip(self.values, rates, strict=True)]
        tables = [np.log(self._shrunk(*r, shrinkage)) for r in zip(self.pairs, joint, strict=True)]
        return Forest(self.layers, self.groups, nodes, self._conditional(tables, nodes))

    def ratios(self, shrinkages):
        """Return a `Forest` of log p(class) / p(all samples), single precision.

        Its last axis has the classes for each shrinkage, none of which is infinite.
        """
        rates, joint = self._rates
        nodes = [self._log_ratios(*r, shrinkages) for r in zip(self.values, rates, strict=True)]
        tables = [self._log_ratios(*r, shrinkages) for r in zip(self.pairs, joint, strict=True)]
        return Forest(self.layers, self.groups, nodes, self._conditional(tables, nodes))

    @cached_property
    def priors(self):
        """Those of the values of the units of each layer, and of the edges of each group."""
        of_values = [value_priors(values.sum(axis=-1)) for values in self.values]
        rates = self._value_rates(of_values)
        ends = zip(self.pairs, self.groups, strict=True)
        return of_values, [
            conditional_strength(pairs.sum(axis=-1), _rates_of_ends(rates, group)[0])
            for pairs, group in ends
        ]

    def _value_rates(self, priors):
        sums = (values.sum(axis=-1) for values in self.values)
        return list(map(value_rates, sums, priors))

    @cached_property
    def _rates(self):
        """Smoothed shares of all samples: of the values of units, and of pairs of values."""
        of_values, kappas = self.priors
        rates, joint = self._value_rates(of_values), []
        for group, pairs, kappa in zip(self.groups, self.pairs, kappas, strict=True):
            child, parent = _rates_of_ends(rates, group)
            given = conditional_rates(pairs.sum(axis=-1), child, kappa)
            joint.append(given * parent[:, None])
        return rates, joint

    def _conditional(self, tables, nodes):
        """Return log p(child | parent) / p(child) from the logarithms of joint shares."""
        found = []
        for group, table in zip(self.groups, tables, strict=True):
            child, parent = _rates_of_ends(nodes, group)
            found.append(table - child[:, :, None] - parent[:, None])
        return found

    def _shrunk(self, counts, rates, shrinkage):
        if np.isinf(shrinkage):
            return np.broadcast_to(rates[..., None], counts.shape)
        return (counts + shrinkage * rates[..., None]) / (self.sizes + shrinkage)

    def _log_ratios(self, counts, rates, shrinkages):
        relative = np.divide(counts, rates[..., None], dtype=np.float32)
        ratios = np.tile(relative, len(shrinkages))  # one operation each over all shrinkages
        ratios += np.repeat(np.float32(shrinkages), len(self.sizes))
        ratios *= np.float32(1 / np.add.outer(shrinkages, self.sizes).ravel())
        return np.log(ratios, out=ratios)


def _rates_of_ends(of_units, group):
    """Return what units have, by layer, of the children and of the parents of some edges."""
    child, parent = group.layers
    return of_units[child][group.children], of_units[parent][group.parents]


def _count(layers, edges, columns, sizes):
    """Return the `Counts` of units and edges, from the columns of each class."""
    groups = edge_groups(layers, *edges)
    by_class = list(zip(columns, sizes.tolist(), strict=True))
    starts = np.cumsum([0, *(layer.n_gates for layer in layers)])
    gates = [
        start + np.arange(layer.n_gates).reshape(-1, layer.unit_size)  # (n_units, unit_size)
        for start, layer in zip(starts, layers, strict=False)
    ]

    def values(own, layer):
        return [value_counts(c.open[own], n, layer) for c, n in by_class]

    def pairs(group):
        ends, kinds = _rates_of_ends(gates, group), [layers[index] for index in group.layers]
        return [_pair_counts(c, n, *ends, kinds) for c, n in by_class]

    of_units = [np.stack(values(*own), axis=-1) for own in zip(gates, layers, strict=True)]
    return Counts(layers, groups, sizes, of_units, [np.stack(pairs(g), axis=-1) for g in groups])


def _pair_counts(columns, n, child, parent, layers):
    """Return the counts of pairs of values, from the gates of children and parents."""
    pairs = np.broadcast_arrays(child[:, :, None], parent[:, None])
    both = columns.both(*(gates.ravel() for gates in pairs)).reshape(pairs[0].shape)
    return pair_counts(both, columns.open[child], columns.open[parent], n, layers)


def _gains(counts, states, y_encoded, priors, shrinkages):
    """Return the information about labels of held-out samples, (n_shrinkages, n_samples)."""
    n_numbers = sum(values.size for values in (*counts.values, *counts.pairs))
    finite = [s for s in shrinkages if np.isfinite(s)]
    gains = np.zeros((len(shrinkages), len(states)))  # none with an infinite shrinkage
    for chunk in slices(0, len(finite), max(1, _JUDGED_BYTES // (4 * n_numbers))):
        forest = counts.ratios(finite[chunk])
        logs = forest.log_likelihoods(states, [(0, len(states.layers))])[0].astype(float)
        logs = logs.reshape(len(states), -1, len(priors)).swapaxes(0, 1)
        gains[chunk] = pointwise_information(logs, y_encoded, priors)
    return gains
