"""A convolution whose filter each position makes for itself."""

import math
from typing import Any, Iterator, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.modules.convolution import check_filter
from fairseq_convtext.modules.history import History, with_past

MOST_HEADS = 8


class DynamicConv(nn.Module):
    """Dynamic convolution (arXiv 1901.10430, section 5), length-preserving, with a dilation d.

    ``y[t, c] = sum_j w[t, h, j] x[t + (j - (k - 1) / 2) d, c]``, j from 0 to k - 1 (``causal``: up to t, as in
    ``DilatedConv``), where h is the head of channel c and ``w[t, h] = softmax(W[h] x[t])``. All channels of a head
    share the k weights, which are positive and sum to one; there are 8 heads, or as many as the largest power of two
    that divides the channels if that is less. Positions outside the sentence count as zero.

    Shape: ``(batch, positions, channels)`` to the same.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, causal: bool = False) -> None:
        super().__init__()
        check_filter(kernel_size, dilation)
        self.kernel_size, self.dilation, self.causal = kernel_size, dilation, causal
        self.heads = math.gcd(channels, MOST_HEADS)
        self.filters = nn.Linear(channels, self.heads * kernel_size)

    def forward(self, x: Tensor, mask: Optional[Tensor], history: Optional[History] = None) -> Tensor:
        """As ``DilatedConv.forward``."""
        if mask is not None:
            x = x * ~mask
        weights = self.filters(x).unflatten(2, (self.heads, self.kernel_size)).softmax(dim=-1)
        reach = self.dilation * (self.kernel_size - 1)
        if self.causal:
            x = with_past(self, x, reach, history)
        else:
            x = F.pad(x, (0, 0, reach // 2, reach // 2))
        return weighted_sum(weights.to(x.dtype), x, self.dilation)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, heads={self.heads}, causal={self.causal}"


def weighted_sum(weights: Tensor, x: Tensor, dilation: int) -> Tensor:
    """What the filters of each position make of what they read.

    Args:
        weights: ``(batch, positions, heads, k)``.
        x: ``(batch, positions + dilation * (k - 1), channels)`` of the same type; tap j of position t reads
            position t + j * dilation.

    Returns:
        ``(batch, positions, channels)``.
    """
    return WeightedSum.apply(weights, x, dilation)


class WeightedSum(torch.autograd.Function):
    """``weighted_sum`` tap by tap. Autograd by itself would add k gradients of the size of the input."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(weights, x)
        ctx.dilation = dilation
        heads = x.unflatten(2, (weights.size(2), -1))
        y = torch.zeros_like(heads[:, : weights.size(1)])
        for weight, read in taps(weights, heads, dilation):
            y.addcmul_(weight, read)
        return y.flatten(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, Tensor, None]:
        weights, x = ctx.saved_tensors
        heads, of_y = (tensor.unflatten(2, (weights.size(2), -1)) for tensor in (x, gradient))
        of_x, of_weights = torch.zeros_like(heads), torch.empty_like(weights)
        for j, (weight, read) in enumerate(taps(weights, heads, ctx.dilation)):
            of_weights[..., j] = (of_y * read).sum(dim=-1)
            of_x[:, j * ctx.dilation :][:, : weights.size(1)].addcmul_(weight, of_y)
        return of_weights, of_x.flatten(2), None


def taps(weights: Tensor, x: Tensor, dilation: int) -> Iterator[Tuple[Tensor, Tensor]]:
    """Of each tap the weights ``(batch, positions, heads, 1)`` and what it reads, ``(batch, positions, heads, c)``."""
    for j in range(weights.size(3)):
        yield weights[..., j, None], x[:, j * dilation :][:, : weights.size(1)]
