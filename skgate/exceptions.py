"""Warnings of skgate; the errors it raises are Python's and scikit-learn's own."""

__all__ = ["GateCaptureWarning", "SaturationWarning"]


class SaturationWarning(UserWarning):
    """An entropy sits at a ceiling of its estimator and says nothing about the network.

    The kernel density estimate of ``n`` states cannot exceed ``log n``, nor the
    mean exponent of its kernel, ``Var / bandwidth`` nats. An estimate within 1% of
    the lower of the two reports that ceiling, whatever the states are.
    """


class GateCaptureWarning(UserWarning):
    """An operation that may gate the data ran and its gates are not in the states."""
