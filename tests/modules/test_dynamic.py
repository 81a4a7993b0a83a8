"""Dynamic convolutions: the formula of the paper, its gradient, and what the filters are."""

import pytest
import torch

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules import dynamic
from fairseq_convtext.modules.dynamic import DynamicConv, weighted_sum
from fairseq_convtext.modules.history import History


def reference(conv, x):
    """The formula, number by number."""
    batch, positions, channels = x.shape
    first = conv.kernel_size - 1 if conv.causal else (conv.kernel_size - 1) // 2
    weights = conv.filters(x).view(batch, positions, conv.heads, conv.kernel_size).softmax(dim=-1)
    y = torch.zeros_like(x)
    for t in range(positions):
        for c in range(channels):
            for j in range(conv.kernel_size):
                read = t + (j - first) * conv.dilation
                if 0 <= read < positions:
                    y[:, t, c] += weights[:, t, c * conv.heads // channels, j] * x[:, read, c]
    return y


@pytest.fixture(params=["torch", "kernel"])
def way(request, monkeypatch):
    """With torch's operations, as for a gradient, and with the kernel, whatever the machine."""
    calls, kernel = [], dynamic.sum_of_taps
    monkeypatch.setattr(dynamic, "sum_of_taps", lambda *arguments: calls.append(1) or kernel(*arguments))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with torch.set_grad_enabled(request.param == "torch"):
        yield
    assert bool(calls) == (request.param == "kernel")


@pytest.mark.parametrize("kernel_size, dilation", [(1, 1), (3, 1), (5, 2), (7, 4)])
@pytest.mark.parametrize("causal", [False, True])
def test_values_are_those_of_the_formula(way, kernel_size, dilation, causal):
    conv, x = DynamicConv(12, kernel_size, dilation, causal), torch.randn(2, 9, 12)
    assert conv.heads == 4
    torch.testing.assert_close(conv(x, None), reference(conv, x))


@torch.no_grad()
def test_a_history_goes_on_where_it_stopped():
    conv, x, history = DynamicConv(12, 3, 2, causal=True), torch.randn(2, 9, 12), History()
    parts = [conv(part, None, history) for part in x.split([4, 1, 4], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), conv(x, None))


@pytest.mark.parametrize("dilation", [1, 3])
def test_the_gradient_is_that_of_finite_differences(dilation):
    weights = torch.rand(3, 2, 5, 2, dtype=torch.double, requires_grad=True)
    x = torch.randn(2, 5 + 2 * dilation, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda weights, x: weighted_sum(weights, x, dilation), (weights, x))


def test_padding_is_never_read_and_a_sentence_depends_on_no_other(way):
    conv, x = DynamicConv(4, 3, 2), torch.randn(2, 9, 4)
    mask = (torch.arange(9) >= torch.tensor([6, 9])[:, None])[:, :, None]
    torch.testing.assert_close(conv(x, mask)[:1, :6], conv(x + 100 * mask, mask)[:1, :6])
    torch.testing.assert_close(conv(x, mask)[:1, :6], conv(x[:1, :6], None))
    torch.testing.assert_close(conv(x, mask)[1:], conv(x[1:], None))


def test_the_kernel_is_for_one_or_two_threads(monkeypatch):
    weights, x = torch.rand(3, 2, 5, 2), torch.randn(2, 5, 4)
    for threads, faster in ((1, True), (2, True), (8, False)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with torch.no_grad():
            assert dynamic.kernel_is_faster(weights, x) == faster
            assert not dynamic.kernel_is_faster(weights, x.bfloat16())
        assert not dynamic.kernel_is_faster(weights, x)


def test_equal_positions_stay_what_they_are_where_the_filter_is_inside_the_sentence():
    conv, x = DynamicConv(8, 3, 2), torch.randn(1, 1, 8).expand(1, 9, 8)
    torch.testing.assert_close(conv(x, None)[:, 2:-2], x[:, 2:-2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_sum_has_the_type_of_what_it_reads_and_nearly_its_values(dtype):
    conv, x, direction = DynamicConv(8, 3, 1), torch.randn(2, 9, 8, requires_grad=True), torch.randn(2, 9, 8)
    wanted = conv(x, None)
    (of_x,) = torch.autograd.grad((wanted * direction).sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x.to(dtype), None)
    assert found.dtype == dtype
    (of_x_found,) = torch.autograd.grad((found.float() * direction).sum(), x)
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.05)
    torch.testing.assert_close(of_x_found, of_x, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    "kernel_size, dilation, flag", [(2, 1, "--kernel-size"), (0, 1, "--kernel-size"), (3, 0, "--dilations")]
)
def test_impossible_widths_are_refused_with_the_flag(kernel_size, dilation, flag):
    with pytest.raises(ConvTextError, match=flag):
        DynamicConv(4, kernel_size, dilation)
