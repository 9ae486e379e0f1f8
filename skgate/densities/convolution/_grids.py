"""`Grid`: the gates of a layer as channels on a grid of positions, their counts and rates."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import betaln, logit

from .._rates import beta_prior
from .._units import free_gates

#: Gates that the strength of the channels is fitted to.
_N_STRENGTH_GATES = 10_000
_BLOCK_BYTES = 1 << 27


class Grid:
    """The gates of one layer as (n_rows, channels, height, width).

    Gates of a unit are channels of their own, next to each other. Tokens are a grid of one row, and
    a layer without positions is a grid of one place.
    """

    def __init__(self, states, index):
        self.states, self.layer = states.select(index), states.layers[index]
        self.shape = grid_shape(self.layer)

    def __len__(self):
        return len(self.states)

    def gates(self, rows):
        """Return the gates of some rows, (n_rows, channels, height, width), uint8."""
        flat = np.concatenate([block for _, block in self.states[rows].iter_unpacked(0)])
        if not self.layer.spatial:
            return flat.reshape(len(flat), *self.shape[1:], -1).transpose(0, 3, 1, 2)
        by_unit = flat.reshape(len(flat), -1, *self.shape[1:], self.layer.unit_size)
        return by_unit.transpose(0, 1, 4, 2, 3).reshape(len(flat), *self.shape)

    def blocks(self, rows, n_bytes):
        """Yield some rows and their gates, as many at a time as fit if a gate takes so many."""
        step = max(1, _BLOCK_BYTES // (n_bytes * int(np.prod(self.shape))))
        for start in range(0, len(rows), step):
            yield rows[start : start + step], self.gates(rows[start : start + step])

    def counts(self, codes, n_codes):
        """Return in how many rows of each code a gate is open, (n_codes, *shape)."""
        counts = np.zeros((n_codes, *self.shape), np.int32)
        for code in range(n_codes):
            for _, gates in self.blocks(np.flatnonzero(codes == code), 1):
                counts[code] += gates.sum(axis=0, dtype=np.int32)
        return counts

    def undetermined(self, gates):
        """Return which gates do not follow from earlier ones of their unit, or None: all."""
        size = self.layer.unit_size
        if size == 1:
            return None
        by_unit = gates.reshape(len(gates), -1, size, *gates.shape[2:])
        return free_gates(by_unit, self.layer).reshape(gates.shape)

    def _n_undetermined(self, counts, n):
        """Return in how many of n rows each gate did not follow from earlier ones."""
        size = self.layer.unit_size
        if size == 1:
            return np.broadcast_to(n, counts.shape)
        by_unit = counts.reshape(-1, size, *counts.shape[1:])
        left = np.full(by_unit.shape, n)
        if self.layer.one_hot:
            left[:, 1:] -= by_unit.cumsum(axis=1)[:, :-1]
        else:
            left[:, 1:] = by_unit[:, :-1]
        return left.reshape(counts.shape)

    def rates(self, counts, n):
        """Return the `GateRates` of n rows from the counts of open gates."""
        if self.layer.unit_size == 1:
            rates = _smoothed(counts, n)
            return GateRates(rates, rates)
        return GateRates(_smoothed(counts, n), _smoothed(counts, self._n_undetermined(counts, n)))


def grid_shape(layer):
    """Return (channels, height, width) of the gates of a layer."""
    units, *sizes = layer.shape if layer.spatial else (layer.shape[-1], *layer.shape[:-1])
    height, width = int(np.prod(sizes[:-1], dtype=int)), (sizes or [1])[-1]
    return units * layer.unit_size, height, width


@dataclass
class GateRates:
    """Rates of gates, (channels, height, width).

    Attributes
    ----------
    all : ndarray
        Over all rows, which gates are centred at.
    undetermined : ndarray
        Over the rows in which a gate does not follow from earlier ones of its unit.
    """

    all: np.ndarray
    undetermined: np.ndarray

    @property
    def offsets(self):
        return logit(self.undetermined).astype(np.float32)


def _smoothed(n_open, n):
    """Return rates drawn to that of their channel, which is drawn to the prior of the layer."""
    n = np.broadcast_to(n, n_open.shape)
    of_channel, n_of_channel = (k.sum(axis=(1, 2), dtype=np.int64) for k in (n_open, n))
    a, b = beta_prior(of_channel, n_of_channel)
    channels = ((of_channel + a) / (n_of_channel + a + b))[:, None, None]
    if n_open[0].size == 1:
        return channels
    strength = _strength(n_open, n, np.broadcast_to(channels, n_open.shape))
    return (n_open + strength * channels) / (n + strength)


def _strength(n_open, n, means):
    """Return the strength, in samples, of Beta priors of given means that explains counts best."""
    some = np.random.default_rng(0).permutation(n_open.size)[:_N_STRENGTH_GATES]
    n_open, n, means = (values.ravel()[some] for values in (n_open, n, means))

    def cost(log_strength):
        a, b = np.exp(log_strength) * means, np.exp(log_strength) * (1 - means)
        likelihoods = betaln(n_open + a, n - n_open + b) - betaln(a, b)
        return np.logaddexp(0, log_strength) * 2 - log_strength - likelihoods.sum()

    return np.exp(minimize_scalar(cost, bounds=(-10, 10), method="bounded").x)
