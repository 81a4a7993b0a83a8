#!/usr/bin/env python3
"""What a training would cost: parameters, operations, memory, and hours on GPUs, before any GPU is rented.

  estimate_training.py --arch bytenet_deconv_wmt_en_de transformer --tokens 65536 --updates 100000 --gpus 8
  estimate_training.py --arch bytenet_deconv_tiny --measure          and real steps on the CPU beside the estimate
  estimate_training.py --arch bytenet_deconv -- --encoder-layers 30  after -- options of fairseq-train

Any encoder-decoder architecture of fairseq or of this plugin; presets of the plugin with --target-alignment ctc.
Operations and activations are counted while the real model takes a step on the CPU (scripts/step_counters.py),
never by a formula for the whole model. A token is a target token, EOS counted.

Hours are operations / (GPUs x peak of the GPU x --utilisation). The utilisation is an assumption, not a
measurement: give the one that a short run on your GPU reaches.
"""

import argparse
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

from benchmark_ctc_loss import in_fresh_process
from benchmark_report import positive, progress
from corpus_checks import InputError
from training_cost import BYTES_PER_PARAMETER, estimate, measure

GIB = float(1 << 30)
BATCHES = (1024, 2048, 4096, 8192, 16384)
# Of a GPU's memory; the rest is for CUDA itself and for what lies between the tensors.
USABLE = 0.9


@dataclass(frozen=True)
class Gpu:
    """Peak of dense half-precision products that are summed in float32 (without sparsity), in TFLOP/s; GiB."""

    tflops: float
    gib: int
    source: str


GPUS = {
    "T4": Gpu(65, 16, "NVIDIA T4 data sheet"),
    "V100": Gpu(125, 32, "NVIDIA V100 data sheet (SXM2); float16 only, no bfloat16 products"),
    "RTX3090": Gpu(71, 24, "NVIDIA GA102 white paper"),
    "RTX4090": Gpu(165.2, 24, "NVIDIA Ada white paper"),
    "L4": Gpu(121, 24, "NVIDIA L4 data sheet (half of the figure with sparsity)"),
    "A100": Gpu(312, 80, "NVIDIA A100 data sheet"),
    "H100": Gpu(989.4, 80, "NVIDIA H100 data sheet (SXM; half of the figure with sparsity)"),
}


def markdown(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows, the first the heading, as a Markdown table; the first ``left`` columns are aligned to the left."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(zip(cells, widths)))
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if n < left else "-" * (w - 1) + ":" for n, w in enumerate(widths)]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def memory(cost: Dict[str, Any], tokens: int) -> float:
    """Bytes that a training step of ``tokens`` tokens takes on one GPU."""
    state = cost["parameters"] * sum(BYTES_PER_PARAMETER.values())
    return state + cost["fixed"] + cost["per_token"] * tokens


def tokens_that_fit(cost: Dict[str, Any], gib: float) -> int:
    """The most tokens whose step fits the usable part of a GPU's memory; 0 when nothing does."""
    room = USABLE * gib * GIB - memory(cost, 0)
    return max(int(room / cost["per_token"]), 0)


def hours(cost: Dict[str, Any], gpu: Gpu, options: argparse.Namespace) -> float:
    """Of the whole training, with the work spread evenly over the GPUs."""
    operations = (cost["forward"] + cost["backward"]) * options.tokens * options.updates
    return operations / (gpu.tflops * 1e12 * options.utilisation * options.gpus) / 3600


def cost_table(costs: Dict[str, Dict[str, Any]]) -> str:
    rows = [["architecture", "M parameters", "MFLOP per token forward", "backward", "GiB with Adam", "KiB per token"]]
    for arch, cost in costs.items():
        rows.append([
            arch, f"{cost['parameters'] / 1e6:.1f}", f"{cost['forward'] / 1e6:.1f}", f"{cost['backward'] / 1e6:.1f}",
            f"{cost['parameters'] * sum(BYTES_PER_PARAMETER.values()) / GIB:.2f}", f"{cost['per_token'] / 1024:.0f}",
        ])  # fmt: skip
    return markdown(rows)


def memory_table(costs: Dict[str, Dict[str, Any]]) -> str:
    rows = [["GiB by tokens on one GPU", *(f"{tokens:,}" for tokens in BATCHES)]]
    for arch, cost in costs.items():
        rows.append([arch, *(f"{memory(cost, tokens) / GIB:.1f}" for tokens in BATCHES)])
    return markdown(rows)


def hours_table(costs: Dict[str, Dict[str, Any]], options: argparse.Namespace) -> str:
    """Hours, and in brackets how many thousand tokens fit on the GPU at once."""
    rows = [["hours (thousand tokens that fit)", *options.gpu]]
    for arch, cost in costs.items():
        cells = []
        for name in options.gpu:
            fit = tokens_that_fit(cost, GPUS[name].gib)
            cells.append(f"{hours(cost, GPUS[name], options):.1f} ({fit / 1000:.1f})" if fit else "does not fit")
        rows.append([arch, *cells])
    return markdown(rows)


