"""Options of ``bytenet``. No ``from __future__ import annotations``: fairseq reads the types of the fields."""

from dataclasses import dataclass, field
from typing import Any, List

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.utils import merge_with_parent
from omegaconf import II, DictConfig

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.bytenet_deconv_config import PluginHint
from fairseq_convtext.modules.blocks import BLOCKS


# Fields of the last base class come first.
@dataclass
class BytenetConfig(FairseqDataclass, PluginHint):
    encoder_layers: int = field(default=15, metadata={"help": "blocks in the encoder"})
    encoder_channels: int = field(default=512, metadata={"help": "width of embeddings, encoder and decoder"})
    kernel_size: int = field(default=3, metadata={"help": "width of the convolutions; odd"})
    dilations: List[int] = field(
        default_factory=lambda: [1, 2, 4, 8, 16],
        metadata={"help": "dilations that the blocks of encoder and decoder cycle through, such as 1,2,4,8,16"},
    )
    encoder_block: ChoiceEnum(list(BLOCKS)) = field(
        default="bytenet", metadata={"help": "block of the encoder and, causal, of the decoder"}
    )
    connectivity: ChoiceEnum(["residual", "dense"]) = field(
        default="residual", metadata={"help": "encoder: add each block's output, or concatenate it (DenseNet)"}
    )
    growth_channels: int = field(
        default=64, metadata={"help": "channels that each block adds with --connectivity dense"}
    )
    decoder_layers: int = field(default=15, metadata={"help": "causal blocks in the decoder"})
    length_bound_a: float = field(
        default=1.2,
        metadata={
            "help": "positions per source token to which the source is lengthened before it is encoded: "
            "L = min(ceil(a * S + b), limit), at least S; a translation may be longer"
        },
    )
    length_bound_b: float = field(default=4.0, metadata={"help": "positions on top, for short sources"})
    share_all_embeddings: bool = field(
        default=False,
        metadata={"help": "one matrix for source embedding, target embedding and output; needs a joined dictionary"},
    )
    dropout: float = field(
        default=0.1, metadata={"help": "dropout on the embeddings, after every block and before the output"}
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


LEAST = {
    "encoder_layers": 1,
    "encoder_channels": 2,  # the blocks halve the width
    "growth_channels": 1,
    "decoder_layers": 1,
    "length_bound_a": 0,
    "max_target_positions": 2,  # a token and EOS
}


def complete_bytenet_config(cfg: Any) -> BytenetConfig:
    """The configuration with every field present and sensible.

    A checkpoint of a preset is not merged with the dataclass by fairseq, so fields younger than it are missing.

    Raises:
        ConvTextError: an option that makes no sense; one sentence with the flag.
    """
    if isinstance(cfg, DictConfig):
        cfg = merge_with_parent(BytenetConfig(), cfg, remove_missing=True)
    for name, least in LEAST.items():
        if getattr(cfg, name) < least:
            raise ConvTextError(f"--{name.replace('_', '-')} must be at least {least}; found {getattr(cfg, name)}.")
    for name in ("dropout", "spatial_dropout", "word_dropout"):
        if not 0.0 <= getattr(cfg, name) < 1.0:
            raise ConvTextError(
                f"--{name.replace('_', '-')} must be at least 0 and below 1; found {getattr(cfg, name)}."
            )
    return cfg
