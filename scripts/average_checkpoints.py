#!/usr/bin/env python3
"""Average the parameters of several checkpoints of one training into a checkpoint that translates.

  average_checkpoints.py FOLDER --last 5 --output averaged.pt         the 5 with the most updates
  average_checkpoints.py FOLDER --best 5 --output averaged.pt         the 5 best on the validation set
  average_checkpoints.py FILE FILE ... --output averaged.pt           these files

FOLDER is the --save-dir of fairseq-train; a checkpoint that stands there twice, such as checkpoint_best.pt and the
file it was copied from, counts once. --best goes by what fairseq stores in every checkpoint as
extra_state["val_loss"]: the value of the training's --best-checkpoint-metric (its default is the loss; with
--best-checkpoint-metric bleu it is BLEU, in spite of its name) when the file was written. Whether larger is better
is the training's --maximize-best-checkpoint-metric, stored there too. A checkpoint that was saved without being
validated has no value, and --best leaves it out.

Floating-point tensors are summed in float64 and cast back; all else is taken from the checkpoint with the most
updates. The output has no optimizer state: it is to translate with, or to start from with --finetune-from-model.
"""

import argparse
import logging
import math
import os
import pickle
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
from benchmark_report import positive, progress
from corpus_checks import InputError

if __name__ == "__main__":  # what fairseq logs while it is imported is no part of a report
    logging.getLogger("fairseq").setLevel(logging.WARNING)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fairseq_convtext.compat import allow_safe_globals  # noqa: E402

# The names that fairseq gives, without the pieces of a model that is spread over several files.
FAIRSEQ_NAME = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|_last|\.best_.+_[-\d.]+)\.pt")
Tensors = Dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a file says about itself.

    Attributes:
        updates: of the training when it was written.
        metric: name of the validation metric.
        larger_is_better: of the metric.
        value: of the metric; None where the checkpoint was not validated.
    """

    path: Path
    updates: int
    metric: str
    larger_is_better: bool
    value: Optional[float]

    def __str__(self) -> str:
        value = "not validated" if self.value is None else f"valid {self.metric} {self.value:g}"
        return f"{self.path.name} ({self.updates} updates, {value})"


def read(path: Path, tensors: bool = True) -> Dict[str, Any]:
    """The state that fairseq saved, as it is in the file.

    Args:
        tensors: without them a large file is read in no time, and its tensors must not be used: they are a view of
            the file, which a running training may overwrite.

    Raises:
        InputError: no file, or not a whole checkpoint of fairseq.
    """
    try:
        state = torch.load(str(path), map_location="cpu", mmap=not tensors and zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        raise InputError(f"no such checkpoint: {path} (a running training may have removed it: try again)") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0][:200]
        raise InputError(f"{path} cannot be read as a checkpoint, or is being written just now: {reason}") from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict) or not state.get("optimizer_history"):
        raise InputError(f"{path} is not a checkpoint of fairseq-train")
    if "fsdp_metadata" in state:
        raise InputError(f"{path} is a piece of a model that is spread over several files, which cannot be averaged")
    return state


def updates_of(state: Dict[str, Any]) -> int:
    return int(state["optimizer_history"][-1].get("num_updates", 0))


def describe(path: Path) -> Checkpoint:
    """Reads all but the tensors."""
    state = read(path, tensors=False)
    cfg = state.get("cfg") or {}
    # Checkpoints of fairseq before 0.10 have all options in one namespace.
    options = cfg.get("checkpoint") or vars(state.get("args") or argparse.Namespace())
    value = state.get("extra_state", {}).get("val_loss")
    return Checkpoint(
        path=path,
        updates=updates_of(state),
        metric=str(options.get("best_checkpoint_metric", "loss")),
        larger_is_better=bool(options.get("maximize_best_checkpoint_metric", False)),
        value=None if value is None or math.isnan(value) else float(value),
    )


def same_parameters(one: Path, other: Path) -> bool:
    first, second = read(one)["model"], read(other)["model"]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_copies(found: List[Checkpoint]) -> List[Checkpoint]:
    """One file for each set of parameters, in order of updates; fairseq's copies change while it trains, so they go."""
    kept: List[Checkpoint] = []
    for checkpoint in sorted(found, key=lambda c: (c.updates, c.path.stem.endswith(("_best", "_last")))):
        equals = [other for other in kept if other.updates == checkpoint.updates]
        if not any(same_parameters(other.path, checkpoint.path) for other in equals):
            kept.append(checkpoint)
    return kept


def select(found: List[Checkpoint], last: Optional[int], best: Optional[int]) -> List[Checkpoint]:
    """The checkpoints that are to be averaged, in order of updates.

    Args:
        found: in order of updates.

    Raises:
        InputError: fewer of them than asked for, or metrics that cannot be compared.
    """
    if not last and not best:
        return found
    wanted, offered = f"--last {last}" if last else f"--best {best}", found
    if best:
        metrics = sorted({(c.metric, c.larger_is_better) for c in found})
        if len(metrics) > 1:
            raise InputError(
                f"--best cannot compare {metrics[0][0]} with {metrics[1][0]}, or largest with smallest: the "
                "checkpoints are of trainings with different --best-checkpoint-metric; name the files instead"
            )
        offered = [c for c in found if c.value is not None]
    if len(offered) < (last or best):
        raise InputError(
            f"{wanted} needs as many different checkpoints{' with a validation value' if best else ''} and found "
            f"{len(offered)}: train with a larger --keep-interval-updates or --keep-last-epochs, or ask for fewer"
        )
    if best:
        sign = 1 if offered[0].larger_is_better else -1
        # Of equals the later one, as fairseq does for checkpoint_best.pt.
        offered = sorted(offered, key=lambda c: (sign * c.value, c.updates))
    return sorted(offered[-(last or best) :], key=lambda c: c.updates)


