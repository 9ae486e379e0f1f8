"""Memory of this machine."""

import os


def physical_memory():
    """Return the bytes of memory that this machine has; infinite where it does not say."""
    if not hasattr(os, "sysconf"):
        return float("inf")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
