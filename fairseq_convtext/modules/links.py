"""Links of a directed acyclic canvas (arXiv 2205.07459, section 3.1): where the next token may stand."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEG_INF = -math.inf


class Links(nn.Module):
    """Log-probabilities of the jumps from every position to one of the next ``jumps`` positions.

    The position itself says how far it jumps; what it jumps to it knows by the convolutions before. (The paper compares
    it with all later positions, by attention.) A sentence's last position, where every path ends, jumps nowhere.

    Shape: ``(batch, positions, channels)`` to float32 ``(batch, positions, jumps)``; column d is a jump of d + 1
    positions. What leads beyond the sentence's own positions is -inf, and all that begins there.
    """

    def __init__(self, channels: int, jumps: int) -> None:
        super().__init__()
        project = nn.Linear(channels, jumps)
        # Parameters of its own: --generation-dtype int8 would round an nn.Linear, and these few scores decide much.
        self.weight, self.bias = project.weight, project.bias

    def forward(self, x: Tensor, bound: Tensor) -> Tensor:
        """``bound`` ``(batch,)``: positions of each sentence."""
        scores = F.linear(x, self.weight, self.bias).float()
        start = torch.arange(x.size(1), device=x.device)
        end = start[:, None] + torch.arange(1, scores.size(2) + 1, device=x.device)
        beyond = end >= bound[:, None, None]
        # Where nothing is left the softmax would be of nothing.
        nowhere = (start >= bound[:, None] - 1)[:, :, None]
        return scores.masked_fill(beyond & ~nowhere, NEG_INF).log_softmax(dim=2).masked_fill(beyond, NEG_INF)
