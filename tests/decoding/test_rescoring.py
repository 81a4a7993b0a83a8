"""Models that judge given translations: what they say of each, and what follows for the order of a search."""

import itertools
import math

import pytest
import torch
from fairseq.sequence_scorer import SequenceScorer
from torch.nn.utils.rnn import pad_sequence

from fairseq_convtext.decoding import rescoring
from fairseq_convtext.decoding.prefix_beam import Prefixes, SearchOptions
from fairseq_convtext.decoding.rescoring import (
    IMPOSSIBLE,
    Judge,
    Judges,
    combined,
    is_autoregressive,
    judged_prefixes,
    judgements,
    translation_log_probs,
)
from fairseq_convtext.losses.ctc import reference_ctc_loss
from fairseq_convtext.losses.dag import dag_loss
from tests.models.test_bytenet import make_model as make_autoregressive
from tests.small_model import make_batch, make_model, make_task

PAD = 1
SOURCES = [[4, 5, 6, 7, 8, 9, 10], [9], [10, 11, 4]]
# Which source each of them translates; one source has none.
ROWS = [0, 2, 0, 0]
TRANSLATIONS = [[5, 6, 7, 8], [9, 10], [5, 5, 5], [11]]


KINDS = ["ctc", "dag", "autoregressive"]


def judge(kind, backwards=False):
    torch.manual_seed(1)
    if kind != "autoregressive":
        return Judge(make_model(target_alignment=kind, length_bound_b=4.0).eval(), backwards)
    return Judge(make_autoregressive().eval(), backwards)


def log_probs(judging, sources=SOURCES, rows=ROWS, translations=TRANSLATIONS, left_pad=False):
    targets = pad_sequence([torch.tensor(ids) for ids in translations], batch_first=True, padding_value=PAD)
    lengths = torch.tensor([len(ids) for ids in translations])
    net_input = make_batch(sources, left_pad=left_pad)["net_input"]
    return translation_log_probs(judging, net_input, torch.tensor(list(rows)), targets, lengths)


def test_an_autoregressive_judge_agrees_with_the_scorer_of_fairseq():
    judging = judge("autoregressive")
    batch = make_batch([SOURCES[row] for row in ROWS], TRANSLATIONS)
    scored = SequenceScorer(make_task().target_dictionary).generate([judging.model], batch)
    wanted = torch.stack([hypothesis[0]["positional_scores"].sum() for hypothesis in scored])
    torch.testing.assert_close(log_probs(judging), wanted, rtol=1e-5, atol=1e-4)


def test_a_ctc_judge_sums_over_the_alignments_of_the_canvas():
    judging = judge("ctc")
    batch = make_batch([SOURCES[row] for row in ROWS], TRANSLATIONS)
    with torch.no_grad():
        logits, extra = judging.model(**batch["net_input"])
    lengths = torch.tensor([len(ids) for ids in TRANSLATIONS])
    loss = reference_ctc_loss(logits, batch["target"], extra["bound"], lengths, judging.model.decoder.blank)
    torch.testing.assert_close(log_probs(judging), -loss, rtol=1e-5, atol=1e-4)


