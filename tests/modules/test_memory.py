"""Memory that tensors have left is used again without a fault for every page of it."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from fairseq_convtext.modules.memory import keep_freed_memory

def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        tensors = [torch.ones(1_500_000) for _ in range(10)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_freed_memory()
work()
print(work())
"""


def has_glibc():
    try:
        return hasattr(ctypes.CDLL("libc.so.6"), "mallopt")
    except OSError:
        return False


@pytest.mark.skipif(not has_glibc(), reason="the C library is not glibc")
def test_a_second_time_needs_no_new_pages():
    faults = [
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "as it is")
    ]
    assert faults[0] < 1000 < 10_000 < faults[1]  # of 4 KiB each, of 600 MB
