"""The convolutional blocks: length-preserving branches that a stack adds or concatenates to its input.

Each block maps ``(batch, positions, in_channels)`` to ``(batch, positions, out_channels)`` and leaves out the
shortcut, so that the same block serves residual and dense stacks. ``hidden`` is the width inside the block (a gated
linear block has none). With ``causal`` the convolution reads no later position, and ``history`` lets it go on where
it stopped. All are normalised before their first 1x1 or full convolution (pre-norm), which keeps the
shortcut path free of nonlinearities; only a depthwise convolution comes before its norm.
"""

from typing import Dict, Optional, Type

from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.convolution import DilatedConv
from fairseq_convtext.modules.dynamic import DynamicConv
from fairseq_convtext.modules.gated import GatedLinear
from fairseq_convtext.modules.history import History


class ByteNetBlock(nn.Module):
    """Bottleneck with three products (arXiv 1610.10099, figure 3, left).

    layer norm, ReLU, 1x1 to ``hidden``; layer norm, ReLU, dilated convolution; layer norm, ReLU, 1x1 to
    ``out_channels``. The paper's ``hidden`` is half the width.
    """

    hidden_ratio = 0.5

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, kernel_size: int, dilation: int, causal: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_channels)
        self.reduce = nn.Linear(in_channels, hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.conv = DilatedConv(hidden, hidden, kernel_size, dilation, causal=causal)
        self.norm3 = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor, mask: Optional[Tensor], history: Optional[History] = None) -> Tensor:
        x = self.reduce(F.relu(self.norm1(x), inplace=True))
        x = self.conv(F.relu(self.norm2(x), inplace=True), mask, history)
        return self.expand(F.relu(self.norm3(x), inplace=True))


class WaveNetBlock(nn.Module):
    """Gated activation unit (arXiv 1609.03499, equation 2): ``tanh(W_f * x) . sigmoid(W_g * x)``, then a 1x1."""

    hidden_ratio = 0.5

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, kernel_size: int, dilation: int, causal: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.conv = DilatedConv(in_channels, 2 * hidden, kernel_size, dilation, causal=causal)
        self.expand = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor, mask: Optional[Tensor], history: Optional[History] = None) -> Tensor:
        signal, gate = self.conv(self.norm(x), mask, history).chunk(2, dim=-1)
        return self.expand(signal.tanh() * gate.sigmoid())


class GatedLinearBlock(nn.Module):
    """Gated linear unit (arXiv 1705.03122, section 3.2): one convolution to twice the width, half of it the gate."""

    hidden_ratio = 1.0

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, kernel_size: int, dilation: int, causal: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.conv = DilatedConv(in_channels, 2 * out_channels, kernel_size, dilation, causal=causal)

    def forward(self, x: Tensor, mask: Optional[Tensor], history: Optional[History] = None) -> Tensor:
        return self.conv.gated(self.norm(x), mask, history)


class DepthwiseBlock(nn.Module):
    """Depthwise dilated convolution, then two 1x1 with a ReLU between (arXiv 1706.03059; order of arXiv 2201.03545).

    The convolution only moves information between positions, the 1x1 products mix channels.
    """

    hidden_ratio = 2.0

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, kernel_size: int, dilation: int, causal: bool = False
    ) -> None:
        super().__init__()
        self.conv = DilatedConv(in_channels, in_channels, kernel_size, dilation, groups=in_channels, causal=causal)
        self.norm = nn.LayerNorm(in_channels)
        self.expand = nn.Linear(in_channels, hidden)
        self.reduce = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor, mask: Optional[Tensor], history: Optional[History] = None) -> Tensor:
        x = self.norm(self.conv(x, mask, history))
        return self.reduce(F.relu(self.expand(x)))


class DynamicBlock(nn.Module):
    """Gated linear unit, dynamic convolution, and a second gated unit (after arXiv 1901.10430, figure 2 c).

    layer norm, 1x1 to ``2 * hidden``, half of it the gate; dynamic convolution; layer norm, 1x1 to ``2 * hidden``,
    half of it the gate; 1x1 to ``out_channels``. In the paper the second half is a branch of its own, with a ReLU.
    """

    hidden_ratio = 1.0

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, kernel_size: int, dilation: int, causal: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_channels)
        self.read = GatedLinear(in_channels, hidden)
        self.conv = DynamicConv(hidden, kernel_size, dilation, causal=causal)
        self.norm2 = nn.LayerNorm(hidden)
        self.mix = GatedLinear(hidden, hidden)
        self.expand = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor, mask: Optional[Tensor], history: Optional[History] = None) -> Tensor:
        x = self.conv(self.read(self.norm1(x)), mask, history)
        return self.expand(self.mix(self.norm2(x)))


BLOCKS: Dict[str, Type[nn.Module]] = {
    "bytenet": ByteNetBlock,
    "wavenet": WaveNetBlock,
    "glu": GatedLinearBlock,
    "depthwise": DepthwiseBlock,
    "dynamic": DynamicBlock,
}


def block_class(name: str) -> Type[nn.Module]:
    """The block that ``--encoder-block NAME`` stands for; ConvTextError when there is none."""
    if name not in BLOCKS:
        raise ConvTextError(f"--encoder-block must be one of {', '.join(BLOCKS)}; found {name!r}.")
    return BLOCKS[name]
