"""Operations and memory of one training step, counted while it runs: of any torch model, without fairseq.

torch is imported in the functions, see training_cost.py.
"""

import math
import re
import weakref
from typing import Any, Dict, List, Set, Tuple

# Older versions drop the Python object of a storage before its memory, which the tracking below relies on.
OLDEST_TORCH = (2, 6)
# What the operations that compute products are called, whether they are counted or not.
PRODUCT = re.compile(r"conv|attention|matmul|linear|lstm|gru|rnn|mm_?$")

Shape = List[int]


def flop_counter() -> Any:
    """torch's, and what it does not know: fairseq's convolution (fconv), and attention in one piece on CPUs."""
    import torch
    from torch.utils import flop_counter as counting

    aten = torch.ops.aten

    def conv_tbc(x: Shape, weight: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        # (time, batch, in) with (width, in, out)
        return 2 * out_shape[0] * x[1] * math.prod(weight)

    def addmm(total: Shape, one: Shape, other: Shape, *args: Any, **kwargs: Any) -> int:
        return 2 * one[0] * one[1] * other[1]

    def attention(query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
        return counting.sdpa_flop_count(query, key, value)

    def attention_backward(grad: Shape, query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
        return counting.sdpa_backward_flop_count(grad, query, key, value)

    return counting.FlopCounterMode(
        display=False,
        custom_mapping={
            aten.conv_tbc: conv_tbc,
            aten.addmm_: addmm,
            aten._scaled_dot_product_flash_attention_for_cpu: attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
        },
    )


def count_flops(model: Any, run: Any) -> Tuple[int, int]:
    """Floating-point operations of ``run()`` and of the backward pass from what it returns; 2 for a product's
    multiply and add. Element by element operations (norms, dropout, softmax, Adam) are not counted."""
    counter = flop_counter()
    with counter:
        loss = run()
        forward = counter.get_total_flops()
        loss.backward()
    model.zero_grad(set_to_none=True)
    return forward, counter.get_total_flops() - forward


def peak_activations(model: Any, run: Any) -> Tuple[int, Set[str]]:
    """The most bytes that activations take: what backward needs, and what the loss takes while it is computed.

    Every tensor that an operation returns is followed until its memory is free. The peak is taken up to the first
    parameter's gradient; from there backward frees more than it takes, and gradients are counted by themselves.

    Returns:
        bytes, and the names of products that ``flop_counter`` does not count.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    known = flop_counter().flop_registry
    parameters = {parameter.untyped_storage()._cdata for parameter in [*model.parameters(), *model.buffers()]}

    class Live(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.storages: Dict[int, int] = {}
            self.now = self.peak = 0
            self.in_forward = True
            self.uncounted: Set[str] = set()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func._overloadpacket
            if name not in known and PRODUCT.search(str(name)):
                self.uncounted.add(str(name))
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if hasattr(leaf, "untyped_storage"):
                    self.see(leaf.untyped_storage())
            return result

        def see(self, storage: Any) -> None:
            key = storage._cdata
            if key in parameters or key in self.storages:
                return
            self.storages[key] = storage.nbytes()
            self.now += storage.nbytes()
            if self.in_forward:
                self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.drop, key)

        def drop(self, key: int) -> None:
            self.now -= self.storages.pop(key)

    live = Live()

    def stop(parameter: Any) -> None:
        live.in_forward = False

    hooks = [parameter.register_post_accumulate_grad_hook(stop) for parameter in model.parameters()]
    with live:
        run().backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad(set_to_none=True)
    return live.peak, live.uncounted
