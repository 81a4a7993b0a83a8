import torch
from torch.nn import functional as F

from fairseq_convtext.losses import ctc
from fairseq_convtext.losses.distillation import distillation_loss

LENGTHS = torch.tensor([7, 3, 1])


def random_pair(seed):
    torch.manual_seed(seed)
    return torch.randn(2, 3, 7, 11, dtype=torch.float64).unbind(0)


def reference(student, teacher, lengths):
    divergence = F.kl_div(
        student.log_softmax(dim=2), teacher.log_softmax(dim=2), reduction="none", log_target=True
    ).sum(dim=2)
    return (divergence * (torch.arange(student.size(1)) < lengths[:, None])).sum(dim=1)


def test_value_and_gradient_equal_torch_and_the_teacher_gets_none(monkeypatch):
    monkeypatch.setitem(ctc.SLICE_ELEMENTS, "cpu", 80)  # several slices
    student, teacher = (x.requires_grad_() for x in random_pair(1))
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    found = distillation_loss(student, teacher, LENGTHS)
    (found * weights).sum().backward()
    wanted = reference(student, teacher.detach(), LENGTHS)
    (gradient,) = torch.autograd.grad((wanted * weights).sum(), [student])
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(student.grad, gradient, rtol=1e-5, atol=1e-6)
    assert teacher.grad is None


def test_a_student_like_its_teacher_costs_nothing_and_what_lies_beyond_the_canvas_does_not_count():
    student, teacher = random_pair(2)
    assert distillation_loss(student, student, LENGTHS).abs().max() == 0.0
    within = torch.arange(7)[None, :, None] < LENGTHS[:, None, None]
    assert distillation_loss(torch.where(within, teacher, student), teacher, LENGTHS).abs().max() == 0.0
    assert (distillation_loss(student, teacher, LENGTHS) > 0.0).all()
