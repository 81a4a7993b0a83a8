"""What the criterions of a canvas share: targets, glancing, what counts and what is logged."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple, Tuple

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.glancing import Glance, make_glance, parse_schedule
from fairseq_convtext.models.common import unwrapped

logger = logging.getLogger(__name__)


@dataclass
class CanvasConfig(FairseqDataclass):
    glancing_ratio: str = field(
        default="0",
        metadata={
            "help": "in training show the decoder the right symbols of random positions, this share of as many as it "
            "gets wrong: a ratio, or START:END@UPDATES such as 0.5:0.3@20000; 0 trains without glancing"
        },
    )
    sentence_avg: bool = II("optimization.sentence_avg")


class Written(NamedTuple):
    """What a model wrote for a batch, and what it should have written.

    Attributes:
        logits: ``(batch, positions, vocabulary)``.
        output: the rest of what the decoder gives.
        targets: ``(batch, tokens)``, of which the first ``target_lengths`` count; EOS and padding follow.
        target_lengths: ``(batch,)`` without EOS.
    """

    logits: Tensor
    output: Dict[str, Any]
    targets: Tensor
    target_lengths: Tensor


def check_model(model: Any, alignment: str) -> None:
    """ConvTextError unless the model writes a canvas of this alignment."""
    decoder = getattr(model, "decoder", None)
    if not hasattr(decoder, "target_alignment"):
        raise ConvTextError(
            f"--criterion convtext_{alignment} needs a model that writes a canvas, such as --arch bytenet_deconv; "
            f"found {type(model).__name__}."
        )
    if decoder.target_alignment != alignment:
        other = "label_smoothed_cross_entropy"
        if decoder.target_alignment != "position":
            other = f"convtext_{decoder.target_alignment}"
        raise ConvTextError(
            f"--criterion convtext_{alignment} needs --target-alignment {alignment}; found --target-alignment "
            f"{decoder.target_alignment}: add the flag, or train with --criterion {other}."
        )


class CanvasCriterion(FairseqCriterion):
    """Sum over the batch of the loss in nats, without sentences that do not fit their canvas.

    These teach nothing, though the gradient is divided by the size of the whole batch. The logged loss is that of the
    others alone, infinite where there are none: it must not fall because less fits.

    Attributes:
        alignment: the --target-alignment of the models that it trains.
        how_to_fit: flags to change when sentences do not fit.
    """

    alignment = ""
    how_to_fit = "raise --length-bound-a, --length-bound-b or --max-target-positions"

    def __init__(self, task: Any, sentence_avg: bool, glancing_ratio: str = "0") -> None:
        super().__init__(task)
        dictionary = task.target_dictionary
        self.sentence_avg = sentence_avg
        self.infeasible_seen = False
        self.glancing = parse_schedule(glancing_ratio)
        self.blank, self.pad, self.eos = dictionary.bos(), dictionary.pad(), dictionary.eos()

    def path(self, targets: Tensor, target_lengths: Tensor) -> Glance:
        """What glancing takes for right, see glancing.py."""
        raise NotImplementedError

    def losses(self, model: Any, net_input: Dict[str, Any], target: Tensor) -> Tuple[Tensor, Tensor]:
        """The loss of every sentence in nats, and bool whether it fits its canvas; ``(batch,)``."""
        raise NotImplementedError

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        """
        Returns:
            the loss, the number it is to be divided by (target tokens, or sentences with --sentence-avg), and
            what to log. ``reduce=False`` gives the losses of the sentences, ``(batch,)``.
        """
        check_model(unwrapped(model), self.alignment)
        losses, feasible = self.losses(model, sample["net_input"], sample["target"])
        losses = losses.masked_fill(~feasible, 0.0)
        if not self.infeasible_seen and not bool(feasible.all()):
            self.infeasible_seen = True
            logger.warning(
                "%d of %d sentences of this batch do not fit their canvas and count nothing; the log's infeasible "
                "goes on counting: %s",
                int((~feasible).sum()), len(feasible), self.how_to_fit,
            )
        loss = losses.sum() if reduce else losses
        tokens = sample["target"].ne(self.pad).sum(dim=1)
        sizes = torch.ones_like(tokens) if self.sentence_avg else tokens
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        return loss, sample_size, {
            "loss": loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
            "scored": (sizes * feasible).sum().data,
            "infeasible": (~feasible).sum().data,
        }

    def written(self, model: Any, net_input: Dict[str, Any], target: Tensor) -> Written:
        """The forward pass, or both of them with glancing."""
        targets, target_lengths = self.targets(target)
        ratio = self.glancing.ratio(unwrapped(model).num_updates) if model.training else 0.0
        glance = make_glance(self.path(targets, target_lengths), ratio) if ratio > 0.0 else None
        return Written(*model(**net_input, glance=glance), targets, target_lengths)

    def targets(self, target: Tensor) -> Tuple[Tensor, Tensor]:
        """``(batch, tokens)`` targets and their lengths without EOS; it and padding follow in shorter ones."""
        if bool(target.eq(self.blank).any()):
            symbol = self.task.target_dictionary[self.blank]
            raise ConvTextError(
                f"a target sentence holds {symbol!r}, which a canvas keeps for the blank: take it out of the text."
            )
        lengths = target.ne(self.pad).sum(dim=1) - 1
        return target[:, : max(int(lengths.max()), 1)], lengths

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
