import pytest
import torch

from fairseq_convtext.decoding.top_k import BLOCK, top_k


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [4, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 50])
@pytest.mark.parametrize("more", [0, 1, BLOCK])
def test_values_are_those_of_torch_and_stand_at_their_columns(columns, more, dtype):
    torch.manual_seed(columns)
    scores = torch.randn(20, columns + more).to(dtype)
    scores[:, columns:] = 100.0  # columns that take no part
    values, index = top_k(scores, columns, 4)
    assert torch.equal(values, scores[:, :columns].float().topk(4, dim=1).values)
    assert torch.equal(scores.float().gather(1, index), values)
    assert all(len(set(row)) == 4 for row in index.tolist())


def test_equal_values_and_impossible_ones():
    scores = torch.full((2, 2 * BLOCK), float("-inf"))
    scores[0, [3, BLOCK + 7, BLOCK + 9]] = 1.0
    values, index = top_k(scores, 2 * BLOCK, 2)
    assert values[0].tolist() == [1.0, 1.0] and index[0].tolist() == [3, BLOCK + 7]
    assert values[1].tolist() == [float("-inf")] * 2


def test_all_columns_in_order():
    scores = torch.tensor([[0.5, 2.0, -1.0]])
    values, index = top_k(scores, 3, 3)
    assert index.tolist() == [[1, 0, 2]] and values.tolist() == [[2.0, 0.5, -1.0]]
