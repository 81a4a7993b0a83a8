"""``convtext_ctc``: CTC over the canvas, each sentence with its own number of positions."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.consistency import consistency_loss
from fairseq_convtext.losses.ctc import ctc_loss, reference_ctc_loss, required_positions
from fairseq_convtext.losses.glancing import make_glance, parse_schedule

logger = logging.getLogger(__name__)


@dataclass
class ConvtextCtcConfig(FairseqDataclass):
    glancing_ratio: str = field(
        default="0",
        metadata={
            "help": "in training show the decoder the right symbols of random positions, this share of as many as it "
            "gets wrong: a ratio, or START:END@UPDATES such as 0.5:0.3@20000; 0 trains without glancing"
        },
    )
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
    sentence_avg: bool = II("optimization.sentence_avg")


def unwrapped(model: Any) -> Any:
    """The model inside fairseq's and torch's wrappers for several processes, which are nested."""
    while hasattr(model, "module"):
        model = model.module
    return model


def check_model(model: Any) -> None:
    """ConvTextError unless the model writes a CTC canvas."""
    decoder = getattr(model, "decoder", None)
    if not hasattr(decoder, "is_ctc"):
        raise ConvTextError(
            "--criterion convtext_ctc needs a model that writes a canvas, such as --arch bytenet_deconv; found "
            f"{type(model).__name__}."
        )
    if not decoder.is_ctc:
        raise ConvTextError(
            "--criterion convtext_ctc needs --target-alignment ctc; found --target-alignment position: add the "
            "flag, or train with --criterion label_smoothed_cross_entropy."
        )


@register_criterion("convtext_ctc", dataclass=ConvtextCtcConfig)
class ConvtextCtcCriterion(FairseqCriterion):
    """Sum over the batch of the CTC loss in nats, without sentences whose canvas is too short.

    These teach nothing, though the gradient is divided by the size of the whole batch. The logged loss is that of the
    others alone, infinite where there are none: it must not fall because less fits.
    """

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        glancing_ratio: str = "0",
        intermediate_ctc_weight: float = 0.3,
        consistency: float = 0.0,
    ) -> None:
        super().__init__(task)
        if consistency < 0.0:
            raise ConvTextError(f"--consistency must be at least 0; found {consistency}.")
        dictionary = task.target_dictionary
        self.sentence_avg = sentence_avg
        self.intermediate_ctc_weight = intermediate_ctc_weight
        self.consistency = consistency
        self.infeasible_seen = False
        self.glancing = parse_schedule(glancing_ratio)
        self.blank, self.pad, self.eos = dictionary.bos(), dictionary.pad(), dictionary.eos()

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        """
        Returns:
            the loss, the number it is to be divided by (target tokens, or sentences with --sentence-avg), and
            what to log. ``reduce=False`` gives the losses of the sentences, ``(batch,)``.
        """
        check_model(unwrapped(model))
        twice = model.training and self.consistency > 0.0
        net_input, target = sample["net_input"], sample["target"]
        if twice:
            net_input = {name: torch.cat([value, value]) for name, value in net_input.items()}
            target = torch.cat([target, target])
        targets, target_lengths = self.targets(target)
        ratio = self.glancing.ratio(unwrapped(model).num_updates) if model.training else 0.0
        glance = make_glance(targets, target_lengths, self.blank, ratio) if ratio > 0.0 else None
        logits, extra = model(**net_input, glance=glance)
        feasible = extra["bound"] >= required_positions(targets, target_lengths)
        losses = self.losses(logits, targets, extra["bound"], target_lengths)
        for inner in extra["inner_logits"] if model.training else []:
            weight = self.intermediate_ctc_weight / len(extra["inner_logits"])
            losses = losses + weight * self.losses(inner, targets, extra["bound"], target_lengths)
        losses = losses.masked_fill(~feasible, 0.0)
        if twice:
            losses, feasible = losses.view(2, -1).mean(dim=0), feasible[: target.size(0) // 2]
            divergence = consistency_loss(*logits.chunk(2), extra["bound"][: target.size(0) // 2])
            losses = losses + self.consistency * divergence.masked_fill(~feasible, 0.0)
        if not self.infeasible_seen and not bool(feasible.all()):
            self.infeasible_seen = True
            logger.warning(
                "%d of %d sentences of this batch do not fit their canvas and count nothing; the log's infeasible "
                "goes on counting: raise --length-bound-a, --length-bound-b or --max-target-positions",
                int((~feasible).sum()), len(feasible),
            )
        loss = losses.sum() if reduce else losses
        sizes = torch.ones_like(target_lengths) if self.sentence_avg else target_lengths + 1
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        return loss, sample_size, {
            "loss": loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
            "scored": (sizes[: len(feasible)] * feasible).sum().data,
            "infeasible": (~feasible).sum().data,
        }

    def targets(self, target: Tensor) -> Tuple[Tensor, Tensor]:
        """``(batch, tokens)`` targets without EOS, and their lengths: EOS is the last token of every target."""
        if bool(target.eq(self.blank).any()):
            symbol = self.task.target_dictionary[self.blank]
            raise ConvTextError(
                f"a target sentence holds {symbol!r}, which CTC keeps for the blank: take it out of the target text."
            )
        lengths = target.ne(self.pad).sum(dim=1) - 1
        return target[:, : max(int(lengths.max()), 1)], lengths

    def losses(self, logits: Tensor, targets: Tensor, bound: Tensor, target_lengths: Tensor) -> Tensor:
        return ctc_loss(logits, targets, bound, target_lengths, self.blank)

    @staticmethod
    def reduce_metrics(logging_outputs: List[Dict[str, Any]]) -> None:
        """Loss of what fits its canvas in bits per target token (EOS counted), per sentence with --sentence-avg, and
        how many sentences of the interval do not fit."""
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in ("loss", "scored", "infeasible")}
        bits = total["loss"] / total["scored"] / math.log(2) if total["scored"] > 0 else math.inf
        metrics.log_scalar("loss", bits, total["scored"], round=3)
        metrics.log_scalar_sum("infeasible", total["infeasible"])

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


@register_criterion("convtext_ctc_reference", dataclass=ConvtextCtcConfig)
class ConvtextCtcReferenceCriterion(ConvtextCtcCriterion):
    """The same through ``torch.nn.functional.ctc_loss``: slower and larger, for checking."""

    def losses(self, logits: Tensor, targets: Tensor, bound: Tensor, target_lengths: Tensor) -> Tensor:
        return reference_ctc_loss(logits, targets, bound, target_lengths, self.blank)
