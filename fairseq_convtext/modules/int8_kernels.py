"""What comes before and after an int8 product, each in as few passes over memory as there can be.

Written as separate tensor operations, these take longer than the product itself. What is done for a sentence or a row
is a function for each step, with loops over channels that the compiler makes vector instructions of; all in one
function, it does not. They run on one thread.
"""

from typing import Tuple

import numpy as np

from fairseq_convtext.compiling import compiled, compiled_once

LARGEST = np.float32(127)
ZERO = np.uint8(128)  # the byte that stands for 0
SMALLEST = np.float32(1e-30)  # of zeros: no scale of zero


@compiled
def largest_of(x: np.ndarray, hidden: np.ndarray, maxima: np.ndarray) -> float:
    """The largest absolute value at the positions that are not hidden; ``maxima`` ``(channels,)`` is scratch memory."""
    maxima[:] = SMALLEST
    for position in range(x.shape[0]):
        if not hidden[position]:
            row = x[position]
            for channel in range(x.shape[1]):
                maxima[channel] = np.fmax(abs(row[channel]), maxima[channel])  # a comparison would be a masked store
    return maxima.max()


@compiled
def round_rows(x: np.ndarray, hidden: np.ndarray, factor: float, rounded: np.ndarray) -> None:
    """``x * factor`` in whole numbers, zero where it is hidden; ZERO stands for it."""
    for position in range(x.shape[0]):
        row, whole = x[position], rounded[position]
        if hidden[position]:
            whole[:] = ZERO
        else:
            for channel in range(x.shape[1]):
                whole[channel] = np.uint8(np.rint(row[channel] * factor) + np.float32(ZERO))


@compiled
def fill_windows(
    rounded: np.ndarray, hidden: np.ndarray, kernel_size: int, dilation: int, windows: np.ndarray
) -> int:
    """What a filter reads at each position that is not hidden, to the first of ``windows``; how many they are."""
    positions, channels = rounded.shape
    # One-dimensional, and with places that only loops count: so the copies become vector instructions.
    source, target = rounded.reshape(-1), windows.reshape(-1)
    reach = dilation * (kernel_size - 1) // 2
    shown = np.flatnonzero(~hidden)
    for at in range(len(shown)):
        for place in range(kernel_size):
            read = shown[at] - reach + place * dilation
            to, start = (at * kernel_size + place) * channels, read * channels
            if 0 <= read < positions:
                for channel in range(channels):
                    target[to + channel] = source[start + channel]
            else:
                for channel in range(channels):
                    target[to + channel] = ZERO
    return len(shown)


@compiled_once
def quantised_windows(
    x: np.ndarray, hidden: np.ndarray, kernel_size: int, dilation: int
) -> Tuple[np.ndarray, np.ndarray]:
    """What a length-preserving filter reads, rounded, with one scale for each sentence.

    Args:
        x: float32 ``(batch, positions, channels)``.
        hidden: bool ``(batch, positions)``, true where zeros are read and nothing is wanted.
        kernel_size, dilation: of the filter.

    Returns:
        uint8 ``(windows, kernel_size * channels)``, one for each position that is not hidden, in their order; and
        float32 ``(batch,)``: x is about ``(q - ZERO) * scale``.
    """
    batch, positions, channels = x.shape
    windows = np.empty((hidden.size - hidden.sum(), kernel_size, channels), np.uint8)
    scales = np.empty(batch, np.float32)
    maxima, rounded = np.empty(channels, np.float32), np.empty((positions, channels), np.uint8)
    used = 0
    for sentence in range(batch):
        largest = largest_of(x[sentence], hidden[sentence], maxima)
        scales[sentence] = largest / LARGEST
        round_rows(x[sentence], hidden[sentence], LARGEST / largest, rounded)
        used += fill_windows(rounded, hidden[sentence], kernel_size, dilation, windows[used:])
    return windows.reshape(len(windows), kernel_size * channels), scales