def gpu_table(names: Sequence[str]) -> str:
    rows = [["GPU", "source", "peak TFLOP/s", "GiB"]]
    rows += [[name, GPUS[name].source, f"{GPUS[name].tflops:g}", str(GPUS[name].gib)] for name in names]
    return markdown(rows, left=2)


def measured_table(costs: Dict[str, Dict[str, Any]], runs: Dict[str, Dict[str, Any]]) -> str:
    rows = [["measured", "tokens", "seconds per step", "GFLOP per step", "GFLOP/s", "MiB", "MiB estimated", "ratio"]]
    for arch, run in runs.items():
        operations = (costs[arch]["forward"] + costs[arch]["backward"]) * run["tokens"]
        wanted = memory(costs[arch], run["tokens"])
        rows.append([
            arch, f"{run['tokens']:,}", f"{run['seconds']:.2f}", f"{operations / 1e9:.1f}",
            f"{operations / 1e9 / run['seconds']:.1f}", f"{run['bytes'] / GIB * 1024:.0f}",
            f"{wanted / GIB * 1024:.0f}", f"{wanted / run['bytes']:.2f}",
        ])  # fmt: skip
    return markdown(rows)


def report(costs: Dict[str, Dict[str, Any]], runs: Dict[str, Dict[str, Any]], options: argparse.Namespace) -> str:
    """The text that is printed."""
    parts = [
        f"Sentences of {options.length} tokens on both sides, vocabulary {options.vocabulary:,}; parameters, gradients "
        f"and Adam in float32, activations in {options.precision}.",
        cost_table(costs),
        memory_table(costs),
        f"{options.updates:,} updates of {options.tokens:,} tokens on {options.gpus} GPU{'s' * (options.gpus > 1)} at "
        f"an assumed {options.utilisation:.0%} of the peak:",
        hours_table(costs, options),
        gpu_table(options.gpu),
    ]
    for arch, cost in costs.items():
        if cost["uncounted"]:
            parts.append(f"{arch}: products that were not counted: {', '.join(cost['uncounted'])}")
    if runs:
        parts += [next(iter(runs.values()))["hardware"], measured_table(costs, runs)]
    return "\n\n".join(parts)


def names(text: str) -> List[str]:
    """``A100,H100`` to a list, for argparse."""
    found = text.split(",")
    unknown = [name for name in found if name not in GPUS]
    if unknown:
        raise argparse.ArgumentTypeError(f"knows {', '.join(GPUS)}; found {unknown[0]!r}")
    return found


def share(text: str) -> float:
    """Above 0 and up to 1, for argparse."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1; found {text}")
    return number


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    arguments = sys.argv[1:] if arguments is None else arguments
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--arch", nargs="+", required=True, help="architectures of fairseq or of this plugin")
    parser.add_argument("--updates", type=positive, default=100000, help="default: 100000")
    parser.add_argument("--tokens", type=positive, default=65536, help="target tokens of an update (default: 65536)")
    parser.add_argument("--vocabulary", type=positive, default=32000, help="joint symbols (default: 32000)")
    parser.add_argument("--length", type=positive, default=30, help="tokens of a sentence with EOS (default: 30)")
    parser.add_argument("--gpu", type=names, default=["V100", "RTX4090", "A100", "H100"], metavar="NAME,NAME",
                        help=f"among {', '.join(GPUS)} (default: V100,RTX4090,A100,H100)")  # fmt: skip
    parser.add_argument("--gpus", type=positive, default=1, help="number of GPUs (default: 1)")
    parser.add_argument("--utilisation", type=share, default=0.3, help="share of the peak (default: 0.3)")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16",
                        help="of the activations (default: bfloat16, by autocast)")  # fmt: skip
    parser.add_argument("--measure", action="store_true", help="also take real steps on the CPU")
    parser.add_argument("--measure-tokens", type=positive, default=1920, help="of a measured step (default: 1920)")
    parser.add_argument("--steps", type=positive, default=3, help="measured steps, after a first one (default: 3)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's own choice)")
    options = parser.parse_args(arguments[:cut])
    options.flags = arguments[cut + 1 :]
    if options.vocabulary < 5 or options.length < 2:
        parser.error("--vocabulary must be at least 5 (fairseq has 4 special symbols) and --length at least 2")
    return options


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    # Blocks that are freed go back to the system at once, so that the peak is that of the tensors.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 20))
    costs: Dict[str, Dict[str, Any]] = {}
    runs: Dict[str, Dict[str, Any]] = {}
    try:
        for arch in options.arch:
            progress(f"{arch}: counting")
            costs[arch] = in_fresh_process(estimate, arch, options)
            if options.measure:
                progress(f"{arch}: {options.steps + 1} steps on the CPU")
                runs[arch] = in_fresh_process(measure, arch, options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (BrokenProcessPool, MemoryError) as error:
        print(f"error: {arch} could not be run ({error}): if memory ran out, lower --measure-tokens", file=sys.stderr)
        return 1
    print(report(costs, runs, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
