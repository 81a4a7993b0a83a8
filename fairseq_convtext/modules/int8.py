"""Products of whole numbers in the place of those of floats, for generation on a CPU.

A weight and what it reads are rounded to whole numbers, each with a scale: ``x @ W.T`` is about
``s_x * (q_x @ q_W.T) * s_W``, and the product in the middle is exact, or nearly (arXiv 1712.05877, section 2;
int8_product.py). The scale of an activation is made from the sentence, or the position, that it belongs to, so nothing
has to be calibrated and no sentence depends on its batch mates.
"""

import functools
import logging
from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.modules.int8_kernels import quantised_rows, quantised_windows, scaled, scaled_rows
from fairseq_convtext.modules.int8_product import ZERO, Int8Product
from fairseq_convtext.modules.masking import hidden_positions
from fairseq_convtext.modules.precision import product_of, product_seconds

logger = logging.getLogger(__name__)


class Int8Linear(nn.Module):
    """``nn.Linear`` with its product in int8; every row of the weight and every row that it reads has a scale.

    Shape: ``(..., in_features)`` to ``(..., out_features)``, float32.

    Args:
        weight: ``(out_features, in_features)``; it stays as ``weight``, for it may be an embedding too, and must not
            change any more.
        bias: ``(out_features,)``.

    Raises:
        ConvTextError: no CPU, this torch or this processor has no such product, or a weight is no finite number.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        check_cpu(weight)
        self.out_features, self.in_features = weight.shape
        self.weight, self.bias = weight, bias
        self.product = Int8Product.of(weight.detach().float())

    def forward(self, x: Tensor, gated: bool = False) -> Tensor:
        """With ``gated`` half as many features, the other half being their gates, as for ``F.glu``."""
        check_cpu(x)
        q, scale = quantised_rows(x.detach().reshape(-1, self.in_features).contiguous().numpy())
        product = self.product(torch.from_numpy(q)).numpy()
        found = scaled_rows(product, scale, self.product.scale.numpy(), self.bias.detach().numpy(), gated)
        return torch.from_numpy(found).view(*x.shape[:-1], found.shape[1])

    def convolved(
        self, x: Tensor, mask: Optional[Tensor], kernel_size: int, dilation: int, gated: bool = False
    ) -> Tensor:
        """A length-preserving convolution whose filters are the rows of the weight, with a scale for each sentence.

        Args:
            x: ``(batch, positions, channels)``.
            mask: ``(batch, positions, 1)``, true where zeros are read and given back; None for nowhere.
            gated: as for ``forward``.

        Returns:
            ``(batch, positions, out_features)``, half as many if gated.
        """
        hidden = hidden_positions(x, mask)
        q, scale = quantised(x, hidden, kernel_size, dilation)
        tables = (self.product(q), scale, self.product.scale, self.bias.detach(), hidden)
        return torch.from_numpy(scaled(*(table.numpy() for table in tables), gated))


def quantised(x: Tensor, hidden: Tensor, kernel_size: int, dilation: int) -> Tuple[Tensor, Tensor]:
    """``quantised_windows`` of tensors.

    Raises:
        ConvTextError: they are not on the CPU.
    """
    check_cpu(x)
    q, scale = quantised_windows(x.detach().contiguous().numpy(), hidden.numpy(), kernel_size, dilation)
    return torch.from_numpy(q), torch.from_numpy(scale)


def check_cpu(x: Tensor) -> None:
    """ConvTextError unless x is on the CPU."""
    if x.device.type != "cpu":
        raise ConvTextError(f"--generation-dtype int8 is for the CPU; found {x.device}: use bfloat16 or auto.")


def use_int8(model: nn.Module) -> None:
    """All ``nn.Linear`` of a model, and the convolutions that can, compute in int8 from now on."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child.weight, child.bias))
        if hasattr(module, "use_int8"):
            module.use_int8()


@functools.cache
def warn_of_slow_int8() -> None:
    """A warning where products in int8 take longer than in float32 on this processor; tried out once.

    By a third at least, so that what differs from trial to trial does not decide.
    """
    product = functools.partial(Int8Product.of(torch.ones(768, 192)), torch.full((256, 192), ZERO, dtype=torch.uint8))
    int8, float32 = product_seconds([product, product_of(torch.float32)])
    if int8 > 1.3 * float32:
        logger.warning(
            "products in int8 take %.1f times as long as in float32 on this machine: --generation-dtype float32 or "
            "auto is faster",
            int8 / float32,
        )
