import unittest.mock

import pytest
import torch

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.masking import padding_mask
from fairseq_convtext.modules.stack import ConvStack
from fairseq_convtext.modules.upsampler import Upsample, Upsampler


def make(strides):
    torch.manual_seed(0)
    # In double: what is left of a difference is a mistake, not rounding.
    return Upsampler(8, strides, lambda: ConvStack(2, 8, 3, [1, 2])).eval().double()


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_one_stage_multiplies_the_length_by_its_stride(stride, size):
    y = Upsample(4, stride)(torch.randn(2, size, 4), padding_mask(torch.tensor([size, 1]), size))
    assert y.shape == (2, stride * size, 4)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_one_stage_is_torch_s_transposed_convolution_and_has_its_gradients(stride):
    torch.manual_seed(0)
    upsample, x = Upsample(4, stride).double(), torch.randn(2, 6, 4, dtype=torch.double, requires_grad=True)
    torch.nn.init.normal_(upsample.conv.bias)
    found = upsample(x, padding_mask(torch.tensor([6, 6]), 6))
    wanted = upsample.conv(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(found, wanted)
    weights, probe = [x, upsample.conv.weight, upsample.conv.bias], torch.randn_like(found)
    for one, other in zip(*(torch.autograd.grad((y * probe).sum(), weights) for y in (found, wanted))):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 7])
def test_few_positions_without_gradient_give_the_same(stride, size):
    torch.manual_seed(0)
    upsample = Upsample(4, stride).double()
    torch.nn.init.normal_(upsample.conv.bias)
    x, mask = torch.randn(2, size, 4, dtype=torch.double), padding_mask(torch.tensor([size, 1]), size)
    with torch.no_grad(), unittest.mock.patch.object(upsample, "as_product", side_effect=upsample.as_product) as used:
        found = upsample(x, mask)
    assert used.call_count == 1
    torch.testing.assert_close(found, upsample(x, mask).detach())


@pytest.mark.parametrize("strides", [[2], [1], [3], [2, 2], [2, 3]])
@pytest.mark.parametrize("lengths, bound", [([5, 3, 1], [12, 20, 9]), ([6, 6, 6], [2, 11, 40]), ([1], [64])])
def test_canvas_has_the_longest_bound_and_a_sentence_does_not_depend_on_its_batch(strides, lengths, bound):
    upsampler = make(strides)
    lengths, bound = torch.tensor(lengths), torch.tensor(bound)
    x = torch.randn(len(lengths), int(lengths.max()), 8, dtype=torch.double)
    together = upsampler(x, lengths, bound)
    assert together.shape == (len(lengths), int(bound.max()), 8)
    for row in range(len(lengths)):
        one = slice(row, row + 1)
        alone = upsampler(x[one, : lengths[row]], lengths[one], bound[one])
        torch.testing.assert_close(together[row, : bound[row]], alone[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("strides", [[2], [2, 3]])
def test_padding_of_the_source_does_not_leak_into_the_canvas(strides):
    upsampler, x = make(strides), torch.randn(1, 6, 8, dtype=torch.double)
    noisy = x.clone()
    noisy[:, 4:] = 100.0
    lengths = torch.tensor([4])
    for bound in (torch.tensor([13]), torch.tensor([7])):
        torch.testing.assert_close(upsampler(x, lengths, bound), upsampler(noisy, lengths, bound))


@pytest.mark.parametrize("strides", [[2], [2, 2], [3]])
def test_a_canvas_smaller_than_the_upsampled_source_holds_all_of_it_in_order(strides):
    upsampler = Upsampler(8, strides, lambda: ConvStack(0, 8, 3, [1])).double()
    x = torch.randn(1, 9, 8, dtype=torch.double, requires_grad=True)
    for bound in (9, 10, 14):
        y = upsampler(x, torch.tensor([9]), torch.tensor([bound]))
        grads = [torch.autograd.grad(position[0], x, retain_graph=True)[0] for position in y[0]]
        sees = torch.cat(grads).abs().sum(dim=2) > 0
        assert sees.any(dim=0).all()  # every source position is seen by one of the canvas
        first = sees.int().argmax(dim=1)
        assert (first.diff() >= 0).all() and first[0] == 0


def test_a_source_shorter_than_the_bound_needs_is_extended_by_the_learned_vector():
    upsampler = make([2])
    x, lengths = upsampler.extend(torch.zeros(2, 4, 8, dtype=torch.double), torch.tensor([4, 2]), torch.tensor([3, 11]))
    assert lengths.tolist() == [4, 6]
    assert x.size(1) == 6
    assert torch.equal(x[1, 2:6], upsampler.extension.expand(4, 8))
    assert not x[1, :2].any()


@pytest.mark.parametrize("stride", [2, 3, 4, 5])
def test_every_output_position_sees_two_inputs_but_for_the_ends_which_see_one(stride):
    upsample, x = Upsample(4, stride), torch.randn(1, 4, 4, requires_grad=True)
    y = upsample(x, padding_mask(torch.tensor([4]), 4))
    for position in range(4 * stride):
        grad = torch.autograd.grad(y[0, position, 0], x, retain_graph=True)[0]
        at_an_end = min(position, 4 * stride - 1 - position) < stride // 2
        assert grad.abs().sum(dim=2).count_nonzero() >= (1 if at_an_end else 2)


@pytest.mark.parametrize("strides", [[], [0], [2, 0], [-1]])
def test_strides_that_make_no_sense_are_refused_with_the_flag(strides):
    with pytest.raises(ConvTextError, match="--upsample-strides"):
        make(strides)


class Unchanged(torch.nn.Module):
    def forward(self, x, mask, taps=None):
        return x


@pytest.mark.parametrize("strides", [[2], [2, 2]])
def test_hints_stand_on_the_canvas_before_the_last_stack_where_they_are_to_and_nowhere_else(strides):
    torch.manual_seed(0)
    upsampler = Upsampler(8, strides, Unchanged)
    lengths, bound = torch.tensor([5, 3]), torch.tensor([9, 12])
    x, vectors = torch.randn(2, 5, 8), torch.randn(2, 12, 8)
    where = torch.rand(2, 12) < 0.5
    plain, hinted = upsampler(x, lengths, bound), upsampler(x, lengths, bound, (vectors, where))
    torch.testing.assert_close(hinted, torch.where(where[:, :, None], vectors, plain), rtol=0, atol=0)