@compiled
def round_row(row: np.ndarray, whole: np.ndarray) -> float:
    """A row in whole numbers; the scale by which these are about that row."""
    largest = SMALLEST
    for channel in range(len(row)):
        size = abs(row[channel])
        largest = size if size > largest else largest
    factor = LARGEST / largest
    for channel in range(len(row)):
        whole[channel] = np.uint8(np.rint(row[channel] * factor) + np.float32(ZERO))
    return largest / LARGEST


@compiled_once
def quantised_rows(x: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """What a product reads, rounded: uint8 of the shape of x, and the scale of each row.

    Args:
        x: float32 ``(rows, channels)``.
    """
    rounded, scales = np.empty(x.shape, np.uint8), np.empty(len(x), np.float32)
    for at in range(len(x)):
        scales[at] = round_row(x[at], rounded[at])
    return rounded, scales


@compiled
def scale_row(product: np.ndarray, scale: float, columns: np.ndarray, bias: np.ndarray, found: np.ndarray) -> None:
    """``product * scale * columns + bias``."""
    for column in range(len(found)):
        found[column] = product[column] * (scale * columns[column]) + bias[column]


@compiled
def gate_row(product: np.ndarray, scale: float, columns: np.ndarray, bias: np.ndarray, found: np.ndarray) -> None:
    """As ``scale_row``, the first half of the columns times the sigmoid of the second.

    ``sigmoid(x) = (1 + tanh(x / 2)) / 2`` with seven terms of Lambert's continued fraction of tanh, cut where that
    is 1: within 1e-4, a hundredth of what rounding to int8 changes. An exponential would not become vector
    instructions here.
    """
    width = len(found)
    gate, gate_columns, gate_bias = product[width:], columns[width:], bias[width:]
    half, end = np.float32(0.5), np.float32(4.97)
    for column in range(width):
        value = product[column] * (scale * columns[column]) + bias[column]
        x = half * (gate[column] * (scale * gate_columns[column]) + gate_bias[column])
        x = x if x > -end else -end
        x = x if x < end else end
        q = x * x
        top = x * (np.float32(135135) + q * (np.float32(17325) + q * (np.float32(378) + q)))
        bottom = np.float32(135135) + q * (np.float32(62370) + q * (np.float32(3150) + q * np.float32(28)))
        found[column] = value * (half + half * top / bottom)


@compiled_once
def scaled_rows(
    product: np.ndarray, scales: np.ndarray, columns: np.ndarray, bias: np.ndarray, gated: bool
) -> np.ndarray:
    """As ``scaled``, with a scale for each row of the product."""
    width = len(columns) // 2 if gated else len(columns)
    found = np.empty((len(product), width), np.float32)
    for at in range(len(product)):
        if gated:
            gate_row(product[at], scales[at], columns, bias, found[at])
        else:
            scale_row(product[at], scales[at], columns, bias, found[at])
    return found


@compiled_once
def scaled(
    product: np.ndarray, scales: np.ndarray, columns: np.ndarray, bias: np.ndarray, hidden: np.ndarray, gated: bool
) -> np.ndarray:
    """``product * scale * columns + bias`` where it belongs.

    Args:
        product: float32 ``(windows, width)``, whole numbers; further columns are not read.
        scales: float32 ``(batch,)``.
        columns, bias: float32 ``(width,)``.
        hidden: bool ``(batch, positions)``.
        gated: whether the second half of the columns are the gates of the first.

    Returns:
        float32 ``(batch, positions, width)``, of half the width if gated; zero where it is hidden.
    """
    batch, positions = hidden.shape
    width = len(columns) // 2 if gated else len(columns)
    found = np.empty((batch, positions, width), np.float32)
    used = 0
    for sentence in range(batch):
        for position in range(positions):
            if hidden[sentence, position]:
                found[sentence, position] = 0
            elif gated:
                gate_row(product[used], scales[sentence], columns, bias, found[sentence, position])
                used += 1
            else:
                scale_row(product[used], scales[sentence], columns, bias, found[sentence, position])
                used += 1
    return found
