"""``convtext_dag`` as fairseq calls it."""

import pytest
import torch

from fairseq_convtext.criterions.convtext_dag import ConvtextDagCriterion
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.dag import dag_loss
from tests.small_model import make_batch, make_model, make_task

SOURCES = [[4, 5, 6, 7, 8], [9], [10, 11, 4]]
# The second has more tokens than its canvas of 5 positions; the third's of 7, with jumps of 2, needs two at least.
TARGETS = [[4, 5, 5, 6], [7, 7, 7, 7], [8]]
FEASIBLE = [True, False, False]


def make(task, **options):
    model = make_model(task, target_alignment="dag", length_bound_a=1.0, length_bound_b=3.0, longest_jump=2)
    return ConvtextDagCriterion(task, sentence_avg=False, **options), model


def test_the_loss_is_that_of_the_sentences_that_fit_and_the_others_are_counted(caplog):
    task = make_task()
    criterion, model = make(task)
    batch = make_batch(SOURCES, TARGETS)
    losses, size, log = criterion(model, batch, reduce=False)
    logits, extra = model(**batch["net_input"])
    lengths = torch.tensor([len(target) for target in TARGETS])
    expected = dag_loss(logits, extra["links"], batch["target"][:, :-1], extra["bound"], lengths)
    assert expected.isfinite().tolist() == FEASIBLE
    torch.testing.assert_close(losses, expected.masked_fill(expected.isinf(), 0.0))
    assert size == batch["ntokens"] and int(log["infeasible"]) == 2 and int(log["scored"]) == 5
    assert "2 of 3 sentences of this batch do not fit their canvas" in caplog.text and "--longest-jump" in caplog.text
    losses.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    assert bool(model.decoder.alignment.links.weight.grad.any())


def test_a_step_along_the_gradient_makes_the_target_more_probable():
    task = make_task()
    criterion, model = make(task, glancing_ratio="0.5")
    batch, before = make_batch(SOURCES[:1], TARGETS[:1]), None
    for _ in range(5):
        loss, *_ = criterion(model.eval(), batch)
        assert before is None or loss < before
        before = loss
        model.train().zero_grad()
        criterion(model, batch)[0].backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01 * parameter.grad


@pytest.mark.parametrize("alignment", ["position", "ctc"])
def test_a_model_of_another_alignment_is_refused(alignment):
    task = make_task()
    criterion, _ = make(task)
    with pytest.raises(ConvTextError, match=f"needs --target-alignment dag; found --target-alignment {alignment}"):
        criterion(make_model(task, target_alignment=alignment), make_batch(SOURCES, TARGETS))
