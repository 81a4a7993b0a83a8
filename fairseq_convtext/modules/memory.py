"""How the C library keeps memory that tensors on the CPU have left."""

import ctypes
import functools
import os
import sys

# From malloc.h of glibc, and the largest threshold that it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD = 1 << 25


@functools.cache
def keep_freed_memory() -> None:
    """Let the process keep what tensors have freed, for the next ones, from now until it ends.

    By default glibc gives the system back what lies at the end of its memory, and the next tensor gets it again page
    by page, each cleared first: for activations of some megabytes that is a tenth of the time of generation in float32,
    and more than a quarter in int8. Nothing is done where the C library is another one, or where the environment says
    how it should be.
    """
    chosen = "malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
    )
    if chosen or sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
