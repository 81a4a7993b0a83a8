"""Options of ``bytenet_deconv``. No ``from __future__ import annotations``: fairseq reads the types of the fields."""

import math
from dataclasses import dataclass, field
from typing import Any, List

from fairseq.dataclass import ChoiceEnum

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.common import StackConfig, completed
from fairseq_convtext.modules.precision import GENERATION_DTYPES


@dataclass
class BytenetDeconvConfig(StackConfig):
    upsample_strides: List[int] = field(
        default_factory=lambda: [2],
        metadata={
            "help": "strides of the decoder's transposed convolutions, one stage each, such as 2 or 3,2; their product "
            "should be about --length-bound-a: below it a learned vector fills the canvas up, above it some of what "
            "was upsampled is left out"
        },
    )
    decoder_layers: int = field(default=10, metadata={"help": "blocks after each transposed convolution"})
    length_bound_a: float = field(
        default=2.0, metadata={"help": "canvas positions per source token: L = min(ceil(a * S + b), limit)"}
    )
    length_bound_b: float = field(default=4.0, metadata={"help": "canvas positions on top, for short sources"})
    target_alignment: ChoiceEnum(["position", "ctc", "dag"]) = field(
        default="position",
        metadata={
            "help": "position: token t at canvas position t (fairseq's own criterions); "
            "ctc: blanks and repeats are removed (--criterion convtext_ctc); dag: links lead from token to token "
            "(--criterion convtext_dag)"
        },
    )
    longest_jump: int = field(
        default=12, metadata={"help": "dag: how many positions the next token is away from a token at most"}
    )
    generation_dtype: ChoiceEnum(GENERATION_DTYPES) = field(
        default="float32",
        metadata={
            "help": "type of parameters and activations in generation (--model-overrides); scores are normalised in "
            "float32. bfloat16 is faster where the processor has products for it, auto tries that out; int8 (CPU) "
            "rounds weights and what the products read to whole numbers of 7 or 8 bits and is the fastest on most"
        },
    )
    blank_penalty: float = field(
        default=0.0,
        metadata={
            "help": "ctc without a search: taken off the blank's log-probability when the canvas is read; above 0 "
            "translations get longer (at generation: --model-overrides; scripts/tune_blank_penalty.py finds it; a "
            "search has --ctc-token-bonus)"
        },
    )
    intermediate_ctc_layers: List[int] = field(
        default_factory=list,
        metadata={
            "help": "ctc: decoder blocks after which the canvas is read and its prediction fed back to the blocks "
            "above, such as 4,7; trained by a CTC loss of their own (--intermediate-ctc-weight)"
        },
    )


def complete_config(cfg: Any) -> BytenetDeconvConfig:
    """The configuration with every field present and sensible; see ``completed``.

    Raises:
        ConvTextError: an option that makes no sense; one sentence with the flag.
    """
    cfg = completed(cfg, BytenetDeconvConfig)
    layers = list(cfg.intermediate_ctc_layers)
    if sorted(set(layers)) != sorted(layers) or any(not 1 <= n <= cfg.decoder_layers for n in layers):
        raise ConvTextError(
            f"--intermediate-ctc-layers must be different numbers from 1 to --decoder-layers {cfg.decoder_layers}; "
            f"found {layers}."
        )
    alignment = str(cfg.target_alignment)
    if layers and alignment != "ctc":
        raise ConvTextError(f"--intermediate-ctc-layers needs --target-alignment ctc; found {alignment}.")
    if cfg.longest_jump < 1:
        raise ConvTextError(f"--longest-jump must be at least 1; found {cfg.longest_jump}.")
    least, parts = (3, "a start, a token and EOS") if alignment == "dag" else (2, "a token and EOS")
    shortest = math.ceil(cfg.length_bound_a + cfg.length_bound_b)
    if shortest < least:
        raise ConvTextError(
            f"the length bound must leave an empty line (EOS alone) at least {least} positions, {parts}; found "
            f"--length-bound-a {cfg.length_bound_a} and --length-bound-b {cfg.length_bound_b}, which give {shortest}."
        )
    if cfg.max_target_positions < least:  # dag alone: fewer than 2 are refused for all
        raise ConvTextError(
            f"--target-alignment {alignment} needs at least {least} canvas positions, {parts}; found "
            f"--max-target-positions {cfg.max_target_positions}."
        )
    return cfg
