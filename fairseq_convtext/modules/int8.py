"""Products of whole numbers in the place of those of floats, for generation on a CPU.

A weight and what it reads are rounded to int8, each with a scale: ``x @ W.T`` is about ``s_x * (q_x @ q_W.T) * s_W``,
and the product of the whole numbers in the middle is exact (arXiv 1712.05877, section 2). The scale of an activation
is made from the sentence, or the position, that it belongs to, so nothing has to be calibrated and no sentence depends
on its batch mates.
"""

from typing import Sequence, Tuple

import torch
from torch import Tensor, nn

from fairseq_convtext.errors import ConvTextError

LARGEST = 127


def quantised(x: Tensor, dims: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """``x`` as ``q * scale``, rounded: int8 ``q``, and a scale for all that lies along ``dims``, which stay as 1."""
    largest = x.abs().amax(dim=tuple(dims), keepdim=True).clamp(min=1e-30)  # of zeros: no scale of zero
    return (x * (LARGEST / largest)).round_().to(torch.int8), largest / LARGEST


class Int8Linear(nn.Module):
    """``nn.Linear`` with its product in int8; every row of the weight and every row that it reads has a scale.

    Shape: ``(..., in_features)`` to ``(..., out_features)``.

    Args:
        weight: ``(out_features, in_features)``; it stays as ``weight``, for it may be an embedding too, and must not
            change any more.
        bias: ``(out_features,)``.

    Raises:
        ConvTextError: this torch or this processor has no such product.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        check_int8()
        self.out_features, self.in_features = weight.shape
        self.weight, self.bias = weight, bias
        q, scale = quantised(weight.detach().float(), [1])
        self.register_buffer("q", q.t().contiguous(), persistent=False)
        self.register_buffer("scale", scale[:, 0], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, scale = quantised(x, [-1])
        return self.product(q, scale).to(x.dtype)

    @torch.no_grad()
    def product(self, q: Tensor, scale: Tensor) -> Tensor:
        """The float32 product of ``(..., in_features)`` int8 with a ``scale`` that broadcasts to ``(..., 1)``."""
        if q.device.type != "cpu":
            raise ConvTextError(f"--generation-dtype int8 is for the CPU; found {q.device}: use bfloat16 or auto.")
        y = torch._int_mm(q.reshape(-1, self.in_features), self.q).view(*q.shape[:-1], self.out_features).float()
        return torch.addcmul(self.bias, y, scale * self.scale, out=y)


def check_int8() -> None:
    """ConvTextError unless this torch multiplies int8 on this processor, without cutting off what is large."""
    largest, instead = torch.full((64, 64), LARGEST, dtype=torch.int8), "use float32, bfloat16 or auto."
    try:
        product = torch._int_mm(largest, largest)
    except (AttributeError, RuntimeError) as error:
        raise ConvTextError(
            f"--generation-dtype int8 needs a newer torch; found {torch.__version__}: {instead}"
        ) from error
    # x86 adds two products in 16 bits unless it has the instructions that are called VNNI.
    if not bool((product == LARGEST * LARGEST * 64).all()):
        raise ConvTextError(f"--generation-dtype int8 needs a processor with VNNI instructions: {instead}")


def use_int8(model: nn.Module) -> None:
    """All ``nn.Linear`` of a model, and the convolutions that can, compute in int8 from now on."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child.weight, child.bias))
        if hasattr(module, "use_int8"):
            module.use_int8()
