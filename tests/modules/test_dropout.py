import torch

from fairseq_convtext.modules.dropout import SpatialDropout, WordDropout


def test_a_channel_is_dropped_at_all_positions_of_a_sentence_and_the_mean_stays():
    torch.manual_seed(0)
    y = SpatialDropout(0.25)(torch.ones(200, 5, 64))
    assert torch.equal(y, y[:, :1].expand_as(y))
    kept = y[:, 0] > 0
    assert abs(kept.float().mean() - 0.75) < 0.01
    torch.testing.assert_close(y[:, 0][kept], torch.full((int(kept.sum()),), 1 / 0.75))


def test_word_dropout_blanks_whole_positions_at_its_rate_and_leaves_the_others_alone():
    torch.manual_seed(1)
    x = torch.randn(200, 50, 3)
    out = WordDropout(0.2)(x)
    blanked = (out == 0).all(dim=2)
    assert torch.equal(out[~blanked], x[~blanked])
    assert abs(float(blanked.float().mean()) - 0.2) < 0.02
    assert torch.equal(WordDropout(0.2).eval()(x), x)
