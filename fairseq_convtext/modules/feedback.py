"""Predictions of inner layers, fed back (DSLP, arXiv 2110.07515; self-conditioned CTC, arXiv 2104.02724)."""

import math
from typing import Tuple

import torch
from torch import Tensor, nn


class PredictionFeedback(nn.Module):
    """Reads the canvas half-way and tells the blocks above what it says.

    Every position then knows what its neighbours are about to write and can agree with them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.condition = nn.Linear(channels, channels)
        # At the start the blocks above see what they would see without it.
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)

    def forward(self, x: Tensor, project: nn.Linear) -> Tuple[Tensor, Tensor]:
        """
        Args:
            x: ``(batch, positions, channels)`` features after an inner block.
            project: the output projection, shared; its rows are the embeddings of the symbols.

        Returns:
            the features with the transformed expected embedding added, and the scores ``(batch, positions,
            vocabulary)`` that it was expected under.
        """
        logits = project(self.norm(x))
        expected = torch.matmul(logits.softmax(dim=-1), project.weight)
        return x + self.condition(math.sqrt(project.in_features) * expected), logits
