"""The recursion of CTC prefix search for one sentence after the other, compiled by numba.

A step makes a few hundred tiny decisions, each of which would be a tensor operation of its own. Prefixes are the
nodes of a trie, so that equal ones are one node; the beam is a list of nodes. Log-probabilities are natural.
"""

import math
from typing import NamedTuple, Tuple

import numpy as np

from fairseq_convtext.decoding.compiling import compiled

NEG_INF = -math.inf
NONE = -1
ROOT = 0


class Trie(NamedTuple):
    """Every prefix that was ever in the beam; arrays over nodes, or ``(nodes, orders)``.

    Attributes:
        parent, token, length: the prefix without its last token, that token, and how many it has.
        child, sibling: first prefix that is one token longer, and next one with the same parent; NONE at the end.
        slot: place in the beam, NONE outside.
        certainty: log-probability of the last token where it was first written.
        fused: weighted language model and bonus of all tokens.
        history: column n is the key of the last n tokens.
        begin, end: the language model's rows of n + 1 tokens that begin with them.
        backoff: weight when the token after them is not in those rows.
    """

    parent: np.ndarray
    token: np.ndarray
    length: np.ndarray
    child: np.ndarray
    sibling: np.ndarray
    slot: np.ndarray
    certainty: np.ndarray
    fused: np.ndarray
    history: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    backoff: np.ndarray


class Tables(NamedTuple):
    """A language model as NgramModel has it, all orders in one array.

    Attributes:
        vocabulary: number of ids.
        start: id before a sentence.
        offsets: where each order begins, and the end of the last.
        keys: sorted within an order.
        log_probs, backoffs: of each key; the highest order has no back-off weights, zero here.
        longer: first row that begins with each key and has one token more; it ends where that of the next key begins.
    """

    vocabulary: int
    start: int
    offsets: np.ndarray
    keys: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray
    longer: np.ndarray


