"""Which type products are computed in where the machine may decide."""

import pytest
import torch

from fairseq_convtext.modules import precision


@pytest.fixture(autouse=True)
def measured_anew():
    precision.bfloat16_is_faster.cache_clear()
    yield
    precision.bfloat16_is_faster.cache_clear()


@pytest.mark.parametrize("faster", [torch.float32, torch.bfloat16])
def test_auto_is_the_faster_type(monkeypatch, faster):
    seconds = {torch.float32: 0.2, torch.bfloat16: 0.2, faster: 0.1}
    monkeypatch.setattr(precision, "product_seconds", lambda products: [seconds[one().dtype] for one in products])
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
