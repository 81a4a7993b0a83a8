"""How the C library keeps memory that tensors on the CPU have left."""

import ctypes
import functools
import sys

# From malloc.h of glibc, and the largest threshold that it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD = 1 << 25


@functools.cache
def keep_freed_memory() -> None:
    """Let the process keep what tensors have freed, for the next ones; nothing where the C library is not glibc.

    By default glibc gives the system back what lies at the end of its memory, and the next tensor gets it again page
    by page, each cleared first: that took a third of the time of generation in int8, for activations of some megabytes.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
