"""The single best CTC alignment of a target to a canvas (Viterbi), batched."""

import torch
from torch import Tensor

from fairseq_convtext.losses.ctc import NEG_INF, gather_emissions, interleave_blanks, skip_penalty


@torch.no_grad()
def best_alignment(logits: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """What each canvas position writes on the most probable path that spells the target.

    Args:
        logits: ``(batch, positions, vocabulary)`` scores before the softmax.
        targets: ``(batch, tokens)`` ids without blank and EOS, padded on the right.
        lengths: ``(batch,)`` each sentence's own canvas positions, at least 1.
        target_lengths: ``(batch,)`` tokens in use, possibly 0.
        blank: id of the blank.

    Returns:
        ``(batch, positions)`` token or blank; blanks beyond the own canvas. A sentence that has no alignment
        (``lengths < required_positions(...)``) gets blanks only.
    """
    states = interleave_blanks(targets, blank)
    emissions = gather_emissions(logits, states)
    batch, positions, count = emissions.shape
    skip = skip_penalty(states, emissions.dtype)
    score = emissions.new_full((batch, count + 2), NEG_INF)
    score[:, 2:4] = emissions[:, 0, :2]
    backs, scores = [], [score[:, 2:]]
    for t in range(1, positions):
        best, back = torch.stack([score[:, 2:], score[:, 1:-1], score[:, :-2] + skip]).max(dim=0)
        score = torch.cat([score[:, :2], best + emissions[:, t]], dim=1)
        backs.append(back)
        scores.append(score[:, 2:])

    # A path ends in the last token or in the blank after it, at the sentence's own last position.
    row = torch.arange(batch, device=logits.device)
    last = torch.stack(scores, dim=1)[row, lengths - 1]
    final = 2 * target_lengths
    token = (final - 1).clamp(min=0)
    final = torch.where(last[row, token] > last[row, final], token, final)
    feasible = last[row, final] > NEG_INF

    symbols = states.new_full((batch, positions), blank)
    state = final
    for t in range(positions - 1, -1, -1):
        inside = t < lengths
        state = torch.where(t == lengths - 1, final, state)
        symbols[:, t] = torch.where(inside & feasible, states[row, state], symbols[:, t])
        if t > 0:
            state = torch.where(inside, (state - backs[t - 1][row, state]).clamp(min=0), state)
    return symbols
