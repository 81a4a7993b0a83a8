"""The k largest scores of each row of a wide product, of which one row is worked out at a time.

On a GPU that is ``torch.topk``. On a CPU the scaling of an int8 product, the bias and the search for the largest took
three times as long as the product itself when each was a pass over memory of its own.
"""

from typing import NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from fairseq_convtext.compiling import compiled, compiled_once

# Columns are dealt out to so many classes: their maxima are found without a branch, and what is looked at one by one
# are the k classes with the largest.
CLASSES = 128


class Scaling(NamedTuple):
    """Makes scores of a product: ``score[i, j] = rows[i] * (product[i, j] * columns[j]) + bias[j]``, in float32.

    Without rows and columns, which go together, the product is only to be added to. A product has as many columns as
    ``bias``, or more, which mean nothing.
    """

    rows: Optional[Tensor]
    columns: Optional[Tensor]
    bias: Tensor


def top_k(product: Tensor, scaling: Scaling, k: int) -> Tuple[Tensor, Tensor, Tensor]:
    """
    Args:
        product: ``(rows, width or more)``; the last one of the width takes no part.
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
    product = product.float()
    return tuple(map(torch.from_numpy, search_classes(*(table.numpy() for table in (product, rows, columns, bias)), k)))


def scaled_scores(product: Tensor, scaling: Scaling) -> Tensor:
    """float32 ``(rows, width)``."""
    scores = product[:, : len(scaling.bias)].float()
    if scaling.rows is not None:
        scores = scores * scaling.columns * scaling.rows[:, None]
    return scores + scaling.bias


def top_k_of_scores(product: Tensor, scaling: Scaling, k: int) -> Tuple[Tensor, Tensor, Tensor]:
    """``top_k`` with all scores in memory."""
    scores = scaled_scores(product, scaling)
    return (*scores[:, :-1].topk(k, dim=1), scores[:, -1])


@compiled
def scale_row(product: np.ndarray, scale: float, columns: np.ndarray, bias: np.ndarray, scores: np.ndarray) -> None:
    """One row of ``Scaling``; not called from int8_kernels.py, for numba keeps what it compiles by the file."""
    for column in range(len(scores)):
        scores[column] = scale * (product[column] * columns[column]) + bias[column]


@compiled
def class_maxima(scores: np.ndarray, maxima: np.ndarray) -> None:
    """The largest score of each class."""
    parts = len(scores) // CLASSES
    maxima[:] = -np.inf
    for part in range(parts):
        x = scores[part * CLASSES : (part + 1) * CLASSES]
        for place in range(CLASSES):
            maxima[place] = np.fmax(x[place], maxima[place])  # a comparison would be a masked store, and slow
    for place in range(len(scores) - parts * CLASSES):
        maxima[place] = np.fmax(scores[parts * CLASSES + place], maxima[place])


@compiled
def insert(values: np.ndarray, index: np.ndarray, value: float, place: int) -> None:
    """A value and where it is from among the largest, the smallest of which drops out."""
    at = len(values) - 1
    if value > values[at]:
        while at > 0 and values[at - 1] < value:
            values[at], index[at] = values[at - 1], index[at - 1]
            at -= 1
        values[at], index[at] = value, place


@compiled_once
def search_classes(
    product: np.ndarray, row_scale: np.ndarray, column_scale: np.ndarray, bias: np.ndarray, k: int
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``top_k`` on the CPU."""
    rows, width = len(product), len(bias)
    values, index = np.full((rows, k), -np.inf, np.float32), np.zeros((rows, k), np.int64)
    last = np.empty(rows, np.float32)
    scores, maxima = np.empty(width, np.float32), np.empty(CLASSES, np.float32)
    largest, classes = np.empty(k, np.float32), np.empty(k, np.int64)
    for row in range(rows):
        scale_row(product[row], row_scale[row], column_scale, bias, scores)
        last[row] = scores[-1]
        class_maxima(scores[:-1], maxima)
        # The k largest scores, or others as large, are in the k classes with the largest maxima.
        largest[:], classes[:] = -np.inf, width
        for place in range(CLASSES):
            insert(largest, classes, maxima[place], place)
        for place in classes:
            for column in range(place, width - 1, CLASSES):
                insert(values[row], index[row], scores[column], column)
    return values, index, last
