"""Memory of this machine."""

import ctypes
import gc
import os
import sys


def physical_memory():
    """Return the bytes of memory that this machine has; infinite where it does not say."""
    if not hasattr(os, "sysconf"):
        return float("inf")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def give_back():
    """Free what only cycles hold, and give freed memory back to the system.

    Arrays of many sizes leave gaps in the heap, which glibc keeps otherwise: gigabytes after the
    layers of a ResNet.
    """
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
