"""What the searches of both kinds of canvas share: ranking prefixes and writing out the best; compiled by numba.

Log-probabilities are natural.
"""

import math
from typing import NamedTuple

import numpy as np

from fairseq_convtext.compiling import compiled
from fairseq_convtext.decoding.prefix_trie import ROOT, Tables, Trie, language_score

NEG_INF = -math.inf


class Options(NamedTuple):
    """See SearchOptions; ``least`` is a log-probability, ``eos`` the id that the language model predicts at the end."""

    beam: int
    least: float
    lm_weight: float
    bonus: float
    eos: int


class Ranking(NamedTuple):
    """What could be in the beam after a position, best first; arrays as long as the beam.

    Attributes:
        score: log-probability and what the language model and the bonus add.
        place: of the prefix, or of the one it extends, in the beam before.
        candidate: the token it was extended by, NONE for a prefix that stays.
        alignment: log-probability alone.
        fused: what was added.
    """

    score: np.ndarray
    place: np.ndarray
    candidate: np.ndarray
    alignment: np.ndarray
    fused: np.ndarray


class Found(NamedTuple):
    """The beams of every sentence, best first, the empty prefix after all others; what stands for no prefix is last.

    Attributes:
        tokens, certainty: ``(batch, beam, positions)``, see Prefixes.
        lengths, scores: ``(batch, beam)``; -inf for no prefix.
    """

    tokens: np.ndarray
    certainty: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray


@compiled
def log_add(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    return a if b == NEG_INF else a + math.log1p(math.exp(b - a))


@compiled
def new_ranking(size: int) -> Ranking:
    return Ranking(np.zeros(size), np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size), np.zeros(size))


@compiled
def rank(ranking: Ranking, count: int, place: int, candidate: int, alignment: float, fused: float) -> int:
    """Put one prefix where it belongs, if it does; the new count."""
    score = alignment + fused
    if count == len(ranking.score):
        if score <= ranking.score[count - 1]:
            return count
        count -= 1
    at = count
    while at > 0 and ranking.score[at - 1] < score:
        ranking.score[at], ranking.place[at] = ranking.score[at - 1], ranking.place[at - 1]
        ranking.candidate[at], ranking.alignment[at] = ranking.candidate[at - 1], ranking.alignment[at - 1]
        ranking.fused[at] = ranking.fused[at - 1]
        at -= 1
    ranking.score[at], ranking.place[at], ranking.candidate[at] = score, place, candidate
    ranking.alignment[at], ranking.fused[at] = alignment, fused
    return count + 1


@compiled
def final_scores(trie: Trie, nodes: np.ndarray, log_probs: np.ndarray, lm: Tables, options: Options) -> np.ndarray:
    """What complete hypotheses come to: all their alignments, and language model and bonus up to the end."""
    scores = np.zeros(len(nodes))
    for place, node in enumerate(nodes):
        scores[place] = log_probs[place] + trie.fused[node]
        if len(lm.tokens):
            scores[place] += options.lm_weight * language_score(trie, node, options.eos, lm)
    return scores


@compiled
def nothing_found(batch: int, beam: int, positions: int) -> Found:
    return Found(
        np.zeros((batch, beam, positions), np.int64),
        np.zeros((batch, beam, positions), np.float32),
        np.zeros((batch, beam), np.int64),
        np.full((batch, beam), NEG_INF, np.float32),
    )


@compiled
def write_best(
    found: Found, row: int, trie: Trie, nodes: np.ndarray, scores: np.ndarray, tokens: np.ndarray, log_probs: np.ndarray
) -> None:
    """The best of the ``nodes`` of a sentence, by their ``scores``; if none of them holds a token, the most certain of
    ``tokens``, the best ones of its positions, with its log-probability alone."""
    order = np.argsort(np.where(nodes == ROOT, math.inf, -scores), kind="mergesort")
    if len(nodes) == 0 or nodes[order[0]] == ROOT:
        surest = int(np.argmax(log_probs))
        found.tokens[row, 0, 0], found.certainty[row, 0, 0] = tokens[surest], log_probs[surest]
        found.lengths[row, 0], found.scores[row, 0] = 1, log_probs[surest]
        return
    for place, i in enumerate(order[: found.scores.shape[1]]):
        node = nodes[i]
        found.lengths[row, place], found.scores[row, place] = trie.length[node], scores[i]
        while node != ROOT:
            found.tokens[row, place, trie.length[node] - 1] = trie.token[node]
            found.certainty[row, place, trie.length[node] - 1] = trie.certainty[node]
            node = trie.parent[node]
