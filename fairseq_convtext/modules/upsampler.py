"""From encoded source to canvas: the source is extended, upsampled by transposed convolutions, brought to the bound."""

import math
from typing import Callable, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.convolution import few_positions
from fairseq_convtext.modules.int8 import Int8Linear
from fairseq_convtext.modules.masking import padding_mask, stack_mask
from fairseq_convtext.modules.stack import Taps


class Upsample(nn.Module):
    """Transposed convolution with the exact length law ``L_out = stride * L_in``.

    With padding p = ceil(stride / 2) and kernel width stride + 2p the law
    ``L_out = (L_in - 1) * stride - 2p + kernel`` gives stride * L_in, and every output position sees at least two
    input positions, but for the first and last stride // 2, which may see one.

    Shape: ``(batch, positions, channels)`` to ``(batch, stride * positions, channels)``.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        padding = (stride + 1) // 2
        kernel_size = stride + 2 * padding
        self.stride = stride
        self.conv = nn.ConvTranspose1d(channels, channels, kernel_size, stride=stride, padding=padding)
        # An output position sums kernel_size / stride input positions of all channels.
        nn.init.normal_(self.conv.weight, std=math.sqrt(stride / (kernel_size * channels)))
        nn.init.zeros_(self.conv.bias)
        self.int8: Optional[Int8Linear] = None

    def use_int8(self) -> None:
        """Compute in int8 from now on."""
        rows = self.conv.weight.detach().permute(2, 1, 0).flatten(0, 1)  # (kernel_size * out_channels, in_channels)
        self.int8 = Int8Linear(rows, rows.new_zeros(len(rows)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``(batch, positions, channels)`` to ``(batch, stride * positions, channels)``; ``mask`` true at padding."""
        if self.int8 is not None:
            return self.placed(self.int8.convolved(x, mask, 1, 1).unflatten(2, (-1, x.size(2))))
        x = x * ~mask
        if few_positions(x):
            return self.as_product(x)
        # As an image of height 1, which stays channels-last: three times as fast as in one dimension.
        image, weight = x.transpose(1, 2).unsqueeze(2), self.conv.weight.unsqueeze(2)
        padding = (0, self.conv.padding[0])
        return F.conv_transpose2d(image, weight, self.conv.bias, (1, self.stride), padding).squeeze(2).transpose(1, 2)

    def as_product(self, x: Tensor) -> Tensor:
        """The same as one product."""
        parts = (x @ self.conv.weight.flatten(1)).unflatten(2, (x.size(2), -1))
        return self.placed(parts.transpose(2, 3))

    def placed(self, parts: Tensor) -> Tensor:
        """``(batch, positions, kernel_size, channels)``, what each input position gives, added up where it belongs."""
        batch, positions, kernel_size, channels = parts.shape
        padding = self.conv.padding[0]
        y = parts.new_zeros(batch, self.stride * positions + 2 * padding, channels)
        for offset in range(kernel_size):
            y[:, offset : offset + self.stride * positions : self.stride] += parts[:, :, offset]
        return y[:, padding : padding + self.stride * positions] + self.conv.bias


def thinned(x: Tensor, from_source: Tensor, bound: Tensor) -> Tensor:
    """Positions at equal distances, ``bound`` of each sentence's ``from_source``; the first ones where it has no more.

    Args:
        x: ``(batch, positions, channels)``.
        from_source: ``(batch,)`` positions that come from the source, those of an extension not counted.
        bound: ``(batch,)`` positions wanted.

    Returns:
        ``(batch, max(bound), channels)``.
    """
    size = int(bound.max())
    if not bool((from_source > bound).any()):
        return x[:, :size]
    wanted = torch.arange(size, device=x.device)
    from_source, bound = from_source[:, None], bound[:, None]
    places = torch.where(from_source > bound, (2 * wanted + 1) * from_source // (2 * bound), wanted)
    return x.gather(1, places.clamp(max=x.size(1) - 1)[:, :, None].expand(-1, -1, x.size(2)))


class Upsampler(nn.Module):
    """Grows a canvas of ``bound`` positions from features of ``lengths`` positions.

    With u = product of the strides: a sentence whose bound L exceeds u * S is first extended by a learned vector to
    ceil(L / u) positions (the dynamic unfolding of arXiv 1610.10099, section 3.2); each stage multiplies the
    positions by its stride and redistributes the information with a length-preserving stack. Before the last stack a
    sentence is brought to L positions: of the u * S of a source for which L is smaller some are left out, at equal
    distances, so that the canvas is spread over all of it; what an extension has beyond L is cut. Works from any
    number of positions, one included.

    Args:
        channels: width throughout.
        strides: one stage per stride.
        make_stack: makes the length-preserving stack ``(x, mask) -> x`` that follows each transposed convolution.
    """

    def __init__(self, channels: int, strides: Sequence[int], make_stack: Callable[[], nn.Module]) -> None:
        super().__init__()
        if not strides or min(strides) < 1:
            raise ConvTextError(f"--upsample-strides must be a list of positive integers; found {list(strides)}.")
        self.factor = 1
        for stride in strides:
            self.factor *= stride
        self.extension = nn.Parameter(torch.randn(channels))
        self.upsamples = nn.ModuleList(Upsample(channels, stride) for stride in strides)
        self.stacks = nn.ModuleList(make_stack() for _ in strides)

    def extend(self, x: Tensor, lengths: Tensor, bound: Tensor) -> Tuple[Tensor, Tensor]:
        """Lengthen every sentence to at least ``ceil(bound / factor)`` positions.

        Returns:
            ``(batch, positions', channels)`` features and ``(batch,)`` lengths.
        """
        extended = torch.maximum(lengths, (bound + self.factor - 1) // self.factor)
        missing = int(extended.max()) - x.size(1)
        if missing > 0:
            x = torch.cat([x, x.new_zeros(x.size(0), missing, x.size(2))], dim=1)
        return torch.where(padding_mask(lengths, x.size(1)), self.extension.to(x.dtype), x), extended

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        bound: Tensor,
        hints: Optional[Tuple[Tensor, Tensor]] = None,
        taps: Optional[Taps] = None,
    ) -> Tensor:
        """
        Args:
            x: ``(batch, positions, channels)`` encoded source, padded on the right.
            lengths: ``(batch,)`` its positions in use.
            bound: ``(batch,)`` canvas positions L of every sentence.
            hints: for glancing training, vectors ``(batch, max(bound), channels)`` and where ``(batch,
                max(bound))`` they take the place of the features, before the last stack.
            taps: see stack.py; of the last stack.

        Returns:
            ``(batch, max(bound), channels)`` canvas; positions at and beyond a sentence's own bound mean nothing.
        """
        from_source = lengths * self.factor
        x, lengths = self.extend(x, lengths, bound)
        for stage, (upsample, stack) in enumerate(zip(self.upsamples, self.stacks)):
            x = upsample(x, padding_mask(lengths, x.size(1)))
            lengths = lengths * upsample.stride
            last = stage == len(self.stacks) - 1
            if last:
                lengths = torch.minimum(lengths, bound)
                x = thinned(x, from_source, bound)
                if hints is not None:
                    vectors, where = hints
                    x = torch.where(where[:, :, None], vectors.to(x.dtype), x)
            x = stack(x, stack_mask(lengths, x.size(1)), taps if last else None)
        return x
