"""Dynamic unfolding: a sequence that has a column at every position that is asked for."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Unfolding(nn.Module):
    """A learned vector at every position beyond a sequence's own (arXiv 1610.10099, section 3.2; zeros there)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beyond = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor, lengths: Tensor, start: int, stop: int) -> Tensor:
        """
        Args:
            x: ``(batch, positions, channels)``, padded on the right.
            lengths: ``(batch,)`` its positions in use.
            start, stop: the positions to return, whether ``x`` has them or not.

        Returns:
            ``(batch, stop - start, channels)``.
        """
        columns = x[:, start:stop]
        columns = F.pad(columns, (0, 0, 0, stop - start - columns.size(1)))
        beyond = torch.arange(start, stop, device=x.device) >= lengths[:, None]
        return torch.where(beyond[:, :, None], self.beyond.to(x.dtype), columns)
