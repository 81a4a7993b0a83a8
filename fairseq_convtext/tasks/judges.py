"""Checkpoints that judge the hypotheses of another model (--ctc-judges, scripts/rerank.py), ready to do so."""

from pathlib import Path
from typing import Any, List, Sequence, Union

import torch
from fairseq import checkpoint_utils
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_convtext.decoding.rescoring import is_autoregressive, writes_ctc_canvas
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.common import prepare_for_inference


def load_judges(
    paths: Sequence[Union[str, Path]], task: Any, device: torch.device, dtype: str = "float32"
) -> List[Any]:
    """The models of the checkpoints, in evaluation mode.

    Args:
        paths: checkpoints of models with the dictionaries of ``task``.
        task: a translation task of fairseq.
        device: where they are to work.
        dtype: of their parameters and activations, see modules/precision.py.

    Raises:
        ConvTextError: a missing file, or a model that cannot judge.
    """
    found = []
    # The caller's own task would make its generator, and so the judges, anew for each of them (--eval-bleu).
    task = TranslationTask(TranslationConfig(), task.source_dictionary, task.target_dictionary)
    for path in paths:
        if not Path(path).is_file():
            raise ConvTextError(f"no checkpoint {path} of a judge.")
        # Each by itself: an ensemble of fairseq's has to be of one kind.
        (model,), _ = checkpoint_utils.load_model_ensemble([str(path)], task=task)
        if not (writes_ctc_canvas(model) or is_autoregressive(model)):
            raise ConvTextError(
                f"{path} was trained with --target-alignment position: a judge must be a CTC model or an "
                "autoregressive one."
            )
        model = model.eval().to(device)
        prepare_for_inference(model, dtype)
        found.append(model)
    return found
