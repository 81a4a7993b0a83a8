"""Loss of a directed acyclic canvas (arXiv 2205.07459, section 3.2): the sum over all paths that write the target.

A path begins at position 0, which writes nothing, goes on by jumps, writes one token wherever it comes, and ends at
the last position, which stands for EOS. Unlike a CTC canvas, which decides at every position by itself whether it is
used, it depends on the last token where the next one is: alternatives can stand side by side.
"""

from typing import Any, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_convtext.losses.ctc import emissions_of_targets, gather_emissions, vocabulary_slices

# Log-probability of what cannot be; finite, for the gradient of a sum of nothing but -inf is not a number.
IMPOSSIBLE = -1e9


class _GatheredLogProbs(torch.autograd.Function):
    """``gather_emissions`` with a gradient that reads the vocabulary-sized scores once."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        return gather_emissions(logits, targets)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        grad = torch.empty_like(logits)
        for part in vocabulary_slices(logits):
            given = grad_output[part]
            # In place where the type allows, as in ctc.py.
            rows = grad[part] if grad.dtype == torch.float32 else torch.empty_like(grad[part], dtype=torch.float32)
            torch.softmax(logits[part], dim=2, dtype=torch.float32, out=rows)
            rows.mul_(-given.sum(dim=2, keepdim=True))
            rows.scatter_add_(2, targets[part][:, None].expand_as(given), given)
            if grad.dtype != torch.float32:
                grad[part] = rows
        return grad, None


def ending_at(links: Tensor) -> Tensor:
    """The links by where they end: ``(batch, positions, jumps)``, the longest jump first, in the order of the
    positions where they begin."""
    jumps, device = links.size(2), links.device
    before = torch.arange(jumps, device=device)
    padded = F.pad(links.clamp(min=IMPOSSIBLE), (0, 0, jumps, 0), value=IMPOSSIBLE)
    return padded[:, torch.arange(links.size(1), device=device)[:, None] + before, jumps - 1 - before]


def arrivals(alpha: Tensor, links: Tensor) -> Tensor:
    """Log-probability of coming to every position from each of those before it.

    Args:
        alpha: ``(batch, positions)`` of being there.
        links: as ``ending_at`` gives them.

    Returns:
        ``(batch, positions, jumps)``.
    """
    jumps = links.size(2)
    return F.pad(alpha, (jumps, 0), value=IMPOSSIBLE).unfold(1, jumps, 1)[:, :-1] + links


def start_of(emissions: Tensor) -> Tensor:
    """``(batch, positions)`` log-probability of being at each position before anything is written."""
    alpha = emissions.new_full(emissions.shape[:2], IMPOSSIBLE)
    alpha[:, 0] = 0.0
    return alpha


def path_likelihood(emissions: Tensor, links: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """Log-probability of all paths together that write a target.

    Args:
        emissions: float32 ``(batch, positions, tokens)`` log-probability of each of its tokens at each position.
        links: ``(batch, positions, jumps)``, see links.py.
        lengths: ``(batch,)`` canvas positions of each sentence.
        target_lengths: ``(batch,)`` tokens in use.

    Returns:
        ``(batch,)``, about IMPOSSIBLE where there is no path.
    """
    links, alpha, last = ending_at(links), start_of(emissions), (lengths - 1)[:, None]
    ends = []
    for written in range(emissions.size(2) + 1):
        reached = arrivals(alpha, links).logsumexp(dim=2)
        ends.append(reached.gather(1, last))
        if written < emissions.size(2):
            alpha = (reached + emissions[:, :, written]).clamp(min=IMPOSSIBLE)
    return torch.cat(ends, dim=1).gather(1, target_lengths[:, None])[:, 0]


def dag_loss(logits: Tensor, links: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """Negative log-likelihood of every sentence, from unnormalised scores.

    Args:
        logits: ``(batch, positions, vocabulary)`` scores before the softmax, any floating type.
        links: float32 ``(batch, positions, jumps)`` log-probabilities, see links.py.
        targets: ``(batch, tokens)`` ids without EOS, padded on the right with any id.
        lengths: ``(batch,)`` each sentence's own canvas positions, at least 2.
        target_lengths: ``(batch,)`` tokens in use, possibly 0.

    Returns:
        float32 ``(batch,)`` losses in nats; inf, with zero gradient, where no path has that many tokens: more than
        lengths - 2 have no place, fewer than (lengths - 1) / jumps - 1 do not reach the end.
    """
    found = path_likelihood(_GatheredLogProbs.apply(logits, targets), links, lengths, target_lengths)
    return (-found).masked_fill(found < IMPOSSIBLE / 2, float("inf"))


@torch.no_grad()
def log_likelihoods(
    logits: Tensor, links: Tensor, rows: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor
) -> Tensor:
    """log p(target | canvas) in nats for any number of targets of every canvas; about IMPOSSIBLE without a path.

    Arguments as of ``dag_loss``, but for ``rows`` ``(targets,)``, the canvas that each target is meant for, ``targets``
    ``(targets, tokens)`` and ``target_lengths`` ``(targets,)``, and so is what is returned.
    """
    found = []
    for part, emissions in emissions_of_targets(logits, rows, targets):
        row = rows[part]
        found.append(path_likelihood(emissions, links[row], lengths[row], target_lengths[part]))
    return torch.cat(found)


@torch.no_grad()
def best_path(logits: Tensor, links: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """The most probable path that writes the target (Viterbi); arguments as of ``dag_loss``.

    Returns:
        ``(batch, tokens)`` position of each token; ``positions`` for what is no token, and for all of a sentence that
        has no path.
    """
    emissions = gather_emissions(logits, targets)
    links, alpha, last = ending_at(links), start_of(emissions), lengths - 1
    jumps, ends = [], []
    for written in range(emissions.size(2) + 1):
        reached, column = arrivals(alpha, links).max(dim=2)
        jumps.append(links.size(2) - column)
        ends.append(reached.gather(1, last[:, None]))
        if written < emissions.size(2):
            alpha = (reached + emissions[:, :, written]).clamp(min=IMPOSSIBLE)
    feasible = torch.cat(ends, dim=1).gather(1, target_lengths[:, None])[:, 0] > IMPOSSIBLE / 2
    place, places = last, []
    for written in range(emissions.size(2), -1, -1):
        jump = jumps[written]
        inside = feasible & (written <= target_lengths)
        place = torch.where(inside, place - jump.gather(1, place[:, None])[:, 0], place)
        if written:
            places.append(torch.where(inside, place, logits.size(1)))
    return torch.stack(places[::-1], dim=1) if places else targets
