"""Mutual information of pairs of units, from counts.

A row has n times the information of a unit and all units. `GateRows` are those of gates, `UnitRows`
those of units of several gates too.
"""

from functools import partial

import numkong
import numpy as np
from scipy.stats import chi2

from ...utils.arrays import to_numpy
from .._units import are_gates, n_units, n_values, pair_counts, value_counts


def chance_information(n_units, degrees=1):
    """Return n times the information of pairs, in nats, below which an edge may be chance.

    The pairs of independent gates have an empirical information of up to about the logarithm of
    their number, divided by that of the samples. Twice n times the information of one pair has a
    chi-squared distribution; units of ``k`` and ``k'`` values have ``(k - 1) (k' - 1)`` degrees of
    freedom, and more information by chance.
    """
    n_pairs = n_units * (n_units - 1) / 2
    quantile, of_gates = chi2.isf(1 / (n_pairs + 1), [degrees, 1])
    return np.log(n_pairs) + (quantile - of_gates) / 2


def information_rows(columns, layers, gpu):
    """Return rows, as a function of a unit, and what an entry must exceed to be an edge."""
    gates = GateRows(columns, gpu)
    if not are_gates(layers):
        return UnitRows(gates, layers), 0.0
    return gates, chance_information(gates.n_units)


class GateRows:
    """Rows of gates, from how often they are open, alone and with another one."""

    def __init__(self, columns, gpu):
        xp, bits, n = np if gpu is None else gpu.xp, columns.bits, columns.n
        self.n_units, self.n, self.terms = len(bits), n, xp.asarray(_terms(n))
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


def _terms(n):
    """Return c log c of the counts up to n."""
    counts = np.arange(1, n + 1)
    return np.concatenate([[0.0], counts * np.log(counts)])


class UnitRows:
    """Rows of units, less what may be chance."""

    def __init__(self, of_gates, layers):
        self._of_gates, self._terms = of_gates, _terms(of_gates.n)
        self._layers, self.n_units = layers, sum(map(n_units, layers))
        ends = np.cumsum([layer.n_gates for layer in layers])
        self._gates = [slice(e - layer.n_gates, e) for e, layer in zip(ends, layers, strict=True)]
        self._layer_of = np.repeat(np.arange(len(layers)), list(map(n_units, layers)))
        self._first = np.searchsorted(self._layer_of, np.arange(len(layers)))
        k = np.array(list(map(n_values, layers))) - 1
        degrees = np.unique(np.outer(k, k))
        chance = {f: chance_information(self.n_units, f) for f in degrees.tolist()}
        self._chance = [[chance[a * b] for b in k.tolist()] for a in k.tolist()]
        self._open = to_numpy(of_gates.open)
        self._own = [  # sums of c log c over the values of all units of each layer
            self._terms[
                value_counts(self._open[g].reshape(-1, layer.unit_size), of_gates.n, layer)
            ].sum(axis=1)
            for g, layer in zip(self._gates, layers, strict=True)
        ]

    def __call__(self, unit):
        index = self._layer_of[unit]
        place, layer = unit - self._first[index], self._layers[index]
        start = self._gates[index].start + place * layer.unit_size
        gates = range(start, start + layer.unit_size)
        n, found = self._of_gates.n, []
        both = np.stack([to_numpy(self._of_gates.both(gate)) for gate in gates])
        for at, (of_layer, other) in enumerate(zip(self._gates, self._layers, strict=True)):
            pairs = both[:, of_layer].reshape(layer.unit_size, -1, other.unit_size)
            others = self._open[of_layer].reshape(-1, other.unit_size)
            unit_open = np.broadcast_to(self._open[gates], (len(others), layer.unit_size))
            cells = pair_counts(
                pairs.swapaxes(0, 1), unit_open, others, n, (layer, other)
            )  # (n_units, n_values, n_values_of_other)
            information = self._terms[cells].sum(axis=(1, 2)) + self._terms[n]
            information -= self._own[index][place] + self._own[at]
            found.append(information - self._chance[index][at])
        return np.concatenate(found)
