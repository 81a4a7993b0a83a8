"""Consistency of two readings of the same sentence (CR-CTC, arXiv 2410.05101; R-Drop, arXiv 2106.14448).

The same batch goes through the network twice in one, with other dropout masks, and the two distributions at every
canvas position are drawn together. What only one mask supports is unlearnt, which is what a small corpus needs.
"""

import torch
from torch import Tensor

from fairseq_convtext.losses.ctc import vocabulary_slices
from fairseq_convtext.modules.masking import inside


class _Consistency(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, other, lengths):
        ctx.save_for_backward(logits, other, lengths)
        used = inside(lengths, logits.size(1))
        divergences = []
        for part in vocabulary_slices(logits):
            log_p = logits[part].log_softmax(dim=2, dtype=torch.float32)
            log_q = other[part].log_softmax(dim=2, dtype=torch.float32)
            both = (log_p.exp() - log_q.exp()).mul_(log_p.sub_(log_q)).sum(dim=2)
            divergences.append(both.masked_fill(~used[part], 0.0).sum(dim=1))
        return 0.5 * torch.cat(divergences)

    @staticmethod
    def backward(ctx, grad_output):
        logits, other, lengths = ctx.saved_tensors
        used = inside(lengths, logits.size(1))
        scale = 0.5 * grad_output.float()[:, None, None] * used[:, :, None]
        grad, grad_other = torch.empty_like(logits), torch.empty_like(other)
        for part in vocabulary_slices(logits):
            difference = logits[part].softmax(dim=2, dtype=torch.float32)
            difference.sub_(other[part].softmax(dim=2, dtype=torch.float32)).mul_(scale[part])
            grad[part] = difference
            grad_other[part] = difference.neg_()
        return grad, grad_other, None


def consistency_loss(logits: Tensor, other: Tensor, lengths: Tensor) -> Tensor:
    """Half the symmetric Kullback-Leibler divergence, summed over a sentence's own positions.

    Each side is drawn to the other, which is held fixed (arXiv 2410.05101, equation 4), so the gradient with respect
    to the scores is half the difference of the two distributions. The vocabulary-sized tensors are read by slices.

    Args:
        logits, other: ``(batch, positions, vocabulary)`` scores before the softmax, any floating type.
        lengths: ``(batch,)`` each sentence's own canvas positions.

    Returns:
        float32 ``(batch,)`` in nats.
    """
    return _Consistency.apply(logits, other, lengths)
