"""The product of whole numbers, by oneDNN.

What is read are bytes from 0 to 255 that stand for -128 to 127, weights are from -127 to 127. A processor without
VNNI instructions adds two of their products in 16 bits and cuts off what is larger: there weights are from -64 to 64,
with which nothing is, and the product is twice as fast as one of floats all the same (on an EPYC with AVX2).
"""

import functools
from typing import Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules import int8_kernels

ZERO, SMALLEST = int(int8_kernels.ZERO), float(int8_kernels.SMALLEST)
FINEST, COARSEST = 127, 64
COLUMNS = 64  # of a product are a multiple of that: with one more than 2,900 it takes a quarter longer than with 2,944


class Int8Product:
    """``x @ W.T`` with W rounded, a scale for each of its rows: ``W`` is about ``q * scale[:, None]``.

    Args:
        q: int8 ``(out_features, in_features)``, of at most ``largest_weight()``.
        scale: float32 ``(out_features,)``.
    """

    def __init__(self, q: Tensor, scale: Tensor) -> None:
        self.q, self.scale = q, scale
        rows = F.pad(q, (0, 0, 0, -len(q) % COLUMNS))
        self.packed = torch.ops.onednn.qlinear_prepack(rows, None)
        self.ones, self.zeros = torch.ones(len(rows)), torch.zeros(len(rows), dtype=torch.int32)
        self.offset = -ZERO * rows.sum(dim=1).float()

    @classmethod
    def of(cls, weight: Tensor) -> "Int8Product":
        """With a float32 weight ``(out_features, in_features)``, rounded.

        Raises:
            ConvTextError: this torch or this processor has no such product, or a weight is no finite number.
        """
        if not bool(torch.isfinite(weight).all()):  # rounding would make some number of them
            raise ConvTextError("the model has weights that are not finite numbers: its training has diverged.")
        largest = weight.abs().amax(dim=1).clamp(min=SMALLEST)
        q = (weight * (largest_weight() / largest)[:, None]).round_().to(torch.int8)
        return cls(q, largest / largest_weight())

    def rows(self, ids: Tensor) -> "Int8Product":
        """The product with some of the rows of W."""
        return Int8Product(self.q[ids], self.scale[ids])

    def __getstate__(self) -> Tuple[Tensor, Tensor]:
        return self.q, self.scale  # what oneDNN has packed is neither copied nor written

    def __setstate__(self, state: Tuple[Tensor, Tensor]) -> None:
        if int(state[0].abs().max()) > largest_weight():
            raise ConvTextError(
                "this model was rounded to int8 on another kind of processor: load its checkpoint here instead."
            )
        self.__init__(*state)

    def __call__(self, x: Tensor) -> Tensor:
        """uint8 ``(rows, in_features)`` to float32 ``(rows, columns)``, ``(x - ZERO) @ q.T``: whole numbers.

        What there is beyond ``out_features`` columns are zeros. Exact where ``x @ q.T`` is below 2**24, as it is with
        up to 518 features; above it off by one or two.
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
            product = Int8Product(torch.full((64, 64), largest, dtype=torch.int8), torch.ones(64))
            if bool((product(torch.full((64, 64), 255, dtype=torch.uint8)) == 127 * largest * 64).all()):
                return largest
    except (AttributeError, RuntimeError) as error:
        raise ConvTextError(
            f"--generation-dtype int8 needs a torch with oneDNN's products of int8, newer than 2.1; "
            f"{torch.__version__} has none on this processor: use float32, bfloat16 or auto."
        ) from error
    raise ConvTextError(
        "--generation-dtype int8 is not for this processor, which cuts off sums of such products: use float32, "
        "bfloat16 or auto."
    )
