import torch
from torch.nn import functional as F

from fairseq_convtext.losses import ctc
from fairseq_convtext.losses.consistency import consistency_loss

LENGTHS = torch.tensor([7, 3, 1])


def random_pair(seed):
    torch.manual_seed(seed)
    return torch.randn(2, 3, 7, 11, dtype=torch.float64).unbind(0)


def reference(p, q, lengths):
    """Half of both divergences, each with the target held fixed."""
    log_p, log_q = p.log_softmax(dim=2), q.log_softmax(dim=2)
    inside = torch.arange(p.size(1)) < lengths[:, None]
    both = F.kl_div(log_p, log_q.detach(), reduction="none", log_target=True).sum(dim=2)
    both = both + F.kl_div(log_q, log_p.detach(), reduction="none", log_target=True).sum(dim=2)
    return 0.5 * (both * inside).sum(dim=1)


def test_value_and_gradient_equal_torch_with_fixed_targets(monkeypatch):
    monkeypatch.setitem(ctc.SLICE_ELEMENTS, "cpu", 80)  # several slices
    p, q = (x.requires_grad_() for x in random_pair(1))
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    found = consistency_loss(p, q, LENGTHS)
    gradients = torch.autograd.grad((found * weights).sum(), [p, q])
    wanted = reference(p, q, LENGTHS)
    wanted_gradients = torch.autograd.grad((wanted * weights).sum(), [p, q])
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-5, atol=1e-6)


def test_equal_readings_cost_nothing_and_what_lies_beyond_the_canvas_does_not_count():
    p, q = random_pair(2)
    assert consistency_loss(p, p, LENGTHS).abs().max() == 0.0
    other = torch.where(torch.arange(7)[None, :, None] < LENGTHS[:, None, None], p, q)
    assert consistency_loss(p, other, LENGTHS).abs().max() == 0.0
    assert (consistency_loss(p, q, LENGTHS) > 0.0).all()
