"""The best symbol at every canvas position, and the hypothesis that the canvas spells: no loop over positions.

Both generators use this file: the parallel one prints its result, the stock one is shown the same tokens and
log-probabilities column by column, so that their outputs agree to the last digit.
"""

from typing import Iterator, NamedTuple, Optional, Sequence, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.modules.int8 import Int8Linear
from fairseq_convtext.modules.masking import inside

NEG_INF = float("-inf")
# Scores (positions x vocabulary) that exist at a time; on a CPU, as many as stay in its cache.
CHUNK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 24}
# The fewest positions of one piece: a product of few rows spends its time on reading the matrix.
FEWEST_ROWS = 64


class Symbols(NamedTuple):
    """What the model would write at each canvas position; ``(batch, positions)``.

    Attributes:
        tokens: best symbol other than the blank; for a search ``(batch, positions, candidates)``, best first.
        log_probs: its log-probability, or theirs.
        blank_log_probs: log-probability of the blank; -inf without a blank.
    """

    tokens: Tensor
    log_probs: Tensor
    blank_log_probs: Tensor


class OnePass(NamedTuple):
    """The hypothesis of every sentence; ``(batch, tokens)``, padded on the right.

    Attributes:
        tokens: ids, EOS last.
        log_probs: log-probability of each at its canvas position, with that of the jump there on a graph; 0 for an EOS
            that only the end of the canvas implies.
        positions: canvas position of each; of an EOS that the end of the canvas implies, one that means nothing.
        adjacent: true where no blank stands between a token and the one before it, so that the same token twice
            would read as one; CTC only.
        lengths: ``(batch,)`` tokens in use, EOS included; at least 2, or 1 for a place in a beam that holds nothing.
    """

    tokens: Tensor
    log_probs: Tensor
    positions: Tensor
    adjacent: Tensor
    lengths: Tensor


def best_symbols(
    features: Tensor,
    project: Union[nn.Linear, Int8Linear],
    forbidden: Sequence[int],
    blank: Optional[int] = None,
    not_first: Optional[int] = None,
) -> Symbols:
    """Best symbol of each position, with the vocabulary-sized scores never held whole.

    Args:
        features: ``(batch, positions, channels)`` canvas.
        project: ``(rows, channels)`` to ``(rows, vocabulary)`` scores before the softmax.
        forbidden: ids that are never written; they take no part in the softmax.
        blank: id of the blank, for CTC.
        not_first: id that may not stand at position 0 (EOS: a hypothesis has at least one token).
    """
    batch, positions, _ = features.shape
    tokens, log_probs, blanks = [], [], []
    start = 0
    for scores in score_chunks(features, project):
        scores = normalised(scores, forbidden)
        blanks.append(scores[:, blank].clone() if blank is not None else scores.new_full(scores.shape[:1], NEG_INF))
        if blank is not None:
            scores[:, blank] = NEG_INF
        if not_first is not None:
            first = torch.arange(start, start + scores.size(0), device=scores.device) % max(positions, 1) == 0
            scores[:, not_first].masked_fill_(first, NEG_INF)
        best = scores.max(dim=1)
        tokens.append(best.indices)
        log_probs.append(best.values)
        start += scores.size(0)
    return Symbols(*(torch.cat(parts).unflatten(0, (batch, positions)) for parts in (tokens, log_probs, blanks)))


def score_chunks(features: Tensor, project: Union[nn.Linear, Int8Linear]) -> Iterator[Tensor]:
    """Scores ``(rows, vocabulary)`` of the positions of all sentences, one after the other, so many at a time."""
    rows = features.reshape(-1, features.size(2))
    for part in rows.split(rows_at_once(project.out_features, rows.device)):
        yield project(part)


