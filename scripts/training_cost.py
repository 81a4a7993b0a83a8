"""What a training costs, counted (step_counters.py) and measured on the real model: operations, memory, real steps.

The model and the criterion are those that fairseq-train builds from the same flags, with a dictionary of made-up
symbols. A batch is sentences of equal length, source and target, so nothing is spent on padding. A token is a
target token, EOS counted.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import logging
import re
import resource
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Dict, List, Tuple

from benchmark_report import hardware
from corpus_checks import InputError
from step_counters import OLDEST_TORCH, count_flops, peak_activations

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# torch and fairseq are imported in the functions: Linux starts the ru_maxrss of a new process at what its parent
# occupies, so the process that starts the measuring ones must be small.

# float32 parameters, their gradients, and the two moments of Adam.
BYTES_PER_PARAMETER = {"parameters": 4, "gradients": 4, "Adam": 8}
# Activations grow linearly from the one number of sentences to the other and beyond.
SENTENCES = (4, 12)


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


def give_back_freed_memory() -> None:
    """To the system, all that small tensors have left between blocks still in use.

    The next ones would otherwise find their place there unmeasured: 15 to 30 MB after a step, never the same.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)


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
    give_back_freed_memory()
    before = current_rss()
    sentences = max(options.measure_tokens // options.length, 1)
    seconds = take_steps(arch, sentences, options.steps + 1, options)
    return {
        "tokens": sentences * options.length,
        "seconds": statistics.median(seconds[1:]),
        "bytes": peak_rss() - before,
        "hardware": hardware("cpu"),
    }
