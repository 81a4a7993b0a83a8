import itertools
import math

import pytest
import torch

from fairseq_convtext.decoding.ngram import train_ngram
from fairseq_convtext.decoding.one_pass import Symbols
from fairseq_convtext.decoding.prefix_beam import (
    SearchOptions,
    hypothesis_at,
    no_longer_than,
    prefix_beam_search,
)

EOS, START = 0, 5
TOKENS = (1, 2, 3)
WIDE = SearchOptions(beam=400, candidates=len(TOKENS), least_probability=0.0)


def random_canvas(seed, batch=2, positions=5, sharpness=2.0):
    """Log-probabilities with the blank in column 0, and the candidates that a search takes, all tokens in order."""
    torch.manual_seed(seed)
    log_probs = (sharpness * torch.randn(batch, positions, 1 + len(TOKENS))).log_softmax(dim=2)
    tokens = torch.tensor(TOKENS).expand(batch, positions, -1)
    return log_probs, Symbols(tokens, log_probs[:, :, 1:], log_probs[:, :, 0])


def sums_over_alignments(log_probs):
    """{tokens: probability} of one canvas ``(positions, symbols)``, by trying every path."""
    totals = {}
    for path in itertools.product(range(log_probs.size(1)), repeat=log_probs.size(0)):
        tokens = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        probability = math.exp(sum(log_probs[t, symbol].item() for t, symbol in enumerate(path)))
        totals[tokens] = totals.get(tokens, 0.0) + probability
    return totals


