"""CTC prefix beam search (Hannun et al. 2014, algorithm 1) with an n-gram language model by shallow fusion.

The network has run; the loop is over the positions of the canvas and only adds up numbers. A prefix's probability is
the sum over all its alignments, kept apart by whether the last position wrote the blank or the last token. The
search runs on the CPU wherever the network ran: what it reads is a few candidates of every position.
"""

import functools
import math
from typing import NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_convtext.decoding.ngram import NgramModel
from fairseq_convtext.decoding.one_pass import OnePass, Symbols
from fairseq_convtext.decoding.prefix_beam_kernel import search
from fairseq_convtext.decoding.prefix_trie import NONE, Tables
from fairseq_convtext.decoding.ranking import Options
from fairseq_convtext.modules.masking import inside


class SearchOptions(NamedTuple):
    """How a canvas is searched.

    Attributes:
        beam: prefixes kept.
        candidates: tokens tried at each position at most, the best ones besides the blank.
        least_probability: what a token must have at a position to be tried there: with CTC among the candidates and
            the blank, on a graph among all tokens that may be written, and the best one is tried in any case.
        lm: language model, or None.
        lm_weight: of its log-probability, in nats like CTC's own; not negative.
        token_bonus: added for every token, against the shortness that both models prefer.
    """

    beam: int = 10
    candidates: int = 4
    least_probability: float = 0.01
    lm: Optional[NgramModel] = None
    lm_weight: float = 0.0
    token_bonus: float = 0.0


class Prefixes(NamedTuple):
    """The beams of every sentence, best first, on the CPU; ``(batch, beam)`` unless said otherwise.

    Attributes:
        tokens: ``(batch, beam, positions)`` ids, the first ``lengths`` in use.
        certainty: ``(batch, beam, positions)`` log-probability of each token where it was first written.
        lengths: number of tokens.
        score: summed over alignments, language model and bonus included; -inf where there is no prefix.
    """

    tokens: Tensor
    certainty: Tensor
    lengths: Tensor
    score: Tensor


@functools.lru_cache(maxsize=1)
def tables_of(lm: Optional[NgramModel]) -> Tables:
    """The language model as the kernel reads it; no tokens for None."""
    if lm is None:
        none, numbers = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return Tables(np.full(1, NONE), none.astype(np.int32), numbers, numbers, none)
    offsets = np.cumsum([0, *map(len, lm.keys)])
    tokens = (torch.cat(lm.keys) % lm.vocabulary).int().numpy()
    backoffs = torch.cat([*lm.backoffs, torch.zeros(len(lm.keys[-1]))]).numpy()
    longer = [
        offsets[order] + torch.searchsorted(longer, shorter * lm.vocabulary).numpy()
        for order, (shorter, longer) in enumerate(zip(lm.keys, lm.keys[1:]), start=1)
    ]
    # The longest have none; one more, for the end of the last one's.
    longer = np.concatenate([*longer, np.full(len(lm.keys[-1]) + 1, offsets[-1])])
    start, key = np.full(lm.order, NONE), 0
    for column, keys in enumerate(lm.keys[:-1], start=1):
        key = key * lm.vocabulary + lm.start
        place = int(torch.searchsorted(keys, key))
        if place < len(keys) and int(keys[place]) == key:
            start[column] = offsets[column - 1] + place
    return Tables(start, tokens, torch.cat(lm.log_probs).numpy(), backoffs, longer)


def options_of(options: SearchOptions, eos: int) -> Options:
    """The numbers as the kernels read them."""
    least = math.log(options.least_probability) if options.least_probability else -math.inf
    return Options(options.beam, least, options.lm_weight, options.token_bonus, eos)


def prefix_beam_search(symbols: Symbols, bound: Tensor, options: SearchOptions, eos: int) -> Prefixes:
    """The beams of every sentence when its canvas is read, best first. No best hypothesis is empty.

    Args:
        symbols: candidates of every position, see candidates.py.
        bound: ``(batch,)`` canvas positions of each sentence.
        options: see there.
        eos: id that the language model predicts at the end.
    """
    tokens, log_probs, blank, positions = (table.cpu().contiguous().numpy() for table in (*symbols, bound))
    found = search(tokens, log_probs, blank, positions, tables_of(options.lm), options_of(options, eos))
    return Prefixes(*map(torch.from_numpy, found))


def reordered(prefixes: Prefixes, order: Tensor) -> Prefixes:
    """The beams of every sentence in another order, ``(batch, beam)`` places."""
    wide = order[:, :, None].expand_as(prefixes.tokens)
    return Prefixes(*(table.gather(1, wide if table.dim() == 3 else order) for table in prefixes))


def no_longer_than(prefixes: Prefixes, limits: Tensor) -> Tuple[Prefixes, Tensor]:
    """The beams without the prefixes that have more tokens than ``limits`` ``(batch,)`` allow.

    Returns:
        the beams, and ``(batch,)`` whether all of a sentence's prefixes were longer: then its best one is cut, with
        the score that it had, to the limit, or to one token where that is lower.
    """
    beyond = prefixes.lengths > limits[:, None]
    if not bool(beyond.any()):
        return prefixes, torch.zeros(len(limits), dtype=torch.bool)
    score, lengths = prefixes.score.masked_fill(beyond, -math.inf), prefixes.lengths.masked_fill(beyond, 0)
    cut = beyond[:, 0] & (((score > -math.inf) & (lengths > 0)).sum(dim=1) == 0)
    score[:, 0] = torch.where(cut, prefixes.score[:, 0], score[:, 0])
    lengths[:, 0] = torch.where(cut, limits.clamp(min=1), lengths[:, 0])
    order = (beyond & (score == -math.inf)).long().argsort(dim=1, stable=True)
    return reordered(prefixes._replace(score=score, lengths=lengths), order), cut


def hypothesis_at(prefixes: Prefixes, place: int, eos: int) -> Tuple[OnePass, Tensor]:
    """One beam of every sentence with EOS at its end, and its score ``(batch,)``; place 0 is the best.

    ``positions`` and ``adjacent`` mean nothing here: a prefix sums over alignments.
    """
    lengths = prefixes.lengths[:, place]
    longest = int(lengths.max())
    beyond = ~inside(lengths, longest + 1)
    tokens = F.pad(prefixes.tokens[:, place, :longest], (0, 1)).masked_fill(beyond, eos)
    log_probs = F.pad(prefixes.certainty[:, place, :longest], (0, 1)).masked_fill(beyond, 0.0)
    found = OnePass(tokens, log_probs, torch.zeros_like(tokens), torch.zeros_like(beyond), lengths + 1)
    return found, prefixes.score[:, place]
