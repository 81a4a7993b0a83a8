"""A dilated convolution over positions that keeps their number."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.errors import ConvTextError


class DilatedConv(nn.Module):
    """Length-preserving, non-causal convolution that never reads padding.

    Position t reads t - d(k-1)/2, ..., t, ..., t + d(k-1)/2 for an odd kernel width k and dilation d. Positions
    outside the sentence count as zero, whether they lie outside the batch or are padding inside it.

    Shape: ``(batch, positions, in_channels)`` to ``(batch, positions, out_channels)``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int, groups: int = 1) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConvTextError(f"--kernel-size must be odd and positive, so that lengths stay; found {kernel_size}.")
        if dilation < 1:
            raise ConvTextError(f"--dilations must be positive; found {dilation}.")
        self.in_channels, self.kernel_size, self.dilation, self.groups = in_channels, kernel_size, dilation, groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, 1, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.weight, std=math.sqrt(1.0 / (in_channels // groups * kernel_size)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x.masked_fill(mask, 0.0)
        # As an image of height 1 the (batch, positions, channels) memory is channels-last, and no copy is made.
        image = x.transpose(1, 2).unsqueeze(2)
        padding = self.dilation * (self.kernel_size - 1) // 2
        y = F.conv2d(image, self.weight, self.bias, 1, (0, padding), (1, self.dilation), self.groups)
        return y.squeeze(2).transpose(1, 2)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.weight.size(0)}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, groups={self.groups}"
        )
