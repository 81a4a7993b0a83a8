"""The hypothesis that a directed acyclic canvas spells: always on to the most probable next position and token."""

from typing import Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_convtext.decoding.one_pass import NEG_INF, OnePass, Symbols


def read_lookahead(symbols: Symbols, links: Tensor, bound: Tensor, eos: int) -> OnePass:
    """Lookahead decoding (arXiv 2205.07459, section 3.3). No hypothesis is empty.

    Where each position goes on to is decided for all of them at once; what is left is to follow it.

    Args:
        symbols: ``(batch, positions)``.
        links: ``(batch, positions, jumps)``, see links.py.
        bound: ``(batch,)`` canvas positions of each sentence, at least 3.
        eos: id of EOS, which stands for the last position.

    Returns:
        the hypotheses; a token's log-probability is that of the jump to it and of itself.
    """
    _, positions, jumps = links.shape
    here, last = torch.arange(positions, device=links.device), bound[:, None] - 1
    certainty = symbols.log_probs.masked_fill(here == last, 0.0)
    ahead = F.pad(certainty, (0, jumps)).unfold(1, jumps, 1)[:, 1:]
    scores = links + ahead
    at_once = here[: min(jumps, positions)] + 1 == last  # from position 0 to the end
    scores[:, 0, : at_once.size(1)] = scores[:, 0, : at_once.size(1)].masked_fill(at_once, NEG_INF)
    value, jump = scores.max(dim=2)
    following = torch.minimum(here + 1 + jump, last)

    path, log_probs = (table.to(links.device) for table in follow(following.cpu(), value.cpu(), last.cpu()))
    return OnePass(
        tokens=symbols.tokens.gather(1, path).masked_fill(path == last, eos),
        log_probs=log_probs,
        positions=path,
        adjacent=torch.zeros_like(path, dtype=torch.bool),
        lengths=(path < last).sum(dim=1) + 1,
    )


def follow(following: Tensor, value: Tensor, last: Tensor) -> Tuple[Tensor, Tensor]:
    """The positions that each position leads to, from position 0 to ``last`` ``(batch, 1)``, and their values.

    On a GPU each step would have to be waited for.
    """
    place, places, values = torch.zeros_like(last), [], []
    while not places or bool((place < last).any()):
        values.append(value.gather(1, place).masked_fill(place == last, 0.0))
        place = following.gather(1, place)
        places.append(place)
    return torch.cat(places, dim=1), torch.cat(values, dim=1)
