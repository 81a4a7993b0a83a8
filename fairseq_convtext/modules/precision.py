"""In which type products are computed: float32, bfloat16, or whichever of them is faster on the machine at hand.

A processor without instructions for bfloat16 emulates them and is slower than in float32, one with AVX2 but no more
about 30 times; one with such instructions may be six times faster, and was once half as fast.

scripts/lib/recipe.sh runs this file by itself: it imports nothing of the package, which would load fairseq.
"""

import functools
import logging
import time
from typing import Callable, List, Sequence

import torch

logger = logging.getLogger(__name__)

COMPUTE_DTYPES = ["float32", "bfloat16", "auto"]
GENERATION_DTYPES = [*COMPUTE_DTYPES, "int8"]  # int8: see int8.py


def product_seconds(products: Sequence[Callable[[], torch.Tensor]], repetitions: int = 8) -> List[float]:
    """The shortest time that each of some products takes.

    They take turns, so that what else the machine does meanwhile slows all of them.
    """
    shortest = [float("inf")] * len(products)
    for _ in range(repetitions):
        for index, product in enumerate(products):
            start = time.perf_counter()
            product()
            shortest[index] = min(shortest[index], time.perf_counter() - start)
    return shortest


def product_of(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """A product of the size of a small model's, on the processor."""
    return functools.partial(torch.mm, torch.ones(256, 192, dtype=dtype), torch.ones(192, 768, dtype=dtype))


@functools.cache
def bfloat16_is_faster(device_type: str) -> bool:
    """Whether bfloat16 beats float32 there: by its generation for a GPU, tried out once on the CPU for others.

    By a third at least, so that what differs from trial to trial does not decide.
    """
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)  # older ones emulate it
    with torch.no_grad(), torch.autocast(device_type, enabled=False):
        bfloat16, float32 = product_seconds([product_of(torch.bfloat16), product_of(torch.float32)])
    faster = 1.3 * bfloat16 < float32
    logger.info("auto stands for %s on this machine", "bfloat16" if faster else "float32")
    return faster


def chosen_dtype(name: str, device_type: str) -> torch.dtype:
    """The type that one of ``COMPUTE_DTYPES`` stands for on a device."""
    if name == "auto":
        name = "bfloat16" if bfloat16_is_faster(device_type) else "float32"
    return getattr(torch, name)
