import torch

from fairseq_convtext.modules.dropout import SpatialDropout


def test_a_channel_is_dropped_at_all_positions_of_a_sentence_and_the_mean_stays():
    torch.manual_seed(0)
    y = SpatialDropout(0.25)(torch.ones(200, 5, 64))
    assert torch.equal(y, y[:, :1].expand_as(y))
    kept = y[:, 0] > 0
    assert abs(kept.float().mean() - 0.75) < 0.01
    torch.testing.assert_close(y[:, 0][kept], torch.full((int(kept.sum()),), 1 / 0.75))
