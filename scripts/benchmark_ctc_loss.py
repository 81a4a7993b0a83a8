#!/usr/bin/env python3
"""Time and peak memory of the project's CTC loss against torch.nn.functional.ctc_loss, on random scores.

  benchmark_ctc_loss.py [--batch 64 --canvas 80 --vocabulary 32000] [--dtype bfloat16] [--threads 1]

gathered   fairseq_convtext.losses.ctc.ctc_loss
reference  log_softmax, then torch.nn.functional.ctc_loss

Each is measured in a process of its own. Peak memory is what one forward and backward pass takes on top of
the scores, the gradient of the scores included. Times are medians. A third process computes both on the same
scores and compares values and gradients, with each other and with the reference in float64.
"""

import argparse
import logging
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from benchmark_report import device_problem, hardware, positive, progress, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# torch is imported in the measuring processes only: Linux starts the ru_maxrss of a new process at what its
# parent occupies, which would hide what a small loss takes.

LOSSES = {"gathered": "ctc_loss", "reference": "reference_ctc_loss"}
BLANK = 0
MIB = 1 << 20


def load_loss(name: str) -> Callable[..., Any]:
    """One of LOSSES."""
    # What fairseq logs while it is imported is no part of a report.
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    from fairseq_convtext.losses import ctc

    return getattr(ctc, LOSSES[name])


def random_scores(options: argparse.Namespace) -> Any:
    """``(batch, canvas, vocabulary)``, filled in place so that no larger tensor ever stood in memory."""
    import torch

    shape = (options.batch, options.canvas, options.vocabulary)
    scores = torch.empty(shape, dtype=getattr(torch, options.dtype), device=options.device)
    for row in scores:
        row.normal_()
    return scores.requires_grad_()


