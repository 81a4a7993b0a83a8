"""The encoder of ``bytenet_deconv``: encoded source and every sentence's length bound."""

from typing import Any, Dict, Optional

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor

from fairseq_convtext.models.bytenet_deconv_config import BytenetDeconvConfig
from fairseq_convtext.models.common import check_source_length, make_stack, training_autocast
from fairseq_convtext.modules.encoder import SourceEncoder, embedding
from fairseq_convtext.modules.length_bound import length_bound


class BytenetDeconvEncoder(FairseqEncoder):
    """Encodes the source and fixes every sentence's length bound."""

    def __init__(self, cfg: BytenetDeconvConfig, dictionary: Any) -> None:
        super().__init__(dictionary)
        self.cfg = cfg
        embed = embedding(len(dictionary), cfg.encoder_channels, dictionary.pad())
        stack = make_stack(cfg, cfg.encoder_layers, str(cfg.connectivity))
        self.network = SourceEncoder(embed, stack, cfg.dropout, cfg.word_dropout)

    def forward(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None, **unused: Any) -> Dict[str, Any]:
        """
        Args:
            src_tokens: ``(batch, positions)``, EOS included, padded on either side.
            src_lengths: not used; the padding says it.

        Returns:
            ``features`` (batch, positions, channels), ``lengths`` (batch,), ``bound`` (batch,) canvas positions,
            ``rows`` (batch * beam,): which sentence each row of a beam search belongs to.
        """
        check_source_length(src_tokens, self.dictionary.pad(), self.max_positions())
        with training_autocast(self, src_tokens, str(self.cfg.compute_dtype)):
            features, lengths = self.network(src_tokens)
        cfg = self.cfg
        return {
            "features": features,
            "lengths": lengths,
            "bound": length_bound(lengths, cfg.length_bound_a, cfg.length_bound_b, cfg.max_target_positions),
            "rows": torch.arange(src_tokens.size(0), device=src_tokens.device),
        }

    def reorder_encoder_out(self, encoder_out: Dict[str, Any], new_order: Tensor) -> Dict[str, Any]:
        """Only ``rows`` follows the beams: the features and the canvas are never copied."""
        return dict(encoder_out, rows=encoder_out["rows"].index_select(0, new_order))

    def max_positions(self) -> int:
        return self.cfg.max_source_positions
