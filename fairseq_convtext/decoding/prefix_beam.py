"""CTC prefix beam search (Hannun et al. 2014, algorithm 1), batched, with an n-gram language model by shallow fusion.

The network has run; the loop is over the positions of the canvas and only adds up numbers. A prefix's probability is
the sum over all its alignments, kept apart by whether the last position wrote the blank or the last token.
"""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_convtext.decoding.ngram import NgramModel
from fairseq_convtext.decoding.one_pass import NEG_INF, OnePass, Symbols

# Multiplier of the rolling hash by which prefixes are told apart (a large odd number; int64 wraps around).
HASH = 6364136223846793005
# Positions at which the blank is likelier than this are not searched: they write it.
CERTAIN_BLANK = 0.999


class SearchOptions(NamedTuple):
    """How a canvas is searched.

    Attributes:
        beam: prefixes kept.
        candidates: tokens tried at each position, the best ones besides the blank.
        lm: language model, or None.
        lm_weight: of its log-probability, in nats like CTC's own.
        token_bonus: added for every token, against the shortness that both models prefer.
    """

    beam: int = 10
    candidates: int = 8
    lm: Optional[NgramModel] = None
    lm_weight: float = 0.0
    token_bonus: float = 0.0

    def on(self, device: torch.device) -> "SearchOptions":
        """The same with the language model on that device."""
        return self if self.lm is None else self._replace(lm=self.lm.to(device))


class Prefixes(NamedTuple):
    """The beams of every sentence; ``(batch, beam)`` unless said otherwise.

    Attributes:
        tokens: ``(batch, beam, positions)`` ids, the first ``lengths`` in use.
        certainty: ``(batch, beam, positions)`` log-probability of each token where it was first written.
        lengths: number of tokens.
        hashes: of the tokens.
        blank, token: log-probability of the prefix with the last position a blank, or its last token.
        fused: language model and bonus, added to the log-probability for the ranking.
    """

    tokens: Tensor
    certainty: Tensor
    lengths: Tensor
    hashes: Tensor
    blank: Tensor
    token: Tensor
    fused: Tensor

    @property
    def score(self) -> Tensor:
        return torch.logaddexp(self.blank, self.token) + self.fused


def gathered(prefixes: Prefixes, index: Tensor) -> Prefixes:
    """The beams of that index ``(batch, beam')``."""
    wide = index[:, :, None].expand(-1, -1, prefixes.tokens.size(2))
    return Prefixes(*(table.gather(1, wide if table.dim() == 3 else index) for table in prefixes))


def impossible_hashes(batch: int, beam: int, device: torch.device) -> Tensor:
    """Hashes of beams that stand for no prefix: their own, so that nothing merges with them and they not twice."""
    return -torch.arange(beam, device=device).expand(batch, -1)


def empty_prefixes(batch: int, beam: int, positions: int, like: Tensor) -> Prefixes:
    """One empty prefix with probability 1 in every sentence; the other beams are impossible."""
    tokens = torch.zeros(batch, beam, positions, dtype=torch.int64, device=like.device)
    never = like.new_full((batch, beam), NEG_INF)
    certain = never.clone()
    certain[:, 0] = 0.0
    hashes = impossible_hashes(batch, beam, like.device)
    return Prefixes(tokens, tokens.to(like.dtype), tokens[:, :, 0], hashes, certain, never, torch.zeros_like(never))


def last_tokens(prefixes: Prefixes, count: int, start: int) -> Tensor:
    """``(batch, beam, count)`` the last tokens of every prefix, ``start`` before its beginning."""
    back = torch.arange(-count, 0, device=prefixes.lengths.device)
    index = prefixes.lengths[:, :, None] + back
    return prefixes.tokens.gather(2, index.clamp(min=0)).masked_fill(index < 0, start)


