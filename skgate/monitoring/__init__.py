"""Measures of a network while it trains, as flat records."""

from ._records import records_of

__all__ = ["ComplexityMonitor", "records_of"]


def __getattr__(name):
    if name == "ComplexityMonitor":  # which loads torch
        from ._monitor import ComplexityMonitor

        return ComplexityMonitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
