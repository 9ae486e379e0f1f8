"""`GateCode`: the gates of layers as binary columns, each free or determined by those before it.

Gates that never vary in the rows of a fit are no columns: their rates suffice. Of units of several
gates, gates that follow from earlier ones of the unit are determined and cost nothing (stick
breaking): in a one-hot unit those after the open one, and the last one always; in a thermometer
those after a closed one.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import logit

from .._rates import beta_prior
from .._units import free_gates

_BLOCK_BYTES = 1 << 24


class GateCode:
    """Which gates of some layers are columns, with rates for the others, from rows to fit.

    Attributes
    ----------
    columns : ndarray of int
        Gates that are columns.
    units : ndarray of int
        Number of the unit of each column, over all layers.
    ends : ndarray of shape (n_layers + 1,)
        Where the columns of each layer begin, and the number of columns.
    priors : ndarray of shape (2, n_columns)
        a and b of the Beta priors of the rates of columns.
    rates : ndarray of shape (n_gates,)
        Smoothed rates of all gates, where they are free.
    """

    def __init__(self, states):
        self._layers = states.layers
        n_open, n_free = np.zeros((2, states.shape[1]), np.int64)
        for block in _blocks(states):
            gates, free = self._unpacked(block)
            n_open += (gates & free).sum(axis=0)
            n_free += free.sum(axis=0)
        starts = np.cumsum([0, *states.n_gates])
        priors = np.ones((2, len(n_open)))
        for layer, start in zip(states.layers, starts, strict=False):
            for place in range(layer.unit_size):
                own = slice(start + place, start + layer.n_gates, layer.unit_size)
                a, b = beta_prior(n_open[own], n_free[own])
                priors[:, own] = [[a], [b]]
        varies = (0 < n_open) & (n_open < n_free)
        self.columns = np.flatnonzero(varies)
        self.priors = priors[:, varies]
        sizes = np.concatenate([[x.unit_size] * (x.n_gates // x.unit_size) for x in states.layers])
        self.units = np.repeat(np.arange(len(sizes)), sizes)[varies]
        self.ends = np.searchsorted(self.columns, starts)
        self.rates = (n_open + priors[0]) / (n_free + priors.sum(axis=0))
        self._constant = [np.flatnonzero(~varies[s:t]) + s for s, t in pairwise(starts)]
        self._log_odds, self._log_closed = logit(self.rates), np.log1p(-self.rates)

    def _unpacked(self, states):
        """Return all gates, and which are free, (n_rows, n_gates), bool."""
        gates, first = np.asarray(states), 0
        free = np.ones(gates.shape, bool)
        for layer in self._layers:
            own, size = slice(first, first + layer.n_gates), layer.unit_size
            first += layer.n_gates
            if size == 1:
                continue
            units = gates[:, own].reshape(len(gates), -1, size)
            free[:, own] = free_gates(units, layer).reshape(len(gates), -1)
        return gates, free

    def read(self, states):
        """Return the `Columns` of some rows, and log p of the other gates, (n_rows, n_layers)."""
        gates = np.empty((len(states), len(self.columns)))
        free = np.empty(gates.shape, bool)
        logs = np.empty((len(states), len(self._layers)))
        first = 0
        for block in _blocks(states):
            rows = slice(first, first := first + len(block))
            all_gates, all_free = self._unpacked(block)
            gates[rows], free[rows] = all_gates[:, self.columns], all_free[:, self.columns]
            for layer, constant in enumerate(self._constant):
                values = all_free[:, constant].astype(float)
                logs[rows, layer] = values @ self._log_closed[constant]
                values *= all_gates[:, constant]
                logs[rows, layer] += values @ self._log_odds[constant]
        return Columns(gates, None if free.all() else free, self.priors), logs

    def blocks(self, states):
        """Yield some rows, their `Columns` and log p of their other gates, a block at a time."""
        first = 0
        for block in _blocks(states):
            yield slice(first, first := first + len(block)), *self.read(block)


def _blocks(states):
    step = max(1, _BLOCK_BYTES // (8 * states.shape[1]))
    for start in range(0, len(states), step):
        yield states[start : start + step]


@dataclass
class Columns:
    """Gates that vary, in some rows.

    Attributes
    ----------
    gates : ndarray of shape (n_rows, n_columns), dtype float
    free : ndarray of shape (n_rows, n_columns), dtype bool, or None
        Gates that do not follow from earlier ones of their unit; None if all.
    priors : ndarray of shape (2, n_columns)
    """

    gates: np.ndarray
    free: np.ndarray | None
    priors: np.ndarray

    def __len__(self):
        return len(self.gates)

    def __getitem__(self, rows):
        return Columns(
            self.gates[rows], None if self.free is None else self.free[rows], self.priors
        )

    def rates(self):
        """Return the smoothed rates of free gates."""
        a, b = self.priors
        if self.free is None:
            return (self.gates.sum(axis=0) + a) / (len(self) + a + b)
        return ((self.gates * self.free).sum(axis=0) + a) / (self.free.sum(axis=0) + a + b)

    def centred(self, rates):
        """Return gates less their rates, and 0 where they are determined.

        So centred, a gate does not correlate with the earlier ones of its unit.
        """
        centred = self.gates - rates
        return centred if self.free is None else np.multiply(centred, self.free, out=centred)

    def log_bernoulli(self, logits, first=0):
        """Return log p of the columns from ``first`` on, given their logits."""
        z = np.where(self.gates[:, first:] > 0, -logits, logits)
        logs = np.negative(np.logaddexp(0.0, z, out=z), out=z)
        return logs if self.free is None else np.multiply(logs, self.free[:, first:], out=logs)
