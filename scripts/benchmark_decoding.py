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
from dataclasses import dataclass, field
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
from fairseq import checkpoint_utils, tasks, utils  # noqa: E402
from fairseq.dataclass.configs import GenerationConfig  # noqa: E402
from omegaconf import open_dict  # noqa: E402

from fairseq_convtext.errors import ConvTextError  # noqa: E402
from fairseq_convtext.modules.precision import GENERATION_DTYPES  # noqa: E402
from fairseq_convtext.tasks.translation_convtext import TranslationConvtextConfig  # noqa: E402

PARALLEL = "parallel"


@dataclass
class Setting:
    """A row of the table.

    Attributes:
        label: what the table calls the model.
        generator: fairseq's, or the parallel one.
        name: what the table calls it.
        batches: samples, as the generator takes them.
        seconds: generation time of every run.
        lines: sentence id to its H- and P- lines.
        same: what the last column says.
    """

    label: str
    model: Any
    task: Any
    generator: Any
    name: str
    batch_size: int
    batches: List[Dict[str, Any]]
    seconds: List[float] = field(default_factory=list)
    lines: Dict[int, Tuple[str, str]] = field(default_factory=dict)
    same: str = ""


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


def load(path: Path, dtype: str, options: argparse.Namespace) -> Tuple[Any, Any, Any]:
    """The model, ready for inference, its configuration and the task it was trained under."""
    # --eval-bleu of the training would build tokenizers that nothing here uses.
    overrides = {"data": str(options.data), "eval_bleu": False, "generation_dtype": dtype}
    try:
        (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], overrides)
    except Exception as error:  # fairseq has no error of its own for any of this
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"cannot load {path} ({reason}): it must be a fairseq checkpoint that was trained with the "
            f"dictionaries in {options.data}; a plugin's model needs its --user-dir"
        ) from error
    model.to(options.device)
    # What fairseq-generate does, but for a trick that would tie the old fconv model to one beam size.
    with open_dict(cfg):
        cfg.generation = GenerationConfig(no_beamable_mm=True)
    model.prepare_for_inference_(cfg)
    return model, cfg, task


def renamed(task: Any, cfg: Any, name: str, **changes: Any) -> Any:
    """The task under another name and with some other options, as fairseq-generate --task NAME makes it."""
    if getattr(cfg.task, "_name", None) == name and not changes:
        return task
    task_cfg = cfg.task.copy()
    with open_dict(task_cfg):
        task_cfg.update(_name=name, **changes)
    return tasks.setup_task(task_cfg, from_checkpoint=True)


def make_batches(task: Any, model: Any, batch_size: int, options: argparse.Namespace) -> List[Dict[str, Any]]:
    """The first --sentences sentences of the subset, sorted by length, in batches; no sentence is lost."""
    dataset = task.dataset(options.gen_subset)
    order = dataset.ordered_indices()
    order = order[order < options.sentences]
    if not len(order):
        raise InputError(f"{options.gen_subset!r} in {options.data} is empty: choose another --gen-subset")
    limits = utils.resolve_max_positions(task.max_positions(), model.max_positions())
    _, too_long = dataset.filter_indices_by_size(order.copy(), limits)
    if len(too_long):
        raise InputError(
            f"sentence {too_long[0]} of {options.gen_subset!r} has {dataset.size(too_long[0])} tokens "
            f"(source and target, EOS included), more than the model's limits {limits}: choose fewer "
            "--sentences or another --gen-subset"
        )
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    batches = [dataset.collater([dataset[index] for index in part]) for part in parts]
    return [utils.move_to_cuda(batch) for batch in batches] if options.device == "cuda" else batches


def writes_at_once(model: Any) -> bool:
    return hasattr(getattr(model, "decoder", None), "one_pass")


def settings_of(label: str, path: Path, options: argparse.Namespace) -> List[Setting]:
    """All rows of one checkpoint; a model of this project has them once for each --generation-dtype."""
    found = []
    for dtype in options.generation_dtype:
        progress(f"{label}: loading {path}")
        model, cfg, task = load(path, dtype, options)
        if not writes_at_once(model):
            return settings_of_model(label, model, cfg, task, options)
        name = label if len(options.generation_dtype) == 1 else f"{label}, {dtype}"
        found += settings_of_model(name, model, cfg, task, options)
    return found


def settings_of_model(label: str, model: Any, cfg: Any, task: Any, options: argparse.Namespace) -> List[Setting]:
    """All rows of one loaded model."""
    one_pass = writes_at_once(model)
    generators = []
    stock = renamed(task, cfg, "translation") if one_pass else task
    for beam in options.beams:
        generators.append((stock, beam, f"stock, beam {beam}"))
    if one_pass:
        defaults = TranslationConvtextConfig()
        plain = {name: getattr(defaults, name) for name in vars(defaults) if name.startswith("ctc_")}
        generators.append((renamed(task, cfg, "translation_convtext", **plain), 1, PARALLEL))
        search = {**plain, "ctc_beam": options.ctc_beam, "ctc_lm": options.ctc_lm, "ctc_token_bonus": 1.0}
        name = f"search {options.ctc_beam}" + (" with LM" if options.ctc_lm else "")
        if options.ctc_beam > 1:
            generators.append((renamed(task, cfg, "translation_convtext", **search), 1, name))
        if options.ctc_judges:
            judged = {**search, "ctc_judges": options.ctc_judges}
            generators.append((renamed(task, cfg, "translation_convtext", **judged), 1, f"{name}, judged"))
    try:
        stock.load_dataset(options.gen_subset, task_cfg=cfg.task)
    except FileNotFoundError as error:
        found = f"{options.gen_subset!r} data for {cfg.task.source_lang}-{cfg.task.target_lang}"
        raise InputError(f"{options.data} has no {found} (DATA)") from error
    found = []
    for batch_size in options.batch_sizes:
        batches = make_batches(stock, model, batch_size, options)
        for owner, beam, name in generators:
            generator = owner.build_generator([model], GenerationConfig(beam=beam))
            found.append(Setting(label, model, owner, generator, name, batch_size, batches))
    return found


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
