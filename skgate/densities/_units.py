"""Units, the variables of densities: single gates, or gates that encode one value together.

A unit of ``K`` gates has ``k`` values. In a window of max pooling, exactly one gate is open
(``one_hot``), and its position is the value, ``k = K``. Otherwise gates open in order, and their
number is the value, ``k = K + 1``; a single gate is the case of ``K = 1``.
"""

import numpy as np


def n_units(layer):
    """Return the number of units of a layer."""
    return layer.n_gates // layer.unit_size


def n_values(layer):
    """Return the number of values that a unit of a layer has."""
    return layer.unit_size + (not layer.one_hot)


def log_n_states(layers):
    """Return the logarithm of the number of states that each layer has, (n_layers,), nats."""
    return np.array([n_units(layer) * np.log(n_values(layer)) for layer in layers])


def are_gates(layers):
    """Return whether each gate of some layers is a unit."""
    return all(layer.unit_size == 1 and not layer.one_hot for layer in layers)


def unit_values(gates, layer):
    """Return the values of units, (n_rows, n_units), from gates of shape (n_rows, n_gates)."""
    gates = gates.reshape(len(gates), -1, layer.unit_size)
    return gates.argmax(axis=2) if layer.one_hot else gates.sum(axis=2, dtype=np.intp)


def free_gates(gates, layer):
    """Return which gates do not follow from earlier ones of their unit, bool.

    In a one-hot unit, gates after the open one are closed, and the last one is open if no other is;
    otherwise, gates after a closed one are closed.

    Parameters
    ----------
    gates : ndarray of shape (n_rows, n_units, unit_size, ...)
    layer : GateLayer
    """
    free, decides = np.ones(gates.shape, bool), gates == layer.one_hot
    for gate in range(1, layer.unit_size):  # NumPy accumulates booleans five times as slowly
        np.logical_and(free[:, :, gate - 1], ~decides[:, :, gate - 1], out=free[:, :, gate])
    if layer.one_hot:
        free[:, :, -1] = False
    return free


def value_counts(n_open, n, layer):
    """Return how often units have each value, (..., k), from how often gates are open, (..., K)."""
    return n_open if layer.one_hot else _in_order(np.broadcast_to(n, n_open.shape[:-1]), n_open)


def pair_counts(both, a_open, b_open, n, layers):
    """Return how often two units have each pair of values, (..., k_a, k_b).

    ``both`` counts how often two of their gates are open, (..., K_a, K_b), and ``a_open`` and
    ``b_open`` how often each is, of ``n`` samples. ``layers`` are those of the two units.
    """
    a, b = layers
    if not a.one_hot:
        both = _in_order(b_open, both.swapaxes(-1, -2)).swapaxes(-1, -2)  # (..., k_a, K_b)
    if not b.one_hot:
        both = _in_order(value_counts(a_open, n, a), both)
    return both


def _in_order(always, n_open):
    """Return the counts of values of gates that open in order, on the last axis."""
    counts = np.empty((*n_open.shape[:-1], n_open.shape[-1] + 1), n_open.dtype)
    counts[..., 0], counts[..., 1:] = always, n_open
    counts[..., :-1] -= n_open
    return counts
