"""Causal convolutions and stacks, read at once or bit by bit."""

import pytest
import torch
from torch.nn import functional as F

from fairseq_convtext.modules.blocks import BLOCKS
from fairseq_convtext.modules.convolution import DilatedConv
from fairseq_convtext.modules.history import History
from fairseq_convtext.modules.stack import ConvStack

VARIANTS = [(block, connectivity) for block in BLOCKS for connectivity in ("residual", "dense")]
CHUNKS = [[1] * 12, [12], [5, 1, 1, 4, 1], [1, 11]]


def make(block, connectivity, layers=4, kernel_size=3, dilations=(1, 2)):
    return ConvStack(layers, 8, kernel_size, dilations, block, connectivity, growth=4, causal=True).eval()


def in_chunks(module, x, sizes, history):
    parts = [module(part, None, history=history) for part in x.split(sizes, dim=1)]
    assert [part.size(1) for part in parts] == sizes
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 4, 16])
@pytest.mark.parametrize("groups", [1, 6])
def test_a_causal_convolution_is_conv1d_padded_on_the_left(kernel_size, dilation, groups):
    conv = DilatedConv(6, 6, kernel_size, dilation, groups, causal=True)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 11, 6)
    padded = F.pad(x.transpose(1, 2), (dilation * (kernel_size - 1), 0))
    reference = F.conv1d(padded, conv.weight.squeeze(2), conv.bias, dilation=dilation, groups=groups).transpose(1, 2)
    torch.testing.assert_close(conv(x, None), reference)


@pytest.mark.parametrize("block, connectivity", VARIANTS)
def test_no_output_sees_a_later_input(block, connectivity):
    stack, x = make(block, connectivity), torch.randn(2, 12, 8)
    for t in range(11):
        later = x.clone()
        later[:, t + 1 :] += torch.randn(2, 11 - t, 8)
        torch.testing.assert_close(stack(later, None)[:, : t + 1], stack(x, None)[:, : t + 1], rtol=0, atol=1e-6)
        assert not torch.allclose(stack(later, None)[:, t + 1], stack(x, None)[:, t + 1])


@pytest.mark.parametrize("block, connectivity", VARIANTS)
@pytest.mark.parametrize("kernel_size, dilations", [(3, [1, 2, 4]), (5, [1])])
def test_the_receptive_field_is_exactly_the_formula_and_looks_back_only(block, connectivity, kernel_size, dilations):
    stack = make(block, connectivity, 3, kernel_size, dilations).double()
    field = stack.receptive_field
    assert field == 1 + (kernel_size - 1) * sum(stack.dilations)
    last, size = field + 2, field + 7
    x = torch.randn(1, size, 8, dtype=torch.double, requires_grad=True)
    stack(x, None)[0, last, 0].backward()
    seen = x.grad[0].abs().sum(dim=1).nonzero()[:, 0]
    assert seen.tolist() == list(range(last - field + 1, last + 1))


@pytest.mark.parametrize("sizes", CHUNKS)
@pytest.mark.parametrize("block, connectivity", VARIANTS)
def test_a_sequence_read_bit_by_bit_is_the_sequence_read_at_once(block, connectivity, sizes):
    stack, x = make(block, connectivity), torch.randn(2, 12, 8)
    torch.testing.assert_close(in_chunks(stack, x, sizes, History()), stack(x, None), rtol=0, atol=1e-5)


def test_a_history_keeps_what_the_convolutions_can_still_see_and_no_more():
    stack, history = make("bytenet", "residual", layers=5, dilations=(1, 2, 4, 8, 16)), History()
    in_chunks(stack, torch.randn(1, 100, 8), [1] * 100, history)
    assert [past.size(1) for past in history.inputs.values()] == [2, 4, 8, 16, 32]


def test_a_reordered_history_goes_on_from_the_rows_that_were_chosen():
    stack, x, rows = make("bytenet", "residual"), torch.randn(3, 12, 8), torch.tensor([2, 0, 0, 1])
    history = History()
    in_chunks(stack, x[:, :7], [1] * 7, history)
    history.reorder(rows)
    chosen = torch.cat([x[rows, :7], torch.randn(4, 5, 8)], dim=1)
    rest = in_chunks(stack, chosen[:, 7:], [1] * 5, history)
    torch.testing.assert_close(rest, stack(chosen, None)[:, 7:], rtol=0, atol=1e-5)
