"""The recursion of CTC prefix search for one sentence after the other, compiled by numba.

A step makes a few hundred tiny decisions, each of which would be a tensor operation of its own. Prefixes are the
nodes of a trie, so that equal ones are one node; the beam is a list of nodes. Log-probabilities are natural.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple, Tuple

import numpy as np

from fairseq_convtext.compiling import compiled, compiled_once, digest
from fairseq_convtext.decoding.prefix_trie import NONE, ROOT, Tables, Trie, child_of, language_score, new_root, new_trie

NEG_INF = -math.inf


class Options(NamedTuple):
    """See SearchOptions; ``least`` is a log-probability, ``eos`` the id that the language model predicts at the end."""

    beam: int
    least: float
    lm_weight: float
    bonus: float
    eos: int


class Beam(NamedTuple):
    """The prefixes kept; arrays over their places, of which the first so many are in use.

    Attributes:
        nodes: of the trie.
        blank, token: log-probability with the last position a blank, or the prefix's last token.
        either: of both together.
    """

    nodes: np.ndarray
    blank: np.ndarray
    token: np.ndarray
    either: np.ndarray


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
def new_beam(size: int) -> Beam:
    return Beam(np.zeros(size, np.int64), np.full(size, NEG_INF), np.full(size, NEG_INF), np.full(size, NEG_INF))


@compiled
def stay(
    trie: Trie, before: Beam, count: int, tokens: np.ndarray, log_probs: np.ndarray, blank: float, after: Beam
) -> None:
    """Every prefix as it is after one more position, which writes a blank or its last token; to ``after``."""
    for place in range(count):
        node = before.nodes[place]
        after.nodes[place], after.blank[place], after.token[place] = node, before.either[place] + blank, NEG_INF
        parent = trie.parent[node]
        shorter = NONE if parent == NONE else trie.slot[parent]
        for k in range(len(tokens)):
            if tokens[k] != trie.token[node]:
                continue
            after.token[place] = before.token[place] + log_probs[k]
            if shorter != NONE:  # the prefix without the last token is in the beam too, and is extended to this one
                after.token[place] = log_add(after.token[place], reach(trie, before, shorter, tokens[k]) + log_probs[k])
            break
        after.either[place] = log_add(after.blank[place], after.token[place])


@compiled
def reach(trie: Trie, beam: Beam, place: int, token: int) -> float:
    """Log-probability from which a prefix is extended: after a blank its last token may be written anew, without one
    it only goes on."""
    if token == trie.token[beam.nodes[place]]:
        return beam.blank[place]
    return beam.either[place]


@compiled
def rank(
    ranking: Ranking, count: int, place: int, candidate: int, alignment: float, fused: float
) -> int:
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
def is_in_beam(trie: Trie, node: int, token: int) -> bool:
    """Whether the prefix with one token more is in the beam: then ``stay`` has counted it."""
    found = trie.child[node]
    while found != NONE:
        if trie.token[found] == token:
            return trie.slot[found] != NONE
        found = trie.sibling[found]
    return False


@compiled
def extend(
    trie: Trie,
    before: Beam,
    count: int,
    tokens: np.ndarray,
    log_probs: np.ndarray,
    lm: Tables,
    options: Options,
    ranking: Ranking,
    kept: int,
) -> int:
    """Every prefix with one token more, into a ranking that holds ``kept``; how many it holds then."""
    for place in range(count):
        node = before.nodes[place]
        for k in range(len(tokens)):
            alignment = reach(trie, before, place, tokens[k]) + log_probs[k]
            fused = trie.fused[node] + options.bonus
            # The language model can only take away: what is too late without it is not looked up.
            late = kept == options.beam and alignment + fused <= ranking.score[kept - 1]
            if alignment == NEG_INF or late or is_in_beam(trie, node, tokens[k]):
                continue
            if len(lm.tokens):
                fused += options.lm_weight * language_score(trie, node, tokens[k], lm)
            kept = rank(ranking, kept, place, k, alignment, fused)
    return kept


@compiled
def search_sentence(
    tokens: np.ndarray, log_probs: np.ndarray, blank: np.ndarray, positions: int, lm: Tables, options: Options
) -> Tuple[Trie, np.ndarray, np.ndarray]:
    """One canvas; see ``search_batch``. The trie, the nodes of its beam and their scores, in no order."""
    size = options.beam
    trie = new_trie(1 + positions * size, len(lm.start))
    new_root(trie, lm)
    used, count = 1, 1
    beam, staying = new_beam(size), new_beam(size)
    beam.blank[0], beam.either[0], trie.slot[ROOT] = 0.0, 0.0, 0
    ranking = Ranking(
        np.zeros(size), np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size), np.zeros(size)
    )
    for t in range(positions):
        tried = 0
        while tried < len(tokens[t]) and log_probs[t, tried] >= options.least:
            tried += 1
        if tried == 0:  # nothing but the blank, which leaves the beam as it is
            for place in range(count):
                beam.either[place] += blank[t]
                beam.blank[place], beam.token[place] = beam.either[place], NEG_INF
            continue
        stay(trie, beam, count, tokens[t, :tried], log_probs[t, :tried], blank[t], staying)
        kept = 0
        for place in range(count):
            if staying.either[place] > NEG_INF:
                kept = rank(ranking, kept, place, NONE, staying.either[place], trie.fused[staying.nodes[place]])
        kept = extend(trie, beam, count, tokens[t, :tried], log_probs[t, :tried], lm, options, ranking, kept)

        for place in range(count):
            trie.slot[beam.nodes[place]] = NONE
        for at in range(kept):
            place, k = ranking.place[at], ranking.candidate[at]
            beam.either[at] = ranking.alignment[at]
            if k == NONE:
                beam.nodes[at], beam.blank[at] = staying.nodes[place], staying.blank[place]
                beam.token[at] = staying.token[place]
                continue
            node = child_of(trie, used, staying.nodes[place], tokens[t, k], lm)
            if node == used:
                trie.certainty[node], trie.fused[node] = log_probs[t, k], ranking.fused[at]
                used += 1
            beam.nodes[at], beam.blank[at], beam.token[at] = node, NEG_INF, ranking.alignment[at]
        count = kept
        for place in range(count):
            trie.slot[beam.nodes[place]] = place

    scores = np.zeros(count)
    for place in range(count):
        scores[place] = beam.either[place] + trie.fused[beam.nodes[place]]
        if len(lm.tokens):
            scores[place] += options.lm_weight * language_score(trie, beam.nodes[place], options.eos, lm)
    return trie, beam.nodes[:count], scores


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


@compiled
def search_batch(
    tokens: np.ndarray, log_probs: np.ndarray, blank: np.ndarray, bound: np.ndarray, lm: Tables, options: Options
) -> Found:
    """The beams of every sentence.

    Args:
        tokens, log_probs: ``(batch, positions, candidates)``, best first, different tokens, none of them the blank.
        blank: ``(batch, positions)`` log-probability of the blank.
        bound: ``(batch,)`` canvas positions of each sentence.
        lm: language model; without tokens there is none.
        options: see there.

    Returns:
        the beams; where a narrow one holds no token at all, the most certain one of the canvas.
    """
    batch, positions, _ = tokens.shape
    found = nothing_found(batch, options.beam, positions)
    for row in range(batch):
        trie, nodes, final = search_sentence(tokens[row], log_probs[row], blank[row], bound[row], lm, options)
        write_best(found, row, trie, nodes, final, tokens[row, : bound[row], 0], log_probs[row, : bound[row], 0])
    return found


def kept_search(sources: int) -> Any:
    """``search_batch``, to be called; compiled anew when ``sources``, the digest of this folder, has changed."""

    @compiled_once
    def search(
        tokens: np.ndarray, log_probs: np.ndarray, blank: np.ndarray, bound: np.ndarray, lm: Tables, options: Options
    ) -> Found:
        _ = sources
        return search_batch(tokens, log_probs, blank, bound, lm, options)

    return search


search = kept_search(digest(Path(__file__).parent))
