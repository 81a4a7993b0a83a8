"""Connectionist temporal classification on gathered emissions (Graves et al. 2006).

The canvas has L positions and a target has U tokens; the loss sums over all ways to write the target on the
canvas with blanks between and repeats of a token on adjacent positions. Of the vocabulary-sized scores the
recursion needs only the normaliser and the scores of the sentence's own tokens and the blank. So the large tensor
is read once forward (softmax) and once backward (gradient), by slices that stay in the processor's cache, and
the recursion runs in float32 on ``(batch, positions, 2U + 1)``.
"""

from typing import Iterator, Tuple

import torch
from torch import Tensor

from fairseq_convtext.modules.masking import inside

NEG_INF = float("-inf")
# Elements of the vocabulary-sized tensor that are handled at a time.
SLICE_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 27}
# Targets of given canvases that are scored at a time: each has a table of its positions and states.
TARGETS_AT_ONCE = 128


def required_positions(targets: Tensor, target_lengths: Tensor) -> Tensor:
    """Canvas positions that a target needs at the least: its tokens, and a blank between equal neighbours.

    Args:
        targets: ``(batch, tokens)`` ids without blank and EOS, padded on the right.
        target_lengths: ``(batch,)`` tokens in use.

    Returns:
        ``(batch,)`` positions.
    """
    repeats = (targets[:, 1:] == targets[:, :-1]) & inside(target_lengths, targets.size(1))[:, 1:]
    return target_lengths + repeats.sum(dim=1)


def interleave_blanks(targets: Tensor, blank: int) -> Tensor:
    """``(batch, U)`` tokens to ``(batch, 2U + 1)`` states: blank, token, blank, token, ..., blank."""
    states = targets.new_full((targets.size(0), 2 * targets.size(1) + 1), blank)
    states[:, 1::2] = targets
    return states


