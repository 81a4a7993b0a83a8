"""Checkpoints that judge the hypotheses of another model (--ctc-judges, scripts/rerank.py), ready to do so."""

from pathlib import Path
from typing import Any, List, Sequence, Union

import torch

from fairseq_convtext.decoding.rescoring import Judge, is_autoregressive, sums_over_canvas
from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.models.common import prepare_for_inference
from fairseq_convtext.tasks.companions import load_companion


def load_judges(
    paths: Sequence[Union[str, Path]], task: Any, device: torch.device, dtype: str = "float32"
) -> List[Judge]:
    """The models of the checkpoints, in evaluation mode.

    Args:
        paths: checkpoints of models with the dictionaries and languages of ``task``, in either direction.
        task: a translation task of fairseq.
        device: where they are to work.
        dtype: of their parameters and activations, see modules/precision.py.

    Raises:
        ConvTextError: a missing file, a model of other languages, or one that cannot judge.
    """
    found = []
    for path in paths:
        model, backwards = load_companion(path, task, "a judge")
        if not (sums_over_canvas(model) or is_autoregressive(model)):
            raise ConvTextError(
                f"{path} cannot judge: a judge must be a model of this plugin with --target-alignment ctc or dag, or "
                "an autoregressive one with an ordinary softmax."
            )
        model = model.eval().to(device)
        prepare_for_inference(model, dtype)
        found.append(Judge(model, backwards))
    return found
