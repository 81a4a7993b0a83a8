"""``convtext_dag``: a directed acyclic graph over the canvas, each sentence with its own number of positions."""

from typing import Any, Dict, Tuple

from fairseq.criterions import register_criterion
from torch import Tensor

from fairseq_convtext.criterions.canvas import CanvasConfig, CanvasCriterion
from fairseq_convtext.losses.dag import dag_loss
from fairseq_convtext.losses.glancing import Glance, dag_path


@register_criterion("convtext_dag", dataclass=CanvasConfig)
class ConvtextDagCriterion(CanvasCriterion):
    """Sum over all paths of the graph that write the target (losses/dag.py)."""

    alignment = "dag"
    how_to_fit = f"{CanvasCriterion.how_to_fit}, or, for a short target of a long source, --longest-jump"

    def path(self, targets: Tensor, target_lengths: Tensor) -> Glance:
        return dag_path(targets, target_lengths, self.blank)

    def losses(self, model: Any, net_input: Dict[str, Any], target: Tensor) -> Tuple[Tensor, Tensor]:
        logits, output, targets, target_lengths = self.written(model, net_input, target)
        losses = dag_loss(logits, output["links"], targets, output["bound"], target_lengths)
        return losses, ~losses.isinf()  # what is not a number has diverged
