"""Dropout of whole channels of a sentence, or of whole words of it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SpatialDropout(nn.Module):
    """Drops whole channels of a sentence (arXiv 1411.4280, section 3.2).

    Neighbouring positions cannot stand in for the dropped value, and one random number serves all positions of
    a channel, which on CPUs makes it several times cheaper than elementwise dropout.

    Shape: ``(batch, positions, channels)`` to the same.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return x * F.dropout(x.new_ones(x.size(0), 1, x.size(2)), self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class WordDropout(nn.Module):
    """Blanks whole words (arXiv 1512.05287, section 4): the rest of the sentence must do.

    Shape: ``(batch, positions, channels)`` to the same, positions set to zero at rate ``p``, the others unscaled.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return x.masked_fill(torch.rand(x.shape[:2], device=x.device)[:, :, None] < self.p, 0.0)

    def extra_repr(self) -> str:
        return f"p={self.p}"
