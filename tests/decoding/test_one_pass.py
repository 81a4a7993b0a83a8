import itertools

import pytest
import torch
from torch import nn

from fairseq_convtext.decoding import one_pass
from fairseq_convtext.decoding.one_pass import best_symbols, read_ctc, read_position

BLANK, PAD, EOS = 0, 1, 2


def scores_to_symbols(scores, **options):
    project = nn.Identity()
    project.out_features = scores.size(2)
    return best_symbols(scores, project, **options)


def random_scores(seed, batch=6, positions=12, vocabulary=6):
    torch.manual_seed(seed)
    return torch.randn(batch, positions, vocabulary)


@pytest.mark.parametrize("seed", range(10))
def test_ctc_reading_is_the_collapsed_best_path(seed):
    scores, bound = random_scores(seed), torch.tensor([12, 11, 7, 3, 2, 1])
    found = read_ctc(scores_to_symbols(scores, forbidden=[PAD, EOS], blank=BLANK), bound, BLANK, EOS)
    scores[:, :, [PAD, EOS]] = float("-inf")
    log_probs = scores.log_softmax(dim=2)
    for row, n in enumerate(bound.tolist()):
        path = log_probs[row, :n].argmax(dim=1).tolist()
        wanted = [symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK]
        length = int(found.lengths[row])
        tokens = found.tokens[row, :length].tolist()
        if wanted:
            assert tokens == wanted + [EOS]
        else:  # nothing but blanks: the most certain token stands
            written = log_probs[row, :n].clone()
            written[:, BLANK] = float("-inf")
            assert tokens == [int(written.amax(dim=0).argmax()), EOS]
        for token, log_prob, position in zip(tokens[:-1], found.log_probs[row], found.positions[row]):
            assert float(log_prob) == pytest.approx(float(log_probs[row, position, token]), abs=1e-6)
        assert float(found.log_probs[row, length - 1]) == 0.0


def test_a_canvas_of_blanks_gives_its_most_certain_token_wherever_it_stands():
    scores = torch.zeros(1, 4, 5)
    scores[:, :, BLANK] = 9.0
    scores[0, 2, 4] = 3.0
    scores[0, 3, 3] = 2.0
    found = read_ctc(scores_to_symbols(scores, forbidden=[PAD, EOS], blank=BLANK), torch.tensor([4]), BLANK, EOS)
    assert found.tokens[0].tolist() == [4, EOS] and found.positions[0, 0] == 2


def test_a_blank_penalty_writes_more_and_a_large_one_everything():
    scores, bound = random_scores(0), torch.tensor([12, 11, 7, 3, 2, 1])
    symbols = scores_to_symbols(scores, forbidden=[PAD, EOS], blank=BLANK)
    before, after = (read_ctc(symbols, bound, BLANK, EOS, penalty) for penalty in (0.0, 1.0))
    assert (after.lengths >= before.lengths - 1).all() and after.lengths.sum() > before.lengths.sum()
    everything = read_ctc(symbols, bound, BLANK, EOS, 1e9)
    for row, n in enumerate(bound.tolist()):
        wanted = [symbol for symbol, _ in itertools.groupby(symbols.tokens[row, :n].tolist())]
        assert everything.tokens[row, : len(wanted)].tolist() == wanted


def test_a_token_is_scored_where_its_run_is_most_certain():
    path_scores = torch.full((1, 5, 5), -5.0)
    for position, (symbol, score) in enumerate([(3, 1.0), (3, 4.0), (BLANK, 3.0), (3, 2.0), (4, 1.0)]):
        path_scores[0, position, symbol] = score
    symbols = scores_to_symbols(path_scores, forbidden=[PAD, EOS], blank=BLANK)
    found = read_ctc(symbols, torch.tensor([5]), BLANK, EOS)
    assert found.tokens[0].tolist() == [3, 3, 4, EOS]
    assert found.positions[0, :3].tolist() == [1, 3, 4]
    assert found.adjacent[0].tolist() == [False, False, True, False]


@pytest.mark.parametrize("seed", range(10))
def test_position_reading_ends_at_the_first_eos_or_at_the_bound(seed):
    scores, bound = random_scores(seed), torch.tensor([12, 11, 7, 3, 2, 2])
    found = read_position(scores_to_symbols(scores, forbidden=[PAD, BLANK], not_first=EOS), bound, EOS)
    scores[:, :, [PAD, BLANK]] = float("-inf")
    log_probs = scores.log_softmax(dim=2)
    log_probs[:, 0, EOS] = float("-inf")
    for row, n in enumerate(bound.tolist()):
        wanted = list(itertools.takewhile(lambda s: s != EOS, log_probs[row, :n].argmax(dim=1).tolist()))
        length = int(found.lengths[row])
        assert found.tokens[row, :length].tolist() == wanted + [EOS]
        assert length >= 2
        ended = len(wanted) < n
        last = float(log_probs[row, len(wanted), EOS]) if ended else 0.0
        assert float(found.log_probs[row, length - 1]) == pytest.approx(last, abs=1e-6)


def test_scores_in_small_chunks_give_the_same_symbols(monkeypatch):
    scores = random_scores(0)
    options = {"ctc": {"forbidden": [PAD, EOS], "blank": BLANK}, "position": {"forbidden": [PAD], "not_first": EOS}}
    whole = {name: scores_to_symbols(scores, **options[name]) for name in options}
    monkeypatch.setitem(one_pass.CHUNK_ELEMENTS, "cpu", 20)
    monkeypatch.setattr(one_pass, "FEWEST_ROWS", 5)  # pieces of 5 rows, and sentences of 12
    for name in options:
        for found, wanted in zip(scores_to_symbols(scores, **options[name]), whole[name]):
            torch.testing.assert_close(found, wanted)


def test_scores_of_the_caller_are_left_alone():
    scores = random_scores(0)
    copy = scores.clone()
    scores_to_symbols(scores, forbidden=[PAD], blank=BLANK, not_first=EOS)
    assert torch.equal(scores, copy)
