"""What a training costs, counted and measured on the real model: operations, memory, and real steps on the CPU.

The model and the criterion are those that fairseq-train builds from the same flags, with a dictionary of made-up
symbols. A batch is sentences of equal length, source and target, so nothing is spent on padding. A token is a
target token, EOS counted.
"""

import argparse
import contextlib
import dataclasses
import gc
import logging
import math
import re
import resource
import statistics
import sys
import time
import warnings
import weakref
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple

from benchmark_report import hardware
from corpus_checks import InputError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# torch and fairseq are imported in the functions: Linux starts the ru_maxrss of a new process at what its parent
# occupies, so the process that starts the measuring ones must be small.

# Older versions drop the Python object of a storage before its memory, which the tracking below relies on.
OLDEST_TORCH = (2, 6)
# float32 parameters, their gradients, and the two moments of Adam.
BYTES_PER_PARAMETER = {"parameters": 4, "gradients": 4, "Adam": 8}
# Activations grow linearly from the one number of sentences to the other and beyond.
SENTENCES = (4, 12)
# What the operations that compute products are called, whether they are counted or not.
PRODUCT = re.compile(r"conv|attention|matmul|linear|lstm|gru|rnn|mm_?$")

Shape = List[int]


def prepare(options: argparse.Namespace) -> Any:
    """torch, with the plugin registered, the seed set, and nothing logged."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    import torch

    found = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if found < OLDEST_TORCH:
        raise InputError("counting needs torch>={}.{}; found torch {}".format(*OLDEST_TORCH, torch.__version__))
    import fairseq_convtext  # noqa: F401  (registers the architectures)

    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    return torch


def flags_of(arch: str, options: argparse.Namespace) -> List[str]:
    """What fairseq-train would be given for this architecture, as far as it has such options."""
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_DATACLASS_REGISTRY

    config = MODEL_DATACLASS_REGISTRY.get(ARCH_MODEL_NAME_REGISTRY[arch])
    known = {field.name for field in dataclasses.fields(config)} if config else set()
    flags = ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"]
    if "target_alignment" in known:
        flags = ["--criterion", "convtext_ctc", "--target-alignment", "ctc"]
    if "compute_dtype" in known:
        flags += ["--compute-dtype", options.precision]
    if "share_all_embeddings" in known:
        flags += ["--share-all-embeddings"]
    return flags


def build(arch: str, options: argparse.Namespace) -> Tuple[Any, Any]:
    """The model and the criterion, as ``fairseq-train --task translation --arch ARCH`` builds them.

    One embedding matrix serves source, target and output where the architecture offers --share-all-embeddings.

    Raises:
        InputError: no such architecture, or not one that translates.
    """
    from fairseq.data import Dictionary
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.models import ARCH_MODEL_REGISTRY, FairseqEncoderDecoderModel
    from fairseq.options import get_training_parser, parse_args_and_arch
    from fairseq.tasks.translation import TranslationTask

    from fairseq_convtext.errors import ConvTextError

    if not issubclass(ARCH_MODEL_REGISTRY.get(arch, object), FairseqEncoderDecoderModel):
        raise InputError(f"--arch {arch} is no encoder-decoder architecture that fairseq or this plugin knows")
    command = ["no-data", "--task", "translation", "--optimizer", "adam", "--arch", arch]
    command += [*flags_of(arch, options), *options.flags]
    args = parse_args_and_arch(get_training_parser(), command)
    if hasattr(args, "share_all_embeddings"):  # architectures of fairseq's older kind
        args.share_all_embeddings = True
    dictionary = Dictionary()
    for number in range(options.vocabulary - len(dictionary)):
        dictionary.add_symbol(f"w{number}")
    cfg = convert_namespace_to_omegaconf(args)
    try:
        task = TranslationTask(cfg.task, dictionary, dictionary)
        model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    except ConvTextError as error:
        raise InputError(str(error)) from error
    if options.precision == "bfloat16":
        norms_in_float32(model)
    return model.train(), criterion.train()


def norms_in_float32(model: Any) -> None:
    """Layer norms compute in float32, as under autocast on CUDA; that of the CPU would leave them in bfloat16."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))


def make_sample(sentences: int, options: argparse.Namespace) -> Dict[str, Any]:
    """fairseq's batch of random sentences of ``options.length`` tokens, EOS included."""
    import torch

    ids = torch.randint(4, options.vocabulary, (sentences, options.length))
    ids[:, -1] = 2
    lengths = torch.full((sentences,), options.length)
    return {
        "id": torch.arange(sentences),
        "nsentences": sentences,
        "ntokens": ids.numel(),
        "net_input": {"src_tokens": ids.flip(0), "src_lengths": lengths, "prev_output_tokens": ids.roll(1, dims=1)},
        "target": ids,
    }


def loss_of(model: Any, criterion: Any, sample: Dict[str, Any], precision: str) -> Any:
    """Loss per token. What has no --compute-dtype runs as with fairseq's --amp, criterion included."""
    import torch

    context: Any = contextlib.nullcontext()
    if precision == "bfloat16" and not hasattr(getattr(model.decoder, "cfg", None), "compute_dtype"):
        context = torch.autocast("cpu", dtype=torch.bfloat16)
    with context:
        loss, sample_size, _ = criterion(model, sample)
    return loss / sample_size


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


def estimate(arch: str, options: argparse.Namespace) -> Dict[str, Any]:
    """
    Returns:
        ``parameters``; ``forward`` and ``backward`` FLOP per token; ``fixed`` and ``per_token`` bytes of activations;
        ``uncounted`` products.
    """
    prepare(options)
    model, criterion = build(arch, options)

    def runner(sentences: int) -> Any:
        sample = make_sample(sentences, options)
        return lambda: loss_of(model, criterion, sample, options.precision)

    small, large = (count * options.length for count in SENTENCES)
    forward, backward = count_flops(model, runner(SENTENCES[0]))
    (low, _), (high, uncounted) = (peak_activations(model, runner(count)) for count in SENTENCES)
    per_token = (high - low) / (large - small)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "forward": forward / small,
        "backward": backward / small,
        "fixed": max(low - per_token * small, 0.0),
        "per_token": per_token,
        "uncounted": sorted(uncounted),
    }


def peak_rss() -> int:
    """The most bytes that this process has occupied."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def current_rss() -> int:
    """The bytes that this process occupies now."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        raise InputError("--measure reads /proc/self/statm, which this system does not have: it needs Linux")
    return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def take_steps(arch: str, sentences: int, steps: int, options: argparse.Namespace) -> List[float]:
    """Seconds of every training step of a new model."""
    import torch

    model, criterion = build(arch, options)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=False)
    seconds = []
    for _ in range(steps):
        sample = make_sample(sentences, options)
        start = time.perf_counter()
        optimizer.zero_grad()
        loss_of(model, criterion, sample, options.precision).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(arch: str, options: argparse.Namespace) -> Dict[str, Any]:
    """Real training steps on the CPU, in a process that did nothing else.

    Returns:
        ``tokens`` of a step, ``seconds`` (median without the first step), ``bytes`` on top of what a small step left,
        ``hardware``.
    """
    prepare(options)
    # One sentence, and the model is gone again: what stays are the libraries and the code that was made for it.
    take_steps(arch, 1, 1, options)
    gc.collect()
    before = current_rss()
    sentences = max(options.measure_tokens // options.length, 1)
    seconds = take_steps(arch, sentences, options.steps + 1, options)
    return {
        "tokens": sentences * options.length,
        "seconds": statistics.median(seconds[1:]),
        "bytes": peak_rss() - before,
        "hardware": hardware("cpu"),
    }
