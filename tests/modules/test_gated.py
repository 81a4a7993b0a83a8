"""A gated unit of each position: its formula, in floats and in int8."""

import numpy as np
import torch
from torch import nn

from fairseq_convtext.modules.gated import GatedLinear
from fairseq_convtext.modules.int8 import use_int8
from fairseq_convtext.modules.int8_kernels import quantised_rows, quantised_windows, scaled, scaled_rows
from fairseq_convtext.modules.int8_product import ZERO
from tests.int8 import needs_int8


def formula(unit, x):
    value, gate = unit.weight.chunk(2)
    return (x @ value.t() + unit.bias[:5]) * (x @ gate.t() + unit.bias[5:]).sigmoid()


@torch.no_grad()
def test_half_of_the_features_are_gates_of_the_others():
    unit, x = GatedLinear(8, 5), torch.randn(2, 3, 8)
    torch.testing.assert_close(unit(x), formula(unit, x))


@needs_int8
@torch.no_grad()
def test_int8_is_near_and_no_checkpoint_sees_it():
    unit, x = GatedLinear(8, 5), 3 * torch.randn(2, 30, 8)
    names, wanted = set(unit.state_dict()), formula(unit, x)
    use_int8(nn.Sequential(unit))
    found = unit(x)
    assert set(unit.state_dict()) == names and found.shape == wanted.shape
    assert 0 < float((found - wanted).norm() / wanted.norm()) < 0.02
    # A position has a scale of its own: nothing depends on what else is there.
    assert torch.equal(unit(x[1, 7]), found[1, 7])


def test_rows_are_rounded_and_scaled_as_sentences_of_one_position_are():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(6, 10)).astype(np.float32) * np.float32([[1], [1e-20], [0], [1e6], [1], [1]])
    hidden = np.zeros((6, 1), bool)
    q, scales = quantised_rows(x)
    for found, wanted in zip((q, scales), quantised_windows(x[:, None], hidden, 1, 1)):
        np.testing.assert_array_equal(found, wanted)
    q = q.astype(int) - ZERO
    assert not q[2].any() and np.abs(q[[0, 1, 3]]).max(axis=1).tolist() == [127] * 3
    product = generator.integers(-(10**6), 10**6, size=(6, 8)).astype(np.float32)
    columns, bias = generator.random((2, 8)).astype(np.float32)
    for gated in (False, True):
        found = scaled_rows(product, scales, columns, bias, gated)
        np.testing.assert_array_equal(found, scaled(product, scales, columns, bias, hidden, gated)[:, 0])
