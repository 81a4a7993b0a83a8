"""Right padding and the masks that go with it."""

from typing import Optional, Tuple

import torch
from torch import Tensor


def inside(lengths: Tensor, size: int) -> Tensor:
    """Which positions of a batch are in use.

    Args:
        lengths: ``(batch,)`` positions in use, counted from the left.
        size: number of positions of the padded batch.

    Returns:
        bool ``(batch, size)``, false at padding.
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """The opposite of ``inside``, for every channel: bool ``(batch, size, 1)``, true at padding."""
    return ~inside(lengths, size)[:, :, None]


def stack_mask(lengths: Tensor, size: int) -> Optional[Tensor]:
    """``padding_mask`` for a stack; None where nothing has to be hidden: a single sentence fills its batch."""
    return None if lengths.size(0) == 1 else padding_mask(lengths, size)


def hidden_positions(x: Tensor, mask: Optional[Tensor]) -> Tensor:
    """``(batch, positions)``, true where zeros are read; the mask may be the same for all sentences, or None."""
    if mask is None:
        return x.new_zeros(x.shape[:2], dtype=torch.bool)
    return mask.expand(x.size(0), x.size(1), 1)[:, :, 0].contiguous()


def pad_right(tokens: Tensor, pad: int) -> Tuple[Tensor, Tensor]:
    """Move the padding of every row to its right end and cut the columns that hold padding only.

    fairseq pads sources on the left by default, and the side is not known to the model; a convolution must see
    the same neighbours either way.

    Args:
        tokens: ``(batch, positions)`` ids, padded on either side.
        pad: id of the padding symbol.

    Returns:
        ``(batch, longest)`` ids padded on the right, and ``(batch,)`` lengths (EOS included).
    """
    used = tokens.ne(pad)
    lengths = used.sum(dim=1)
    # A stable sort on "is padding" keeps the order of the tokens, whichever side the padding was on.
    order = used.int().argsort(dim=1, descending=True, stable=True)
    longest = max(int(lengths.max()), 1) if tokens.numel() else 0
    return tokens.gather(1, order)[:, :longest], lengths
