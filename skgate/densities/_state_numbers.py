"""`state_numbers`: which rows are in the same state, in each range of layers."""

from hashlib import blake2b
from itertools import accumulate

import numpy as np

from ..states import packed_blocks


def state_numbers(states, ranges):
    """Return a number of the state of each row in each range, equal where the states are.

    Returns
    -------
    numbers : list of ndarray of shape (n_rows,)
        One for each range; from 0 on.
    """
    layers = [_numbered(states.select([i]).packed[0]) for i in range(len(states.layers))]
    forward = list(accumulate(layers, numbered_pairs))
    backward = list(accumulate(layers[::-1], numbered_pairs))[::-1]
    found = []
    for first, stop in ranges.bounds:
        if stop == first + 1:
            found.append(layers[first])
        else:
            found.append(backward[first] if stop == len(layers) else forward[stop - 1])
    return found


def numbered_pairs(a, b):
    """Return a number of each pair of numbers, from 0 on."""
    return np.unique(a * (b.max() + 1) + b, return_inverse=True)[1]


def _numbered(gates):
    # digests of 128 bits take less memory than rows, and differ where rows do
    known = {}
    rows = (
        blake2b(row.tobytes(), digest_size=16).digest()
        for _, bits in packed_blocks(gates)
        for row in bits
    )
    return np.array([known.setdefault(row, len(known)) for row in rows])
