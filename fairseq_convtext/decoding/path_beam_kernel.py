"""The search of a directed acyclic canvas for one sentence after the other, compiled by numba.

Position by position: a prefix whose last token stands at a position is reached from the prefixes that end at one of the
positions before, by the links between them. Prefixes are the nodes of a trie, as in prefix_beam_kernel.py.
"""

import math
from pathlib import Path
from typing import Any, Tuple

import numpy as np

from fairseq_convtext.compiling import compiled, compiled_once, digest
from fairseq_convtext.decoding.prefix_beam_kernel import NEG_INF, Options, Ranking, log_add, rank
from fairseq_convtext.decoding.prefix_trie import NONE, ROOT, Tables, Trie, child_of, language_score, new_root, new_trie


@compiled_once
def reached(links: np.ndarray) -> np.ndarray:
    """``(batch, positions)`` probability to come to each position, from that of the jumps, with one dimension more."""
    batch, positions, jumps = links.shape
    found = np.zeros((batch, positions), np.float32)
    for row in range(batch):
        found[row, 0] = 1.0
        for start in range(positions - 1):
            for jump in range(min(jumps, positions - 1 - start)):
                found[row, start + 1 + jump] += found[row, start] * links[row, start, jump]
    return found


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
    ranking = Ranking(
        np.zeros(size), np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size), np.zeros(size)
    )
    for position in range(1, positions - 1):
        if log_probs[position, 0] == NEG_INF:  # no path comes here
            continue
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
    scores = np.zeros(found)
    for place in range(found):
        scores[place] = arriving[place] + trie.fused[parents[place]]
        if len(lm.tokens):
            scores[place] += options.lm_weight * language_score(trie, parents[place], options.eos, lm)
    return trie, parents[:found], scores


@compiled
def search_batch(
    tokens: np.ndarray, log_probs: np.ndarray, links: np.ndarray, bound: np.ndarray, lm: Tables, options: Options
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The beams of every sentence.

    Args:
        tokens, log_probs: ``(batch, positions, candidates)``, best first; -inf where no path comes.
        links: ``(batch, positions, jumps)``.
        bound, lm, options: as of ``prefix_beam_kernel.search_batch``, and so is what is returned; only that the surest
            token is taken where no path writes one.
    """
    batch, positions, _ = tokens.shape
    found = np.zeros((batch, options.beam, positions), np.int64)
    certainty = np.zeros((batch, options.beam, positions), np.float32)
    lengths = np.zeros((batch, options.beam), np.int64)
    scores = np.full((batch, options.beam), NEG_INF, np.float32)
    for row in range(batch):
        trie, nodes, final = search_sentence(tokens[row], log_probs[row], links[row], bound[row], lm, options)
        order = np.argsort(np.where(nodes == ROOT, math.inf, -final), kind="mergesort")
        if len(nodes) == 0 or nodes[order[0]] == ROOT:  # no path but to the end at once
            surest = 1 + int(np.argmax(log_probs[row, 1 : bound[row] - 1, 0]))
            found[row, 0, 0], certainty[row, 0, 0] = tokens[row, surest, 0], log_probs[row, surest, 0]
            lengths[row, 0], scores[row, 0] = 1, log_probs[row, surest, 0]
            continue
        for place, i in enumerate(order[: options.beam]):
            node = nodes[i]
            lengths[row, place], scores[row, place] = trie.length[node], final[i]
            while node != ROOT:
                found[row, place, trie.length[node] - 1] = trie.token[node]
                certainty[row, place, trie.length[node] - 1] = trie.certainty[node]
                node = trie.parent[node]
    return found, certainty, lengths, scores


def kept_search(sources: int) -> Any:
    """``search_batch``, to be called; compiled anew when ``sources``, the digest of this folder, has changed."""

    @compiled_once
    def search(
        tokens: np.ndarray, log_probs: np.ndarray, links: np.ndarray, bound: np.ndarray, lm: Tables, options: Options
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        _ = sources
        return search_batch(tokens, log_probs, links, bound, lm, options)

    return search


search = kept_search(digest(Path(__file__).parent))
