"""Products in int8: near to those of floats, exact where nothing is rounded, and each sentence by itself."""

import copy
import pickle

import pytest
import torch
from torch import nn

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.common import prepare_for_inference
from fairseq_convtext.modules import int8, int8_product
from fairseq_convtext.modules.convolution import DilatedConv
from fairseq_convtext.modules.int8 import Int8Linear, quantised, use_int8
from fairseq_convtext.modules.int8_product import ZERO, Int8Product, largest_weight
from fairseq_convtext.modules.masking import hidden_positions
from fairseq_convtext.modules.upsampler import Upsample
from tests.int8 import needs_int8

pytestmark = needs_int8


def make_conv(**options):
    conv = DilatedConv(16, 24, 3, 2, **options)
    nn.init.normal_(conv.bias)
    return conv


def relative_error(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@torch.no_grad()
@pytest.mark.parametrize("positions", [9, 200])  # few are a product of floats, many a convolution
def test_a_convolution_is_near_that_of_floats(positions):
    torch.manual_seed(0)
    conv = make_conv()
    x, mask = torch.randn(2, positions, 16), (torch.arange(positions) >= positions - 3)[None, :, None]
    wanted = conv(x, mask)
    conv.use_int8()
    shown = ~mask[0, :, 0]
    assert 0 < relative_error(conv(x, mask)[:, shown], wanted[:, shown]) < 0.02


@torch.no_grad()
def test_gates_are_sigmoids():
    torch.manual_seed(0)
    conv = make_conv()
    conv.use_int8()
    gates = slice(12, 24)
    conv.int8.bias[gates] = torch.linspace(-12, 12, 12)
    x, mask = 3 * torch.randn(2, 50, 16), (torch.arange(50) >= torch.tensor([50, 47])[:, None])[:, :, None]
    both = conv(x, mask)
    wanted = both[:, :, :12] * both[:, :, gates].sigmoid()
    assert bool(((conv.gated(x, mask) - wanted).abs() <= 1e-4 * both[:, :, :12].abs() + 1e-6).all())


@torch.no_grad()
def test_whole_numbers_are_multiplied_exactly():
    torch.manual_seed(0)
    linear = nn.Linear(40, 8)
    largest = largest_weight()
    linear.weight.copy_(torch.randint(-largest, largest + 1, (8, 40)))
    linear.weight[:, 0] = largest
    x = torch.randint(-127, 128, (5, 40)).float()
    x[:, 1] = -127
    torch.testing.assert_close(Int8Linear(linear.weight, linear.bias)(x), linear(x))


def test_nothing_is_off_by_more_than_half_a_step():
    torch.manual_seed(0)
    x = torch.randn(4, 7, 5) * torch.tensor([1e-29, 1e-6, 1.0, 1e6])[:, None, None]
    q, scale = quantised(x, hidden_positions(x, None), 1, 1)
    assert q.shape == (28, 5) and scale.shape == (4,)
    q, scale = q.int() - ZERO, scale[:, None, None]
    assert bool(((q.view(4, 7, 5) * scale - x).abs() <= 0.501 * scale).all())
    assert bool((q.view(4, -1).abs().amax(dim=1) == 127).all())


@pytest.mark.parametrize("kernel_size, dilation", [(1, 1), (3, 1), (3, 4), (5, 2), (3, 20)])
def test_windows_hold_what_a_filter_reads_and_zeros_where_nothing_is(kernel_size, dilation):
    torch.manual_seed(0)
    x = torch.randint(-127, 128, (3, 9, 5)).float()
    mask = (torch.arange(9) >= torch.tensor([9, 4, 6])[:, None])[:, :, None]
    x[:, 0, 0] = 127  # so that the scale is 1
    x[mask.expand_as(x)] = 1e6
    reach = dilation * (kernel_size - 1) // 2
    padded = nn.functional.pad(x * ~mask, (0, 0, reach, reach))
    wanted = torch.stack([padded[:, place * dilation :][:, :9] for place in range(kernel_size)], dim=2)
    q, scale = quantised(x, mask[:, :, 0], kernel_size, dilation)
    assert scale.tolist() == [1.0] * 3
    assert torch.equal(q.view(19, kernel_size, 5).float() - ZERO, wanted[~mask[:, :, 0]])


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_an_upsampling_is_near_that_of_floats(stride):
    torch.manual_seed(0)
    upsample, x = Upsample(16, stride), torch.randn(2, 40, 16)
    nn.init.normal_(upsample.conv.bias)
    mask = (torch.arange(40) >= torch.tensor([40, 30])[:, None])[:, :, None]
    wanted = upsample(x, mask)
    use_int8(upsample)
    found = upsample(torch.where(mask, 1e6, x), mask)
    assert found.shape == wanted.shape and 0 < relative_error(found, wanted) < 0.02


@torch.no_grad()
def test_a_batch_that_is_all_padding_has_nothing_to_multiply():
    conv = make_conv()
    conv.use_int8()
    assert not bool(conv(torch.randn(2, 3, 16), torch.ones(2, 3, 1, dtype=torch.bool)).any())


@torch.no_grad()
@pytest.mark.parametrize("what", ["forward", "gated", "upsample"])
def test_a_sentence_depends_neither_on_its_batch_mates_nor_on_padding(what):
    torch.manual_seed(0)
    module = Upsample(16, 2) if what == "upsample" else make_conv()
    module.use_int8()
    read = module.gated if what == "gated" else module
    short, long = torch.randn(1, 6, 16), 1000 * torch.randn(1, 11, 16)
    alone = read(short, torch.zeros(1, 6, 1, dtype=torch.bool))
    padded = torch.cat([short, 1e6 * torch.ones(1, 5, 16)], dim=1)
    mask = (torch.arange(11) >= torch.tensor([11, 6])[:, None])[:, :, None]
    assert torch.equal(read(torch.cat([long, padded]), mask)[1:, : alone.size(1)], alone)


@torch.no_grad()
def test_a_sentence_of_zeros_gives_the_bias():
    conv = make_conv()
    conv.use_int8()
    found = conv(torch.zeros(1, 4, 16), None)
    torch.testing.assert_close(found, conv.bias.expand(1, 4, 24))


@torch.no_grad()
@pytest.mark.parametrize("options", [{"causal": True}, {"groups": 8}])
def test_convolutions_that_see_no_later_position_or_one_group_stay_as_they_are(options):
    torch.manual_seed(0)
    conv, x = make_conv(**options), torch.randn(2, 9, 16)
    wanted = conv(x, None)
    use_int8(conv)
    assert torch.equal(conv(x, None), wanted)


def test_weights_of_a_training_that_diverged_are_an_error():
    linear = nn.Linear(4, 4)
    linear.weight.data[1, 2] = float("nan")
    with pytest.raises(ConvTextError, match="weights that are not finite numbers: its training has diverged"):
        use_int8(nn.Sequential(linear))


def test_what_fp16_has_halved_is_whole_again():
    conv = make_conv().half()
    model = nn.Sequential(nn.Linear(16, 16).half(), conv)
    prepare_for_inference(model, "int8")
    assert conv(model[0](torch.randn(2, 5, 16)), None).dtype == torch.float32


def test_no_checkpoint_sees_the_numbers():
    conv = make_conv()
    model = nn.Sequential(nn.Linear(4, 4), conv)
    names = set(model.state_dict())
    use_int8(model)
    assert isinstance(model[0], Int8Linear) and conv.int8 is not None
    assert set(model.state_dict()) == names


def test_what_is_not_on_the_cpu_is_one_clear_sentence():
    linear, said = Int8Linear(torch.randn(3, 4), torch.zeros(3)), "--generation-dtype int8 is for the CPU; found meta"
    with pytest.raises(ConvTextError, match=said):
        linear(torch.ones(2, 4, device="meta"))
    with pytest.raises(ConvTextError, match=said):  # as where fairseq-generate has moved the model to a GPU
        prepare_for_inference(nn.Sequential(nn.Linear(4, 4)).to("meta"), "int8")


@torch.no_grad()
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_gives_what_the_model_gives(copied):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(16, 12)), torch.randn(2, 9, 16)
    use_int8(model)
    assert torch.equal(copied(model)(x), model(x))


def test_a_copy_from_a_processor_with_finer_weights_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(int8_product, "largest_weight", lambda: 10)
    text = pickle.dumps(Int8Product.of(torch.randn(3, 4)))
    pickle.loads(text)
    monkeypatch.setattr(int8_product, "largest_weight", lambda: 5)
    with pytest.raises(ConvTextError, match="was rounded to int8 on another kind of processor"):
        pickle.loads(text)


@pytest.mark.parametrize("slower, warned", [(0.5, False), (1.2, False), (2.0, True)])
def test_a_model_in_int8_that_is_slower_than_in_float32_is_one_warning(monkeypatch, caplog, slower, warned):
    def seconds(products):
        assert [product().shape for product in products] == [(256, 768)] * 2
        return [0.2 * slower, 0.2]

    int8.warn_of_slow_int8.cache_clear()
    monkeypatch.setattr(int8, "product_seconds", seconds)
    for _ in range(2):
        prepare_for_inference(nn.Sequential(nn.Linear(4, 4)), "int8")
    said = [record.getMessage() for record in caplog.records if "int8 take 2.0 times as long" in record.getMessage()]
    assert len(said) == warned
    int8.warn_of_slow_int8.cache_clear()
