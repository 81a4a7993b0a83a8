"""A convolution whose filter each position makes for itself."""

import math
from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.modules.convolution import check_filter
from fairseq_convtext.modules.dynamic_kernel import sum_of_taps
from fairseq_convtext.modules.history import History, with_past
from fairseq_convtext.modules.masking import hidden_positions

MOST_HEADS = 8
# The kernel's one thread takes a third of the time of torch's operations on one thread.
MOST_THREADS = 2


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
        # Taps first: torch needs five times as long for a softmax over few numbers that lie side by side.
        taps_first = self.filters(x).unflatten(2, (self.heads, self.kernel_size)).permute(3, 0, 1, 2).contiguous()
        weights = taps_first.softmax(dim=0)
        reach = self.dilation * (self.kernel_size - 1)
        if history is None and kernel_is_faster(weights, x):
            heads = x.detach().contiguous().unflatten(2, (self.heads, -1)).numpy()
            hidden = hidden_positions(x, mask).numpy()
            before = reach if self.causal else reach // 2
            return torch.from_numpy(sum_of_taps(weights.numpy(), heads, hidden, self.dilation, before)).flatten(2)
        if mask is not None:
            x = x * ~mask
        if self.causal:
            x = with_past(self, x, reach, history)
        else:
            x = F.pad(x, (0, 0, reach // 2, reach // 2))
        return weighted_sum(weights.to(x.dtype), x, self.dilation)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, heads={self.heads}, causal={self.causal}"


def kernel_is_faster(weights: Tensor, x: Tensor) -> bool:
    """Whether ``sum_of_taps`` can make the sum of these, and in less time."""
    if torch.is_grad_enabled() or torch.get_num_threads() > MOST_THREADS:
        return False
    return x.device.type == "cpu" and weights.dtype == x.dtype == torch.float32


def weighted_sum(weights: Tensor, x: Tensor, dilation: int) -> Tensor:
    """What the filters of each position make of what they read.

    Args:
        weights: ``(k, batch, positions, heads)``.
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
        positions, heads = weights.shape[2:]
        by_head = x.unflatten(2, (heads, -1))
        y = torch.zeros_like(by_head[:, :positions])
        for j, weight in enumerate(weights[..., None]):
            y.addcmul_(weight, by_head[:, j * dilation : j * dilation + positions])
        return y.flatten(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, Tensor, None]:
        weights, x = ctx.saved_tensors
        positions, heads = weights.shape[2:]
        by_head, of_y = (tensor.unflatten(2, (heads, -1)) for tensor in (x, gradient))
        of_x, of_weights = torch.zeros_like(by_head), torch.empty_like(weights)
        for j, weight in enumerate(weights[..., None]):
            read = slice(j * ctx.dilation, j * ctx.dilation + positions)
            of_weights[j] = (of_y * by_head[:, read]).sum(dim=-1)
            of_x[:, read].addcmul_(weight, of_y)
        return of_weights, of_x.flatten(2), None
