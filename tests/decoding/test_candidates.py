"""What a search tries: the best symbols of each position, in parts or at once, and nothing of what lies beyond."""

import pytest
import torch
from torch import nn

from fairseq_convtext.decoding import one_pass
from fairseq_convtext.decoding.candidates import SearchProjection
from fairseq_convtext.modules.int8 import Int8Linear
from fairseq_convtext.modules.masking import padding_mask
from tests.int8 import needs_int8

IDS = torch.tensor([5, 9, 2, 7, 11, 4, 0])  # the blank is 0


def make_projection(int8=False):
    torch.manual_seed(0)
    project = nn.Linear(8, 12)
    nn.init.normal_(project.bias)
    project = Int8Linear(project.weight, project.bias) if int8 else project
    return SearchProjection(IDS, project), project


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def canvas():
    torch.manual_seed(1)
    return torch.randn(3, 6, 8), torch.tensor([6, 2, 4])


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=needs_int8)])
def test_they_are_the_best_of_all_scores(int8):
    (projection, project), (features, bound) = make_projection(int8), canvas()
    symbols = projection.best_candidates(features, bound, 3)
    # In int8 with a scale for each sentence.
    scores = project.convolved(features, padding_mask(bound, 6), 1, 1) if int8 else project(features)
    scores = scores[:, :, IDS]
    best = scores[:, :, :-1].topk(3, dim=2)
    among = torch.cat([best.values, scores[:, :, -1:]], dim=2).log_softmax(dim=2)
    for sentence, size in enumerate(bound.tolist()):
        assert torch.equal(symbols.tokens[sentence, :size], IDS[best.indices[sentence, :size]])
        torch.testing.assert_close(symbols.log_probs[sentence, :size], among[sentence, :size, :-1])
        torch.testing.assert_close(symbols.blank_log_probs[sentence, :size], among[sentence, :size, -1])


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=needs_int8)])
def test_what_lies_beyond_a_bound_is_not_read(int8):
    (projection, _), (features, bound) = make_projection(int8), canvas()
    wanted = projection.best_candidates(features, bound, 3)
    features[1, 2:], features[2, 4:] = float("nan"), float("nan")
    found = projection.best_candidates(features, bound, 3)
    for one, other in zip(found, wanted):
        assert torch.equal(one, other)
        assert not bool(one[1, 2:].any()) and not bool(one[2, 4:].any())


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=needs_int8)])
def test_parts_give_what_the_whole_gives(int8, monkeypatch):
    (projection, _), (features, bound) = make_projection(int8), canvas()
    whole = projection.best_candidates(features, bound, 3)
    monkeypatch.setitem(one_pass.CHUNK_ELEMENTS, "cpu", 5 * len(IDS))
    monkeypatch.setattr(one_pass, "FEWEST_ROWS", 1)  # parts of 5, 5 and 2 rows
    for one, other in zip(projection.best_candidates(features, bound, 3), whole):
        torch.testing.assert_close(one, other)


@needs_int8
def test_in_int8_a_sentence_does_not_depend_on_its_batch_mates():
    (projection, _), (features, bound) = make_projection(int8=True), canvas()
    features[0] *= 1000
    together = projection.best_candidates(features, bound, 3)
    alone = projection.best_candidates(features[1:2], bound[1:2], 3)
    for one, other in zip(together, alone):
        assert torch.equal(one[1:2], other)


def test_there_are_no_more_than_may_be_written():
    (projection, _), (features, bound) = make_projection(), canvas()
    symbols = projection.best_candidates(features, bound, 10)
    assert symbols.tokens.shape == (3, 6, 6)
    assert sorted(symbols.tokens[0, 0].tolist()) == sorted(IDS[:-1].tolist())
