"""What a search tries at each canvas position: the best symbols, with the scores of the others never kept."""

import math
from typing import Iterator, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_convtext.decoding.one_pass import Symbols, rows_at_once
from fairseq_convtext.decoding.top_k import Scaling, scaled_scores, top_k
from fairseq_convtext.modules.int8 import Int8Linear, quantised
from fairseq_convtext.modules.int8_product import COLUMNS
from fairseq_convtext.modules.masking import inside


class SearchProjection:
    """The rows of an output projection that belong to what a search may write, the blank's the last of them.

    Args:
        ids: ``(symbols,)`` what may be written, and the blank at the end.
        project: ``nn.Linear`` or ``Int8Linear``, ``(..., channels)`` to ``(..., vocabulary)``.
    """

    def __init__(self, ids: Tensor, project: Union[nn.Linear, Int8Linear]) -> None:
        self.ids, self.bias, self.int8 = ids, project.bias[ids].float(), None
        if isinstance(project, Int8Linear):
            self.int8 = project.product.rows(ids)
        else:
            self.matrix = F.pad(project.weight[ids], (0, 0, 0, -len(ids) % COLUMNS)).t()

    def best_candidates(self, features: Tensor, bound: Tensor, count: int) -> Symbols:
        """The best symbols of each position and the blank, with the probabilities that they have among themselves.

        A search compares what can stand at the same position, so it finds the same without the softmax over the
        whole vocabulary, which would take as long as the projection.

        Args:
            features: ``(batch, positions, channels)`` canvas.
            bound: ``(batch,)`` canvas positions of each sentence; beyond them are zeros.
            count: how many symbols besides the blank; all if there are fewer.
        """
        used = inside(bound, features.size(1))
        count = min(count, len(self.ids) - 1)
        tokens, scores = [], []
        for product, scaling in self.products(features, used):
            values, index, blank = top_k(product, scaling, count)
            tokens.append(self.ids[index])
            scores.append(torch.cat([values, blank[:, None]], dim=1))
        log_probs = torch.cat(scores).log_softmax(dim=1)
        found = []
        for table in (torch.cat(tokens), log_probs[:, :-1], log_probs[:, -1]):
            found.append(table.new_zeros(*used.shape, *table.shape[1:]))
            found[-1][used] = table
        return Symbols(*found)

    def likeliest(self, features: Tensor, where: Tensor, count: int) -> Tuple[Tensor, Tensor]:
        """The best symbols of some positions, the blank not among them, with their probabilities among all the others.

        Args:
            features: ``(batch, positions, channels)`` canvas.
            where: ``(batch, positions)`` which positions.
            count: how many symbols; all if there are fewer.

        Returns:
            ``(batch, positions, count)`` symbols and float32 log-probabilities, best first; -inf elsewhere.
        """
        count = min(count, len(self.ids) - 1)
        tokens = self.ids.new_zeros(*where.shape, count)
        log_probs = torch.full(tokens.shape, -math.inf, device=features.device)
        found = []
        for product, scaling in self.products(features, where):
            scores = scaled_scores(product, scaling)[:, :-1]
            best = scores.topk(count, dim=1)
            found.append((self.ids[best.indices], best.values - scores.logsumexp(dim=1, keepdim=True)))
        tokens[where], log_probs[where] = (torch.cat(parts) for parts in zip(*found))
        return tokens, log_probs

    def products(self, features: Tensor, used: Tensor) -> Iterator[Tuple[Tensor, Scaling]]:
        """The scores before the softmax of the positions ``used`` ``(batch, positions)``, in parts for top_k.py."""
        if self.int8 is None:
            rows = features[used]
            step = rows_at_once(len(self.ids), rows.device)
            # Each part in the memory of the one before it: new memory is slower than the product that is written to it.
            memory = rows.new_empty(min(step, len(rows)), self.matrix.size(1))
            for part in rows.split(step):
                yield torch.mm(part, self.matrix, out=memory[: len(part)]), Scaling(None, None, self.bias)
        else:
            rows, scales = quantised(features, ~used, 1, 1)
            scales, step = scales.repeat_interleave(used.sum(dim=1)), rows_at_once(len(self.ids), rows.device)
            for part, scale in zip(rows.split(step), scales.split(step)):
                yield self.int8(part), Scaling(scale, self.int8.scale, self.bias)