def beams(found, row):
    """{tokens: score} of one sentence, impossible beams left out."""
    return {
        tuple(tokens[:length].tolist()): float(score)
        for tokens, length, score in zip(found.tokens[row], found.lengths[row], found.score[row])
        if score > -1e30
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_wide_enough_finds_every_prefix_with_the_sum_over_its_alignments(seed):
    log_probs, symbols = random_canvas(seed)
    bound = torch.tensor([5, 3])
    found = prefix_beam_search(symbols, bound, WIDE, EOS)
    for row, length in enumerate(bound.tolist()):
        wanted = sums_over_alignments(log_probs[row, :length])
        scores = beams(found, row)
        assert set(scores) == set(wanted)
        for tokens, score in scores.items():
            assert math.exp(score) == pytest.approx(wanted[tokens], rel=1e-4)
        best = found.tokens[row, 0, : found.lengths[row, 0]].tolist()
        assert tuple(best) == max((tokens for tokens in wanted if tokens), key=wanted.get)


@pytest.mark.parametrize("seed", range(4))
def test_language_model_and_bonus_are_added_to_the_score(seed):
    log_probs, symbols = random_canvas(seed, batch=1)
    texts = [[1, 2, 1], [2, 2, 3], [3, 1], [1, 2]]
    lm = train_ngram(texts, order=3, vocabulary=6, start=START, eos=EOS)
    options = WIDE._replace(lm=lm, lm_weight=0.7, token_bonus=0.4)
    scores = beams(prefix_beam_search(symbols, torch.tensor([5]), options, EOS), 0)
    for tokens, probability in sums_over_alignments(log_probs[0]).items():
        history = [START, START, *tokens]
        language = sum(
            float(lm.score(torch.tensor(history[i : i + 2]), torch.tensor([token])))
            for i, token in enumerate([*tokens, EOS])
        )
        wanted = math.log(probability) + 0.7 * language + 0.4 * len(tokens)
        assert scores[tokens] == pytest.approx(wanted, abs=1e-3)


def test_a_narrow_beam_is_never_better_than_a_wide_one():
    _, symbols = random_canvas(7, batch=20, positions=12, sharpness=1.0)
    bound = torch.full((20,), 12)
    narrow = prefix_beam_search(symbols, bound, WIDE._replace(beam=3), EOS)
    wide = prefix_beam_search(symbols, bound, WIDE._replace(beam=100), EOS)
    assert (narrow.score[:, 0] <= wide.score[:, 0] + 1e-4).all()
    assert (narrow.score[:, 0] < wide.score[:, 0] - 1e-4).any()


def test_a_sentence_does_not_depend_on_its_batch():
    _, symbols = random_canvas(3, batch=4, positions=9)
    bound = torch.tensor([9, 2, 6, 1])
    together = prefix_beam_search(symbols, bound, WIDE._replace(beam=8), EOS)
    for row, length in enumerate(bound.tolist()):
        part = Symbols(*(table[row : row + 1, :length] for table in symbols))
        alone = prefix_beam_search(part, bound[row : row + 1], WIDE._replace(beam=8), EOS)
        assert beams(together, row) == pytest.approx(beams(alone, 0), abs=1e-5)


def test_a_certain_blank_separates_equal_tokens():
    # 1, certain blank, 1, certain blank: two tokens, not one repeated.
    log_probs = torch.full((1, 4, 4), 1e-6)
    for position, symbol in enumerate([1, 0, 1, 0]):
        log_probs[0, position, symbol] = 1.0
    log_probs = log_probs.log()
    tokens = torch.tensor(TOKENS).expand(1, 4, -1)
    symbols = Symbols(tokens, log_probs[:, :, 1:], log_probs[:, :, 0])
    found = prefix_beam_search(symbols, torch.tensor([4]), WIDE._replace(beam=4), EOS)
    assert found.tokens[0, 0, :2].tolist() == [1, 1] and found.lengths[0, 0] == 2


@pytest.mark.parametrize("seed", range(3))
def test_positions_where_only_the_blank_is_tried_count_as_any_other(seed):
    log_probs, _ = random_canvas(seed, batch=1)
    for silent in (1, 3):
        log_probs[0, silent] = math.log(1e-4)
        log_probs[0, silent, 0] = math.log(0.9997)
    symbols = Symbols(torch.tensor(TOKENS).expand(1, 5, -1), log_probs[:, :, 1:], log_probs[:, :, 0])
    found = prefix_beam_search(symbols, torch.tensor([5]), WIDE._replace(least_probability=1e-3), EOS)
    tried = log_probs[0].clone()
    tried[[1, 3], 1:] = -math.inf
    wanted = {tokens: total for tokens, total in sums_over_alignments(tried).items() if total > 0}
    scores = beams(found, 0)
    assert set(scores) == set(wanted) and (1, 1, 1) in wanted
    for tokens, score in scores.items():
        assert math.exp(score) == pytest.approx(wanted[tokens], rel=1e-4)


def test_no_hypothesis_is_empty_and_every_one_ends_in_eos():
    log_probs = torch.tensor([0.9, 0.05, 0.03, 0.02]).log().expand(1, 3, -1)
    symbols = Symbols(torch.tensor(TOKENS).expand(1, 3, -1), log_probs[:, :, 1:], log_probs[:, :, 0])
    best, scores = hypothesis_at(prefix_beam_search(symbols, torch.tensor([3]), WIDE, EOS), 0, EOS)
    assert best.tokens.tolist() == [[1, EOS]] and best.lengths.tolist() == [2]
    assert float(scores) < 0.0


def test_a_canvas_of_certain_blanks_gives_its_most_certain_token():
    log_probs = torch.full((2, 3, 4), 1e-7)
    log_probs[:, :, 0] = 1.0
    log_probs[1, 2, 3] = 1e-5
    log_probs = log_probs.log()
    symbols = Symbols(torch.tensor(TOKENS).expand(2, 3, -1), log_probs[:, :, 1:], log_probs[:, :, 0])
    best, _ = hypothesis_at(prefix_beam_search(symbols, torch.tensor([1, 3]), WIDE._replace(beam=4), EOS), 0, EOS)
    assert best.lengths.tolist() == [2, 2] and best.tokens[1].tolist() == [3, EOS]


def test_no_prefix_is_in_the_beam_twice():
    _, symbols = random_canvas(11, batch=3, positions=8, sharpness=1.0)
    found = prefix_beam_search(symbols, torch.tensor([8, 8, 5]), WIDE._replace(beam=200), EOS)
    for row in range(3):
        possible = [
            tuple(tokens[:length].tolist())
            for tokens, length, score in zip(found.tokens[row], found.lengths[row], found.score[row])
            if score > -1e30
        ]
        assert len(possible) == len(set(possible)) > 100


@pytest.mark.parametrize("seed", range(20))
def test_a_prefix_that_comes_back_leaves_the_certainty_of_longer_ones_alone(seed):
    # A narrow beam loses prefixes that longer ones in it begin with, and finds them again at later positions.
    _, symbols = random_canvas(seed, batch=1, positions=10, sharpness=1.0)
    found = prefix_beam_search(symbols, torch.tensor([10]), WIDE._replace(beam=5), EOS)
    best, written = found.tokens[0, 0, : found.lengths[0, 0]].tolist(), found.certainty[0, 0].tolist()
    # There are positions in order that wrote the tokens with these log-probabilities.
    position = 0
    for token, certainty in zip(best, written):
        column = symbols.log_probs[0, :, TOKENS.index(token)].tolist()
        position = column.index(pytest.approx(certainty), position) + 1


def test_a_beam_too_narrow_for_any_token_gives_the_most_certain_one():
    log_probs = torch.tensor([[[0.98, 0.01, 0.006, 0.004], [0.9, 0.05, 0.03, 0.02]]]).log()
    symbols = Symbols(torch.tensor([[TOKENS, TOKENS[::-1]]]), log_probs[:, :, 1:], log_probs[:, :, 0])
    best, _ = hypothesis_at(prefix_beam_search(symbols, torch.tensor([2]), SearchOptions(beam=1), EOS), 0, EOS)
    assert best.tokens.tolist() == [[TOKENS[2], EOS]]


def test_orders_beyond_the_text_and_unseen_histories_are_scored_as_the_model_scores_them():
    _, symbols = random_canvas(5, batch=3, positions=6)
    lm = train_ngram([[1], [3, 2]], order=4, vocabulary=6, start=START, eos=EOS)
    found = prefix_beam_search(symbols, torch.tensor([6, 6, 4]), WIDE._replace(lm=lm, lm_weight=1.0), EOS)
    plain = prefix_beam_search(symbols, torch.tensor([6, 6, 4]), WIDE, EOS)
    for row in range(3):
        without = beams(plain, row)
        for tokens, score in beams(found, row).items():
            history = [START] * 3 + [*tokens, EOS]
            language = sum(
                float(lm.score(torch.tensor(history[i : i + 3]), torch.tensor([history[i + 3]])))
                for i in range(len(tokens) + 1)
            )
            assert score == pytest.approx(without[tokens] + language, abs=1e-3)


def test_a_token_below_the_least_probability_is_not_tried_where_it_is_improbable():
    tokens = torch.tensor([[[5, 6], [5, 6]]])
    log_probs = torch.tensor([[[0.9, 0.02], [0.5, 0.4]]]).log()
    symbols = Symbols(tokens, log_probs, torch.tensor([[0.08, 0.1]]).log())

    def found_by(least):
        options = SearchOptions(beam=20, candidates=2, least_probability=least)
        prefixes = prefix_beam_search(symbols, torch.tensor([2]), options, EOS)
        return {tuple(row[:length].tolist()) for row, length in zip(prefixes.tokens[0], prefixes.lengths[0])}

    assert (6, 5) in found_by(0.0) and (6, 5) in found_by(0.01)
    assert (6, 5) not in found_by(0.03) and {(5, 6), (6,), (5,)} <= found_by(0.03)


def test_prefixes_that_are_too_long_are_passed_over_and_the_others_keep_their_order():
    _, symbols = random_canvas(3)
    found = prefix_beam_search(symbols, torch.tensor([5, 5]), WIDE, EOS)
    assert no_longer_than(found, torch.tensor([5, 5]))[0] is found
    limits = torch.tensor([2, 5])
    shorter, cut = no_longer_than(found, limits)
    assert cut.tolist() == [False, False]
    for row, limit in enumerate(limits.tolist()):
        kept = [(tokens, score) for tokens, score in beams(found, row).items() if len(tokens) <= limit]
        assert list(beams(shorter, row).items()) == kept
    assert next(iter(beams(shorter, 1))) == next(iter(beams(found, 1)))
    lengths = torch.stack([hypothesis_at(shorter, place, EOS)[0].lengths for place in range(WIDE.beam)])
    assert lengths[:, 0].max() == 3 and lengths[:, 1].max() == 6  # with EOS


@pytest.mark.parametrize("limit, length", [(2, 2), (1, 1), (0, 1)])
def test_the_best_of_prefixes_that_are_all_too_long_is_cut_and_the_other_sentences_are_as_they_were(limit, length):
    symbols = random_canvas(3, positions=7, sharpness=8.0)[1]
    found = prefix_beam_search(symbols, torch.tensor([7, 7]), WIDE._replace(beam=3), EOS)
    assert found.lengths[1].min() > 2
    shorter, cut = no_longer_than(found, torch.tensor([7, limit]))
    assert cut.tolist() == [False, True]
    (one, score), *others = beams(shorter, 1).items()
    assert list(one) == found.tokens[1, 0, :length].tolist() and not others
    assert score == found.score[1, 0]
    assert beams(shorter, 0) == beams(found, 0)
