"""The upper bound on the target length, which is the number of positions the decoder writes on."""

import torch
from torch import Tensor


def length_bound(lengths: Tensor, a: float, b: float, maximum: int) -> Tensor:
    """``L = min(ceil(a * S + b), maximum)``, for every sentence by itself (arXiv 1610.10099, section 3.1).

    Args:
        lengths: ``(batch,)`` source tokens S, EOS included.
        a: canvas positions per source token.
        b: canvas positions on top; short sources need them.
        maximum: the model's limit, ``--max-target-positions``.

    Returns:
        ``(batch,)`` canvas positions L, integers.
    """
    # In double, with a tolerance: 1.2 * 5 is 6.000000000000001 for a computer and must still give 6.
    bound = torch.ceil(lengths.double() * a + b - 1e-9).long()
    return bound.clamp(max=maximum)
