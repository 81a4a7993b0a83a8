"""What a model asks of a task before it is built: each miss is one sentence with the flag to change."""

import ast
import logging
import os
from typing import Any, Dict

from fairseq import utils
from fairseq.data import data_utils
from omegaconf import DictConfig
from torch import Tensor

from fairseq_convtext.errors import ConvTextError

logger = logging.getLogger(__name__)


def check_task(cfg: Any, task: Any) -> None:
    """
    Args:
        cfg: options of a translation model; one without target_alignment has token t at position t.
        task: a translation task.

    Raises:
        ConvTextError: the task's padding, dictionaries or corpus do not go with the options.
    """
    if getattr(task.cfg, "left_pad_target", False):
        raise ConvTextError("targets must be padded on the right; found --left-pad-target: leave it out.")
    source, target = task.source_dictionary, task.target_dictionary
    if cfg.share_all_embeddings and source != target:
        raise ConvTextError(
            f"--share-all-embeddings needs one dictionary for both languages; found {len(source)} source and "
            f"{len(target)} target symbols that differ: run fairseq-preprocess with --joined-dictionary."
        )
    alignment = str(getattr(cfg, "target_alignment", "position"))
    if alignment != "position" and target.bos() in (target.pad(), target.eos(), target.unk()):
        raise ConvTextError(
            f"--target-alignment {alignment} takes the dictionary's begin-of-sentence symbol for the blank, and in "
            f"this dictionary it is also {target[target.bos()]!r}: use a dictionary where <s> is a symbol of its own."
        )
    check_shortest("source", task.cfg, source, cfg.max_source_positions)
    check_shortest("target", task.cfg, target, cfg.max_target_positions)


def check_shortest(side: str, cfg: Any, dictionary: Any, maximum: int) -> None:
    """ConvTextError when no training sentence fits ``maximum``: fairseq would drop all and stop on an empty list.

    Args:
        side: source or target.
        cfg: options of the task.
        dictionary: of that side.
        maximum: tokens, EOS included.
    """
    folder, subset = getattr(cfg, "data", None), getattr(cfg, "train_subset", None)
    if not folder or not subset or (side == "source" and getattr(cfg, "truncate_source", False)):
        return
    language = getattr(cfg, f"{side}_lang")
    name = f"{subset}.{cfg.source_lang}-{cfg.target_lang}.{language}"
    prefix = os.path.join(utils.split_paths(folder)[0], name)
    if not os.path.exists(prefix + ".idx"):
        return
    # The sizes are a view of a memory map that is closed with the data set, so it must outlive them.
    dataset = data_utils.load_indexed_dataset(prefix, dictionary)
    shortest = int(dataset.sizes.min()) if len(dataset) > 0 else 0
    if shortest > maximum:
        raise ConvTextError(
            f"no training {side} fits --max-{side}-positions {maximum}: the shortest has {shortest} tokens (EOS "
            "included)."
        )


def check_parameters(own: Dict[str, Tensor], loaded: Dict[str, Tensor]) -> None:
    """ConvTextError when the parameters of a checkpoint are not those of the model, by name or by shape."""
    sizes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in (own, loaded)]
    differ = [name for name in {**sizes[0], **sizes[1]} if sizes[0].get(name) != sizes[1].get(name)]
    if differ:
        found, expected = (state.get(differ[0], "missing") for state in (sizes[1], sizes[0]))
        raise ConvTextError(
            f"the checkpoint does not fit: {differ[0]} is {found} in it and {expected} by the options and dictionaries "
            f"of this command, and so {len(differ)} of {len(sizes[0])} parameters differ: give the options and the "
            "data folder that it was trained with, or train into another --save-dir."
        )


# Generation options of fairseq's that are for other models, and why; it would pass over them or end in a traceback.
NOT_FOR_CONVOLUTIONS = {
    "print_alignment": "it has no attention",
    "print_step": "it refines nothing in steps",
    "retain_iter_history": "it refines nothing in steps",
    "replace_unk": "it has no attention",
    "retain_dropout": "its dropout is at work in training only",
}


def check_generation(options: Any) -> None:
    """ConvTextError when fairseq's generation options ask for what a model of convolutions does not have."""
    for name, reason in NOT_FOR_CONVOLUTIONS.items():
        if getattr(options, name, None) not in (None, False):
            raise ConvTextError(f"--{name.replace('_', '-')} is not for this model, for {reason}: leave it out.")


def check_overrides(cfg: Any, options: Any) -> None:
    """A warning for each of --model-overrides without effect: fairseq passes over what a checkpoint does not have.

    Args:
        cfg: configuration of the command.
        options: of the model, as they are now.
    """
    if not isinstance(cfg, DictConfig) or "common_eval" not in cfg:
        return
    others = {name for group in cfg.values() if isinstance(group, DictConfig) for name in group}
    for name, value in ast.literal_eval(cfg.common_eval.model_overrides or "{}").items():
        now = getattr(options, name, None)
        if now != value and str(now) != str(value) and not (now is None and name in others):
            logger.warning(
                "--model-overrides has no effect on %s: the checkpoint's model has no such option, or is older than it",
                name,
            )


def check_references(lengths: Tensor, bound: Tensor, alignment: str) -> None:
    """ConvTextError when --score-reference, which takes canvas position t for target token t, would be wrong.

    Args:
        lengths: ``(batch,)`` tokens of each reference, EOS included.
        bound: ``(batch,)`` canvas positions of each sentence.
        alignment: the --target-alignment that the model was trained with.
    """
    if alignment != "position":
        raise ConvTextError(
            "--score-reference needs one position per target token, and this model was trained with "
            f"--target-alignment {alignment}: fairseq-validate gives its loss on the references."
        )
    if bool((lengths > bound).any()):
        row = int((lengths - bound).argmax())
        raise ConvTextError(
            f"--score-reference: a reference has {int(lengths[row])} tokens (EOS included), and its canvas "
            f"{int(bound[row])} positions: leave such sentences out, or train with a larger --length-bound-a, "
            "--length-bound-b or --max-target-positions."
        )
