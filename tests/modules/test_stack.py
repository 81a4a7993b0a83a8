import pytest
import torch

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.blocks import BLOCKS
from fairseq_convtext.modules.masking import padding_mask
from fairseq_convtext.modules.stack import ConvStack, cycle_dilations

VARIANTS = [(block, connectivity) for block in BLOCKS for connectivity in ("residual", "dense")]


def make(block, connectivity, layers=4, kernel_size=3, dilations=(1, 2), **options):
    torch.manual_seed(0)
    return ConvStack(layers, 8, kernel_size, dilations, block, connectivity, growth=4, **options).eval()


@pytest.mark.parametrize("block, connectivity", VARIANTS)
def test_an_output_does_not_depend_on_batch_mates_or_padding(block, connectivity):
    stack = make(block, connectivity)
    x, lengths = torch.randn(3, 12, 8), torch.tensor([12, 5, 1])
    together = stack(x, padding_mask(lengths, 12))
    for row, n in enumerate(lengths.tolist()):
        alone = stack(x[row : row + 1, :n], padding_mask(lengths[row : row + 1], n))
        assert alone.shape == (1, n, 8)
        torch.testing.assert_close(together[row, :n], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("block, connectivity", VARIANTS)
@pytest.mark.parametrize("kernel_size, dilations", [(3, [1, 2, 4]), (5, [1]), (3, [3])])
def test_receptive_field_is_exactly_the_formula(block, connectivity, kernel_size, dilations):
    stack = make(block, connectivity, layers=3, kernel_size=kernel_size, dilations=dilations).double()
    reach = stack.receptive_field // 2
    size, middle = 2 * reach + 9, reach + 4
    x = torch.randn(1, size, 8, dtype=torch.double, requires_grad=True)
    stack(x, padding_mask(torch.tensor([size]), size))[0, middle, 0].backward()
    seen = x.grad[0].abs().sum(dim=1).nonzero()[:, 0]
    if dilations == [3]:  # with one dilation above 1 only every third position is seen, but the ends are
        assert (seen.min(), seen.max()) == (middle - reach, middle + reach)
    else:
        assert seen.tolist() == list(range(middle - reach, middle + reach + 1))


@pytest.mark.parametrize("connectivity", ["residual", "dense"])
def test_gradient_reaches_the_input_through_many_blocks(connectivity):
    stack = make("bytenet", connectivity, layers=40)
    x = torch.randn(1, 9, 8, requires_grad=True)
    (stack(x, padding_mask(torch.tensor([9]), 9)) * torch.randn(1, 9, 8)).sum().backward()
    assert 1e-2 < x.grad.norm() < 1e3


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"spatial_dropout": 0.5}])
def test_dropout_acts_in_training_only(options):
    stack, x, mask = make("bytenet", "residual", **options), torch.randn(1, 9, 8), padding_mask(torch.tensor([9]), 9)
    torch.testing.assert_close(stack(x, mask), stack(x, mask))
    stack.train()
    assert not torch.allclose(stack(x, mask), stack(x, mask))


def test_dilations_are_cycled():
    assert cycle_dilations(7, [1, 2, 4]) == [1, 2, 4, 1, 2, 4, 1]


@pytest.mark.parametrize(
    "change, flag",
    [
        ({"dilations": []}, "--dilations"),
        ({"connectivity": "ladder"}, "--connectivity"),
        ({"block": "transformer"}, "--encoder-block"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_flag(change, flag):
    options = dict(layers=2, channels=8, kernel_size=3, dilations=[1])
    with pytest.raises(ConvTextError, match=flag):
        ConvStack(**{**options, **change})


def test_without_gradients_a_stack_under_autocast_is_as_exact_as_with_them():
    torch.manual_seed(1)
    stack, x = ConvStack(2, 16, 3, (1, 2), "glu", "residual").eval(), 30.0 * torch.randn(2, 9, 16)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = stack(x, None)
        with torch.no_grad():
            found = stack(x, None)
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
