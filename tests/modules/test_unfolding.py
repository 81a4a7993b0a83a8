import pytest
import torch

from fairseq_convtext.modules.unfolding import Unfolding


def test_beyond_its_own_length_a_sequence_goes_on_with_the_vector():
    unfolding, x, lengths = Unfolding(4), torch.randn(2, 5, 4), torch.tensor([5, 2])
    y = unfolding(x, lengths, 0, 8)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(y[row, :length], x[row, :length])
        assert torch.equal(y[row, length:], unfolding.beyond.expand(8 - length, 4))


@pytest.mark.parametrize("start, stop", [(0, 3), (2, 3), (4, 7), (5, 6), (9, 12)])
def test_any_window_is_that_of_the_whole(start, stop):
    unfolding, x, lengths = Unfolding(4), torch.randn(2, 5, 4), torch.tensor([5, 2])
    assert torch.equal(unfolding(x, lengths, start, stop), unfolding(x, lengths, 0, 12)[:, start:stop])
