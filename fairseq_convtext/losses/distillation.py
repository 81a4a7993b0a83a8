"""A network taught by the canvas of another one (arXiv 1503.02531; for the frames of CTC arXiv 1904.08311).

Both write a canvas of as many positions for a sentence, and the student's distribution at each is drawn to the
teacher's. That tells more than a translation does: at every position all that the teacher takes for possible, and
where on the canvas it writes.
"""

import torch
from torch import Tensor

from fairseq_convtext.losses.ctc import vocabulary_slices
from fairseq_convtext.modules.masking import inside


class _Distillation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, teacher, lengths):
        used = inside(lengths, logits.size(1))[:, :, None]
        # All that the gradient needs: no softmax is made twice, and the scores need not be kept.
        difference = torch.empty_like(logits)
        divergences = []
        for part in vocabulary_slices(logits):
            log_p = teacher[part].log_softmax(dim=2, dtype=torch.float32)
            log_q = logits[part].log_softmax(dim=2, dtype=torch.float32)
            p = log_p.exp().mul_(used[part])
            divergences.append(log_p.sub_(log_q).mul_(p).sum(dim=(1, 2)))
            difference[part] = log_q.exp_().mul_(used[part]).sub_(p)
        ctx.save_for_backward(difference)
        return torch.cat(divergences)

    @staticmethod
    def backward(ctx, grad_output):
        (difference,) = ctx.saved_tensors
        return difference * grad_output.to(difference.dtype)[:, None, None], None, None


def distillation_loss(logits: Tensor, teacher: Tensor, lengths: Tensor) -> Tensor:
    """``sum_t KL(teacher_t || student_t)`` over a sentence's own positions t.

    Its gradient with respect to the student's scores is the difference of the two distributions; the teacher gets none.
    The vocabulary-sized tensors are read by slices.

    Args:
        logits, teacher: ``(batch, positions, vocabulary)`` scores before the softmax, any floating type.
        lengths: ``(batch,)`` each sentence's own canvas positions.

    Returns:
        float32 ``(batch,)`` in nats.
    """
    return _Distillation.apply(logits, teacher, lengths)