def skip_penalty(states: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where state s may follow state s - 2 directly (a token after a different token), -inf elsewhere."""
    allowed = torch.zeros_like(states, dtype=torch.bool)
    allowed[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    return torch.zeros_like(states, dtype=dtype).masked_fill(~allowed, NEG_INF)


def forward_scores(emissions: Tensor, states: Tensor) -> Tuple[Tensor, Tensor]:
    """The forward variable alpha: log-probability of all paths that end in state s at position t.

    Every position is scaled by its most probable state, so that float32 keeps its digits on long canvases.

    Args:
        emissions: float32 ``(batch, positions, states)`` log-probability of each state's symbol at each position.
        states: ``(batch, states)`` symbols, blanks interleaved.

    Returns:
        ``(batch, positions, states)`` scaled alpha and float64 ``(batch, positions)`` what to add to it; a row's
        values past its own positions and states mean nothing.
    """
    batch, positions, count = emissions.shape
    skip = skip_penalty(states, emissions.dtype)
    # Two dead states on the left stand for the neighbours of the first states.
    alpha = emissions.new_full((positions, batch, count + 2), NEG_INF)
    scale = emissions.new_zeros((positions, batch), dtype=torch.float64)
    alpha[0, :, 2:4] = emissions[:, 0, :2]
    for t in range(1, positions):
        before = alpha[t - 1]
        total = torch.logaddexp(before[:, 2:], before[:, 1:-1])
        total = torch.logaddexp(total, before[:, :-2] + skip) + emissions[:, t]
        # Without any path left the largest is -inf, and there is nothing to scale.
        largest = total.amax(dim=1).clamp(min=torch.finfo(total.dtype).min)
        torch.sub(total, largest[:, None], out=alpha[t, :, 2:])
        scale[t] = largest
    return alpha[:, :, 2:].transpose(0, 1), scale.cumsum(dim=0).transpose(0, 1)


def reverse(x: Tensor, lengths: Tensor, dim: int) -> Tensor:
    """Reverse the first ``lengths[b]`` entries of every row b along ``dim``; the rest stays where it is."""
    index = torch.arange(x.size(dim), device=x.device).expand(x.size(0), -1)
    index = torch.where(index < lengths[:, None], lengths[:, None] - 1 - index, index)
    shape = [x.size(0)] + [1] * (x.dim() - 1)
    shape[dim] = x.size(dim)
    return x.gather(dim, index.view(shape).expand_as(x))


def path_total(alpha: Tensor, scale: Tensor, lengths: Tensor, state_counts: Tensor) -> Tensor:
    """float64 ``(batch,)`` log-probability of all paths together, from ``forward_scores``; -inf where there is none."""
    last = alpha.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, alpha.size(2))).squeeze(1)  # (batch, states)
    ends = last.gather(1, torch.stack([state_counts - 1, (state_counts - 2).clamp(min=0)], dim=1))
    ends[:, 1].masked_fill_(state_counts < 2, NEG_INF)
    return torch.logaddexp(ends[:, 0], ends[:, 1]) + scale.gather(1, lengths[:, None] - 1)[:, 0]


def posteriors(emissions: Tensor, states: Tensor, lengths: Tensor, state_counts: Tensor) -> Tuple[Tensor, Tensor]:
    """Forward-backward over all alignments.

    Args:
        emissions: float32 ``(batch, positions, states)``.
        states: ``(batch, states)``.
        lengths: ``(batch,)`` canvas positions of each sentence.
        state_counts: ``(batch,)`` 2U + 1 of each sentence.

    Returns:
        ``(batch,)`` negative log-likelihood, inf where no alignment exists, and ``(batch, positions, states)``
        posterior probability of each state at each position, zero where no alignment exists.
    """
    batch, positions, count = emissions.shape
    # The backward variable is the forward variable of the mirrored problem; both run as one batch.
    mirrored = reverse(reverse(emissions, lengths, 1), state_counts, 2)
    both, scale = forward_scores(
        torch.cat([emissions, mirrored]), torch.cat([states, reverse(states, state_counts, 1)])
    )
    alpha, beta = both[:batch], reverse(reverse(both[batch:], lengths, 1), state_counts, 2)
    log_likelihood = path_total(alpha, scale[:batch], lengths, state_counts)
    feasible = log_likelihood > NEG_INF
    valid = inside(lengths, positions)[:, :, None] & inside(state_counts, count)[:, None, :] & feasible[:, None, None]
    # alpha and beta both contain the emission at t. Every path is in one state at t, so the posterior sums to 1
    # over the states whatever the scale.
    joint = (alpha + beta - emissions).masked_fill(~valid, NEG_INF)
    posterior = joint.softmax(dim=2).masked_fill(~valid, 0.0)
    return -log_likelihood.float(), posterior


def vocabulary_slices(logits: Tensor) -> Iterator[slice]:
    """Slices of sentences that together hold about SLICE_ELEMENTS scores."""
    budget = SLICE_ELEMENTS.get(logits.device.type, 1 << 19)
    step = max(1, budget // max(1, logits[0].numel()))
    return (slice(start, start + step) for start in range(0, logits.size(0), step))


def _at_every_position(states: Tensor, logits: Tensor) -> Tensor:
    """``(batch, states)`` to an index ``(batch, positions, states)`` of the vocabulary."""
    return states[:, None, :].expand(-1, logits.size(1), -1)


def gather_emissions(logits: Tensor, states: Tensor) -> Tensor:
    """float32 ``(batch, positions, states)`` log-probabilities of each sentence's own symbols at each position."""
    gathered = []
    for part in vocabulary_slices(logits):
        log_probs = logits[part].log_softmax(dim=2, dtype=torch.float32)
        gathered.append(log_probs.gather(2, _at_every_position(states[part], logits)))
    return torch.cat(gathered)


class _GatheredCTC(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, lengths, target_lengths, blank):
        states = interleave_blanks(targets, blank)
        emissions = gather_emissions(logits, states)
        losses, posterior = posteriors(emissions, states, lengths, 2 * target_lengths + 1)
        ctx.save_for_backward(logits, posterior, states, lengths)
        return losses

    @staticmethod
    def backward(ctx, grad_output):
        logits, posterior, states, lengths = ctx.saved_tensors
        # An infeasible sentence has no posterior: its loss is inf, its gradient zero.
        scale = grad_output.float() * (posterior[:, 0].sum(dim=1) > 0)
        scale = scale[:, None, None] * inside(lengths, logits.size(1))[:, :, None]
        grad = torch.empty_like(logits)
        for part in vocabulary_slices(logits):
            # In place where the type allows: writing the gradient twice would take as long as half the softmax.
            rows = grad[part] if grad.dtype == torch.float32 else torch.empty_like(grad[part], dtype=torch.float32)
            torch.softmax(logits[part], dim=2, dtype=torch.float32, out=rows)
            rows.scatter_add_(2, _at_every_position(states[part], logits), -posterior[part])
            rows.mul_(scale[part])
            if grad.dtype != torch.float32:
                grad[part] = rows
        return grad, None, None, None, None


def ctc_loss(logits: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """CTC negative log-likelihood of every sentence, from unnormalised scores.

    Args:
        logits: ``(batch, positions, vocabulary)`` scores before the softmax, any floating type.
        targets: ``(batch, tokens)`` ids without blank and EOS, padded on the right with any id.
        lengths: ``(batch,)`` each sentence's own canvas positions, at least 1.
        target_lengths: ``(batch,)`` tokens in use, possibly 0.
        blank: id of the blank.

    Returns:
        float32 ``(batch,)`` losses in nats; inf, with zero gradient, where the canvas is too short for the target
        (``lengths < required_positions(targets, target_lengths)``).
    """
    return _GatheredCTC.apply(logits, targets, lengths, target_lengths, blank)


def emissions_of_targets(logits: Tensor, rows: Tensor, symbols: Tensor) -> Iterator[Tuple[slice, Tensor]]:
    """``gather_emissions`` for any number of targets of every canvas, some of them at a time.

    Args:
        logits: ``(batch, positions, vocabulary)``.
        rows: ``(targets,)`` the canvas of each target.
        symbols: ``(targets, symbols)`` what is asked for.

    Yields:
        which targets, and float32 ``(those targets, positions, symbols)``.
    """
    normaliser = torch.cat([logits[part].float().logsumexp(dim=2) for part in vocabulary_slices(logits)])
    columns = torch.arange(logits.size(1), device=logits.device)[None, :, None]
    for start in range(0, len(rows), TARGETS_AT_ONCE):
        part = slice(start, start + TARGETS_AT_ONCE)
        row = rows[part]
        scores = logits[row[:, None, None], columns, symbols[part][:, None, :]].float()
        yield part, scores - normaliser[row][:, :, None]


@torch.no_grad()
def log_likelihoods(
    logits: Tensor, rows: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int
) -> Tensor:
    """log p(target | canvas) in nats for any number of targets of every canvas, without a copy of the canvas for each.

    Args:
        logits: ``(batch, positions, vocabulary)`` scores before the softmax.
        rows: ``(targets,)`` the canvas that each target is meant for.
        targets: ``(targets, tokens)`` ids without blank and EOS, padded on the right with any id.
        lengths: ``(batch,)`` canvas positions.
        target_lengths: ``(targets,)`` tokens in use.
        blank: id of the blank.

    Returns:
        float32 ``(targets,)``; -inf where the canvas is too short.
    """
    found = []
    all_states = interleave_blanks(targets, blank)
    for part, emissions in emissions_of_targets(logits, rows, all_states):
        alpha, scale = forward_scores(emissions, all_states[part])
        found.append(path_total(alpha, scale, lengths[rows[part]], 2 * target_lengths[part] + 1).float())
    return torch.cat(found)


def reference_ctc_loss(logits: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """The same through ``torch.nn.functional.ctc_loss``, to check against; zero where infeasible."""
    log_probs = logits.float().log_softmax(dim=2).transpose(0, 1)
    return torch.nn.functional.ctc_loss(
        log_probs, targets, lengths, target_lengths, blank=blank, reduction="none", zero_infinity=True
    )
