"""``convtext_ctc`` as fairseq calls it: a model, a batch, a loss to divide and what is logged."""

import math

import pytest
import torch
from fairseq.dataclass.configs import DistributedTrainingConfig
from fairseq.logging import metrics
from fairseq.models import DistributedFairseqModel

from fairseq_convtext.criterions import canvas_teacher
from fairseq_convtext.criterions.convtext_ctc import ConvtextCtcCriterion, ConvtextCtcReferenceCriterion
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.ctc import ctc_loss
from fairseq_convtext.losses.distillation import distillation_loss
from tests.small_model import make_batch, make_model, make_task

SOURCES = [[4, 5, 6, 7, 8], [9], [10, 11, 4]]
# The second needs 7 positions (three blanks between repeats) and its source offers ceil(1 * 2 + 3) = 5.
TARGETS = [[4, 5, 5, 6], [7, 7, 7, 7], [8, 9, 10]]
INFEASIBLE = 1


@pytest.fixture
def task():
    return make_task()


@pytest.fixture
def model(task):
    return make_model(task, target_alignment="ctc", length_bound_a=1.0, length_bound_b=3.0)


def make_criterion(task, kind=ConvtextCtcCriterion, **options):
    return kind(task, **{"sentence_avg": False, "glancing_ratio": "0", **options})


def step(criterion, model, batch, **options):
    """The criterion's answer, and the gradient of every parameter by name."""
    model.zero_grad()
    loss, sample_size, log = criterion(model, batch, **options)
    loss.sum().backward()
    return loss, sample_size, log, {name: p.grad for name, p in model.named_parameters()}


def test_loss_and_gradients_equal_the_reference(task, model):
    batch = make_batch(SOURCES, TARGETS)
    loss, size, log, gradients = step(make_criterion(task), model, batch)
    wanted, wanted_size, wanted_log, wanted_gradients = step(
        make_criterion(task, ConvtextCtcReferenceCriterion), model, batch
    )
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-4, atol=1e-4)
    assert size == wanted_size == batch["ntokens"] == 14
    assert log["infeasible"] == wanted_log["infeasible"] == 1


def test_an_infeasible_sentence_is_counted_and_teaches_nothing_and_the_first_one_is_told(task, model, caplog):
    criterion = make_criterion(task)
    losses, *_, gradients = step(criterion, model, make_batch(SOURCES, TARGETS), reduce=False)
    step(criterion, model, make_batch(SOURCES, TARGETS))
    assert caplog.text.count("1 of 3 sentences of this batch do not fit their canvas") == 1
    assert losses.eq(0.0).tolist() == [False, True, False]
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    others = [i for i in range(len(SOURCES)) if i != INFEASIBLE]
    rest = make_batch([SOURCES[i] for i in others], [TARGETS[i] for i in others])
    loss, _, log, without = step(criterion, model, rest)
    assert log["infeasible"] == 0
    torch.testing.assert_close(losses.sum(), loss)
    torch.testing.assert_close(gradients, without, rtol=1e-4, atol=1e-5)


def test_the_side_of_the_source_padding_does_not_matter(task, model):
    criterion = make_criterion(task)
    right, _, _, right_gradients = step(criterion, model, make_batch(SOURCES, TARGETS, left_pad=False))
    left, _, _, left_gradients = step(criterion, model, make_batch(SOURCES, TARGETS, left_pad=True))
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(left_gradients, right_gradients)


def test_an_empty_target_is_a_canvas_of_blanks(task, model):
    batch = make_batch([[4, 5]], [[]])
    loss, *_ = step(make_criterion(task), model, batch)
    logits, extra = model(**batch["net_input"])
    blanks = logits.log_softmax(dim=2)[0, : int(extra["bound"]), task.target_dictionary.bos()]
    torch.testing.assert_close(loss, -blanks.sum())


def test_sentence_avg_divides_by_sentences(task, model):
    batch = make_batch(SOURCES, TARGETS)
    by_token, tokens, *_ = step(make_criterion(task), model, batch)
    by_sentence, sentences, log, _ = step(make_criterion(task, sentence_avg=True), model, batch)
    assert (tokens, sentences) == (14, 3) and log["sample_size"] == 3
    torch.testing.assert_close(by_sentence, by_token)


def test_what_is_logged_is_bits_per_token_that_fits_and_the_sum_of_infeasible_sentences(task, model):
    criterion = make_criterion(task)
    logs = [
        criterion(model, make_batch(SOURCES, TARGETS))[2],
        criterion(model, make_batch(SOURCES[:2], TARGETS[:2]))[2],
    ]
    with metrics.aggregate() as aggregator:
        for log in logs:
            criterion.reduce_metrics([log])
    found = aggregator.get_smoothed_values()
    nats, tokens = sum(float(log["loss"]) for log in logs), 9 + 5  # without the five of the second sentence
    assert found["loss"] == pytest.approx(nats / tokens / math.log(2), abs=1e-3)
    assert found["infeasible"] == 2


