"""What a search tries at each canvas position: the best symbols, with the scores of the others never kept."""

from typing import Iterator, Tuple

import torch
from torch import Tensor

from fairseq_convtext.decoding.one_pass import Symbols, rows_at_once
from fairseq_convtext.decoding.top_k import Scaling, top_k
from fairseq_convtext.modules.int8 import Int8Linear, quantised
from fairseq_convtext.modules.masking import padding_mask


class SearchProjection:
    """The rows of an output projection that belong to what a search may write, the blank's the last of them.

    Args:
        ids: ``(symbols,)`` what may be written, and the blank at the end.
        weight: ``(vocabulary, channels)`` of the output projection.
        bias: ``(vocabulary,)``.
        int8: compute in int8.
    """

    def __init__(self, ids: Tensor, weight: Tensor, bias: Tensor, int8: bool) -> None:
        self.ids, self.weight, self.bias = ids, weight[ids], bias[ids].float()
        self.int8 = Int8Linear(self.weight, self.bias) if int8 else None
        self.ones = torch.ones_like(self.bias)

    def best_candidates(self, features: Tensor, bound: Tensor, count: int) -> Symbols:
        """The best symbols of each position and the blank, with the probabilities that they have among themselves.

        A search compares what can stand at the same position, so it finds the same without the softmax over the
        whole vocabulary, which would take as long as the projection.

        Args:
            features: ``(batch, positions, channels)`` canvas.
            bound: ``(batch,)`` canvas positions of each sentence; beyond them are zeros.
            count: how many symbols besides the blank; all if there are fewer.
        """
        inside = ~padding_mask(bound, features.size(1))[:, :, 0]
        count = min(count, len(self.ids) - 1)
        tokens, scores = [], []
        for product, scaling in self.products(features, inside):
            values, index, blank = top_k(product, scaling, count)
            tokens.append(self.ids[index])
            scores.append(torch.cat([values, blank[:, None]], dim=1))
        log_probs = torch.cat(scores).log_softmax(dim=1)
        symbols = Symbols(torch.cat(tokens), log_probs[:, :-1], log_probs[:, -1])
        return Symbols(*(t.new_zeros(*inside.shape, *t.shape[1:]).masked_scatter_(wide(inside, t), t) for t in symbols))

    def products(self, features: Tensor, inside: Tensor) -> Iterator[Tuple[Tensor, Scaling]]:
        """The scores before the softmax of the positions ``inside`` ``(batch, positions)``, in parts for top_k.py.

        Each part is in the memory of the one before it: new memory is slower than the product that is written to it.
        """
        if self.int8 is None:
            rows, matrix, multiply = features[inside], self.weight.t(), torch.mm
            scales, columns = self.ones.new_ones(len(rows)), self.ones
        else:
            rows, scales = quantised(features, ~inside, 1, 1)
            matrix, multiply = self.int8.q, torch._int_mm
            scales, columns = scales.repeat_interleave(inside.sum(dim=1)), self.int8.scale
        step = rows_at_once(len(self.ids), rows.device)
        dtype = rows.dtype if self.int8 is None else torch.int32
        memory = rows.new_empty(min(step, len(rows)), len(self.ids), dtype=dtype)
        for part, scale in zip(rows.split(step), scales.split(step)):
            product = multiply(part, matrix, out=memory[: len(part)])
            yield product, Scaling(scale, columns, self.bias)


def wide(mask: Tensor, table: Tensor) -> Tensor:
    return mask if table.dim() == 1 else mask[:, :, None]
