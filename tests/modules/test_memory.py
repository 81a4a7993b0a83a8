"""Memory that tensors have left is used again without a fault for every page of it."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A block at the very end of the memory, which both thresholds have to keep.
PROGRAM = """
import ctypes, resource, runpy, sys

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = libc.malloc(20 << 20)
        ctypes.memset(block, 1, 20 << 20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    runpy.run_path("fairseq_convtext/modules/memory.py")["keep_freed_memory"]()
work()
print(work())
"""
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def faults(how, **settings):
    """Pages that the program had to be given in its second half, with such settings in its environment alone."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True, text=True, check=True, env={**environment, **settings}, cwd=ROOT,
    )
    return int(found.stdout)


def has_glibc():
    try:
        return hasattr(ctypes.CDLL("libc.so.6"), "mallopt")
    except OSError:
        return False


@pytest.mark.skipif(not has_glibc(), reason="the C library is not glibc")
def test_a_second_time_needs_no_new_pages_unless_the_environment_says_how_it_should_be():
    chosen = {"MALLOC_TRIM_THRESHOLD_": "131072"}  # with it every block is given back
    before = faults("as it is", **chosen)
    if before < 5000:
        pytest.skip(f"this system gives memory in larger pages: {before} faults for 200 MB")
    assert faults("kept") < 1000
    assert faults("kept", **chosen) > before / 2
