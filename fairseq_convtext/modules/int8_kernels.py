"""What comes before and after an int8 product, each in as few passes over memory as there can be.

Written as separate tensor operations, these take longer than the product itself. The loops over channels are plain
enough for the compiler to make vector instructions of them, which it does not where they are nested in one function.
"""

from typing import Tuple

import numpy as np

from fairseq_convtext.compiling import compiled, compiled_once

LARGEST = np.float32(127)
SMALLEST = np.float32(1e-30)  # of zeros: no scale of zero


@compiled
def largest_of(x: np.ndarray, hidden: np.ndarray, maxima: np.ndarray) -> float:
    """The largest absolute value at the positions that are not hidden; ``maxima`` ``(channels,)`` is scratch memory."""
    maxima[:] = SMALLEST
    for position in range(x.shape[0]):
        if not hidden[position]:
            row = x[position]
            for channel in range(x.shape[1]):
                size = abs(row[channel])
                maxima[channel] = size if size > maxima[channel] else maxima[channel]
    return maxima.max()


@compiled
def round_rows(x: np.ndarray, hidden: np.ndarray, factor: float, rounded: np.ndarray) -> None:
    """``x * factor`` in whole numbers, zero where it is hidden."""
    for position in range(x.shape[0]):
        row, whole = x[position], rounded[position]
        if hidden[position]:
            whole[:] = 0
        else:
            for channel in range(x.shape[1]):
                whole[channel] = np.int8(np.rint(row[channel] * factor))


@compiled
def fill_windows(rounded: np.ndarray, kernel_size: int, dilation: int, windows: np.ndarray) -> None:
    """What a filter reads at each position: ``(positions, channels)`` to ``(positions, kernel_size, channels)``."""
    positions, channels = rounded.shape
    # As numbers in a row: to make a slice takes several times as long as to copy what it holds.
    source, target = rounded.reshape(-1), windows.reshape(-1)
    reach = dilation * (kernel_size - 1) // 2
    for position in range(positions):
        for place in range(kernel_size):
            read = position - reach + place * dilation
            to, start = (position * kernel_size + place) * channels, read * channels
            if 0 <= read < positions:
                for channel in range(channels):
                    target[to + channel] = source[start + channel]
            else:
                for channel in range(channels):
                    target[to + channel] = 0


@compiled_once
def quantised_windows(
    x: np.ndarray, hidden: np.ndarray, kernel_size: int, dilation: int
) -> Tuple[np.ndarray, np.ndarray]:
    """What a length-preserving filter reads at each position, rounded, with one scale for each sentence.

    Args:
        x: float32 ``(batch, positions, channels)``.
        hidden: bool ``(batch, positions)``, true where zeros are read.
        kernel_size, dilation: of the filter.

    Returns:
        int8 ``(batch * positions, kernel_size * channels)``, and float32 ``(batch,)``: x is about ``q * scale``.
    """
    batch, positions, channels = x.shape
    windows = np.empty((batch, positions, kernel_size, channels), np.int8)
    scales = np.empty(batch, np.float32)
    maxima, rounded = np.empty(channels, np.float32), np.empty((positions, channels), np.int8)
    for sentence in range(batch):
        largest = largest_of(x[sentence], hidden[sentence], maxima)
        scales[sentence] = largest / LARGEST
        round_rows(x[sentence], hidden[sentence], LARGEST / largest, rounded)
        fill_windows(rounded, kernel_size, dilation, windows[sentence])
    return windows.reshape(batch * positions, kernel_size * channels), scales


@compiled_once
def scaled(product: np.ndarray, scales: np.ndarray, columns: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """``product * scale * columns + bias`` in float32, in the memory of the product, which is gone.

    Args:
        product: int32 ``(rows, width)``.
        scales: float32 ``(batch,)``, each of as many rows.
        columns, bias: float32 ``(width,)``.
    """
    rows, width = product.shape
    each = rows // max(len(scales), 1)
    found = product.view(np.float32)
    line, factors = np.empty(width, np.float32), np.empty(width, np.float32)
    for sentence in range(len(scales)):
        for column in range(width):
            factors[column] = scales[sentence] * columns[column]
        for row in range(sentence * each, (sentence + 1) * each):
            whole, result = product[row], found[row]
            # Through a row of its own: what is read and what is written are the same memory.
            for column in range(width):
                line[column] = np.float32(whole[column]) * factors[column] + bias[column]
            for column in range(width):
                result[column] = line[column]
    return found