def test_a_judge_with_a_graph_sums_over_its_paths():
    judging = judge("dag")
    batch = make_batch([SOURCES[row] for row in ROWS], TRANSLATIONS)
    with torch.no_grad():
        logits, extra = judging.model(**batch["net_input"])
    lengths = torch.tensor([len(ids) for ids in TRANSLATIONS])
    loss = dag_loss(logits, extra["links"], batch["target"][:, :-1], extra["bound"], lengths)
    torch.testing.assert_close(log_probs(judging), -loss, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backwards_judge_finds_the_source_as_probable_as_a_forward_one_would_as_a_translation(kind):
    swapped = [SOURCES[row] for row in ROWS]
    wanted = log_probs(judge(kind), TRANSLATIONS, range(len(ROWS)), swapped)
    torch.testing.assert_close(log_probs(judge(kind, backwards=True)), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_judgement_depends_neither_on_padding_nor_on_other_sentences(kind, backwards):
    model = judge(kind, backwards)
    together = log_probs(model)
    torch.testing.assert_close(log_probs(model, left_pad=True), together, rtol=1e-5, atol=1e-4)
    for place, row in enumerate(ROWS):
        alone = log_probs(model, [SOURCES[row]], [0], [TRANSLATIONS[place]])
        torch.testing.assert_close(alone, together[place : place + 1], rtol=1e-5, atol=1e-4)


def test_a_translation_that_a_canvas_cannot_hold_is_not_forbidden_for_all():
    found = log_probs(judge("ctc"), [[9]], [0], [[5] * 20])
    assert found.tolist() == [IMPOSSIBLE]


def test_a_translation_that_a_judge_cannot_read_does_not_stop_the_others():
    tokens = torch.tensor([[[5, 6, 7, 8], [9, 10, 0, 0], [0, 0, 0, 0]]])
    prefixes = Prefixes(
        tokens, torch.zeros(1, 3, 4), torch.tensor([[4, 2, 0]]), torch.tensor([[-1.0, -2.0, -math.inf]])
    )
    net_input = make_batch([[4, 5]])["net_input"]
    for kind, backwards in itertools.product(KINDS, (False, True)):
        judging = judge(kind, backwards)
        wanted = judgements(judging, net_input, prefixes)
        part = judging.model.encoder if backwards else judging.model.decoder
        part.max_positions = lambda: 4  # EOS included
        found = judgements(judging, net_input, prefixes)
        torch.testing.assert_close(found[:, 1:], wanted[:, 1:], rtol=1e-5, atol=1e-4)
        reads_it = kind != "autoregressive" and not backwards
        assert float(found[0, 0]) == (float(wanted[0, 0]) if reads_it else IMPOSSIBLE)


@pytest.mark.parametrize("left_pad", [False, True])
def test_a_judge_has_no_say_on_a_source_longer_than_it_can_take_and_judges_the_others_as_before(left_pad):
    tokens = torch.tensor([[[5, 6, 7], [9, 10, 0]]]).repeat(3, 1, 1)
    prefixes = Prefixes(tokens, torch.zeros(3, 2, 3), torch.tensor([[3, 2]]).repeat(3, 1), -torch.ones(3, 2))
    net_input = make_batch(SOURCES, left_pad=left_pad)["net_input"]
    for kind, backwards in itertools.product(KINDS, (False, True)):
        judging = judge(kind, backwards)
        wanted = judgements(judging, net_input, prefixes)
        if backwards and kind != "autoregressive":  # its canvas decides
            judging.model.decoder.max_positions = lambda: 4
        else:
            part = judging.model.decoder if backwards else judging.model.encoder
            part.max_positions = lambda: 4  # EOS included
            wanted[0] = 0.0  # 7 tokens and EOS
        torch.testing.assert_close(judgements(judging, net_input, prefixes), wanted, rtol=1e-5, atol=1e-4)


def test_a_canvas_judges_the_same_a_few_sentences_at_a_time(monkeypatch):
    rows = [2, 0, 0, 2]  # none of sentence 1
    wanted = log_probs(judge("ctc"), rows=rows)
    monkeypatch.setattr(rescoring, "CANVAS_SCORES", 1)
    torch.testing.assert_close(log_probs(judge("ctc"), rows=rows), wanted)


def test_any_number_of_translations_is_judged(monkeypatch):
    for judging in (judge("autoregressive"), judge("autoregressive", backwards=True), judge("ctc", backwards=True)):
        wanted = log_probs(judging)
        monkeypatch.setattr(rescoring, "AT_ONCE", 3)
        torch.testing.assert_close(log_probs(judging), wanted, rtol=1e-5, atol=1e-4)
        monkeypatch.undo()


def test_an_encoder_that_changes_what_it_is_given_judges_all_alike(monkeypatch):
    judging = judge("autoregressive")
    rows = [2, 0, 0, 0]  # what is left of the first two would give the others to sentence 2
    wanted = log_probs(judging, rows=rows)

    def reorder_in_place(encoder_out, order):  # as fairseq's fconv does
        encoder_out["rows"] = encoder_out["rows"].index_select(0, order)
        return encoder_out

    monkeypatch.setattr(judging.model.encoder, "reorder_encoder_out", reorder_in_place)
    monkeypatch.setattr(rescoring, "AT_ONCE", 2)
    torch.testing.assert_close(log_probs(judging, rows=rows), wanted, rtol=1e-5, atol=1e-4)


def searched(judging, beam=6):
    """The model's canvas, searched."""
    model = judging.model
    batch = make_batch(SOURCES)
    with torch.no_grad():
        encoder_out = model.encoder(batch["net_input"]["src_tokens"])
    return model.decoder.search(encoder_out, SearchOptions(beam, least_probability=0.0)), batch["net_input"]


def tokens_of(prefixes, row, place):
    return tuple(prefixes.tokens[row, place, : prefixes.lengths[row, place]].tolist())


def test_judges_without_weight_leave_the_order_of_the_search():
    prefixes, net_input = searched(judge("ctc"))
    found = judged_prefixes(prefixes, net_input, Judges([judge("autoregressive")], [0.0], 0.0))
    for row in range(len(SOURCES)):
        kept = [tokens_of(prefixes, row, place) for place in range(6) if prefixes.lengths[row, place]]
        assert [tokens_of(found, row, place) for place in range(len(kept))] == kept
        assert found.score[row, : len(kept)].tolist() == sorted(found.score[row, : len(kept)].tolist(), reverse=True)


def test_only_the_best_of_the_search_are_judged_where_that_is_asked_for():
    prefixes, net_input = searched(judge("ctc"))
    found = judged_prefixes(prefixes, net_input, Judges([judge("autoregressive")], [1e6], 0.0, most=2))
    for row in range(len(SOURCES)):
        assert {tokens_of(found, row, place) for place in range(2)} == {tokens_of(prefixes, row, n) for n in range(2)}
    assert found.score.size(1) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_with_all_the_weight_decides(kind):
    model = judge(kind)
    prefixes, net_input = searched(judge("ctc"))
    found = judged_prefixes(prefixes, net_input, Judges([model], [1e6], 0.0))
    for row in range(len(SOURCES)):
        candidates = [tokens_of(prefixes, row, place) for place in range(6) if prefixes.lengths[row, place]]
        opinions = log_probs(model, SOURCES, [row] * len(candidates), [list(ids) for ids in candidates])
        assert tokens_of(found, row, 0) == candidates[int(opinions.argmax())]


def test_neither_the_empty_prefix_nor_an_empty_place_of_the_beam_can_win():
    tokens = torch.tensor([[[5, 6], [0, 0], [0, 0]]])
    lengths, score = torch.tensor([[2, 0, 0]]), torch.tensor([[-9.0, -1.0, -math.inf]])
    prefixes = Prefixes(tokens, torch.zeros(1, 3, 2), lengths, score)
    net_input, model = make_batch([[4, 5]])["net_input"], judge("autoregressive")
    assert judgements(model, net_input, prefixes)[0, 1:].tolist() == [0.0, 0.0]
    assert tokens_of(judged_prefixes(prefixes, net_input, Judges([model], [1.0])), 0, 0) == (5, 6)


def test_a_bonus_counts_for_every_token():
    prefixes = Prefixes(
        torch.zeros(1, 2, 3, dtype=torch.long),
        torch.zeros(1, 2, 3),
        torch.tensor([[1, 3]]),
        torch.tensor([[-1.0, -3.0]]),
    )
    judged = [torch.tensor([[-2.0, -10.0]])]
    torch.testing.assert_close(combined(prefixes, judged, [0.5], 1.0), torch.tensor([[-1.0, -5.0]]))


def test_a_parallel_model_of_fairseq_is_not_taken_for_an_autoregressive_one():
    class Parallel:
        encoder, decoder, allow_length_beam = object(), object(), True

    class Autoregressive:
        encoder, decoder = object(), object()

    assert is_autoregressive(Autoregressive()) and not is_autoregressive(Parallel())
