"""The recursion of CTC prefix search for one sentence after the other, compiled by numba.

A step makes a few hundred tiny decisions, each of which would be a tensor operation of its own. Prefixes are the
nodes of a trie, so that equal ones are one node; the beam is a list of nodes. Log-probabilities are natural.
"""

from pathlib import Path
from typing import Any, NamedTuple, Tuple

import numpy as np

from fairseq_convtext.compiling import compiled, compiled_once, digest
from fairseq_convtext.decoding.prefix_trie import NONE, ROOT, Tables, Trie, child_of, language_score, new_root, new_trie
from fairseq_convtext.decoding.ranking import (
    NEG_INF,
    Found,
    Options,
    Ranking,
    final_scores,
    log_add,
    new_ranking,
    nothing_found,
    rank,
    write_best,
)


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
    ranking = new_ranking(size)
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

    return trie, beam.nodes[:count], final_scores(trie, beam.nodes[:count], beam.either, lm, options)


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
