"""What causal convolutions have read, so that a sequence is continued instead of being read again."""

from typing import Dict, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class History:
    """The last inputs of every causal convolution that was called with it.

    A new position then costs a causal stack the same however many there were before.
    """

    def __init__(self) -> None:
        self.positions = 0
        self.inputs: Dict[nn.Module, Tensor] = {}

    def prepend(self, conv: nn.Module, x: Tensor, reach: int) -> Tensor:
        """The ``reach`` positions that ``conv`` read last (zeros before the first), followed by those of ``x``.

        Args:
            conv: who asks.
            x: ``(batch, positions, channels)`` new inputs; they are remembered.
            reach: how many earlier positions the convolution reads, ``(k - 1) * dilation``.

        Returns:
            ``(batch, reach + positions, channels)``.
        """
        past = self.inputs.get(conv)
        if past is None:
            past = x.new_zeros(x.size(0), reach, x.size(2))
        x = torch.cat([past, x], dim=1)
        self.inputs[conv] = x[:, x.size(1) - reach :]
        return x

    def reorder(self, rows: Tensor) -> None:
        """Row i of the batch goes on from what row ``rows[i]`` has read, as beams do."""
        self.inputs = {conv: past.index_select(0, rows) for conv, past in self.inputs.items()}


def with_past(conv: nn.Module, x: Tensor, reach: int, history: Optional[History]) -> Tensor:
    """What a causal convolution reads: ``History.prepend``, or without a history zeros before ``x``."""
    return F.pad(x, (0, 0, reach, 0)) if history is None else history.prepend(conv, x, reach)
