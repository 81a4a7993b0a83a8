"""The product of whole numbers is exact, on processors with VNNI instructions and without."""

import pytest
import torch

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules import int8_product
from fairseq_convtext.modules.int8_product import COARSEST, COLUMNS, FINEST, ZERO, Int8Product, largest_weight
from tests.int8 import needs_int8


@pytest.fixture
def tried_anew():
    largest_weight.cache_clear()
    yield
    largest_weight.cache_clear()


@needs_int8
@pytest.mark.parametrize("rows", [0, 1, 7, 500])
def test_the_largest_numbers_are_multiplied_exactly(rows):
    torch.manual_seed(0)
    product = Int8Product((largest_weight() * torch.randint(-1, 2, (40, 96))).to(torch.int8), torch.ones(40))
    x = torch.randint(1, 256, (rows, 96), dtype=torch.uint8)
    x[rows // 2 :] = 255
    found = product(x)
    assert found.dtype == torch.float32 and found.shape == (rows, COLUMNS)
    assert torch.equal(found[:, :40].long(), (x.long() - ZERO) @ product.q.long().t()) and not bool(found[:, 40:].any())


@needs_int8
def test_each_row_of_the_weight_has_a_scale_by_which_it_is_off_by_half_a_step():
    torch.manual_seed(0)
    weight = torch.randn(4, 50) * torch.tensor([1e-6, 1.0, 1e6, 0.0])[:, None]
    product = Int8Product.of(weight)
    assert bool(((product.q * product.scale[:, None] - weight).abs() <= 0.501 * product.scale[:, None]).all())
    assert product.q.abs().amax(dim=1).tolist() == [largest_weight()] * 3 + [0]


@needs_int8
def test_some_rows_give_some_columns():
    torch.manual_seed(0)
    product, x = Int8Product.of(torch.randn(12, 8)), torch.randint(0, 256, (5, 8), dtype=torch.uint8)
    ids = torch.tensor([3, 11, 0])
    assert torch.equal(product.rows(ids)(x)[:, :3], product(x)[:, ids])
    assert torch.equal(product.rows(ids).scale, product.scale[ids])


@needs_int8
def test_weights_are_coarser_where_large_products_would_be_cut_off(monkeypatch, tried_anew):
    exact, pairs = Int8Product.__call__, []

    def two_in_16_bits(product, x):
        both = x.double()[:, None, :] * product.q.double()
        pairs.append(both.unflatten(2, (-1, 2)).sum(dim=3).clamp(-(2**15), 2**15 - 1))
        return (pairs[-1].sum(dim=2) + product.offset).float()

    monkeypatch.setattr(Int8Product, "__call__", two_in_16_bits)
    assert largest_weight() == COARSEST
    assert pairs[0].max() == 2**15 - 1 > pairs[1].max()
    product, x = Int8Product.of(torch.ones(COLUMNS, 8)), torch.full((3, 8), 255, dtype=torch.uint8)
    assert torch.equal(product(x), exact(product, x))


@needs_int8
def test_weights_have_all_steps_where_nothing_is_cut_off(monkeypatch, tried_anew):
    def exact(product, x):
        return (x.double() @ product.q.double().t() + product.offset).float()

    monkeypatch.setattr(Int8Product, "__call__", exact)
    assert largest_weight() == FINEST


def test_where_there_is_no_exact_product_that_is_one_clear_sentence(monkeypatch, tried_anew):
    class Ops:
        onednn = None

    monkeypatch.setattr(int8_product.torch, "ops", Ops)
    with pytest.raises(ConvTextError, match="needs a torch with oneDNN's products of int8, newer than 2.1; [0-9.]+"):
        Int8Product.of(torch.randn(3, 4))
    monkeypatch.setattr(Int8Product, "__init__", lambda *arguments: None)
    monkeypatch.setattr(Int8Product, "__call__", lambda product, x: torch.zeros(64, 64))
    with pytest.raises(ConvTextError, match="int8 is not for this processor, which cuts off sums"):
        Int8Product.of(torch.randn(3, 4))