def step(prefixes: Prefixes, tokens: Tensor, log_probs: Tensor, blank: Tensor, options: SearchOptions) -> Prefixes:
    """One canvas position.

    Args:
        prefixes: before it.
        tokens, log_probs: ``(batch, candidates)``.
        blank: ``(batch,)`` log-probability of the blank.
    """
    batch, beam = prefixes.lengths.shape
    last = last_tokens(prefixes, 1, start=-1)  # (batch, beam, 1)
    either = torch.logaddexp(prefixes.blank, prefixes.token)
    repeats = tokens[:, None, :] == last  # (batch, beam, candidates)
    again = log_probs[:, None, :].masked_fill(~repeats, NEG_INF).amax(dim=2)
    stay_blank, stay_token = either + blank[:, None], prefixes.token + again

    # After a blank the last token may be written anew; without one it only goes on.
    extended = torch.where(repeats, prefixes.blank[:, :, None], either[:, :, None]) + log_probs[:, None, :]
    hashes = (prefixes.hashes * HASH)[:, :, None] + tokens[:, None, :] + 1
    same = hashes.view(batch, -1, 1) == prefixes.hashes[:, None, :]  # (batch, beam * candidates, beam)
    arriving = extended.view(batch, -1, 1).masked_fill(~same, NEG_INF).logsumexp(dim=1)
    stay_token = torch.logaddexp(stay_token, arriving)
    extended = extended.masked_fill(same.any(dim=2).view(extended.shape), NEG_INF)

    fused = prefixes.fused[:, :, None].expand_as(extended) + options.token_bonus
    if options.lm is not None:
        context = last_tokens(prefixes, options.lm.order - 1, options.lm.start)
        fused = fused + options.lm_weight * options.lm.score(context, tokens[:, None, :].expand_as(extended))

    staying = torch.logaddexp(stay_blank, stay_token) + prefixes.fused
    ranked, chosen = torch.cat([staying, (extended + fused).view(batch, -1)], dim=1).topk(beam, dim=1)
    new = chosen >= beam
    pair = (chosen - beam).clamp(min=0)
    kept = gathered(
        prefixes._replace(blank=stay_blank, token=stay_token), torch.where(new, pair // tokens.size(1), chosen)
    )
    candidate = pair % tokens.size(1)
    end, write = kept.lengths[:, :, None].clamp(max=kept.tokens.size(2) - 1), new[:, :, None]
    token, certainty = tokens.gather(1, candidate)[:, :, None], log_probs.gather(1, candidate)[:, :, None]
    return Prefixes(
        tokens=torch.where(write, kept.tokens.scatter(2, end, token), kept.tokens),
        certainty=torch.where(write, kept.certainty.scatter(2, end, certainty), kept.certainty),
        lengths=kept.lengths + new,
        hashes=torch.where(
            ranked > NEG_INF,
            torch.where(new, hashes.view(batch, -1).gather(1, pair), kept.hashes),
            impossible_hashes(batch, beam, ranked.device),
        ),
        blank=kept.blank.masked_fill(new, NEG_INF),
        token=torch.where(new, extended.view(batch, -1).gather(1, pair), kept.token),
        fused=torch.where(new, fused.view(batch, -1).gather(1, pair), kept.fused),
    )


def searched_positions(blank: Tensor, bound: Tensor) -> Tuple[Tensor, Tensor]:
    """Where the search has something to decide, in front.

    Args:
        blank: ``(batch, positions)`` log-probability of the blank.
        bound: ``(batch,)`` canvas positions of each sentence.

    Returns:
        ``(batch, most)`` indices of the positions of every sentence at which the blank is not certain, and
        ``(batch,)`` how many a sentence has.
    """
    columns = torch.arange(blank.size(1), device=bound.device)
    inside = columns < bound[:, None]
    # At least one position of every sentence, so that there is a token to write.
    least = blank.masked_fill(~inside, float("inf")).argmin(dim=1)
    open_ = inside & ((blank.exp() <= CERTAIN_BLANK) | (columns == least[:, None]))
    counts = open_.sum(dim=1)
    order = torch.where(open_, columns, blank.size(1)).sort(dim=1).values
    return order[:, : max(int(counts.max()), 1)].clamp(max=blank.size(1) - 1), counts


def prefix_beam_search(symbols: Symbols, bound: Tensor, options: SearchOptions, eos: int) -> Prefixes:
    """The beams of every sentence when its canvas is read, best first.

    Args:
        symbols: candidates of every position, see ``best_symbols``.
        bound: ``(batch,)`` canvas positions of each sentence.
        options: see there.
        eos: id that the language model predicts at the end.
    """
    index, counts = searched_positions(symbols.blank_log_probs, bound)
    wide = index[:, :, None].expand(-1, -1, symbols.tokens.size(2))
    tokens, log_probs = symbols.tokens.gather(1, wide), symbols.log_probs.gather(1, wide)
    # Past its last position a sentence writes blanks, which change nothing.
    outside = torch.arange(index.size(1), device=bound.device) >= counts[:, None]
    blank = symbols.blank_log_probs.gather(1, index).masked_fill(outside, 0.0)
    log_probs = log_probs.masked_fill(outside[:, :, None], NEG_INF)
    # A position that was left out wrote a blank: what follows it starts anew.
    after_blank = torch.zeros_like(outside)
    after_blank[:, 1:] = index[:, 1:] > index[:, :-1] + 1

    prefixes = empty_prefixes(tokens.size(0), options.beam, tokens.size(1), log_probs)
    for t in range(tokens.size(1)):
        crossed = after_blank[:, t, None]
        either = torch.logaddexp(prefixes.blank, prefixes.token)
        prefixes = prefixes._replace(
            blank=torch.where(crossed, either, prefixes.blank), token=prefixes.token.masked_fill(crossed, NEG_INF)
        )
        prefixes = step(prefixes, tokens[:, t], log_probs[:, t], blank[:, t], options)
    if options.lm is not None:
        context = last_tokens(prefixes, options.lm.order - 1, options.lm.start)
        ends = options.lm.score(context, torch.full_like(prefixes.lengths, eos)[:, :, None])[:, :, 0]
        prefixes = prefixes._replace(fused=prefixes.fused + options.lm_weight * ends)
    # No hypothesis is empty: the empty prefix comes last.
    rank = prefixes.score.masked_fill(prefixes.lengths == 0, NEG_INF)
    return gathered(prefixes, rank.sort(dim=1, descending=True, stable=True).indices)


def best_hypothesis(prefixes: Prefixes, eos: int) -> Tuple[OnePass, Tensor]:
    """The best beam of every sentence with EOS at its end, and its score ``(batch,)``.

    ``positions`` and ``adjacent`` mean nothing here: a prefix sums over alignments.
    """
    lengths = prefixes.lengths[:, 0]
    longest = int(lengths.max())
    beyond = torch.arange(longest + 1, device=lengths.device) >= lengths[:, None]
    tokens = F.pad(prefixes.tokens[:, 0, :longest], (0, 1)).masked_fill(beyond, eos)
    log_probs = F.pad(prefixes.certainty[:, 0, :longest], (0, 1)).masked_fill(beyond, 0.0)
    found = OnePass(tokens, log_probs, torch.zeros_like(tokens), torch.zeros_like(beyond), lengths + 1)
    return found, prefixes.score[:, 0]
