"""The k largest scores of each row of a wide product, of which one row is worked out at a time.

On a GPU that is ``torch.topk``. On a CPU the scaling of an int8 product, the bias and the search for the largest took
three times as long as the product itself when each was a pass over memory of its own.
"""

from typing import NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_convtext.compiling import compiled_once

# Columns are dealt out to so many classes: their maxima are found without a branch, and what is looked at one by one
# are the k classes with the largest.
CLASSES = 128


class Scaling(NamedTuple):
    """Makes scores of a product: ``score[i, j] = rows[i] * (product[i, j] * columns[j]) + bias[j]``, in float32.

    Without rows and columns, which go together, the product is only to be added to.
    """

    rows: Optional[Tensor]
    columns: Optional[Tensor]
    bias: Tensor


def top_k(product: Tensor, scaling: Scaling, k: int) -> Tuple[Tensor, Tensor, Tensor]:
    """
    Args:
        product: ``(rows, width)`` of floats or int32; the last column takes no part.
        scaling: ``(rows,)``, ``(width,)`` and ``(width,)``.
        k: how many are wanted; from 1 on, and less than ``width``.

    Returns:
        ``(rows, k)`` float32 scores, the largest first, and their columns, and ``(rows,)`` the scores in the last
        column. Equal scores are in no order in particular, and one of -inf is at no column in particular.
    """
    if product.device.type != "cpu":
        return top_k_of_scores(product, scaling, k)
    rows, columns, bias = scaling
    if rows is None:
        rows, columns = torch.ones(len(product)), torch.ones_like(bias)
    if product.dtype != torch.int32:
        product = product.float()
    return tuple(map(torch.from_numpy, search_classes(*(table.numpy() for table in (product, rows, columns, bias)), k)))


def scaled_scores(product: Tensor, scaling: Scaling) -> Tensor:
    """float32 ``(rows, width)``."""
    scores = product.float()
    if scaling.rows is not None:
        scores = scores * scaling.columns * scaling.rows[:, None]
    return scores + scaling.bias


def top_k_of_scores(product: Tensor, scaling: Scaling, k: int) -> Tuple[Tensor, Tensor, Tensor]:
    """``top_k`` with all scores in memory."""
    scores = scaled_scores(product, scaling)
    return (*scores[:, :-1].topk(k, dim=1), scores[:, -1])


@compiled_once
def search_classes(
    product: np.ndarray, row_scale: np.ndarray, column_scale: np.ndarray, bias: np.ndarray, k: int
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``top_k`` on the CPU."""
    rows, width = product.shape
    columns = width - 1
    whole = columns // CLASSES * CLASSES
    values, index = np.full((rows, k), -np.inf, np.float32), np.zeros((rows, k), np.int64)
    last = np.empty(rows, np.float32)
    scores, maxima = np.empty(width, np.float32), np.empty(CLASSES, np.float32)
    largest = np.empty(k, np.float32)
    for row in range(rows):
        scale = row_scale[row]
        for column in range(width):
            scores[column] = scale * (np.float32(product[row, column]) * column_scale[column]) + bias[column]
        last[row] = scores[columns]

        maxima[:] = -np.inf
        for start in range(0, whole, CLASSES):
            part = scores[start : start + CLASSES]
            for place in range(CLASSES):
                maxima[place] = part[place] if part[place] > maxima[place] else maxima[place]
        for place in range(columns - whole):
            maxima[place] = max(maxima[place], scores[whole + place])

        # The k largest scores are not below the k-th largest maximum.
        largest[:] = -np.inf
        for place in range(CLASSES):
            if maxima[place] > largest[k - 1]:
                at = k - 1
                while at > 0 and largest[at - 1] < maxima[place]:
                    largest[at] = largest[at - 1]
                    at -= 1
                largest[at] = maxima[place]
        for place in range(CLASSES):
            if maxima[place] < largest[k - 1]:
                continue
            for column in range(place, columns, CLASSES):
                value = scores[column]
                if value > values[row, k - 1]:
                    at = k - 1
                    while at > 0 and values[row, at - 1] < value:
                        values[row, at], index[row, at] = values[row, at - 1], index[row, at - 1]
                        at -= 1
                    values[row, at], index[row, at] = value, column
    return values, index, last
