"""The search of a directed acyclic canvas for one sentence after the other, compiled by numba.

Position by position: a prefix whose last token stands at a position is reached from the prefixes that end at one of the
positions before, by the links between them. Prefixes are the nodes of a trie, as in prefix_beam_kernel.py.
"""

from pathlib import Path
from typing import Any, Tuple

import numpy as np

from fairseq_convtext.compiling import compiled, compiled_once, digest
from fairseq_convtext.decoding.prefix_trie import NONE, Tables, Trie, child_of, language_score, new_root, new_trie
from fairseq_convtext.decoding.ranking import (
    NEG_INF,
    Found,
    Options,
    final_scores,
    log_add,
    new_ranking,
    nothing_found,
    rank,
    write_best,
)


@compiled
def gather_parents(
    trie: Trie, nodes: np.ndarray, masses: np.ndarray, counts: np.ndarray, links: np.ndarray, position: int,
    parents: np.ndarray, arriving: np.ndarray,
) -> int:
    """Every prefix from which ``position`` can be reached, with the log-probability of all ways there; how many."""
    found = 0
    for jump in range(1, min(links.shape[1], position) + 1):
        before = position - jump
        link = links[before, jump - 1]
        if link == NEG_INF:
            continue
        for place in range(counts[before]):
            node, mass = nodes[before, place], masses[before, place] + link
            slot = trie.slot[node]
            if slot == NONE:
                trie.slot[node] = found
                parents[found], arriving[found] = node, mass
                found += 1
            else:
                arriving[slot] = log_add(arriving[slot], mass)
    for place in range(found):
        trie.slot[parents[place]] = NONE
    return found


@compiled
def search_sentence(
    tokens: np.ndarray, log_probs: np.ndarray, links: np.ndarray, positions: int, lm: Tables, options: Options
) -> Tuple[Trie, np.ndarray, np.ndarray]:
    """One canvas: the trie, the nodes of the complete hypotheses and their scores, in no order."""
    size, jumps = options.beam, links.shape[1]
    trie = new_trie(1 + positions * size, len(lm.start))
    new_root(trie, lm)
    used = 1
    nodes = np.zeros((positions, size), np.int64)
    masses = np.zeros((positions, size))
    counts = np.zeros(positions, np.int64)
    parents, arriving = np.zeros(jumps * size, np.int64), np.zeros(jumps * size)
    counts[0] = 1
    ranking = new_ranking(size)
    for position in range(1, positions - 1):
        found = gather_parents(trie, nodes, masses, counts, links, position, parents, arriving)
        kept = 0
        for place in range(found):
            node = parents[place]
            for k in range(tokens.shape[1]):
                if k > 0 and log_probs[position, k] < options.least:
                    break
                mass = arriving[place] + log_probs[position, k]
                fused = trie.fused[node] + options.bonus
                if kept == size and mass + fused <= ranking.score[kept - 1]:
                    continue
                if len(lm.tokens):
                    fused += options.lm_weight * language_score(trie, node, tokens[position, k], lm)
                kept = rank(ranking, kept, place, k, mass, fused)
        for at in range(kept):
            k = ranking.candidate[at]
            node = child_of(trie, used, parents[ranking.place[at]], tokens[position, k], lm)
            if node == used:
                trie.certainty[node], trie.fused[node] = log_probs[position, k], ranking.fused[at]
                used += 1
            nodes[position, at], masses[position, at] = node, ranking.alignment[at]
        counts[position] = kept
    found = gather_parents(trie, nodes, masses, counts, links, positions - 1, parents, arriving)
    return trie, parents[:found], final_scores(trie, parents[:found], arriving, lm, options)


@compiled
def search_batch(
    tokens: np.ndarray, log_probs: np.ndarray, links: np.ndarray, bound: np.ndarray, lm: Tables, options: Options
) -> Found:
    """The beams of every sentence; a graph whose only path writes nothing gives its surest token.

    Args:
        tokens, log_probs: ``(batch, positions, candidates)``, best first.
        links: ``(batch, positions, jumps)``.
        bound, lm, options: as of ``prefix_beam_kernel.search_batch``, and so is what is returned.
    """
    batch, positions, _ = tokens.shape
    found = nothing_found(batch, options.beam, positions)
    for row in range(batch):
        trie, nodes, final = search_sentence(tokens[row], log_probs[row], links[row], bound[row], lm, options)
        inner = slice(1, bound[row] - 1)
        write_best(found, row, trie, nodes, final, tokens[row, inner, 0], log_probs[row, inner, 0])
    return found


def kept_search(sources: int) -> Any:
    """``search_batch``, to be called; compiled anew when ``sources``, the digest of this folder, has changed."""

    @compiled_once
    def search(
        tokens: np.ndarray, log_probs: np.ndarray, links: np.ndarray, bound: np.ndarray, lm: Tables, options: Options
    ) -> Found:
        _ = sources
        return search_batch(tokens, log_probs, links, bound, lm, options)

    return search


search = kept_search(digest(Path(__file__).parent))
