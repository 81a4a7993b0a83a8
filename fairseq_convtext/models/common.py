"""What the models share: options, stacks of blocks, autocast, checks. No ``from __future__ import annotations``:
fairseq reads the types of the fields.
"""

import contextlib
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Type, TypeVar

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import FairseqEncoderDecoderModel
from omegaconf import II, DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.checks import check_generation, check_overrides, check_parameters
from fairseq_convtext.modules.blocks import BLOCKS
from fairseq_convtext.modules.int8 import use_int8, warn_of_slow_int8
from fairseq_convtext.modules.memory import keep_freed_memory
from fairseq_convtext.modules.precision import COMPUTE_DTYPES, chosen_dtype
from fairseq_convtext.modules.stack import ConvStack


@dataclass
class PluginHint:
    """A first field whose name is what fairseq says when --user-dir is missing.

    fairseq then fails to format its message, and all that the user sees is a KeyError with the name of the first
    field of the model's options. An interpolation without help text makes no command-line option.
    """

    needs_user_dir_fairseq_convtext: Optional[str] = II("common.user_dir")


# Fields of the last base class come first.
@dataclass
class StackConfig(FairseqDataclass, PluginHint):
    """Options of every model that is an encoder and a decoder of dilated blocks."""

    encoder_layers: int = field(default=15, metadata={"help": "blocks in the encoder"})
    encoder_channels: int = field(default=512, metadata={"help": "width of embeddings, encoder and decoder"})
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
    share_all_embeddings: bool = field(
        default=False, metadata={"help": "one matrix for all embeddings and the output; needs a joined dictionary"}
    )
    dropout: float = field(
        default=0.1, metadata={"help": "dropout on the embeddings, after every block and before the output"}
    )
    spatial_dropout: float = field(
        default=0.0,
        metadata={"help": "in the blocks, drop whole channels of a sentence at this rate instead of single values"},
    )
    word_dropout: float = field(default=0.0, metadata={"help": "blank whole source words at this rate in training"})
    compute_dtype: ChoiceEnum(COMPUTE_DTYPES) = field(
        default="float32",
        metadata={
            "help": "type of the activations in training (autocast); parameters and losses stay float32. auto: the "
            "faster one on the device at hand"
        },
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


LEAST = {
    "encoder_layers": 1,
    "encoder_channels": 2,  # the blocks halve the width
    "growth_channels": 1,
    "decoder_layers": 1,
    "length_bound_a": 0,
}
Config = TypeVar("Config", bound=StackConfig)


def completed(cfg: Any, kind: Type[Config]) -> Config:
    """The configuration with every field present and in its range.

    A checkpoint of a preset is not merged with the dataclass by fairseq, so fields younger than it are missing.

    Raises:
        ConvTextError: an option that makes no sense; one sentence with the flag.
    """
    if isinstance(cfg, DictConfig):
        try:
            cfg = merge_with_parent(kind(), cfg, remove_missing=True)
        except OmegaConfBaseException as error:  # of --model-overrides, which nothing has looked at yet
            said = str(error).splitlines()[0]
            raise ConvTextError(f"an option of the model (--model-overrides) has a wrong value: {said}.") from error
    for name, least in LEAST.items():
        if getattr(cfg, name) < least:
            raise ConvTextError(f"--{name.replace('_', '-')} must be at least {least}; found {getattr(cfg, name)}.")
    if cfg.max_target_positions < 2:
        raise ConvTextError(
            f"--max-target-positions must be at least 2 (a token and EOS); found {cfg.max_target_positions}."
        )
    for name in ("dropout", "spatial_dropout", "word_dropout"):
        if not 0.0 <= getattr(cfg, name) < 1.0:
            raise ConvTextError(
                f"--{name.replace('_', '-')} must be at least 0 and below 1; found {getattr(cfg, name)}."
            )
    return cfg


def make_stack(cfg: StackConfig, layers: int, connectivity: str = "residual", causal: bool = False) -> ConvStack:
    """The stack of blocks that the options describe."""
    return ConvStack(
        layers,
        cfg.encoder_channels,
        cfg.kernel_size,
        cfg.dilations,
        block=str(cfg.encoder_block),
        connectivity=connectivity,
        growth=cfg.growth_channels,
        dropout=cfg.dropout,
        spatial_dropout=cfg.spatial_dropout,
        causal=causal,
    )


def output_projection(channels: int, vocabulary: int, tied: Optional[nn.Embedding]) -> nn.Linear:
    """``(..., channels)`` to ``(..., vocabulary)`` scores, by the matrix of an embedding if one is given."""
    project = nn.Linear(channels, vocabulary)
    if tied is None:
        nn.init.normal_(project.weight, std=channels**-0.5)
    else:
        project.weight = tied.weight
    nn.init.zeros_(project.bias)
    return project


def training_autocast(module: nn.Module, x: Tensor, dtype: str) -> Any:
    """Autocast to ``--compute-dtype`` while training; evaluation always computes in the parameters' own type.

    So does training with fairseq's ``--fp16``, whose parameters autocast would not all cast.
    """
    halved = next(module.parameters()).dtype != torch.float32
    if not module.training or halved or chosen_dtype(dtype, x.device.type) == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, dtype=torch.bfloat16)


def unwrapped(model: Any) -> Any:
    """The model inside fairseq's and torch's wrappers for several processes, which are nested."""
    while hasattr(model, "module"):
        model = model.module
    return model


class TranslationModel(FairseqEncoderDecoderModel):
    """How fairseq's commands load both models and make them ready."""

    def prepare_for_inference_(self, cfg: Any) -> None:
        """fairseq's generation commands call this once, after loading.

        Raises:
            ConvTextError: a generation option that is for other models.
        """
        check_generation(cfg.generation)
        check_overrides(cfg, self.decoder.cfg)
        super().prepare_for_inference_(cfg)
        prepare_for_inference(self, str(getattr(self.decoder.cfg, "generation_dtype", "float32")))

    def load_state_dict(self, state_dict: Dict[str, Tensor], strict: bool = True, **options: Any) -> Any:
        """As fairseq's, but a checkpoint of other sizes is an error of one sentence."""
        if strict:
            check_parameters(self.state_dict(), state_dict)
        return super().load_state_dict(state_dict, strict, **options)


def prepare_for_inference(model: nn.Module, dtype: str) -> None:
    """The type of ``--generation-dtype``, and filters in the order in which they are read.

    Not in training: fairseq flattens parameters and gradients, and wants them contiguous.
    """
    model.to(memory_format=torch.channels_last)
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    if dtype == "int8":
        use_int8(model.float())  # what --fp16 has halved
        warn_of_slow_int8()
    elif chosen_dtype(dtype, device.type) == torch.bfloat16:
        model.bfloat16()


def check_source_length(src_tokens: Tensor, pad: int, limit: int) -> None:
    """ConvTextError when a source of the batch, EOS included and padding not, is longer than ``limit`` tokens."""
    # Mostly there is nothing to count.
    longest = int(src_tokens.ne(pad).sum(dim=1).max()) if src_tokens.size(1) > limit else 0
    if longest > limit:
        raise ConvTextError(
            f"a source has {longest} tokens (EOS included), the limit is {limit}: shorten it or train with "
            "a larger --max-source-positions."
        )
