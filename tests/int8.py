"""Tests of int8 skip where this torch or this processor has no exact product of it."""

import pytest

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.int8_product import largest_weight


def has_int8() -> bool:
    try:
        largest_weight()
    except ConvTextError:
        return False
    return True


needs_int8 = pytest.mark.skipif(not has_int8(), reason="this processor or torch has no exact product of int8")