def test_the_logged_loss_of_sentences_that_fit_does_not_depend_on_others_and_is_infinite_without_any(task, model):
    def logged(places, **options):
        criterion = make_criterion(task, **options)
        batch = make_batch([SOURCES[i] for i in places], [TARGETS[i] for i in places])
        with metrics.aggregate() as aggregator:
            criterion.reduce_metrics([criterion(model, batch)[2]])
        return aggregator.get_smoothed_values()["loss"]

    for options in ({}, {"sentence_avg": True}, {"consistency": 0.5}):
        assert logged([0, INFEASIBLE, 2], **options) == pytest.approx(logged([0, 2], **options), abs=2e-3)
        assert logged([INFEASIBLE], **options) == math.inf


@pytest.fixture
def one_process_group(tmp_path):
    """torch.distributed with this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


def test_a_model_in_fairseqs_wrapper_for_several_processes_gives_the_same_loss(task, model, one_process_group):
    options = DistributedTrainingConfig(ddp_backend="legacy_ddp", distributed_world_size=1, tpu=False)
    wrapper = DistributedFairseqModel(options, model, one_process_group, torch.device("cpu"))
    criterion, batch = make_criterion(task, glancing_ratio="0.5:0.3@10"), make_batch(SOURCES, TARGETS)
    found = []
    for trained in (wrapper.train(), model.train()):
        torch.manual_seed(1)
        found.append(criterion(trained, batch)[0])
    torch.testing.assert_close(*found)
    found[0].backward()
    wrapper.all_reduce_grads()  # fairseq flattens the gradients for it


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_parameter_learns_with_glancing(task, dtype):
    model = make_model(task, target_alignment="ctc", length_bound_a=2.0, length_bound_b=3.0, compute_dtype=dtype)
    *_, gradients = step(make_criterion(task, glancing_ratio="0.5"), model.train(), make_batch(SOURCES, TARGETS))
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []


def test_glancing_changes_the_loss_in_training_only(task, model):
    plain, glancing = make_criterion(task), make_criterion(task, glancing_ratio="1")
    batch = make_batch(SOURCES, TARGETS)
    assert float(glancing(model.train(), batch)[0]) != float(plain(model, batch)[0])
    assert float(glancing(model.eval(), batch)[0]) == float(plain(model, batch)[0])


def test_consistency_trains_on_two_readings_and_costs_nothing_where_they_are_equal(task, model):
    batch = make_batch(SOURCES, TARGETS)
    plain = step(make_criterion(task), model.train(), batch)
    twice = step(make_criterion(task, consistency=5.0), model.train(), batch)
    # Without dropout both readings are the same.
    torch.testing.assert_close(twice[0], plain[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(twice[3], plain[3], rtol=1e-4, atol=1e-4)
    assert twice[1:3] == plain[1:3]
    losses, *_ = step(make_criterion(task, consistency=5.0), model, batch, reduce=False)
    assert losses.shape == (3,) and losses[INFEASIBLE] == 0.0

    noisy = make_model(task, target_alignment="ctc", length_bound_a=1.0, length_bound_b=3.0, dropout=0.3).train()
    noisy.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    small, *_ = step(make_criterion(task, consistency=0.1), noisy, batch)
    torch.manual_seed(1)
    large, *_ = step(make_criterion(task, consistency=5.0), noisy, batch)
    assert large > small
    losses, *_ = step(make_criterion(task, consistency=5.0), noisy, batch, reduce=False)
    assert losses.eq(0.0).tolist() == [False, True, False]  # no canvas that cannot hold its target teaches anything
    # In evaluation there is one reading.
    torch.testing.assert_close(step(make_criterion(task, consistency=5.0), noisy.eval(), batch)[0], plain[0])


@pytest.fixture
def load_teacher(task, monkeypatch):
    """What stands for the checkpoint of a model made with some options; it draws random numbers, as building does."""

    def prepare(backwards=False, **options):
        def load_companion(path, task, role):
            torch.manual_seed(2)
            return make_model(task, **{"length_bound_a": 1.0, "length_bound_b": 3.0, **options}), backwards

        monkeypatch.setattr(canvas_teacher, "load_companion", load_companion)
        return load_companion("", task, "")[0].eval()

    return prepare


@pytest.mark.parametrize("consistency", [0.0, 0.5])
def test_a_canvas_teacher_adds_its_weighted_divergence_in_training_only(task, model, load_teacher, consistency):
    teacher = load_teacher(target_alignment="ctc", encoder_layers=2, dropout=0.5)
    batch = make_batch(SOURCES, TARGETS)
    options = {"consistency": consistency, "canvas_teacher": "teacher.pt"}
    plain = step(make_criterion(task), model.train(), batch, reduce=False)[0]
    taught = step(make_criterion(task, **options, canvas_teacher_weight=0.5), model, batch, reduce=False)
    with torch.no_grad():
        own, told = (m(**batch["net_input"]) for m in (model, teacher))
    divergence = distillation_loss(own[0], told[0], own[1]["bound"])
    assert divergence.min() > 0.1
    wanted = (plain + 0.5 * divergence).masked_fill(plain.eq(0.0), 0.0)
    torch.testing.assert_close(taught[0], wanted, rtol=1e-4, atol=1e-4)
    assert all(gradient.isfinite().all() for gradient in taught[3].values())
    criterion = make_criterion(task, **options)
    assert float(criterion(model.eval(), batch)[0].detach()) == pytest.approx(float(plain.detach().sum()), rel=1e-5)
    assert list(criterion.parameters()) == [] and criterion.state_dict() == {}


def test_a_student_like_its_canvas_teacher_has_the_gradient_of_its_targets_alone(task, load_teacher):
    model = load_teacher(target_alignment="ctc")
    batch = make_batch(SOURCES, TARGETS)
    *_, plain = step(make_criterion(task), model.train(), batch)
    *_, taught = step(make_criterion(task, canvas_teacher="teacher.pt"), model, batch)
    torch.testing.assert_close(taught, plain, rtol=1e-4, atol=1e-5)


def test_loading_a_canvas_teacher_draws_no_random_numbers(task, load_teacher):
    load_teacher(target_alignment="ctc")
    noisy = make_model(task, target_alignment="ctc", length_bound_a=1.0, length_bound_b=3.0, dropout=0.3).train()
    criterion, found = make_criterion(task, canvas_teacher="teacher.pt"), []
    for _ in range(2):  # it is loaded the first time
        torch.manual_seed(1)
        found.append(criterion(noisy, make_batch(SOURCES, TARGETS))[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target_alignment": "position"}, "must be a model with --target-alignment ctc that translates in the"),
        ({"target_alignment": "ctc", "backwards": True}, "must be a model with --target-alignment ctc that translates"),
        ({"target_alignment": "ctc", "length_bound_a": 2.0}, "writes 15 positions where this model writes 9: train"),
    ],
)
def test_a_canvas_teacher_that_cannot_teach_is_one_sentence(task, model, load_teacher, options, message):
    load_teacher(**options)
    criterion = make_criterion(task, canvas_teacher="teacher.pt")
    with pytest.raises(ConvTextError, match=f"--canvas-teacher teacher.pt {message}"):
        criterion(model.train(), make_batch(SOURCES, TARGETS))


def test_a_canvas_teacher_that_is_missing_is_one_sentence(task, model, tmp_path):
    criterion = make_criterion(task, canvas_teacher=str(tmp_path / "nothing.pt"))
    with pytest.raises(ConvTextError, match="no checkpoint .*nothing.pt of a canvas teacher"):
        criterion(model.train(), make_batch(SOURCES, TARGETS))


@pytest.mark.parametrize("weight", ["consistency", "intermediate_ctc_weight", "canvas_teacher_weight"])
def test_a_negative_weight_is_refused_with_the_flag(task, weight):
    with pytest.raises(ConvTextError, match=f"--{weight.replace('_', '-')} must be at least 0; found -1"):
        make_criterion(task, **{weight: -1.0})


def test_inner_predictions_add_their_weighted_mean_loss_in_training_only(task):
    torch.manual_seed(1)
    bound = {"length_bound_a": 1.0, "length_bound_b": 3.0}
    model = make_model(task, target_alignment="ctc", intermediate_ctc_layers=[1, 2], **bound).train()
    batch = make_batch(SOURCES, TARGETS)

    def loss(weight):
        return float(step(make_criterion(task, intermediate_ctc_weight=weight), model, batch)[0])

    alone, half, whole = loss(0.0), loss(0.5), loss(1.0)
    assert half - alone == pytest.approx((whole - alone) / 2, rel=1e-4)
    _, extra = model(**batch["net_input"])
    fits = [place for place in range(3) if place != INFEASIBLE]
    targets, lengths = make_criterion(task).targets(batch["target"])
    inner = [
        ctc_loss(logits, targets, extra["bound"], lengths, task.target_dictionary.bos())[fits].sum()
        for logits in extra["inner_logits"]
    ]
    assert whole - alone == pytest.approx(float(sum(inner)) / 2, rel=1e-4)
    model.eval()
    assert loss(1.0) == pytest.approx(loss(0.0))
    assert model(**batch["net_input"])[1]["inner_logits"] == []


@pytest.mark.parametrize("layers", [[0], [3], [1, 1]])
def test_inner_layers_that_do_not_exist_are_refused_with_the_flag(task, layers):
    with pytest.raises(ConvTextError, match="--intermediate-ctc-layers"):
        make_model(task, target_alignment="ctc", intermediate_ctc_layers=layers)


def test_inner_layers_need_a_ctc_canvas(task):
    with pytest.raises(ConvTextError, match="--intermediate-ctc-layers.*--target-alignment ctc"):
        make_model(task, target_alignment="position", intermediate_ctc_layers=[1])
