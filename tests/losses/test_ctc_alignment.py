import itertools

import pytest
import torch

from fairseq_convtext.losses.ctc_alignment import best_alignment

BLANK = 0


def best_by_trying_all(log_probs, target):
    """The most probable path of ``(positions, vocabulary)`` that spells ``target``; None if there is none."""
    best, best_path = float("-inf"), None
    for path in itertools.product(range(log_probs.size(1)), repeat=log_probs.size(0)):
        if [symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK] == target:
            score = sum(float(log_probs[t, symbol]) for t, symbol in enumerate(path))
            if score > best:
                best, best_path = score, list(path)
    return best_path


@pytest.mark.parametrize("seed", range(8))
def test_alignment_is_the_best_of_all_paths(seed):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(6, 6, 4)
    targets = torch.tensor([[1, 1, 2], [3, 2, 1], [2, 2, 2], [1, 9, 9], [9, 9, 9], [1, 2, 1]]).clamp(max=3)
    target_lengths = torch.tensor([3, 3, 3, 1, 0, 2])
    lengths = torch.tensor([6, 3, 5, 4, 2, 6])
    found = best_alignment(logits, targets, lengths, target_lengths, BLANK)
    for row, n in enumerate(lengths.tolist()):
        target = targets[row, : target_lengths[row]].tolist()
        wanted = best_by_trying_all(logits[row, :n].log_softmax(dim=1), target)
        assert found[row].tolist() == wanted + [BLANK] * (6 - n)


def test_a_target_that_does_not_fit_gives_blanks():
    found = best_alignment(torch.randn(1, 4, 3), torch.tensor([[1, 1, 1]]), torch.tensor([4]), torch.tensor([3]), BLANK)
    assert found.tolist() == [[BLANK] * 4]
