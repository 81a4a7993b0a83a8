"""A gated linear unit of each position by itself."""

from typing import Optional

from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.modules.int8 import Int8Linear


class GatedLinear(nn.Linear):
    """``(W x + b) . sigmoid(V x + c)`` (arXiv 1612.08083, equation 1, for a filter of width 1).

    V and c are the second half of the rows of ``weight`` and ``bias``.

    Shape: ``(..., in_features)`` to ``(..., gated_features)``.
    """

    def __init__(self, in_features: int, gated_features: int) -> None:
        super().__init__(in_features, 2 * gated_features)
        self.int8: Optional[Int8Linear] = None

    def use_int8(self) -> None:
        """Compute in int8 from now on."""
        self.int8 = Int8Linear(self.weight.detach(), self.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(super().forward(x), dim=-1) if self.int8 is None else self.int8(x, gated=True)
