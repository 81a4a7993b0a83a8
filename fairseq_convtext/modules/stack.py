"""Stacks of convolutional blocks, residual or dense."""

from typing import Callable, Dict, Optional, Sequence

import torch
from torch import Tensor, nn

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.blocks import block_class
from fairseq_convtext.modules.dropout import SpatialDropout
from fairseq_convtext.modules.history import History

# By number of a block, from 1: a function that takes the features after it and returns those that the next one reads.
Taps = Dict[int, Callable[[Tensor], Tensor]]


def cycle_dilations(layers: int, dilations: Sequence[int]) -> Sequence[int]:
    """The dilation of each of ``layers`` blocks: 1, 2, 4, 8, 16, 1, 2, ... for the default."""
    if not dilations:
        raise ConvTextError("--dilations must name at least one dilation; found an empty list.")
    return [dilations[i % len(dilations)] for i in range(layers)]


def receptive_field(kernel_size: int, dilations: Sequence[int]) -> int:
    """Positions that one output position of a stack can see: ``1 + (k - 1) * sum(dilations)``."""
    return 1 + (kernel_size - 1) * sum(dilations)


class ConvStack(nn.Module):
    """``layers`` blocks whose number of positions and of channels at the end are those of the input.

    residual: every block's output is added to its input (arXiv 1512.03385).
    dense: every block reads the concatenation of the input and all earlier outputs, and adds ``growth`` channels
    to it (arXiv 1608.06993); ``hidden`` is four times ``growth``, as in DenseNet-B, and a final 1x1 brings
    the concatenation back to ``channels``.
    causal: the receptive field ends at the position itself; such a stack needs no mask for padding on the right, and
    with a ``history`` it goes on where its last call with it ended.

    Shape: ``(batch, positions, channels)`` and mask ``(batch, positions, 1)`` to ``(batch, positions, channels)``.
    """

    def __init__(
        self,
        layers: int,
        channels: int,
        kernel_size: int,
        dilations: Sequence[int],
        block: str = "bytenet",
        connectivity: str = "residual",
        growth: int = 64,
        dropout: float = 0.0,
        spatial_dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if connectivity not in ("residual", "dense"):
            raise ConvTextError(f"--connectivity must be residual or dense; found {connectivity!r}.")
        self.dense = connectivity == "dense"
        self.dilations = cycle_dilations(layers, dilations)
        self.receptive_field = receptive_field(kernel_size, self.dilations)
        make = block_class(block)
        self.blocks = nn.ModuleList()
        width = channels
        for dilation in self.dilations:
            if self.dense:
                self.blocks.append(make(width, growth, 4 * growth, kernel_size, dilation, causal))
                width += growth
            else:
                hidden = int(make.hidden_ratio * width)
                self.blocks.append(make(width, width, hidden, kernel_size, dilation, causal))
        self.transition = nn.Linear(width, channels) if self.dense else nn.Identity()
        self.norm = nn.LayerNorm(channels)
        self.dropout = SpatialDropout(spatial_dropout) if spatial_dropout > 0.0 else nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Optional[Tensor], taps: Optional[Taps] = None, history: Optional[History] = None
    ) -> Tensor:
        """
        Args:
            x: ``(batch, positions, channels)``.
            mask: ``(batch, positions, 1)``, true at padding; None if there is none.
            taps: see there; for feedback.
            history: of a causal stack, what its blocks have read before; they add what they read now.

        Returns:
            ``(batch, positions, channels)``.
        """
        for number, block in enumerate(self.blocks, start=1):
            y = self.dropout(block(x, mask, history))
            if self.dense:
                x = torch.cat([x, y], dim=-1)
            else:
                # Under autocast x may have more digits than y, which the sum must keep.
                x = x + y if torch.is_grad_enabled() or x.dtype != y.dtype else y.add_(x)
            if taps and number in taps:
                x = taps[number](x)
        return self.norm(self.transition(x))
