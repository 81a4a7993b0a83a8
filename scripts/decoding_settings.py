"""What scripts/benchmark_decoding.py times: every model with every generator and batch size, as settings."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Tuple

from benchmark_report import progress
from corpus_checks import InputError
from fairseq import checkpoint_utils, tasks, utils
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import open_dict

from fairseq_convtext.tasks.parallel_generator import writes_at_once
from fairseq_convtext.tasks.translation_convtext import TranslationConvtextConfig

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
