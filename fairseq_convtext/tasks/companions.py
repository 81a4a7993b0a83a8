"""Checkpoints of models that work beside another one: judges of its hypotheses, and a teacher of its canvas."""

import logging
import os
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple, Union

from fairseq import checkpoint_utils, utils
from fairseq.data import Dictionary, data_utils
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_convtext.errors import ConvTextError

logger = logging.getLogger(__name__)


def load_companion(path: Union[str, Path], task: Any, role: str) -> Tuple[Any, bool]:
    """A model that works beside another one, and whether it translates in the other direction.

    Args:
        path: checkpoint of a model with the dictionaries and languages of ``task``, in either direction.
        task: a translation task of fairseq.
        role: what errors call it, such as "a judge".

    Raises:
        ConvTextError: a missing file, or a model of other languages or dictionaries.
    """
    languages, dictionaries = languages_of(task.cfg), (task.source_dictionary, task.target_dictionary)
    if not Path(path).is_file():
        raise ConvTextError(f"no checkpoint {path} of {role}.")
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
        made_with = state["cfg"].task
    except Exception as error:  # torch and fairseq have no error of their own for it
        raise ConvTextError(
            f"{path} is no checkpoint of fairseq that can be read, as {role} must be: {type(error).__name__} "
            f"{first_line(error)}"
        ) from error
    trained = languages_of(made_with)
    if not all(trained):
        trained = languages_of_data(made_with)
    if not all(trained):
        trained = languages_of_data(task.cfg)
        trained = trained if all(trained) else languages
        logger.warning(
            "%s does not say its languages, and its data are not there to tell: it is taken for one from %s to %s",
            path, *trained,
        )
    backwards = trained == languages[::-1]
    if trained != languages and not backwards:
        raise ConvTextError(
            f"{path} translates from {trained[0]} to {trained[1]}; {role} must translate between "
            f"{languages[0]} and {languages[1]}, in either direction."
        )
    # The caller's own task would make its generator, and so the judges, anew for each of them (--eval-bleu).
    own = TranslationTask(TranslationConfig(), *(dictionaries[::-1] if backwards else dictionaries))
    check_dictionaries(path, folder_of(made_with), trained, own, role)
    # Each by itself: an ensemble of fairseq's has to be of one kind.
    try:
        (model,), _ = checkpoint_utils.load_model_ensemble([str(path)], task=own, state=state)
    except (RuntimeError, ValueError) as error:
        raise ConvTextError(
            f"{path} does not fit the dictionaries of these data, as {role} must: {first_line(error)}"
        ) from error
    except (AssertionError, KeyError) as error:  # fairseq's, for a name that it does not know
        raise ConvTextError(f"{path} is of a kind that neither fairseq nor this plugin knows.") from error
    except OSError as error:  # such as embeddings that the model was trained with
        raise ConvTextError(f"{path} needs a file to be loaded, as {role} must be: {error}.") from error
    return model, backwards


def first_line(error: Exception) -> str:
    """What torch or fairseq says, without what follows of its own inside."""
    return str(error).split("\n")[0]


def languages_of(cfg: Any) -> Tuple[Optional[str], Optional[str]]:
    """Source and target language of a translation task's options; None for what was left to fairseq to infer."""
    return getattr(cfg, "source_lang", None), getattr(cfg, "target_lang", None)


def languages_of_data(cfg: Any) -> Tuple[Optional[str], Optional[str]]:
    """What fairseq infers for a task that was not told the languages: those of its data, in their order."""
    folder = folder_of(cfg)
    return (None, None) if folder is None else tuple(data_utils.infer_language_pair(str(folder)))


def folder_of(cfg: Any) -> Optional[Path]:
    """The data folder of a translation task's options; None if it is not here or not to be read."""
    name = utils.split_paths(getattr(cfg, "data", None) or "")[0]
    return Path(name) if name and os.path.isdir(name) and os.access(name, os.R_OK | os.X_OK) else None


def check_dictionaries(
    path: Any, folder: Optional[Path], languages: Sequence[str], task: TranslationTask, role: str
) -> None:
    """ConvTextError if the model's data are here to tell that it knows other symbols by the same ids."""
    for language, dictionary in zip(languages, (task.source_dictionary, task.target_dictionary)):
        file = folder and folder / f"dict.{language}.txt"
        if file and file.is_file() and Dictionary.load(str(file)) != dictionary:
            raise ConvTextError(
                f"{path} does not fit the dictionaries of these data, as {role} must: it was trained with {file}."
            )
