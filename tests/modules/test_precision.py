"""Which type products are computed in where the machine may decide."""

import pytest
import torch
from torch import nn

from fairseq_convtext.models.common import prepare_for_inference
from fairseq_convtext.modules import precision
from fairseq_convtext.modules.int8_product import Int8Product
from tests.int8 import needs_int8


@pytest.fixture(autouse=True)
def measured_anew():
    precision.bfloat16_is_faster.cache_clear()
    yield
    precision.bfloat16_is_faster.cache_clear()


@pytest.mark.parametrize("faster", [torch.float32, torch.bfloat16])
def test_auto_is_the_faster_type(monkeypatch, faster):
    seconds = {torch.float32: 0.2, torch.bfloat16: 0.2, faster: 0.1}
    monkeypatch.setattr(precision, "product_seconds", lambda dtypes: [seconds[dtype] for dtype in dtypes])
    assert precision.chosen_dtype("auto", "cpu") == faster


def test_a_type_with_a_name_is_taken_whatever_is_faster():
    assert precision.chosen_dtype("float32", "cpu") == torch.float32
    assert precision.chosen_dtype("bfloat16", "cpu") == torch.bfloat16


def test_the_trial_measures_the_type_that_it_names_even_under_autocast(monkeypatch):
    used, product = [], torch.mm
    monkeypatch.setattr(torch, "mm", lambda *tensors: used.append(product(*tensors)) or used[-1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        precision.chosen_dtype("auto", "cpu")
    assert {result.dtype for result in used} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("generation, is_faster", [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_known_by_its_generation(monkeypatch, generation, is_faster):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: generation)
    assert precision.bfloat16_is_faster("cuda") is is_faster


@needs_int8
@pytest.mark.parametrize("int8, warned", [(0.1, False), (0.4, True)])
def test_a_model_in_int8_that_is_slower_than_in_float32_is_one_warning(monkeypatch, caplog, int8, warned):
    precision.warn_of_slow_int8.cache_clear()
    seconds = {torch.float32: 0.2, torch.int8: int8}
    monkeypatch.setattr(precision, "product_seconds", lambda dtypes, repetitions: [seconds[dtype] for dtype in dtypes])
    for _ in range(2):
        prepare_for_inference(nn.Sequential(nn.Linear(4, 4)), "int8")
    said = [record.getMessage() for record in caplog.records if "int8 take 2.0 times as long" in record.getMessage()]
    assert len(said) == warned
    precision.warn_of_slow_int8.cache_clear()


@needs_int8
def test_the_trial_of_int8_is_a_product_of_whole_numbers(monkeypatch):
    used, product = [], Int8Product.__call__
    monkeypatch.setattr(Int8Product, "__call__", lambda *factors: used.append(factors) or product(*factors))
    (seconds,) = precision.product_seconds([torch.int8], repetitions=2)
    assert seconds > 0 and [x.dtype for _, x in used[-2:]] == [torch.uint8] * 2
