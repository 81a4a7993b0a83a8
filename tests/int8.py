"""Tests of int8 skip where this torch has no products of it on this processor, not where they are wrong."""

import pytest
import torch

from fairseq_convtext.modules.int8_product import Int8Product


def has_int8() -> bool:
    try:
        Int8Product(torch.ones(2, 4, dtype=torch.int8), torch.ones(2))(torch.ones(3, 4, dtype=torch.uint8))
    except (AttributeError, RuntimeError):
        return False
    return True


needs_int8 = pytest.mark.skipif(not has_int8(), reason="this torch has no products of int8 on this processor")
