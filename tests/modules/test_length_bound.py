import math
from fractions import Fraction

import pytest
import torch

from fairseq_convtext.modules.length_bound import length_bound


@pytest.mark.parametrize("a", ["0", "0.1", "1.0", "1.2", "1.5", "2.0", "3.3"])
@pytest.mark.parametrize("b", ["2", "7.5", "32"])
def test_bound_is_the_exact_ceiling_below_the_limit(a, b):
    lengths = torch.arange(1, 2000)
    exact = [min(math.ceil(Fraction(a) * n + Fraction(b)), 1024) for n in range(1, 2000)]
    assert length_bound(lengths, float(a), float(b), 1024).tolist() == exact


def test_bound_of_a_sentence_does_not_depend_on_its_batch():
    together = length_bound(torch.tensor([3, 50, 9]), 1.2, 4, 1024)
    alone = [int(length_bound(torch.tensor([n]), 1.2, 4, 1024)) for n in (3, 50, 9)]
    assert together.tolist() == alone
