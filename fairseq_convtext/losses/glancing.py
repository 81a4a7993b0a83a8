"""Glancing training (arXiv 2008.07905) on a CTC canvas: a share of the positions is shown its aligned symbol.

The worse the model's own reading, the more it is shown; what it is not shown it must infer from what it is. That
teaches neighbouring positions to agree, which is what positions written all at once lack.
"""

import re
from typing import Callable, NamedTuple, Tuple

import torch
from torch import Tensor

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.ctc_alignment import best_alignment


class GlancingSchedule(NamedTuple):
    """Ratio that falls linearly from ``start`` to ``end`` over the first ``updates`` updates."""

    start: float
    end: float
    updates: int

    def ratio(self, update: int) -> float:
        """The ratio at an update, counted from 0."""
        done = min(update / self.updates, 1.0) if self.updates > 0 else 1.0
        return self.start + (self.end - self.start) * done


def parse_schedule(text: str) -> GlancingSchedule:
    """``"0.5:0.3@20000"``, or one number for a ratio that stays.

    Raises:
        ConvTextError: not of this form, or a ratio outside 0 to 1.
    """
    number = r"(\d*\.?\d+)"
    match = re.fullmatch(rf"{number}(?::{number}@(\d+))?", text)
    if match:
        start, end, updates = match.groups()
        schedule = GlancingSchedule(float(start), float(end or start), int(updates or 0))
        if max(schedule.start, schedule.end) <= 1.0:
            return schedule
    raise ConvTextError(
        f"--glancing-ratio must be a ratio from 0 to 1, or START:END@UPDATES such as 0.5:0.3@20000; found {text!r}."
    )


def choose_positions(wrong: Tensor, inside: Tensor, ratio: float) -> Tensor:
    """As many positions as ratio times the wrong ones, drawn from all positions of the sentence alike.

    Args:
        wrong, inside: bool ``(batch, positions)``.

    Returns:
        bool ``(batch, positions)``.
    """
    shown = (wrong.sum(dim=1) * ratio).round()
    order = torch.rand(wrong.shape, device=wrong.device).masked_fill(~inside, 2.0).argsort(dim=1).argsort(dim=1)
    return order < shown[:, None]


def make_glance(
    targets: Tensor, target_lengths: Tensor, blank: int, ratio: float
) -> Callable[[Tensor, Tensor], Tuple[Tensor, Tensor]]:
    """What a decoder calls between its two passes.

    Returns:
        a function of the first pass's logits ``(batch, positions, vocabulary)`` and the bounds ``(batch,)`` that
        gives the aligned symbols ``(batch, positions)`` and which of them to show, bool ``(batch, positions)``.
    """

    def glance(logits: Tensor, bound: Tensor) -> Tuple[Tensor, Tensor]:
        aligned = best_alignment(logits, targets, bound, target_lengths, blank)
        inside = torch.arange(logits.size(1), device=bound.device) < bound[:, None]
        return aligned, choose_positions((logits.argmax(dim=2) != aligned) & inside, inside, ratio)

    return glance
