"""``bytenet``: the autoregressive ByteNet (arXiv 1610.10099), a causal decoder stacked on the convolutional encoder.

source tokens -> embedding, lengthened to the length bound -> dilated blocks -> one column per position t
column t + embedding of target token t - 1 -> causal dilated blocks -> output projection -> target token t
"""

import math
from typing import Any, Dict, Optional, Tuple

import torch
from fairseq.models import FairseqEncoder, FairseqIncrementalDecoder, register_model
from torch import Tensor, nn

from fairseq_convtext.models.bytenet_config import BytenetConfig
from fairseq_convtext.models.checks import check_task
from fairseq_convtext.models.common import (
    TranslationModel,
    check_source_length,
    completed,
    make_stack,
    output_projection,
    training_autocast,
)
from fairseq_convtext.modules.encoder import SourceEncoder, embedding
from fairseq_convtext.modules.history import History
from fairseq_convtext.modules.length_bound import length_bound
from fairseq_convtext.modules.masking import padding_mask
from fairseq_convtext.modules.unfolding import Unfolding


class BytenetEncoder(FairseqEncoder):
    """Encodes the source on as many positions as its translation is expected to have at most."""

    def __init__(self, cfg: BytenetConfig, dictionary: Any) -> None:
        super().__init__(dictionary)
        self.cfg = cfg
        embed = embedding(len(dictionary), cfg.encoder_channels, dictionary.pad())
        stack = make_stack(cfg, cfg.encoder_layers, str(cfg.connectivity))
        self.network = SourceEncoder(embed, stack, cfg.dropout, cfg.word_dropout)
        self.unfolding = Unfolding(cfg.encoder_channels)

    def forward(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None, **unused: Any) -> Dict[str, Any]:
        """
        Args:
            src_tokens: ``(batch, positions)``, EOS included, padded on either side.
            src_lengths: not used; the padding says it.

        Returns:
            ``features`` (batch, max(lengths), channels); ``lengths`` (batch,), of each sentence the larger of its
            source tokens and its length bound; ``rows`` (batch * beam,): which sentence each row of a beam search
            belongs to.
        """
        check_source_length(src_tokens, self.dictionary.pad(), self.max_positions())
        cfg = self.cfg
        with training_autocast(self, src_tokens, str(cfg.compute_dtype)):
            x, tokens = self.network.embedded(src_tokens)
            bound = length_bound(tokens, cfg.length_bound_a, cfg.length_bound_b, cfg.max_target_positions)
            lengths = torch.maximum(tokens, bound)
            x = self.unfolding(x, tokens, 0, int(lengths.max()))
            features = self.network.stack(x, padding_mask(lengths, x.size(1)))
        rows = torch.arange(src_tokens.size(0), device=src_tokens.device)
        return {"features": features, "lengths": lengths, "rows": rows}

    def reorder_encoder_out(self, encoder_out: Dict[str, Any], new_order: Tensor) -> Dict[str, Any]:
        """Only ``rows`` follows the beams: the features are never copied."""
        return dict(encoder_out, rows=encoder_out["rows"].index_select(0, new_order))

    def max_positions(self) -> int:
        return self.cfg.max_source_positions


class BytenetDecoder(FairseqIncrementalDecoder):
    """Predicts target token t from the encoder's columns 0 to t and the target tokens before t.

    Beyond the encoder's columns it goes on with a learned one, so a translation ends with EOS, not with the bound.
    """

    def __init__(self, cfg: BytenetConfig, dictionary: Any, tied: Optional[nn.Embedding]) -> None:
        super().__init__(dictionary)
        self.cfg = cfg
        channels = cfg.encoder_channels
        self.embed = embedding(len(dictionary), channels, dictionary.pad()) if tied is None else tied
        self.scale = math.sqrt(channels)
        self.unfolding = Unfolding(channels)
        self.join = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(cfg.dropout)
        self.stack = make_stack(cfg, cfg.decoder_layers, causal=True)
        self.project = output_projection(channels, len(dictionary), tied)

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Optional[Dict[str, Any]] = None,
        incremental_state: Optional[Dict[str, Any]] = None,
        **unused: Any,
    ) -> Tuple[Tensor, Dict[str, Any]]:
        """
        Args:
            prev_output_tokens: ``(batch, tokens)``, the target from EOS on, padded on the right; in generation
                ``(batch * beam, tokens)``, all tokens so far.
            encoder_out: see the encoder.
            incremental_state: in generation, where the decoder keeps what it has read.

        Returns:
            ``(batch, tokens, vocabulary)`` scores, in generation of the new tokens only; and a dictionary with
            ``attn``, which fairseq asks for.
        """
        history = self.history(incremental_state)
        start, stop = 0 if history is None else history.positions, prev_output_tokens.size(1)
        with training_autocast(self, prev_output_tokens, str(self.cfg.compute_dtype)):
            columns = self.unfolding(encoder_out["features"], encoder_out["lengths"], start, stop)
            x = self.join(columns).index_select(0, encoder_out["rows"])
            x = self.dropout(x + self.scale * self.embed(prev_output_tokens[:, start:]))
            # Padding is on the right, where a causal stack does not look.
            x = self.stack(x, None, history=history)
            logits = self.project(self.dropout(x))
        if history is not None:
            history.positions = stop
        return logits, {"attn": [None]}

    def history(self, incremental_state: Optional[Dict[str, Any]]) -> Optional[History]:
        """What was read so far, kept in fairseq's ``incremental_state``; None where there is no such state."""
        if incremental_state is None:
            return None
        history = self.get_incremental_state(incremental_state, "history")
        if history is None:
            history = History()
            self.set_incremental_state(incremental_state, "history", history)
        return history

    def reorder_incremental_state(self, incremental_state: Dict[str, Any], new_order: Tensor) -> None:
        """The histories follow the beams."""
        self.history(incremental_state).reorder(new_order)

    def max_positions(self) -> int:
        return self.cfg.max_target_positions


@register_model("bytenet", dataclass=BytenetConfig)
class BytenetModel(TranslationModel):
    """An ordinary autoregressive model: fairseq's own criterions train it, its own generator decodes it."""

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "BytenetModel":
        cfg = completed(cfg, BytenetConfig)
        check_task(cfg, task)
        encoder = BytenetEncoder(cfg, task.source_dictionary)
        tied = encoder.network.embed if cfg.share_all_embeddings else None
        return cls(encoder, BytenetDecoder(cfg, task.target_dictionary, tied))