@compiled
def log_add(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    return a if b == NEG_INF else a + math.log1p(math.exp(b - a))


@compiled
def new_trie(nodes: int, orders: int) -> Trie:
    return Trie(
        np.full(nodes, NONE, np.int64),
        np.full(nodes, NONE, np.int64),
        np.zeros(nodes, np.int64),
        np.full(nodes, NONE, np.int64),
        np.full(nodes, NONE, np.int64),
        np.full(nodes, NONE, np.int64),
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros((nodes, orders), np.int64),
        np.zeros((nodes, orders), np.int64),
        np.zeros((nodes, orders), np.int64),
        np.zeros((nodes, orders)),
    )


@compiled
def remember(trie: Trie, node: int, column: int, key: int, row: int, lm: Tables) -> None:
    """The last ``column`` tokens of a prefix are the language model's ``row``, or no row of it (NONE)."""
    trie.history[node, column] = key
    if row != NONE:
        trie.backoff[node, column] = lm.backoffs[row]
        trie.begin[node, column], trie.end[node, column] = lm.longer[row], lm.longer[row + 1]


@compiled
def row_of(keys: np.ndarray, begin: int, end: int, key: int) -> int:
    """The row of a key among sorted ones; NONE if it is not there."""
    while begin < end:
        middle = (begin + end) // 2
        found = keys[middle]
        if found == key:
            return middle
        if found < key:
            begin = middle + 1
        else:
            end = middle
    return NONE


@compiled
def new_root(trie: Trie, lm: Tables) -> None:
    """The empty prefix: every history is the start of the sentence."""
    key = 0
    for column in range(1, trie.history.shape[1]):
        key = key * lm.vocabulary + lm.start
        row = row_of(lm.keys, lm.offsets[column - 1], lm.offsets[column], key)
        remember(trie, ROOT, column, key, row, lm)


@compiled
def child_of(trie: Trie, used: int, node: int, token: int, lm: Tables) -> int:
    """The node of the prefix with one token more; ``used``, the next free one, if it is new."""
    found = trie.child[node]
    while found != NONE:
        if trie.token[found] == token:
            return found
        found = trie.sibling[found]
    trie.parent[used], trie.token[used], trie.length[used] = node, token, trie.length[node] + 1
    trie.sibling[used], trie.child[node] = trie.child[node], used
    for column in range(1, trie.history.shape[1]):
        key, row = trie.history[node, column - 1] * lm.vocabulary + token, token  # every id is a row of single ones
        if column > 1:
            row = row_of(lm.keys, trie.begin[node, column - 1], trie.end[node, column - 1], key)
        remember(trie, used, column, key, row, lm)
    return used


@compiled
def language_score(trie: Trie, node: int, token: int, lm: Tables) -> float:
    """log p(token | the prefix): the longest n-gram there is, times the back-off weights passed on the way."""
    total = 0.0
    for column in range(trie.history.shape[1] - 1, 0, -1):
        begin, end = trie.begin[node, column], trie.end[node, column]
        if begin < end:
            row = row_of(lm.keys, begin, end, trie.history[node, column] * lm.vocabulary + token)
            if row != NONE:
                return total + lm.log_probs[row]
        total += trie.backoff[node, column]
    return total + lm.log_probs[token]


@compiled
def ranked_in(
    scores: np.ndarray,
    origins: np.ndarray,
    count: int,
    score: float,
    origin: int,
    alignment: float,
    fused: float,
    values: np.ndarray,
) -> int:
    """Put one prefix into the ranking, best first, of at most ``len(scores)``; the new count."""
    if count == len(scores):
        if score <= scores[count - 1]:
            return count
        count -= 1
    place = count
    while place > 0 and scores[place - 1] < score:
        scores[place], origins[place] = scores[place - 1], origins[place - 1]
        values[place] = values[place - 1]
        place -= 1
    scores[place], origins[place] = score, origin
    values[place, 0], values[place, 1] = alignment, fused
    return count + 1


@compiled
def search_sentence(
    tokens: np.ndarray,
    log_probs: np.ndarray,
    blank: np.ndarray,
    positions: int,
    beam: int,
    lm: Tables,
    lm_weight: float,
    bonus: float,
    eos: int,
) -> Tuple[Trie, np.ndarray, np.ndarray]:
    """One canvas; see ``search``. The trie, the nodes of its beam, best first, and their scores."""
    candidates = tokens.shape[1]
    orders = len(lm.offsets) - 1
    trie = new_trie(1 + positions * beam, max(orders, 1))
    new_root(trie, lm)
    used = 1

    nodes, at_blank, at_token = np.zeros(beam, np.int64), np.full(beam, NEG_INF), np.full(beam, NEG_INF)
    count, at_blank[0], trie.slot[ROOT] = 1, 0.0, 0
    next_nodes, either = np.zeros(beam, np.int64), np.zeros(beam)
    stay_blank, stay_token = np.zeros(beam), np.zeros(beam)
    merged = np.zeros((beam, candidates), np.bool_)
    scores, origins, values = np.zeros(beam), np.zeros(beam, np.int64), np.zeros((beam, 2))

    for t in range(positions):
        merged[:] = False
        for i in range(count):
            either[i] = log_add(at_blank[i], at_token[i])
            stay_blank[i], stay_token[i] = either[i] + blank[t], NEG_INF
            last = trie.token[nodes[i]]
            for k in range(candidates):
                if tokens[t, k] == last:
                    stay_token[i] = at_token[i] + log_probs[t, k]
        # A prefix of the beam that is reached from another one of the beam.
        for i in range(count):
            last, parent = trie.token[nodes[i]], trie.parent[nodes[i]]
            if parent == NONE or trie.slot[parent] == NONE:
                continue
            j = trie.slot[parent]
            for k in range(candidates):
                if tokens[t, k] == last:
                    before = at_blank[j] if trie.token[parent] == last else either[j]
                    stay_token[i] = log_add(stay_token[i], before + log_probs[t, k])
                    merged[j, k] = True

        kept = 0
        for i in range(count):
            alignment, fused, origin = log_add(stay_blank[i], stay_token[i]), trie.fused[nodes[i]], i * (candidates + 1)
            if alignment > NEG_INF:
                kept = ranked_in(scores, origins, kept, alignment + fused, origin, alignment, fused, values)
        for i in range(count):
            node = nodes[i]
            for k in range(candidates):
                # After a blank the last token may be written anew; without one it only goes on.
                before = at_blank[i] if tokens[t, k] == trie.token[node] else either[i]
                alignment, fused = before + log_probs[t, k], trie.fused[node] + bonus
                # The language model can only take away: what is too late without it is not looked up.
                if merged[i, k] or alignment == NEG_INF or (kept == beam and alignment + fused <= scores[beam - 1]):
                    continue
                if orders > 0:
                    fused += lm_weight * language_score(trie, node, tokens[t, k], lm)
                origin = i * (candidates + 1) + k + 1
                kept = ranked_in(scores, origins, kept, alignment + fused, origin, alignment, fused, values)

        for i in range(count):
            trie.slot[nodes[i]] = NONE
        for place in range(kept):
            i, k = origins[place] // (candidates + 1), origins[place] % (candidates + 1) - 1
            if k < 0:
                next_nodes[place] = nodes[i]
                continue
            node = child_of(trie, used, nodes[i], tokens[t, k], lm)
            next_nodes[place] = node
            if node == used:
                trie.certainty[node], trie.fused[node] = log_probs[t, k], values[place, 1]
                used += 1
        # Only now: nodes and states of the old beam are read above.
        for place in range(kept):
            i, k = origins[place] // (candidates + 1), origins[place] % (candidates + 1) - 1
            values[place, 1] = stay_blank[i] if k < 0 else NEG_INF
            values[place, 0] = stay_token[i] if k < 0 else values[place, 0]
        count = kept
        for place in range(count):
            nodes[place], at_token[place], at_blank[place] = next_nodes[place], values[place, 0], values[place, 1]
            trie.slot[nodes[place]] = place

    final = np.full(beam, NEG_INF)
    for i in range(count):
        final[i] = log_add(at_blank[i], at_token[i]) + trie.fused[nodes[i]]
        if orders > 0:
            final[i] += lm_weight * language_score(trie, nodes[i], eos, lm)
    return trie, nodes[:count], final[:count]


@compiled
def search(
    tokens: np.ndarray,
    log_probs: np.ndarray,
    blank: np.ndarray,
    bound: np.ndarray,
    beam: int,
    lm: Tables,
    lm_weight: float,
    bonus: float,
    eos: int,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The beams of every sentence.

    Args:
        tokens, log_probs: ``(batch, positions, candidates)``, different tokens at a position, none of them the blank.
        blank: ``(batch, positions)`` log-probability of the blank.
        bound: ``(batch,)`` canvas positions of each sentence.
        beam: prefixes kept.
        lm: language model; without offsets there is none.
        lm_weight, bonus: see SearchOptions.
        eos: id that the language model predicts at the end.

    Returns:
        ``(batch, beam, positions)`` tokens and certainties, ``(batch, beam)`` lengths and scores; best first, the
        empty prefix after all others, and what stands for no prefix last, with score -inf. Where a narrow beam holds no
        token at all, the most certain one of the canvas, with its log-probability alone.
    """
    batch, positions, _ = tokens.shape
    found = np.zeros((batch, beam, positions), np.int64)
    certainty = np.zeros((batch, beam, positions), np.float32)
    lengths = np.zeros((batch, beam), np.int64)
    scores = np.full((batch, beam), NEG_INF, np.float32)
    for row in range(batch):
        trie, nodes, final = search_sentence(
            tokens[row], log_probs[row], blank[row], bound[row], beam, lm, lm_weight, bonus, eos
        )
        rank = final.copy()
        for i in range(len(nodes)):
            if nodes[i] == ROOT:
                rank[i] = NEG_INF
        order = np.argsort(-rank, kind="mergesort")
        if len(nodes) == 0 or nodes[order[0]] == ROOT:  # a narrow beam and a canvas of blanks
            surest = int(np.argmax(log_probs[row, : bound[row], 0]))
            found[row, 0, 0], certainty[row, 0, 0] = tokens[row, surest, 0], log_probs[row, surest, 0]
            lengths[row, 0], scores[row, 0] = 1, log_probs[row, surest, 0]
            continue
        for place, i in enumerate(order):
            node = nodes[i]
            lengths[row, place], scores[row, place] = trie.length[node], final[i]
            while node != ROOT:
                found[row, place, trie.length[node] - 1] = trie.token[node]
                certainty[row, place, trie.length[node] - 1] = trie.certainty[node]
                node = trie.parent[node]
    return found, certainty, lengths, scores
