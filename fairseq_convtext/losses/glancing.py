"""Glancing training (arXiv 2008.07905): a share of the positions is shown the symbol that the best alignment has there.

The worse the model's own reading, the more it is shown; what it is not shown it must infer from what it is. That
teaches neighbouring positions to agree, which is what positions written all at once lack.
"""

import re
from typing import Callable, Dict, NamedTuple, Tuple

import torch
from torch import Tensor

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.ctc_alignment import best_alignment
from fairseq_convtext.losses.dag import best_path
from fairseq_convtext.modules.masking import inside

# What a decoder gives besides the scores: the bounds ``(batch,)``, and what its alignment needs.
Output = Dict[str, Tensor]
# Of ``(batch, positions, vocabulary)`` scores and that: symbols, and where they are meant, ``(batch, positions)``.
Glance = Callable[[Tensor, Output], Tuple[Tensor, Tensor]]


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


def choose_positions(wrong: Tensor, used: Tensor, ratio: float) -> Tensor:
    """As many positions as ratio times the wrong ones, drawn from all that are ``used`` alike.

    Args:
        wrong, used: bool ``(batch, positions)``.

    Returns:
        bool ``(batch, positions)``.
    """
    shown = (wrong.sum(dim=1) * ratio).round()
    order = torch.rand(wrong.shape, device=wrong.device).masked_fill(~used, 2.0).argsort(dim=1).argsort(dim=1)
    return order < shown[:, None]


def ctc_path(targets: Tensor, target_lengths: Tensor, blank: int) -> Glance:
    """The best alignment on a CTC canvas: every position has its symbol, blanks included."""

    def path(logits: Tensor, output: Output) -> Tuple[Tensor, Tensor]:
        bound = output["bound"]
        return best_alignment(logits, targets, bound, target_lengths, blank), inside(bound, logits.size(1))

    return path


def dag_path(targets: Tensor, target_lengths: Tensor, blank: int) -> Glance:
    """The best path on a directed acyclic canvas: only the positions on it have a symbol, the others the blank."""

    def path(logits: Tensor, output: Output) -> Tuple[Tensor, Tensor]:
        places = best_path(logits, output["links"], targets, output["bound"], target_lengths)
        # What has no place stands beyond the canvas, in a column that is cut off.
        symbols = targets.new_full((len(targets), logits.size(1) + 1), blank)
        symbols = symbols.scatter_(1, places, targets.masked_fill(places == logits.size(1), blank))[:, :-1]
        return symbols, symbols != blank

    return path


def make_glance(path: Glance, ratio: float) -> Glance:
    """What a decoder calls between its two passes.

    Args:
        path: the right symbols, and which positions have one; of ``ctc_path`` or ``dag_path``.
        ratio: how many positions are shown their symbol, as a share of those on the path that are wrong.

    Returns:
        a function of the first pass's logits ``(batch, positions, vocabulary)`` and the rest of its output that gives
        the symbols ``(batch, positions)`` and which of them to show, bool ``(batch, positions)``.
    """

    def glance(logits: Tensor, output: Output) -> Tuple[Tensor, Tensor]:
        symbols, used = path(logits, output)
        return symbols, choose_positions((logits.argmax(dim=2) != symbols) & used, used, ratio)

    return glance
