"""Kernel entropies that are not those of the gates: flags, and a warning that names the layers.

A value is too low where there are too few samples, or where the kernel is so wide that it counts
different states as one. Equal rows show both, by the entropy E of their counts (`_equal_rows`):

    too few samples    E grows by more than 2.5% of itself with a doubling of the samples
    too wide a kernel  H is below 94% of E
    copies of rows     each state occurs a multiple of k times

None of it counts against a value that reaches the sum of the units' own entropies, which no entropy
exceeds: all states of ten gates, once each, have 10 bits, and yet grow by a bit a doubling.
"""

import numpy as np

from ...exceptions import SaturationWarning, warn_user
from ...utils.samples import Samples
from .._state_numbers import state_numbers
from ._equal_rows import EqualRows

#: Share of its ceiling from which on an entropy of activations is not informative.
SATURATED = 0.99
#: Share of the entropy of equal rows below which a kernel is too wide.
_APART = 0.94
#: Share of the sum of the units' entropies from which on a value is right all the same.
_ALL = 0.98


def flag_saturated(estimate, ranges, states, base):
    """Return which ranges have too low an entropy, (..., n_ranges), and warn, naming layers.

    States that cannot vary have an entropy of 0, which is right and not saturated.
    """
    values, density = estimate.marginal.mean(), estimate.density
    if not estimate.saturable.any():
        return np.zeros(values.shape, dtype=bool)
    samples, numbers = Samples(states.groups, len(states)), state_numbers(states, ranges)
    found = [("", values, [EqualRows.of(n, samples) for n in numbers])]
    if estimate.given is not None:
        rows = [EqualRows.given_label(n, density._y_encoded, samples) for n in numbers]
        found.append((" given Y", estimate.given.mean(), rows))
    # the gates of a single sample do not show how they vary
    limits = _ALL * density._sum_of_units(ranges) if len(samples) > 1 else np.inf
    names = [*states.layer_names, "all layers together"]
    reported = [*ranges.layers, ranges.joint] if len(ranges.layers) > 1 else [0]
    flags, messages = False, []
    for suffix, values, rows in found:
        reached = _are_low(values, rows) & (values < limits) & estimate.saturable
        flags = flags | reached
        messages += [
            _message(name + suffix, values[..., r][reached[..., r]][0], rows[r], base)
            for name, r in zip(names, reported, strict=False)
            if reached[..., r].any()
        ]
    if messages:
        _warn(messages, states)
    return flags


def _are_low(values, rows):
    blurred = values < _APART * np.array([r.entropy for r in rows])
    return blurred | np.array([r.grows or r.copies > 1 for r in rows])


def _message(name, value, rows, base):
    scale = np.log(base)
    unit = {2: "bits", np.e: "nats"}.get(base, f"units of log {base:g}")
    reasons = []
    if value < _APART * rows.entropy:
        reasons.append(f"the kernel counts states as one that have {rows.entropy / scale:.2f}")
    if rows.grows:
        growth = rows.growth / scale
        reasons.append(f"states grow by {growth:.2f} a doubling, {rows.alone:.0%} are alone")
    if rows.copies > 1:
        reasons.append(f"each state is there a multiple of {rows.copies} times")
    return f"{name} ({value / scale:.2f} {unit}: {'; '.join(reasons)})"


def _warn(messages, states):
    lines = "\n  ".join(messages)
    counted = "samples" if states.groups is None else "rows"
    warn_user(
        "Saturated: these entropies are lower than those of the gates "
        f"(n = {len(states)} {counted}):\n  {lines}\n"
        "They measure the number of samples or the width of the kernel, not the network, and so "
        "does an information or a total correlation made from them. density='auto', which fits a "
        "density to each layer, has no such limit. Where states grow with a doubling of samples "
        "and many are alone, in one sample only, take more samples, or layers of fewer gates; "
        "where the kernel counts different states as one, a smaller alpha; where each state is "
        "there a multiple of times, pass the groups of samples that are copies of each other.",
        SaturationWarning,
    )