def random_targets(options: argparse.Namespace) -> Tuple[Any, Any, Any, int]:
    """Targets, canvas lengths, target lengths, blank.

    Canvases take half of the positions up to all of them, one of them all; a target takes a quarter to a half
    of its canvas, so that it always fits.
    """
    import torch

    lengths = torch.randint((options.canvas + 1) // 2, options.canvas + 1, (options.batch,))
    lengths[0] = options.canvas
    target_lengths = (lengths.double() * (0.25 + 0.25 * torch.rand(options.batch))).long()
    targets = torch.randint(BLANK + 1, options.vocabulary, (options.batch, max(int(target_lengths.max()), 1)))
    return targets.to(options.device), lengths.to(options.device), target_lengths.to(options.device), BLANK


def prepare(options: argparse.Namespace) -> Any:
    """The seed, the threads, and a tiny run of both passes, so that torch has loaded what it loads once."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    tiny = argparse.Namespace(**{**vars(options), "batch": 2, "canvas": 4, "vocabulary": 8})
    for name in LOSSES:
        scores = random_scores(tiny)
        torch.autograd.grad(load_loss(name)(scores, *random_targets(tiny)).sum(), scores)
    torch.manual_seed(options.seed)
    return torch


def peak_bytes(options: argparse.Namespace) -> int:
    """The most memory that was in use so far."""
    if options.device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(name: str, options: argparse.Namespace) -> Dict[str, Any]:
    """Runs in its own process: seconds of each pass, bytes on top of the scores, and what it ran on."""
    torch = prepare(options)
    loss, scores, targets = load_loss(name), random_scores(options), random_targets(options)

    def now() -> float:
        if options.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = peak_bytes(options)
    forward: List[float] = []
    backward: List[float] = []
    for repetition in range(options.repetitions):
        start = now()
        total = loss(scores, *targets).sum()
        middle = now()
        # What it returns is dropped at once, so every repetition starts from the same memory.
        torch.autograd.grad(total, scores)
        end = now()
        if repetition == 0:
            memory = peak_bytes(options) - before
        forward.append(middle - start)
        backward.append(end - middle)
        progress(
            f"{name}, repetition {repetition + 1} of {options.repetitions}: "
            f"forward {forward[-1]:.3f} s, backward {backward[-1]:.3f} s"
        )
    return {
        "forward": statistics.median(forward),
        "backward": statistics.median(backward),
        "total": statistics.median(map(sum, zip(forward, backward))),
        "memory": memory,
        "scores": scores.numel() * scores.element_size(),
        "hardware": hardware(options.device),
    }


def exact(scores: Any, targets: Any, lengths: Any, target_lengths: Any, blank: int) -> Tuple[Any, Any]:
    """Values and gradients of the reference in float64."""
    import torch

    scores = scores.detach().double().requires_grad_()
    log_probs = scores.log_softmax(dim=2).transpose(0, 1)
    losses = torch.nn.functional.ctc_loss(
        log_probs, targets, lengths, target_lengths, blank=blank, reduction="none", zero_infinity=True
    )
    return losses.detach(), torch.autograd.grad(losses.sum(), scores)[0]


def compare(options: argparse.Namespace) -> Dict[str, Any]:
    """Runs in its own process: the largest differences of values and of gradients on the same scores.

    Both losses round in float32 to about the last digit of their values, which reach hundreds of nats;
    float64 tells how far each is from the truth.

    Returns:
        ``largest`` value in nats, and for each pair (value difference, gradient difference).
    """
    torch = prepare(options)
    scores, (targets, lengths, target_lengths, blank) = random_scores(options), random_targets(options)
    found = []
    for name in LOSSES:
        progress(f"difference: {name}")
        losses = load_loss(name)(scores, targets, lengths, target_lengths, blank)
        found.append((losses.detach(), torch.autograd.grad(losses.sum(), scores)[0]))
    progress("difference: float64")
    pairs = {"gathered, reference": (0, 1), "gathered, float64": (0, 2), "reference, float64": (1, 2)}
    largest: Dict[str, List[float]] = {pair: [0.0, 0.0] for pair in pairs}
    # Sentence by sentence: float64 of all of them would be several times the memory of everything else.
    for row in range(options.batch):
        one = slice(row, row + 1)
        truth = exact(scores[one], targets[one], lengths[one], target_lengths[one], blank)
        three = [(values[one].double(), gradients[one].double()) for values, gradients in found] + [truth]
        for pair, (first, second) in pairs.items():
            for kind in (0, 1):
                difference = (three[first][kind] - three[second][kind]).abs().max().item()
                largest[pair][kind] = max(largest[pair][kind], difference)
    return {"largest": found[1][0].max().item(), "pairs": largest}


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the function, computed in a new process that ends with it."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def report(options: argparse.Namespace, figures: Dict[str, Any], difference: Dict[str, Any]) -> str:
    """The text that is printed."""
    columns = ("forward", "backward", "total", "memory")
    size = figures["gathered"]["scores"]
    costs = [["loss", "forward s", "backward s", "both s", "peak MiB", "peak / scores"]]
    for name, found in figures.items():
        times = [f"{found[column]:.3f}" for column in columns[:3]]
        costs.append([name, *times, f"{found['memory'] / MIB:.1f}", f"{found['memory'] / size:.2f}"])
    ratios = [figures["reference"][column] / max(figures["gathered"][column], 1e-9) for column in columns]
    costs.append(["reference / gathered", *(f"{ratio:.2f}" for ratio in ratios), ""])
    differences = [["largest difference", "value", "gradient"]]
    differences += [[pair, *(f"{number:.1e}" for number in two)] for pair, two in difference["pairs"].items()]
    shape = f"batch {options.batch} x canvas {options.canvas} x vocabulary {options.vocabulary}"
    return "\n".join(
        [
            figures["gathered"]["hardware"],
            f"{shape}, {options.dtype}: the scores take {size / MIB:.1f} MiB; "
            f"medians of {options.repetitions}, seed {options.seed}",
            "",
            table(costs),
            "",
            table(differences),
            f"(values in nats, up to {difference['largest']:.0f})",
        ]
    )


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--batch", type=positive, default=64, help="sentences (default: 64)")
    parser.add_argument("--canvas", type=positive, default=80, help="positions of the longest (default: 80)")
    parser.add_argument("--vocabulary", type=positive, default=32000, help="symbols (default: 32000)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the scores")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--repetitions", type=positive, default=5, help="runs of each pass (default: 5)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.vocabulary < 2:
        parser.error("--vocabulary must be at least 2, the blank and a token; found 1")
    return options


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    try:
        problem = options.device != "cpu" and in_fresh_process(device_problem, options.device)
        if problem:
            print(f"error: {problem}", file=sys.stderr)
            return 1
        figures = {name: in_fresh_process(measure, name, options) for name in LOSSES}
        difference = in_fresh_process(compare, options)
    except (BrokenProcessPool, MemoryError, RuntimeError) as error:
        message = str(error).split("\n")[0]
        print(f"error: a measurement failed ({message}): if memory ran out, lower --batch", file=sys.stderr)
        return 1
    print(report(options, figures, difference))
    return 0


if __name__ == "__main__":
    sys.exit(main())
