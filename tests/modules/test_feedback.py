import torch
from torch import nn

from fairseq_convtext.modules.feedback import PredictionFeedback


def test_at_the_start_nothing_changes_and_the_scores_are_those_of_the_normalised_features():
    feedback, project, x = PredictionFeedback(8), nn.Linear(8, 5), torch.randn(2, 4, 8)
    out, logits = feedback(x, project)
    assert torch.equal(out, x)
    torch.testing.assert_close(logits, project(nn.functional.layer_norm(x, (8,))))


def test_a_certain_prediction_feeds_back_the_embedding_of_its_symbol():
    feedback, project = PredictionFeedback(4), nn.Linear(4, 4, bias=False)
    nn.init.eye_(feedback.condition.weight)
    with torch.no_grad():
        project.weight.copy_(100 * torch.eye(4))
    x = torch.tensor([[[0.0, 9.0, 0.0, 0.0]]])
    out, logits = feedback(x, project)
    assert logits.argmax() == 1
    torch.testing.assert_close(out - x, 2.0 * project.weight[1].expand(1, 1, -1))  # times the root of the width
