"""Options of ``bytenet_deconv``. No ``from __future__ import annotations``: fairseq reads the types of the fields.
"""

import math
from dataclasses import dataclass, field
from typing import Any, List, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.utils import merge_with_parent
from omegaconf import II, DictConfig

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.blocks import BLOCKS


@dataclass
class PluginHint:
    """A first field whose name is what fairseq says when --user-dir is missing.

    fairseq then fails to format its message, and all that the user sees is a KeyError with the name of the first
    field of the model's options. An interpolation without help text makes no command-line option.
    """

    needs_user_dir_fairseq_convtext: Optional[str] = II("common.user_dir")


# Fields of the last base class come first.
@dataclass
class BytenetDeconvConfig(FairseqDataclass, PluginHint):
    encoder_layers: int = field(default=15, metadata={"help": "blocks in the encoder"})
    encoder_channels: int = field(default=512, metadata={"help": "width of embedding, encoder and decoder"})
    kernel_size: int = field(default=3, metadata={"help": "width of the convolutions; odd"})
    dilations: List[int] = field(
        default_factory=lambda: [1, 2, 4, 8, 16],
        metadata={"help": "dilations that the blocks of every stack cycle through, such as 1,2,4,8,16"},
    )
    encoder_block: ChoiceEnum(list(BLOCKS)) = field(
        default="bytenet", metadata={"help": "block of the encoder and of the decoder"}
    )
    connectivity: ChoiceEnum(["residual", "dense"]) = field(
        default="residual", metadata={"help": "encoder: add each block's output, or concatenate it (DenseNet)"}
    )
    growth_channels: int = field(
        default=64, metadata={"help": "channels that each block adds with --connectivity dense"}
    )
    upsample_strides: List[int] = field(
        default_factory=lambda: [2],
        metadata={"help": "strides of the decoder's transposed convolutions, one stage each, such as 2 or 2,2"},
    )
    decoder_layers: int = field(default=10, metadata={"help": "blocks after each transposed convolution"})
    length_bound_a: float = field(
        default=2.0, metadata={"help": "canvas positions per source token: L = min(ceil(a * S + b), limit)"}
    )
    length_bound_b: float = field(default=4.0, metadata={"help": "canvas positions on top, for short sources"})
    target_alignment: ChoiceEnum(["position", "ctc"]) = field(
        default="position",
        metadata={
            "help": "position: token t at canvas position t (fairseq's own criterions); "
            "ctc: blanks and repeats are removed (--criterion convtext_ctc)"
        },
    )
    blank_penalty: float = field(
        default=0.0,
        metadata={
            "help": "ctc: taken off the blank's log-probability when the canvas is read; above 0 translations get "
            "longer (at generation: --model-overrides; scripts/tune_blank_penalty.py finds it)"
        },
    )
    intermediate_ctc_layers: List[int] = field(
        default_factory=list,
        metadata={
            "help": "ctc: decoder blocks after which the canvas is read and its prediction fed back to the blocks "
            "above, such as 4,7; trained by a CTC loss of their own (--intermediate-ctc-weight)"
        },
    )
    share_all_embeddings: bool = field(
        default=False, metadata={"help": "one matrix for source embedding and output; needs a joined dictionary"}
    )
    dropout: float = field(
        default=0.1, metadata={"help": "dropout on the embedding, after every block and on the canvas"}
    )
    spatial_dropout: float = field(
        default=0.0,
        metadata={"help": "in the blocks, drop whole channels of a sentence at this rate instead of single values"},
    )
    word_dropout: float = field(default=0.0, metadata={"help": "blank whole source words at this rate in training"})
    compute_dtype: ChoiceEnum(["float32", "bfloat16"]) = field(
        default="float32",
        metadata={"help": "type of the activations in training (autocast); parameters and losses stay float32"},
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


def complete_config(cfg: Any) -> BytenetDeconvConfig:
    """The configuration with every field present and sensible.

    A checkpoint of a preset is not merged with the dataclass by fairseq, so fields younger than it are missing.

    Raises:
        ConvTextError: an option that makes no sense; one sentence with the flag.
    """
    if isinstance(cfg, DictConfig):
        cfg = merge_with_parent(BytenetDeconvConfig(), cfg, remove_missing=True)
    # Two channels: the blocks halve the width.
    for name, least in (("encoder_layers", 1), ("encoder_channels", 2), ("growth_channels", 1), ("decoder_layers", 1)):
        if getattr(cfg, name) < least:
            raise ConvTextError(f"--{name.replace('_', '-')} must be at least {least}; found {getattr(cfg, name)}.")
    for name in ("dropout", "spatial_dropout", "word_dropout"):
        if not 0.0 <= getattr(cfg, name) < 1.0:
            raise ConvTextError(
                f"--{name.replace('_', '-')} must be at least 0 and below 1; found {getattr(cfg, name)}."
            )
    layers = list(cfg.intermediate_ctc_layers)
    if sorted(set(layers)) != sorted(layers) or any(not 1 <= n <= cfg.decoder_layers for n in layers):
        raise ConvTextError(
            f"--intermediate-ctc-layers must be different numbers from 1 to --decoder-layers {cfg.decoder_layers}; "
            f"found {layers}."
        )
    if layers and str(cfg.target_alignment) != "ctc":
        raise ConvTextError("--intermediate-ctc-layers needs --target-alignment ctc; found position.")
    shortest = math.ceil(cfg.length_bound_a + cfg.length_bound_b)
    if cfg.length_bound_a < 0 or shortest < 2:
        raise ConvTextError(
            "the length bound must leave an empty line (EOS alone) at least 2 positions, a token and EOS; found "
            f"--length-bound-a {cfg.length_bound_a} and --length-bound-b {cfg.length_bound_b}, which give {shortest}."
        )
    if cfg.max_target_positions < 2:
        raise ConvTextError(
            f"--max-target-positions must be at least 2 (a token and EOS); found {cfg.max_target_positions}."
        )
    return cfg
