"""A dilated convolution over positions that keeps their number."""

import math
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.history import History, with_past
from fairseq_convtext.modules.int8 import Int8Linear

# Up to this many positions in a batch, gathering what a filter reads and one product beat the convolution kernel (on a
# CPU 4 to 6 times for a single sentence; not measured on a GPU).
FEW_POSITIONS = 128


def few_positions(x: Tensor) -> bool:
    """Whether ``(batch, positions, channels)`` is small enough for a product in the place of a kernel."""
    return x.size(0) * x.size(1) <= FEW_POSITIONS and not torch.is_grad_enabled()


def check_filter(kernel_size: int, dilation: int) -> None:
    """ConvTextError unless such a filter keeps the number of positions."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConvTextError(f"--kernel-size must be odd and positive, so that lengths stay; found {kernel_size}.")
    if dilation < 1:
        raise ConvTextError(f"--dilations must be positive; found {dilation}.")


class DilatedConv(nn.Module):
    """Length-preserving convolution that never reads padding.

    Position t reads t - d(k-1)/2, ..., t, ..., t + d(k-1)/2 for an odd kernel width k and dilation d; if ``causal``
    (masked), t - d(k-1), ..., t - d, t. Positions outside the sentence count as zero, whether they lie outside the
    batch or are padding inside it.

    Shape: ``(batch, positions, in_channels)`` to ``(batch, positions, out_channels)``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int,
        groups: int = 1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        check_filter(kernel_size, dilation)
        self.in_channels, self.kernel_size, self.dilation, self.groups = in_channels, kernel_size, dilation, groups
        self.causal = causal
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, 1, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.weight, std=math.sqrt(1.0 / (in_channels // groups * kernel_size)))
        self.int8: Optional[Int8Linear] = None

    def use_int8(self) -> None:
        """Compute in int8 from now on; not with groups, nor causal: a sentence's scale would tell what comes later."""
        if self.groups == 1 and not self.causal:
            self.int8 = Int8Linear(self.filters().detach(), self.bias.detach())

    def forward(self, x: Tensor, mask: Optional[Tensor], history: Optional[History] = None) -> Tensor:
        """
        Args:
            x: ``(batch, positions, in_channels)``.
            mask: ``(batch, positions, 1)``, true at padding; None where nothing has to be hidden, as with right
                padding in a causal convolution. What comes out at padding means nothing.
            history: for a causal convolution that goes on where its last call with this history ended.
        """
        if self.int8 is not None:
            return self.int8.convolved(x, mask, self.kernel_size, self.dilation)
        if mask is not None:
            x = x * ~mask  # several times faster than masked_fill, which does not vectorise over a broadcast mask
        padding = self.dilation * (self.kernel_size - 1) // 2
        if self.causal:
            reach, padding = 2 * padding, 0
            x = with_past(self, x, reach, history)
        if self.groups == 1 and few_positions(x):
            # Without dilation a view would do, but rows that overlap in memory take a product three times as long.
            read = self.gathered(F.pad(x, (0, 0, padding, padding)))
            return F.linear(read, self.filters(), self.bias)
        # As an image of height 1 the (batch, positions, channels) memory is channels-last, and no copy is made.
        image = x.transpose(1, 2).unsqueeze(2)
        y = F.conv2d(image, self.weight, self.bias, 1, (0, padding), (1, self.dilation), self.groups)
        return y.squeeze(2).transpose(1, 2)

    def gated(self, x: Tensor, mask: Optional[Tensor], history: Optional[History] = None) -> Tensor:
        """Half the channels, with the other half as their gates (arXiv 1612.08083, equation 1)."""
        if self.int8 is not None:
            return self.int8.convolved(x, mask, self.kernel_size, self.dilation, gated=True)
        return F.glu(self(x, mask, history), dim=-1)

    def gathered(self, x: Tensor) -> Tensor:
        """What the filter reads at each position of an input with its padding, ``(batch, positions, k * channels)``."""
        batch, padded, channels = x.shape
        positions = padded - self.dilation * (self.kernel_size - 1)
        strides = (padded * channels, channels, self.dilation * channels, 1)
        read = x.contiguous().as_strided((batch, positions, self.kernel_size, channels), strides)
        return read.flatten(2).contiguous()

    def filters(self) -> Tensor:
        """``(out_channels, k * in_channels)``; no copy where the weight is channels last, as it is for generation."""
        return self.weight.permute(0, 2, 3, 1).flatten(1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.weight.size(0)}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, groups={self.groups}, causal={self.causal}"
        )
