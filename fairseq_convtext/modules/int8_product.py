"""The product of whole numbers, by oneDNN.

What is read are bytes from 0 to 255 that stand for -128 to 127, weights are from -127 to 127. A processor without
VNNI instructions adds two of their products in 16 bits and cuts off what is larger: there weights are from -63 to 63,
with which nothing is, and the product is twice as fast as one of floats all the same (on an EPYC with AVX2).
"""

import functools

import torch
from torch import Tensor

from fairseq_convtext.errors import ConvTextError

ZERO = 128  # the byte that stands for 0
SMALLEST = 1e-30  # of a row of zeros: no scale of zero
FINEST, COARSEST = 127, 63


class Int8Product:
    """``x @ W.T`` with W rounded, a scale for each of its rows: ``W`` is about ``q * scale[:, None]``.

    Args:
        weight: ``(out_features, in_features)`` float32; it must not change any more.

    Raises:
        ConvTextError: this torch or this processor has no such product, or a weight is no finite number.
    """

    def __init__(self, weight: Tensor) -> None:
        if not bool(torch.isfinite(weight).all()):  # rounding would make some number of them
            raise ConvTextError("the model has weights that are not finite numbers: its training has diverged.")
        largest = weight.abs().amax(dim=1).clamp(min=SMALLEST)
        self.hold((weight * (largest_weight() / largest)[:, None]).round_().to(torch.int8), largest / largest_weight())

    def hold(self, q: Tensor, scale: Tensor) -> None:
        """Whole numbers ``(out_features, in_features)`` and ``(out_features,)`` scales."""
        self.q, self.scale = q, scale
        self.packed = torch.ops.onednn.qlinear_prepack(q, None)
        self.ones, self.zeros = torch.ones(len(q)), torch.zeros(len(q), dtype=torch.int32)
        self.offset = -ZERO * q.sum(dim=1).float()

    def rows(self, ids: Tensor) -> "Int8Product":
        """The product with some of the rows of W."""
        part = object.__new__(Int8Product)
        part.hold(self.q[ids], self.scale[ids])
        return part

    def __call__(self, x: Tensor) -> Tensor:
        """uint8 ``(rows, in_features)`` to float32 ``(rows, out_features)``, ``(x - ZERO) @ q.T``: whole numbers.

        Exact below 2**24, and above it rounded to 24 bits.
        """
        return torch.ops.onednn.qlinear_pointwise(
            x, 1.0, 0, self.packed, self.ones, self.zeros, self.offset, 1.0, 0, torch.float32, "none", [], ""
        )


@functools.cache
def largest_weight() -> int:
    """The largest whole number of a weight with which nothing is cut off on this processor.

    Raises:
        ConvTextError: there is none, or this torch has no product of whole numbers.
    """
    try:
        for largest in (FINEST, COARSEST):
            product = object.__new__(Int8Product)
            product.hold(torch.full((64, 64), largest, dtype=torch.int8), torch.ones(64))
            if bool((product(torch.full((64, 64), 255, dtype=torch.uint8)) == 127 * largest * 64).all()):
                return largest
    except (AttributeError, RuntimeError) as error:
        raise ConvTextError(
            f"--generation-dtype int8 needs a newer torch, with oneDNN; found {torch.__version__}: use float32, "
            "bfloat16 or auto."
        ) from error
    raise ConvTextError(
        "--generation-dtype int8 needs a processor with exact products of it: use float32, bfloat16 or auto."
    )
