"""The search of a directed acyclic canvas against all paths and all tokens, one by one."""

import itertools
import math

import pytest
import torch

from fairseq_convtext.decoding.ngram import train_ngram
from fairseq_convtext.decoding.path_beam import Graph, path_beam_search
from fairseq_convtext.decoding.prefix_beam import SearchOptions
from fairseq_convtext.modules.links import Links

EOS, TOKENS = 2, [4, 5, 6]
BOUND = torch.tensor([7, 4])
WIDE = SearchOptions(beam=400, candidates=len(TOKENS), least_probability=0.0)


def graph(seed, jumps=3):
    torch.manual_seed(seed)
    links = Links(5, jumps)(2 * torch.randn(2, 7, 5), BOUND).detach()
    log_probs, order = (2 * torch.randn(2, 7, len(TOKENS))).log_softmax(dim=2).sort(dim=2, descending=True)
    return Graph(torch.tensor(TOKENS)[order], log_probs, links)


def all_translations(canvas, row):
    """Every translation with its probability, summed over the paths that write it."""
    last, found = int(BOUND[row]) - 1, {}
    for length in range(last):
        for positions in itertools.combinations(range(1, last), length):
            stations = [0, *positions, last]
            jumps = [end - start for start, end in zip(stations, stations[1:])]
            if max(jumps) > canvas.links.size(2):
                continue
            way = sum(float(canvas.links[row, start, jump - 1]) for start, jump in zip(stations, jumps))
            for choice in itertools.product(range(len(TOKENS)), repeat=length):
                tokens = tuple(int(canvas.tokens[row, place, k]) for place, k in zip(positions, choice))
                written = sum(float(canvas.log_probs[row, place, k]) for place, k in zip(positions, choice))
                found[tokens] = found.get(tokens, 0.0) + math.exp(way + written)
    return found


def beams(found, row):
    """Tokens and score of every hypothesis, best first."""
    there = found.score[row] > -math.inf
    lengths = found.lengths[row][there].tolist()
    texts = [tuple(ids[:length].tolist()) for ids, length in zip(found.tokens[row][there], lengths)]
    return dict(zip(texts, found.score[row][there].tolist()))


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_search_finds_every_translation_with_the_sum_of_its_paths(seed):
    canvas = graph(seed)
    found = path_beam_search(canvas, BOUND, WIDE, EOS)
    for row in range(2):
        expected, mine = all_translations(canvas, row), beams(found, row)
        assert len(expected) > 12
        ranked = sorted((tokens for tokens in expected if tokens), key=lambda tokens: -expected[tokens])
        assert list(mine)[0] == ranked[0]
        for tokens in ranked[:100]:
            assert mine[tokens] == pytest.approx(math.log(expected[tokens]), abs=1e-4)


def test_the_language_model_and_the_bonus_add_what_they_say():
    canvas, row = graph(3), 0
    lm = train_ngram([[4, 5, 6], [4, 4, 5], [6, 5]], 3, 7, 0, EOS)
    options = WIDE._replace(lm=lm, lm_weight=0.7, token_bonus=0.4)
    found, expected = beams(path_beam_search(canvas, BOUND, options, EOS), row), all_translations(canvas, row)
    assert len(found) > 50
    for tokens, score in list(found.items())[:50]:
        text = torch.tensor([[0, 0, *tokens, EOS]])
        spoken = sum(float(lm.score(text[:, at - 2 : at], text[:, at])) for at in range(2, text.size(1)))
        total = math.log(expected[tokens]) + 0.7 * spoken + 0.4 * len(tokens)
        assert score == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_narrow_search_finds_translations_of_the_canvas_and_never_more_than_their_probability(beam):
    canvas = graph(4)
    found = path_beam_search(canvas, BOUND, WIDE._replace(beam=beam), EOS)
    for row in range(2):
        expected, mine = all_translations(canvas, row), beams(found, row)
        assert 1 <= len(mine) <= beam and list(mine)[0]
        assert list(mine.values()) == sorted(mine.values(), reverse=True)
        for tokens, score in mine.items():
            assert score <= math.log(expected[tokens]) + 1e-4


def test_where_only_the_empty_translation_has_a_path_the_surest_token_is_taken():
    canvas = graph(0)
    links = torch.full_like(canvas.links, -math.inf)
    links[1, 0, 2] = 0.0  # four positions: at once to the last one; the first sentence has no path at all
    found = path_beam_search(canvas._replace(links=links), BOUND, WIDE._replace(beam=3), EOS)
    for row, bound in enumerate(BOUND.tolist()):
        surest = 1 + int(canvas.log_probs[row, 1 : bound - 1, 0].argmax())
        expected = {(int(canvas.tokens[row, surest, 0]),): float(canvas.log_probs[row, surest, 0])}
        assert beams(found, row) == pytest.approx(expected)


def test_the_search_does_not_depend_on_the_batch():
    canvas = graph(5)
    together = path_beam_search(canvas, BOUND, WIDE._replace(beam=4), EOS)
    for row, bound in enumerate(BOUND.tolist()):
        mine = Graph(*(table[row : row + 1, :bound] for table in canvas))
        alone = path_beam_search(mine, BOUND[row : row + 1], WIDE._replace(beam=4), EOS)
        assert beams(alone, 0) == beams(together, row)
