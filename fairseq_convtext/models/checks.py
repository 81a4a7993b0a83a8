"""What a model asks of a task before it is built: each miss is one sentence with the flag to change."""

import os
from typing import Any, Dict

from fairseq.data import data_utils
from torch import Tensor

from fairseq_convtext.errors import ConvTextError


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
    check_shortest_target(cfg.max_target_positions, task)


def check_shortest_target(maximum: int, task: Any) -> None:
    """ConvTextError when no training target fits ``maximum``: fairseq would drop all and stop on an empty list."""
    folder, subset = getattr(task.cfg, "data", None), getattr(task.cfg, "train_subset", None)
    if not folder or not subset:
        return
    source, target = task.cfg.source_lang, task.cfg.target_lang
    prefix = os.path.join(folder.split(os.pathsep)[0], f"{subset}.{source}-{target}.{target}")
    if not os.path.exists(prefix + ".idx"):
        return
    # The sizes are a view of a memory map that is closed with the data set, so it must outlive them.
    dataset = data_utils.load_indexed_dataset(prefix, task.target_dictionary)
    shortest = int(dataset.sizes.min()) if len(dataset) > 0 else 0
    if shortest > maximum:
        raise ConvTextError(
            f"no training target fits --max-target-positions {maximum}: the shortest has {shortest} tokens (EOS "
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
    "replace_unk": "it has no attention",
    "retain_dropout": "its dropout is at work in training only",
}


def check_generation(options: Any) -> None:
    """ConvTextError when fairseq's generation options ask for what a model of convolutions does not have."""
    for name, reason in NOT_FOR_CONVOLUTIONS.items():
        if getattr(options, name, None) not in (None, False):
            raise ConvTextError(f"--{name.replace('_', '-')} is not for this model, for {reason}: leave it out.")


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
