"""Presets: architectures with other defaults. Precedence: command line, then preset, then the model's default."""

from typing import Any

from fairseq.models import register_model_architecture
from fairseq.utils import safe_getattr

from fairseq_convtext.models import bytenet, bytenet_deconv  # noqa: F401  (register the models of the presets)


def preset(args: Any, **values: Any) -> None:
    """Fill in what the command line left open. Runs on a DictConfig too, when a checkpoint is loaded.

    What is there is left alone: OmegaConf 2.0, of fairseq 0.12.2, empties a list that is assigned to its own place.
    """
    for name, value in values.items():
        if safe_getattr(args, name) is None:
            setattr(args, name, value)


@register_model_architecture("bytenet_deconv", "bytenet_deconv_tiny")
def bytenet_deconv_tiny(args: Any) -> None:
    """For small corpora and CPUs: few gated blocks, which cost less time than many bottlenecks of the same size."""
    preset(
        args,
        encoder_block="glu",
        encoder_channels=192,
        encoder_layers=6,
        decoder_layers=4,
        dilations=[1, 2, 4, 8],
        dropout=0.1,
        spatial_dropout=0.2,
    )


@register_model_architecture("bytenet_deconv", "bytenet_deconv_iwslt_de_en")
def bytenet_deconv_iwslt_de_en(args: Any) -> None:
    """For corpora of several hundred thousand pairs."""
    preset(args, encoder_channels=512, encoder_layers=15, decoder_layers=10, dropout=0.2, spatial_dropout=0.1)


@register_model_architecture("bytenet_deconv", "bytenet_deconv_wmt_en_de")
def bytenet_deconv_wmt_en_de(args: Any) -> None:
    """For millions of pairs."""
    preset(args, encoder_channels=1024, encoder_layers=20, decoder_layers=20, dropout=0.1)


@register_model_architecture("bytenet_deconv", "densenet_deconv")
def densenet_deconv(args: Any) -> None:
    """DenseNet-style encoder, the same decoder."""
    preset(args, connectivity="dense")


@register_model_architecture("bytenet", "bytenet_tiny")
def bytenet_tiny(args: Any) -> None:
    """4 million parameters, for small corpora and CPUs."""
    preset(args, encoder_channels=256, encoder_layers=15, decoder_layers=10, dropout=0.1, spatial_dropout=0.1)


@register_model_architecture("bytenet", "bytenet_wmt_en_de")
def bytenet_wmt_en_de(args: Any) -> None:
    """As large as bytenet_deconv_wmt_en_de."""
    preset(args, encoder_channels=1024, encoder_layers=20, decoder_layers=20, dropout=0.1)
