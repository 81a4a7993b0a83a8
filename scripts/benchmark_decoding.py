#!/usr/bin/env python3
"""Sentences per second of fairseq's step-by-step generator and of parallel decoding.

  benchmark_decoding.py DATA --path CHECKPOINT [CHECKPOINT ...] [--labels NAME [NAME ...]]

DATA is a folder of fairseq-preprocess. Each checkpoint is decoded by the stock generator at every --beams
and, if it is a model that writes all positions at once, by the generator of --task translation_convtext; all
of that with every --batch-sizes; with --ctc-beam also by the CTC search, with --ctc-judges judged by other models.
A checkpoint of fairseq's own, such as a transformer, gives the rows of the stock generator, one of this project
all of its rows in each --generation-dtype.

The time is that of generation alone, from a batch of ids to its hypotheses, as fairseq-generate counts it:
loading, batching and printing are not in it. Sentences are sorted by length, as fairseq-generate does. Every
figure is the median of --repetitions runs over the same sentences, in which all rows take turns.

The last column tells whether parallel decoding gives the H- and P- lines of the stock generator at beam 1.
"""

import argparse
import logging
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from benchmark_report import device_problem, hardware, positive, progress, table
from corpus_checks import InputError

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.getLogger("fairseq").setLevel(logging.WARNING)
sys.path.insert(0, str(ROOT))
import fairseq  # noqa: E402
import torch  # noqa: E402
from decoding_settings import PARALLEL, Setting, settings_of  # noqa: E402
from fairseq import utils  # noqa: E402

from fairseq_convtext.errors import ConvTextError  # noqa: E402
from fairseq_convtext.modules.precision import GENERATION_DTYPES  # noqa: E402


def check_data(options: argparse.Namespace) -> None:
    """InputError if DATA or a checkpoint is missing, or the labels do not go with the checkpoints."""
    if not options.data.is_dir():
        raise InputError(f"no such folder: {options.data} (DATA, made by fairseq-preprocess)")
    if not all(list(options.data.glob(name)) for name in ("dict.*.txt", f"{options.gen_subset}.*-*.*.idx")):
        raise InputError(
            f"{options.data} holds no binarised {options.gen_subset!r} data: give the --destdir of "
            "fairseq-preprocess, or another --gen-subset"
        )
    for path in options.path:
        if not path.is_file():
            raise InputError(f"no such checkpoint: {path} (--path)")
    if len(options.labels) != len(options.path):
        raise InputError(
            f"--labels must name every checkpoint: {len(options.path)} expected, {len(options.labels)} found"
        )


def hypothesis_lines(number: int, hypothesis: Dict[str, Any], setting: Setting) -> Tuple[str, str]:
    """The H- and the P- line as fairseq-generate prints them, subwords left as they are."""
    dictionary = setting.task.target_dictionary
    ignored = getattr(setting.generator, "symbols_to_strip_from_output", {dictionary.eos()})
    text = dictionary.string(hypothesis["tokens"].int().cpu(), extra_symbols_to_ignore=ignored)
    scores = (hypothesis["positional_scores"] / math.log(2)).tolist()
    return (
        f"H-{number}\t{hypothesis['score'] / math.log(2)}\t{text}",
        f"P-{number}\t{' '.join(f'{score:.4f}' for score in scores)}",
    )


def run(setting: Setting, device: str) -> None:
    """Decode all batches once: adds the time of generation, and keeps the lines."""

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    seconds = 0.0
    for batch in setting.batches:
        start = now()
        found = setting.task.inference_step(setting.generator, [setting.model], batch)
        seconds += now() - start
        for number, hypotheses in zip(batch["id"].tolist(), found):
            setting.lines[number] = hypothesis_lines(number, hypotheses[0], setting)
    setting.seconds.append(seconds)


def mark_equal_output(settings: List[Setting]) -> None:
    """Fill in the last column of the parallel rows."""
    greedy = {(id(each.model), each.batch_size): each.lines for each in settings if each.name == "stock, beam 1"}
    for setting in settings:
        stock = greedy.get((id(setting.model), setting.batch_size))
        if setting.name == PARALLEL and stock is not None:
            differing = sum(lines != stock.get(number) for number, lines in setting.lines.items())
            same = not differing and len(stock) == len(setting.lines)
            setting.same = "identical" if same else f"DIFFER in {differing} of {len(stock)}"


