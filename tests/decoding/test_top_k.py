"""The best columns of a scaled product: those of torch, whatever the width, and found without a branch on any class."""

import pytest
import torch

from fairseq_convtext.decoding.top_k import CLASSES, Scaling, top_k, top_k_of_scores

WIDTHS = [4, CLASSES - 1, CLASSES, CLASSES + 1, 3 * CLASSES, 3 * CLASSES + 50]


def as_they_are(scores):
    """The scaling of a product that is the scores already."""
    return Scaling(None, None, torch.zeros(scores.size(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", WIDTHS)
def test_values_are_those_of_torch_and_stand_at_their_columns(columns, dtype):
    torch.manual_seed(columns)
    scores = torch.randn(20, columns + 1).to(dtype)
    scores[:, columns] = 100.0  # takes no part
    values, index, last = top_k(scores, as_they_are(scores), 4)
    assert torch.equal(values, scores[:, :columns].float().topk(4, dim=1).values)
    assert torch.equal(scores.float().gather(1, index), values)
    assert all(len(set(row)) == 4 for row in index.tolist())
    assert torch.equal(last, scores[:, columns].float())


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_product_of_whole_numbers_is_scaled_before_it_is_compared(columns):
    torch.manual_seed(columns)
    product = torch.randint(-100_000, 100_000, (20, columns + 1)).float()
    scaling = Scaling(torch.rand(20) / 100, torch.rand(columns + 1) / 100, torch.randn(columns + 1))
    scores = scaling.rows[:, None] * (product * scaling.columns) + scaling.bias
    wider = torch.nn.functional.pad(product, (0, 5), value=1e9)  # what is beyond the scaling means nothing
    for one in (product, wider):
        values, index, last = top_k(one, scaling, 3)
        torch.testing.assert_close(values, scores[:, :-1].topk(3, dim=1).values)
        torch.testing.assert_close(scores.gather(1, index), values)
        torch.testing.assert_close(last, scores[:, -1])
        for found, wanted in zip(top_k_of_scores(one, scaling, 3), (values, index, last)):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("scaled", [False, True])
def test_all_scores_at_once_as_on_a_gpu_give_the_same(scaled):
    torch.manual_seed(0)
    product, bias = torch.randn(20, 3 * CLASSES + 1), torch.randn(3 * CLASSES + 1)
    scaling = Scaling(torch.rand(20), torch.rand(3 * CLASSES + 1), bias) if scaled else Scaling(None, None, bias)
    for one, other in zip(top_k_of_scores(product, scaling, 3), top_k(product, scaling, 3)):
        torch.testing.assert_close(one, other)


def test_equal_values_and_impossible_ones():
    scores = torch.full((2, 2 * CLASSES + 1), float("-inf"))
    scores[0, [3, CLASSES + 3, CLASSES + 9]] = 1.0  # two of them in one class
    values, index, last = top_k(scores, as_they_are(scores), 4)
    assert values[0].tolist() == [1.0, 1.0, 1.0, float("-inf")]
    assert sorted(index[0, :3].tolist()) == [3, CLASSES + 3, CLASSES + 9]
    assert values[1].tolist() == [float("-inf")] * 4 and last.tolist() == [float("-inf")] * 2


def test_all_columns_in_order():
    scores = torch.tensor([[0.5, 2.0, -1.0, 9.0]])
    values, index, last = top_k(scores, as_they_are(scores), 3)
    assert index.tolist() == [[1, 0, 2]] and values.tolist() == [[2.0, 0.5, -1.0]] and last.tolist() == [9.0]


def test_the_largest_may_all_lie_in_one_class():
    scores = torch.zeros(1, 5 * CLASSES + 1)
    scores[0, 7 : 5 * CLASSES : CLASSES] = torch.tensor([3.0, 5.0, 1.0, 4.0, 2.0])
    values, index, _ = top_k(scores, as_they_are(scores), 4)
    assert values[0].tolist() == [5.0, 4.0, 3.0, 2.0]
    assert index[0].tolist() == [7 + place * CLASSES for place in (1, 3, 0, 4)]
