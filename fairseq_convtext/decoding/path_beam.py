"""Beam search of a directed acyclic canvas (arXiv 2205.07459, section 3.3) with an n-gram language model.

As prefix_beam.py: the network has run, the search runs on the CPU, and a prefix's probability is the sum over all paths
that write it, kept apart by the position of its last token.
"""

from typing import NamedTuple, Union

import torch
from torch import Tensor

from fairseq_convtext.decoding.one_pass import Symbols
from fairseq_convtext.decoding.path_beam_kernel import search
from fairseq_convtext.decoding.prefix_beam import (
    Prefixes,
    SearchOptions,
    options_of,
    prefix_beam_search,
    tables_of,
)

# Jumps less probable than this share of the most probable one from the same position are not tried.
LEAST_LINK = 0.01


class Graph(NamedTuple):
    """What a search tries on a directed acyclic canvas.

    Attributes:
        tokens, log_probs: ``(batch, positions, candidates)`` the best tokens of each position, best first, and their
            log-probabilities; the first and the last position have none.
        links: ``(batch, positions, jumps)`` log-probability of each jump, see links.py; -inf for what is not tried.
    """

    tokens: Tensor
    log_probs: Tensor
    links: Tensor


def path_beam_search(graph: Graph, bound: Tensor, options: SearchOptions, eos: int) -> Prefixes:
    """The beams of every sentence, best first; arguments as of ``prefix_beam_search``. No best hypothesis is empty."""
    tokens, log_probs, links, positions = (table.cpu().contiguous().numpy() for table in (*graph, bound))
    found = search(tokens, log_probs, links, positions, tables_of(options.lm), options_of(options, eos))
    return Prefixes(*map(torch.from_numpy, found))


def beam_search(canvas: Union[Symbols, Graph], bound: Tensor, options: SearchOptions, eos: int) -> Prefixes:
    """The search that goes with what a model reads off its canvas."""
    search_it = path_beam_search if isinstance(canvas, Graph) else prefix_beam_search
    return search_it(canvas, bound, options, eos)