def benchmark(settings: List[Setting], options: argparse.Namespace) -> List[List[str]]:
    """The rows of the table."""
    for setting in settings:  # a first batch, not counted: torch prepares what it prepares once
        setting.task.inference_step(setting.generator, [setting.model], setting.batches[0])
    # Settings and models take turns, so that a slow minute of the machine does not fall on one of them.
    for repetition in range(options.repetitions):
        for setting in settings:
            run(setting, options.device)
            progress(
                f"{setting.label}, {setting.name}, batch size {setting.batch_size}, repetition {repetition + 1} of "
                f"{options.repetitions}: {setting.seconds[-1]:.2f} s"
            )
    mark_equal_output(settings)
    rows = []
    for setting in settings:
        seconds, count = statistics.median(setting.seconds), len(setting.lines)
        millions = sum(parameter.numel() for parameter in setting.model.parameters()) / 1e6
        rows.append(
            [setting.label, setting.name, f"{millions:.1f}", str(setting.batch_size), str(count), f"{seconds:.3f}",
             f"{count / seconds:.1f}", setting.same]
        )  # fmt: skip
    return rows


def numbers(text: str) -> List[int]:
    """``1,64`` to a list, for argparse."""
    return [positive(part) for part in text.split(",")]


def dtypes(text: str) -> List[str]:
    """``float32,int8`` to a list, for argparse."""
    for name in text.split(","):
        if name not in GENERATION_DTYPES:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(GENERATION_DTYPES)}; found {name!r}")
    return text.split(",")


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of fairseq-preprocess")
    parser.add_argument("--path", type=Path, nargs="+", required=True, metavar="CHECKPOINT", help="models")
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="their names (default: folder/file)")
    parser.add_argument("--gen-subset", default="test", help="split of DATA (default: test)")
    parser.add_argument("--sentences", type=positive, default=1000, help="that many, from the first (1000)")
    parser.add_argument("--batch-sizes", type=numbers, default=[1, 64], help="by commas (default: 1,64)")
    parser.add_argument("--beams", type=numbers, default=[1, 5], help="of the stock generator (default: 1,5)")
    parser.add_argument("--ctc-beam", type=positive, default=1, help="also decode by CTC search with this beam")
    parser.add_argument("--ctc-lm", help="n-gram model for it (scripts/train_ngram.py)")
    parser.add_argument("--ctc-judges", help="and with these checkpoints, separated by colons, as its judges")
    parser.add_argument(
        "--generation-dtype", type=dtypes, default=["float32"], help="by commas, of models that have it (float32)"
    )
    parser.add_argument("--repetitions", type=positive, default=3, help="runs of every setting (default: 3)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--user-dir", help="another plugin's folder, for its models")
    options = parser.parse_args(arguments)
    if options.ctc_judges and options.ctc_beam == 1:
        parser.error("--ctc-judges needs a search to judge: add --ctc-beam, such as --ctc-beam 10")
    options.labels = options.labels or [f"{path.resolve().parent.name}/{path.name}" for path in options.path]
    return options


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    try:
        check_data(options)
        problem = device_problem(options.device)
        if problem:
            raise InputError(problem)
        if options.threads:
            torch.set_num_threads(options.threads)
        # The plugin registers its models and lets torch load older checkpoints, stock ones included.
        for folder in filter(None, [str(ROOT / "fairseq_convtext"), options.user_dir]):
            utils.import_user_module(argparse.Namespace(user_dir=folder))
        models = zip(options.labels, options.path)
        settings = [setting for label, path in models for setting in settings_of(label, path, options)]
        rows = [
            ["model", "generator", "M parameters", "batch size", "sentences", "seconds", "sentences/s",
             "H- and P- lines"],
            *benchmark(settings, options),
        ]  # fmt: skip
    except (InputError, ConvTextError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{hardware(options.device)}, fairseq {fairseq.__version__}")
    print(f"{options.data}, {options.gen_subset}; medians of {options.repetitions}; generation time only\n")
    print(table(rows, left=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