def check_fit(first: Tuple[Path, Tensors], other: Tuple[Path, Tensors]) -> None:
    """InputError when two models do not have the same parameters, by name and shape."""
    sizes = [{name: tuple(tensor.shape) for name, tensor in model.items()} for _, model in (first, other)]
    differ = [name for name in {**sizes[0], **sizes[1]} if sizes[0].get(name) != sizes[1].get(name)]
    if differ:
        one, two = (size.get(differ[0], "missing") for size in sizes)
        raise InputError(
            f"{first[0]} and {other[0]} are of different models: {differ[0]} is {one} in the first and {two} in the "
            f"second, and so {len(differ)} parameters differ; average checkpoints of one training"
        )


def tie(model: Tensors, pattern: Tensors) -> None:
    """Make one tensor, in place, of entries that share their memory in the pattern and are equal in the model."""
    first: Dict[Tuple[Any, ...], str] = {}
    for name, tensor in pattern.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        other = first.setdefault(place, name)
        if tensor.numel() and torch.equal(model[other], model[name]):
            model[name] = model[other]


def plain(cfg: Any) -> Any:
    """The options with a dictionary for each namespace that fairseq stores for its older models.

    fairseq builds the model from either; torch.load by default (from 2.6 on) reads a namespace only where it was told
    to, which fairseq's commands without this plugin do not do.
    """
    if not isinstance(cfg, dict):
        return cfg
    return {key: vars(value) if isinstance(value, argparse.Namespace) else value for key, value in cfg.items()}


def average(checkpoints: List[Checkpoint]) -> Dict[str, Any]:
    """The state of the last checkpoint with the mean of all parameters and without what only training needs.

    Args:
        checkpoints: at least one, in order of updates.
    """
    sums: Tensors = {}
    state: Dict[str, Any] = {}
    for checkpoint in checkpoints:
        progress(str(checkpoint))
        before, state = state, read(checkpoint.path)
        if updates_of(state) != checkpoint.updates:
            raise InputError(f"{checkpoint.path} was overwritten by its training meanwhile: try again")
        if before:
            check_fit((checkpoints[0].path, before["model"]), (checkpoint.path, state["model"]))
        state.pop("last_optimizer_state", None)
        for name, tensor in state["model"].items():
            if tensor.is_floating_point():
                sums[name] = sums[name].add_(tensor) if name in sums else tensor.to(torch.float64, copy=True)
    last = state["model"]
    model = dict(last)
    for name, total in sums.items():
        model[name] = (total / len(checkpoints)).to(last[name].dtype)
    tie(model, last)
    return {
        "args": state.get("args"),
        "cfg": plain(state.get("cfg")),
        "model": model,
        "criterion": state.get("criterion"),
        "optimizer_history": state["optimizer_history"][-1:],
        "task_state": state.get("task_state", {}),
        # Without the meters of the validation: they are not those of the average, and NumPy arrays among them keep
        # torch.load from reading the file where the plugin is not imported.
        "extra_state": {
            "train_iterator": state.get("extra_state", {}).get("train_iterator"),
            "averaged": [checkpoint.path.name for checkpoint in checkpoints],
        },
    }


def save(state: Dict[str, Any], output: Path) -> None:
    """To a temporary file beside the output, then renamed."""
    part = output.with_name(f"{output.name}.part")
    try:
        torch.save(state, part)
        os.replace(part, output)
    except RuntimeError as error:  # torch's word for a place that cannot be written to
        raise InputError(f"{output} cannot be written: {str(error).splitlines()[0][:200]} (--output)") from error
    finally:
        part.unlink(missing_ok=True)


def find(options: argparse.Namespace) -> List[Checkpoint]:
    """What the command line names, copies left out."""
    paths = options.paths
    if options.last or options.best:
        folder = paths[0]
        if len(paths) > 1 or not folder.is_dir():
            raise InputError(f"--last and --best take one folder of checkpoints; found {' '.join(map(str, paths))}")
        paths = [path for path in sorted(folder.iterdir()) if FAIRSEQ_NAME.fullmatch(path.name)]
        if not paths:
            raise InputError(f"{folder} holds no checkpoint: give the --save-dir of fairseq-train")
    elif any(path.is_dir() for path in paths):
        raise InputError("a folder needs --last K or --best K; without them name the checkpoint files")
    output = options.output.resolve()
    if output in [path.resolve() for path in paths]:
        raise InputError(f"--output {options.output} is one of the checkpoints: choose another name")
    if not output.parent.is_dir():
        raise InputError(f"no such folder: {options.output.parent} (--output)")
    return without_copies([describe(path) for path in dict.fromkeys(path.resolve() for path in paths)])


def parse_options(arguments: Optional[List[str]]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a folder of checkpoints, or files")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--last", type=positive, metavar="K", help="of the folder, those with the most updates")
    which.add_argument("--best", type=positive, metavar="K", help="of the folder, those with the best validation value")
    parser.add_argument("--output", type=Path, required=True, help="file to write; one that exists is replaced")
    return parser.parse_args(arguments)


def main(arguments: Optional[List[str]] = None) -> int:
    """Command line; returns the exit code."""
    options = parse_options(arguments)
    allow_safe_globals()
    try:
        chosen = select(find(options), options.last, options.best)
        save(average(chosen), options.output)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: the average of {len(chosen)} checkpoints, {', '.join(c.path.name for c in chosen)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