def rows_at_once(width: int, device: torch.device) -> int:
    """How many positions are projected onto ``width`` symbols at a time."""
    return max(FEWEST_ROWS, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cpu"]) // width)


def normalised(scores: Tensor, forbidden: Sequence[int]) -> Tensor:
    """float32 log-probabilities ``(rows, vocabulary)`` over the symbols that are not forbidden."""
    # A smaller type is copied anyway; float32 scores belong to the caller.
    own = scores.clone() if scores.dtype == torch.float32 else scores.float()
    for symbol in forbidden:
        own[:, symbol] = NEG_INF
    return own.log_softmax(dim=1)


def read_position(symbols: Symbols, bound: Tensor, eos: int) -> OnePass:
    """Token t stands at position t; the first EOS, or the end of the canvas, ends the hypothesis.

    Args:
        symbols: ``(batch, positions)``.
        bound: ``(batch,)`` canvas positions of each sentence.
        eos: id of EOS.
    """
    tokens = F.pad(symbols.tokens, (0, 1), value=eos)
    log_probs = F.pad(symbols.log_probs, (0, 1))
    positions = torch.arange(tokens.size(1), device=tokens.device).expand_as(tokens)
    beyond = ~inside(bound, tokens.size(1))
    tokens = tokens.masked_fill(beyond, eos)
    log_probs = log_probs.masked_fill(beyond, 0.0)
    lengths = tokens.eq(eos).int().argmax(dim=1) + 1
    return OnePass(tokens, log_probs, positions, torch.zeros_like(beyond), lengths)


def read_ctc(symbols: Symbols, bound: Tensor, blank: int, eos: int, blank_penalty: float = 0.0) -> OnePass:
    """Best path, collapsed: adjacent repeats are one token, blanks are removed.

    A token's log-probability and position are those of the most certain position of its run. A canvas that holds
    only blanks gives its most certain token, so that no hypothesis is empty.

    Args:
        symbols: ``(batch, positions)``.
        bound: ``(batch,)`` canvas positions of each sentence.
        blank: id of the blank.
        eos: id of EOS, which ends every hypothesis and is never on the canvas.
        blank_penalty: taken off the log-probability of the blank. Where a model wavers between several tokens the
            blank wins although a token is more probable than silence; a penalty makes such translations longer.
    """
    batch, size = symbols.tokens.shape
    column = torch.arange(size, device=bound.device).expand(batch, -1)
    used = inside(bound, size)
    token_log_probs = symbols.log_probs.masked_fill(~used, NEG_INF)
    written = used & (token_log_probs > symbols.blank_log_probs - blank_penalty)
    silent = ~written.any(dim=1)
    written = written | (silent[:, None] & (column == token_log_probs.argmax(dim=1)[:, None]))

    path = symbols.tokens.masked_fill(~written, blank)
    before = F.pad(path[:, :-1], (1, 0), value=blank)
    starts = written & (path != before)
    run = (starts.cumsum(dim=1) - 1).clamp(min=0)
    counts = starts.sum(dim=1)
    shape = (batch, int(counts.max()))

    certainty = token_log_probs.masked_fill(~written, NEG_INF)
    log_probs = certainty.new_full(shape, NEG_INF).scatter_reduce(1, run, certainty, "amax")
    peak = written & (certainty == log_probs.gather(1, run))
    positions = column.new_full(shape, size - 1).scatter_reduce(1, run, column.masked_fill(~peak, size - 1), "amin")
    adjacent = column.new_zeros(shape).scatter_reduce(1, run, (starts & (before != blank)).long(), "amax")

    beyond = ~inside(counts, shape[1] + 1)
    return OnePass(
        tokens=F.pad(path.gather(1, positions), (0, 1)).masked_fill(beyond, eos),
        log_probs=F.pad(log_probs, (0, 1)).masked_fill(beyond, 0.0),
        positions=F.pad(positions, (0, 1)),
        adjacent=F.pad(adjacent, (0, 1)).masked_fill(beyond, 0).bool(),
        lengths=counts + 1,
    )
