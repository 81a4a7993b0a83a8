"""The sum of a dynamic convolution where no gradient is wanted, in one pass over memory and on one thread."""

import numpy as np

from fairseq_convtext.compiling import compiled, compiled_once


@compiled
def add_tap(weights: np.ndarray, read: np.ndarray, found: np.ndarray) -> None:
    """``found += weights * read`` of one position: ``(heads,)`` times ``(heads, channels of a head)``."""
    for head in range(len(found)):
        weight = weights[head]
        for channel in range(found.shape[1]):
            found[head, channel] += weight * read[head, channel]


@compiled_once
def sum_of_taps(weights: np.ndarray, x: np.ndarray, hidden: np.ndarray, dilation: int, before: int) -> np.ndarray:
    """What the filters of each position make of what they read.

    Args:
        weights: float32 ``(k, batch, positions, heads)``; tap j of position t reads position t - before + j * dilation.
        x: float32 ``(batch, positions, heads, channels of a head)``.
        hidden: bool ``(batch, positions)``, true where zeros are read, as they are outside.
        dilation: of the filter.
        before: how many positions before its own a filter begins.

    Returns:
        float32, of the shape of x.
    """
    found = np.zeros_like(x)
    batch, positions = hidden.shape
    for sentence in range(batch):
        for position in range(positions):
            for tap in range(len(weights)):
                read = position - before + tap * dilation
                if 0 <= read < positions and not hidden[sentence, read]:
                    add_tap(weights[tap, sentence, position], x[sentence, read], found[sentence, position])
    return found
