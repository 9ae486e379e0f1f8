"""Entropies at a ceiling of their estimator: flags, and a warning that names the layers."""

import numpy as np

from ...exceptions import SaturationWarning, warn_user

#: Share of its ceiling from which on an entropy is not informative.
SATURATED = 0.99
_GIVEN = " given Y"


def flag_saturated(estimate, ranges, states, base):
    """Return which ranges are within 1% of their ceiling, (..., n_ranges), and warn, naming layers.

    States that cannot vary have an entropy of 0, which is right and not saturated.
    """
    found = [("", estimate.marginal.mean(), estimate.ceilings)]
    if estimate.given is not None:
        given = estimate.given.mean()
        found.append((_GIVEN, given, np.full_like(given, estimate.given_ceiling)))
    names = [*states.layer_names, "all layers together"]
    reported = [*ranges.layers, ranges.joint] if len(ranges.layers) > 1 else [0]
    flags, messages = False, []
    for suffix, values, ceilings in found:
        reached = estimate.saturable & (values >= SATURATED * ceilings)
        flags = flags | reached
        messages += [
            _message(name + suffix, values[..., r], ceilings[..., r], reached[..., r], states, base)
            for name, r in zip(names, reported, strict=False)
            if reached[..., r].any()
        ]
    if messages:
        lines = "\n  ".join(messages)
        counted = "samples" if states.groups is None else "rows"
        warn_user(
            "Saturated: these entropies are within 1% of the ceiling of their estimator "
            f"(n = {len(states)} {counted}):\n  {lines}\n"
            "Other states would give the same values, so they are not informative about the "
            "network, and neither is an information or a total correlation made from them. "
            "density='auto', which fits a density to each layer, has no such ceiling. At log n, "
            f"more {counted} or a larger alpha help too; at Var/bandwidth, a smaller one. Between "
            "the two ceilings, alpha only moves the number.",
            SaturationWarning,
        )
    return flags


def _message(name, values, ceilings, reached, states, base):
    value, ceiling = values[reached][0], ceilings[reached][0]
    unit = {2: "bits", np.e: "nats"}.get(base, f"units of log {base:g}")
    reason = "Var/bandwidth" if ceiling < np.log(len(states)) * (1 - 1e-12) else "log n"
    if name.endswith(_GIVEN):
        reason = "log n of the classes"
    return f"{name} ({value / np.log(base):.2f} of {ceiling / np.log(base):.2f} {unit}, {reason})"
