"""A student taught by the canvas of a model that has learnt the language, through fairseq-train."""

import pytest
import torch

from fairseq_convtext.errors import ConvTextError
from tests.command_lines.conftest import ALIGNMENTS


@pytest.fixture
def student(checkpoints, train, tmp_path):
    """``student(name, updates, *flags)``: its checkpoint after as many updates beside a teacher."""

    def call(name, updates, *flags):
        teacher = ["--canvas-teacher", checkpoints("ctc")]
        train(tmp_path / name, updates, *ALIGNMENTS["ctc"], *teacher, "--encoder-layers", 2, *flags)
        return torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False)

    return call


def valid_loss(state):
    return state["extra_state"]["val_loss"]


def test_a_teacher_makes_a_student_learn_faster_and_is_not_in_its_checkpoint(student):
    alone = student("alone", 40, "--canvas-teacher-weight", 0)
    taught = student("taught", 40)
    assert valid_loss(taught) < 0.9 * valid_loss(alone)
    assert taught["model"].keys() == alone["model"].keys() and not taught["criterion"]


def test_a_teacher_with_another_canvas_is_refused_before_anything_is_learnt(student):
    with pytest.raises(ConvTextError, match="--canvas-teacher .* positions where this model writes"):
        student("longer", 1, "--length-bound-a", 3)
