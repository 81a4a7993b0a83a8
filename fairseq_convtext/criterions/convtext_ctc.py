"""``convtext_ctc``: CTC over the canvas, each sentence with its own number of positions."""

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from fairseq_convtext.criterions.canvas import CanvasConfig, CanvasCriterion
from fairseq_convtext.criterions.canvas_teacher import CanvasTeacher
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.consistency import consistency_loss
from fairseq_convtext.losses.ctc import ctc_loss, reference_ctc_loss, required_positions
from fairseq_convtext.losses.glancing import Glance, ctc_path


@dataclass
class ConvtextCtcConfig(CanvasConfig):
    intermediate_ctc_weight: float = field(
        default=0.3, metadata={"help": "weight of the mean loss of the model's --intermediate-ctc-layers"}
    )
    consistency: float = field(
        default=0.0,
        metadata={
            "help": "train on every batch twice at once, with other dropout masks, and add this much of the divergence "
            "between the two readings to the loss, such as 0.2; an update takes twice the time; 0 trains without"
        },
    )
    canvas_teacher: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of another model that writes a CTC canvas of as many positions, such as a slower and "
            "better one: draw the distribution at every position to that model's"
        },
    )
    canvas_teacher_weight: float = field(
        default=1.0, metadata={"help": "weight of the divergence from --canvas-teacher beside the loss itself"}
    )


@register_criterion("convtext_ctc", dataclass=ConvtextCtcConfig)
class ConvtextCtcCriterion(CanvasCriterion):
    """The CTC loss, that of the model's inner predictions, how far two readings differ, and how far a teacher's."""

    alignment = "ctc"

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        glancing_ratio: str = "0",
        intermediate_ctc_weight: float = 0.3,
        consistency: float = 0.0,
        canvas_teacher: Optional[str] = None,
        canvas_teacher_weight: float = 1.0,
    ) -> None:
        super().__init__(task, sentence_avg, glancing_ratio)
        weights = {
            "--intermediate-ctc-weight": intermediate_ctc_weight,
            "--consistency": consistency,
            "--canvas-teacher-weight": canvas_teacher_weight,
        }
        for flag, weight in weights.items():
            if weight < 0.0:
                raise ConvTextError(f"{flag} must be at least 0; found {weight}.")
        self.intermediate_ctc_weight = intermediate_ctc_weight
        self.consistency = consistency
        self.teacher = CanvasTeacher(canvas_teacher, task) if canvas_teacher else None
        self.teacher_weight = canvas_teacher_weight

    def path(self, targets: Tensor, target_lengths: Tensor) -> Glance:
        return ctc_path(targets, target_lengths, self.blank)

    def losses(self, model: Any, net_input: Dict[str, Any], target: Tensor) -> Tuple[Tensor, Tensor]:
        twice = model.training and self.consistency > 0.0
        taught = self.teacher.canvas(model, net_input) if model.training and self.teacher else None
        if twice:
            net_input = {name: torch.cat([value, value]) for name, value in net_input.items()}
            target = torch.cat([target, target])
        logits, output, targets, target_lengths = self.written(model, net_input, target)
        bound = output["bound"]
        feasible = bound >= required_positions(targets, target_lengths)
        losses = self.canvas_losses(logits, targets, bound, target_lengths)
        for inner in output["inner_logits"] if model.training else []:
            weight = self.intermediate_ctc_weight / len(output["inner_logits"])
            losses = losses + weight * self.canvas_losses(inner, targets, bound, target_lengths)
        if taught is not None:
            readings = logits.chunk(2 if twice else 1)
            divergences = [self.teacher.divergence(reading, taught, bound[: len(reading)]) for reading in readings]
            losses = losses + self.teacher_weight * torch.cat(divergences)
        if twice:
            losses = losses.masked_fill(~feasible, 0.0).view(2, -1).mean(dim=0)
            feasible, bound = feasible.chunk(2)[0], bound.chunk(2)[0]
            divergence = consistency_loss(*logits.chunk(2), bound)
            losses = losses + self.consistency * divergence
        return losses, feasible

    def canvas_losses(self, logits: Tensor, targets: Tensor, bound: Tensor, target_lengths: Tensor) -> Tensor:
        """``(batch,)``, of one canvas."""
        return ctc_loss(logits, targets, bound, target_lengths, self.blank)


@register_criterion("convtext_ctc_reference", dataclass=ConvtextCtcConfig)
class ConvtextCtcReferenceCriterion(ConvtextCtcCriterion):
    """The same through ``torch.nn.functional.ctc_loss``: slower and larger, for checking."""

    def canvas_losses(self, logits: Tensor, targets: Tensor, bound: Tensor, target_lengths: Tensor) -> Tensor:
        return reference_ctc_loss(logits, targets, bound, target_lengths, self.blank)
