import itertools
import math

import pytest
import torch

from fairseq_convtext.losses import ctc
from fairseq_convtext.losses.ctc import ctc_loss, log_likelihoods, reference_ctc_loss, required_positions

BLANK = 0


def random_case(seed, tight, batch=5, positions=14, vocabulary=9, longest=6):
    """Random scores and targets of few different tokens, so that repeats are common; empty targets included."""
    torch.manual_seed(seed)
    logits = 2 * torch.randn(batch, positions, vocabulary)
    target_lengths = torch.randint(0, longest + 1, (batch,))
    targets = torch.randint(1, 4, (batch, longest))
    if tight:
        lengths = required_positions(targets, target_lengths).clamp(min=1)
    else:
        lengths = torch.randint(1, positions + 1, (batch,))
    return logits, targets, lengths, target_lengths


@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_value_and_gradient_equal_the_reference(seed, tight):
    logits, targets, lengths, target_lengths = random_case(seed, tight)
    weight = torch.rand(logits.size(0))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = ctc_loss(ours, targets, lengths, target_lengths, BLANK)
    wanted = reference_ctc_loss(theirs, targets, lengths, target_lengths, BLANK)
    feasible = lengths >= required_positions(targets, target_lengths)
    assert torch.equal(found.isfinite(), feasible)
    found = found.masked_fill(~feasible, 0.0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 3, 128])
def test_any_number_of_targets_is_scored_on_one_canvas(at_once, monkeypatch):
    monkeypatch.setattr(ctc, "TARGETS_AT_ONCE", at_once)
    logits, _, lengths, _ = random_case(2, tight=False)
    rows = torch.tensor([0, 3, 3, 1, 0, 4, 2, 3])
    _, targets, _, target_lengths = random_case(5, tight=False, batch=len(rows))
    found = log_likelihoods(logits, rows, targets, lengths, target_lengths, BLANK)
    wanted = -ctc_loss(logits[rows], targets, lengths[rows], target_lengths, BLANK)
    assert wanted.isfinite().any() and wanted.isinf().any()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_value_is_the_sum_over_all_alignments():
    torch.manual_seed(1)
    log_probs = torch.randn(1, 5, 3).log_softmax(dim=2)
    target = [1, 1]
    total = 0.0
    for path in itertools.product(range(3), repeat=5):
        spelled = [symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK]
        if spelled == target:
            total += math.exp(sum(float(log_probs[0, t, symbol]) for t, symbol in enumerate(path)))
    found = ctc_loss(log_probs, torch.tensor([target]), torch.tensor([5]), torch.tensor([2]), BLANK)
    assert float(found) == pytest.approx(-math.log(total), abs=1e-5)


def test_positions_beyond_the_own_canvas_change_nothing_and_get_no_gradient():
    logits, targets, lengths, target_lengths = random_case(3, tight=True)
    noisy = logits.clone()
    for row, n in enumerate(lengths.tolist()):
        noisy[row, n:] += 50 * torch.randn_like(noisy[row, n:])
    noisy.requires_grad_()
    found = ctc_loss(noisy, targets, lengths, target_lengths, BLANK)
    torch.testing.assert_close(found, ctc_loss(logits, targets, lengths, target_lengths, BLANK))
    found.sum().backward()
    for row, n in enumerate(lengths.tolist()):
        assert not noisy.grad[row, n:].any()
        assert noisy.grad[row, :n].any()


def test_an_infeasible_sentence_is_infinite_and_gives_no_gradient_to_anyone():
    logits = torch.randn(2, 4, 5, requires_grad=True)
    targets, target_lengths = torch.tensor([[1, 1, 1], [1, 2, 3]]), torch.tensor([3, 3])
    found = ctc_loss(logits, targets, torch.tensor([4, 4]), target_lengths, BLANK)
    assert found.isinf().tolist() == [True, False]
    found.masked_fill(found.isinf(), 0.0).sum().backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].isfinite().all() and logits.grad[1].any()


def test_required_positions_count_a_blank_between_equal_neighbours():
    targets = torch.tensor([[4, 4, 5, 5, 5], [4, 5, 4, 5, 5], [4, 4, 4, 4, 4], [4, 4, 4, 4, 4]])
    assert required_positions(targets, torch.tensor([5, 4, 1, 0])).tolist() == [8, 4, 1, 0]


def loss_and_gradient(case, dtype):
    """Of the feasible sentences together."""
    logits = case[0].detach().to(dtype).requires_grad_()
    found = ctc_loss(logits, *case[1:], BLANK)
    found[found.isfinite()].sum().backward()
    return found, logits.grad


def test_the_size_of_the_slices_does_not_matter(monkeypatch):
    case = random_case(5, tight=False)
    whole, gradient = loss_and_gradient(case, torch.float32)
    monkeypatch.setitem(ctc.SLICE_ELEMENTS, "cpu", 1)
    found, its_gradient = loss_and_gradient(case, torch.float32)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(its_gradient, gradient)


def test_half_precision_scores_are_summed_in_float32():
    logits, targets, lengths, target_lengths = random_case(7, tight=False, positions=60)
    half = logits.bfloat16().requires_grad_()
    found = ctc_loss(half, targets, lengths, target_lengths, BLANK)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ctc_loss(half.detach().float(), targets, lengths, target_lengths, BLANK))
    found[found.isfinite()].sum().backward()
    assert half.grad.dtype == torch.bfloat16
    _, gradient = loss_and_gradient((half.detach(), targets, lengths, target_lengths), torch.float32)
    torch.testing.assert_close(half.grad.float(), gradient, rtol=0.01, atol=1e-5)


def test_a_canvas_of_500_positions_keeps_the_digits_of_the_gradient():
    torch.manual_seed(0)
    logits = (3 * torch.randn(3, 500, 12)).requires_grad_()
    targets, target_lengths = torch.randint(1, 12, (3, 60)), torch.tensor([60, 41, 7])
    lengths = torch.tensor([500, 480, 333])
    exact = logits.detach().double().requires_grad_()
    log_probs = exact.log_softmax(dim=2).transpose(0, 1)
    torch.nn.functional.ctc_loss(log_probs, targets, lengths, target_lengths, BLANK, reduction="sum").backward()
    ctc_loss(logits, targets, lengths, target_lengths, BLANK).sum().backward()
    # torch's own loss in float32 is off by 1e-3 here.
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=0, atol=1e-4)
