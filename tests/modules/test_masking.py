import torch

from fairseq_convtext.modules.masking import pad_right, padding_mask

PAD = 1


def test_tokens_padded_on_either_side_become_the_same_right_padded_batch():
    left = torch.tensor([[PAD, PAD, 7, 8, 2], [5, 6, 7, 8, 2], [PAD, PAD, PAD, PAD, 2]])
    right = torch.tensor([[7, 8, 2, PAD, PAD], [5, 6, 7, 8, 2], [2, PAD, PAD, PAD, PAD]])
    for tokens in (left, right):
        padded, lengths = pad_right(tokens, PAD)
        assert torch.equal(padded, right)
        assert lengths.tolist() == [3, 5, 1]


def test_columns_that_hold_only_padding_are_cut():
    padded, lengths = pad_right(torch.tensor([[PAD, 4, 2, PAD], [PAD, PAD, 2, PAD]]), PAD)
    assert padded.tolist() == [[4, 2], [2, PAD]]
    assert lengths.tolist() == [2, 1]


def test_mask_is_true_exactly_at_padding():
    assert padding_mask(torch.tensor([2, 0, 3]), 3)[:, :, 0].tolist() == [
        [False, False, True],
        [True, True, True],
        [False, False, False],
    ]
