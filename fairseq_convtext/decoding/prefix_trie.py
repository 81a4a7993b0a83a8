"""The prefixes of a search as nodes of a trie, each with what an n-gram model needs to know of it; for numba."""

from typing import NamedTuple

import numpy as np

from fairseq_convtext.compiling import compiled

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
        begin, end: the language model's rows of n + 1 tokens that begin with the last n, in column n.
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
    begin: np.ndarray
    end: np.ndarray
    backoff: np.ndarray


class Tables(NamedTuple):
    """A language model as NgramModel has it, all orders in one array; a row is an n-gram.

    Attributes:
        start: column n is the row of n ids that stand before a sentence, NONE if there is none.
        tokens: the last token of each row. What begins in the same way lies side by side, sorted by it; the first rows
            are the single tokens, each its own row, and without its last token every row is a row too.
        log_probs, backoffs: of each row; the highest order has no back-off weights, zero here.
        longer: first row that begins with each row and has one token more; it ends where that of the next row begins.
    """

    start: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray
    longer: np.ndarray


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
        np.zeros((nodes, orders)),
    )


@compiled
def remember(trie: Trie, node: int, column: int, row: int, lm: Tables) -> None:
    """The last ``column`` tokens of a prefix are the language model's ``row``, or no row of it (NONE)."""
    if row != NONE:
        trie.backoff[node, column] = lm.backoffs[row]
        trie.begin[node, column], trie.end[node, column] = lm.longer[row], lm.longer[row + 1]


@compiled
def row_of(tokens: np.ndarray, begin: int, end: int, token: int) -> int:
    """The row of a token among sorted ones; NONE if it is not there."""
    while begin < end:
        middle = (begin + end) // 2
        found = tokens[middle]
        if found == token:
            return middle
        if found < token:
            begin = middle + 1
        else:
            end = middle
    return NONE


@compiled
def new_root(trie: Trie, lm: Tables) -> None:
    """The empty prefix: every history is the start of the sentence."""
    for column in range(1, len(lm.start)):
        remember(trie, ROOT, column, lm.start[column], lm)


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
    for column in range(1, trie.begin.shape[1]):
        row = token
        if column > 1:
            row = row_of(lm.tokens, trie.begin[node, column - 1], trie.end[node, column - 1], token)
        remember(trie, used, column, row, lm)
    return used


@compiled
def language_score(trie: Trie, node: int, token: int, lm: Tables) -> float:
    """log p(token | the prefix): the longest n-gram there is, times the back-off weights passed on the way."""
    total = 0.0
    for column in range(trie.begin.shape[1] - 1, 0, -1):
        begin, end = trie.begin[node, column], trie.end[node, column]
        if begin < end:
            row = row_of(lm.tokens, begin, end, token)
            if row != NONE:
                return total + lm.log_probs[row]
        total += trie.backoff[node, column]
    return total + lm.log_probs[token]
