"""The model that --canvas-teacher names: loaded when training begins, and what its canvas says of a batch."""

from typing import Any, Dict, Optional

import torch
from torch import Tensor

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.distillation import distillation_loss
from fairseq_convtext.models.common import prepare_for_inference, unwrapped
from fairseq_convtext.tasks.companions import load_companion


class CanvasTeacher:
    """No module: a criterion that holds one would train it, and save it with every checkpoint.

    Attributes:
        path: its checkpoint.
        model: once it is loaded, without dropout and in the type of the student's activations.
    """

    def __init__(self, path: str, task: Any) -> None:
        self.path, self.task = path, task
        self.model: Optional[Any] = None

    @torch.no_grad()
    def canvas(self, student: Any, net_input: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """The teacher's ``logits`` ``(batch, positions, vocabulary)`` and ``bound`` ``(batch,)`` for a batch.

        Raises:
            ConvTextError: the checkpoint is missing, of other data, or writes no CTC canvas of the same direction.
        """
        if self.model is None:
            device = net_input["src_tokens"].device
            # To build a model draws random numbers, and a resumed training must go on as if it had not stopped.
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                model, backwards = load_companion(self.path, self.task, "a canvas teacher")
            if backwards or getattr(model.decoder, "target_alignment", None) != "ctc":
                raise ConvTextError(
                    f"--canvas-teacher {self.path} must be a model with --target-alignment ctc that translates in the "
                    "direction of the training data."
                )
            model = model.eval().to(device)
            prepare_for_inference(model, str(unwrapped(student).decoder.cfg.compute_dtype))
            self.model = model
        logits, output = self.model(**net_input)
        return {"logits": logits, "bound": output["bound"]}

    def divergence(self, logits: Tensor, taught: Dict[str, Tensor], bound: Tensor) -> Tensor:
        """``(batch,)``: how far a student's scores of the batch are from ``canvas``, in nats.

        Raises:
            ConvTextError: the two canvases have not as many positions.
        """
        differ = bound.ne(taught["bound"]).nonzero()
        if len(differ):
            first = int(differ[0])
            raise ConvTextError(
                f"--canvas-teacher {self.path} writes {int(taught['bound'][first])} positions where this model writes "
                f"{int(bound[first])}: train with its --length-bound-a, --length-bound-b and --max-target-positions."
            )
        return distillation_loss(logits, taught["logits"], bound)
