import unittest.mock

import pytest
import torch
from torch.nn import functional as F

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.convolution import DilatedConv


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 4, 16])
@pytest.mark.parametrize("depthwise", [False, True])
def test_values_and_gradients_are_those_of_conv1d(kernel_size, dilation, depthwise):
    torch.manual_seed(0)
    groups = 6 if depthwise else 1
    conv = DilatedConv(6, 6, kernel_size, dilation, groups)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 11, 6, requires_grad=True)
    mask = torch.zeros(2, 11, 1, dtype=torch.bool)
    reference = F.conv1d(
        x.transpose(1, 2), conv.weight.squeeze(2), conv.bias, padding="same", dilation=dilation, groups=groups
    ).transpose(1, 2)
    direction = torch.randn(2, 11, 6)
    wanted = torch.autograd.grad((reference * direction).sum(), [x, conv.weight, conv.bias])
    y = conv(x, mask)
    found = torch.autograd.grad((y * direction).sum(), [x, conv.weight, conv.bias])
    torch.testing.assert_close(y, reference)
    for f, w in zip(found, wanted):
        torch.testing.assert_close(f, w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel_size, dilation", [(1, 1), (3, 1), (5, 4)])
def test_few_positions_without_gradient_give_the_same(kernel_size, dilation, causal):
    torch.manual_seed(0)
    conv = DilatedConv(6, 8, kernel_size, dilation, causal=causal)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 11, 6)
    mask = (torch.arange(11) >= torch.tensor([11, 7])[:, None])[:, :, None]
    with torch.no_grad(), unittest.mock.patch.object(conv, "gathered", side_effect=conv.gathered) as used:
        found = conv(x, mask)
    assert used.call_count == 1
    torch.testing.assert_close(found, conv(x, mask).detach())


def test_padding_is_never_read():
    torch.manual_seed(0)
    conv = DilatedConv(4, 4, 3, 2)
    mask = (torch.arange(9) >= 6)[None, :, None]
    x = torch.randn(1, 9, 4)
    noisy = x + 100 * mask
    torch.testing.assert_close(conv(x, mask)[:, :6], conv(noisy, mask)[:, :6])


@pytest.mark.parametrize(
    "kernel_size, dilation, flag", [(2, 1, "--kernel-size"), (0, 1, "--kernel-size"), (3, 0, "--dilations")]
)
def test_impossible_widths_are_refused_with_the_flag(kernel_size, dilation, flag):
    with pytest.raises(ConvTextError, match=flag):
        DilatedConv(4, 4, kernel_size, dilation)
