"""Warnings of skgate; the errors it raises are Python's and scikit-learn's own."""

import sys
import warnings

__all__ = ["GateCaptureWarning", "SaturationWarning", "warn_user"]


class SaturationWarning(UserWarning):
    """An entropy is too low for its estimator, and not informative about the network.

    The kernel density estimate of ``n`` states can exceed neither ``log n`` nor the mean exponent
    of its kernel, ``Var / bandwidth`` nats. Near these ceilings, and wherever it grows with the
    samples, it measures their number or the width of the kernel. Measures of layers say in their
    attribute ``layer_saturated_`` what their ceilings are.
    """


class GateCaptureWarning(UserWarning):
    """An operation that may gate the data was run, but its gates are not in the states."""


def warn_user(message, category=UserWarning):
    """Issue a warning that points at the line of the user's code that called skgate."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _is_ours(module):
    return module.partition(".")[0] in ("skgate", "sklearn")
