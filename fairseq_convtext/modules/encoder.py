"""Source tokens to features."""

import math
from typing import Tuple

from torch import Tensor, nn

from fairseq_convtext.modules.dropout import WordDropout
from fairseq_convtext.modules.masking import pad_right, stack_mask
from fairseq_convtext.modules.stack import ConvStack


def embedding(vocabulary: int, channels: int, pad: int) -> nn.Embedding:
    """An embedding whose rows have length about 1, as an output projection tied to it wants; padding is zero."""
    module = nn.Embedding(vocabulary, channels, padding_idx=pad)
    nn.init.normal_(module.weight, std=channels**-0.5)
    nn.init.zeros_(module.weight[pad])
    return module


class SourceEncoder(nn.Module):
    """Embedding and a stack of dilated blocks, non-causal: every position sees both sides.

    Args:
        embed: ``(vocabulary, channels)`` embedding; its padding id says what padding is.
        stack: keeps ``(batch, positions, channels)``.
        dropout: after the embedding.
        word_dropout: rate of blanked words.
    """

    def __init__(self, embed: nn.Embedding, stack: ConvStack, dropout: float, word_dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = embed
        self.scale = math.sqrt(embed.embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.word_dropout = WordDropout(word_dropout)
        self.stack = stack

    def forward(self, tokens: Tensor) -> Tuple[Tensor, Tensor]:
        """
        Args:
            tokens: ``(batch, positions)`` ids, EOS included, padded on either side.

        Returns:
            ``(batch, longest, channels)`` features, padded on the right, and ``(batch,)`` lengths.
        """
        x, lengths = self.embedded(tokens)
        return self.stack(x, stack_mask(lengths, x.size(1))), lengths

    def embedded(self, tokens: Tensor) -> Tuple[Tensor, Tensor]:
        """What the stack reads, ``(batch, longest, channels)`` padded on the right, and ``(batch,)`` lengths."""
        tokens, lengths = pad_right(tokens, self.embed.padding_idx)
        return self.dropout(self.word_dropout(self.scale * self.embed(tokens))), lengths
