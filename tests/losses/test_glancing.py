import pytest
import torch

from fairseq_convtext.errors import ConvTextError
from fairseq_convtext.losses.glancing import choose_positions, ctc_path, dag_path, make_glance, parse_schedule


def test_ratio_falls_linearly_and_then_stays():
    schedule = parse_schedule("0.5:0.3@100")
    assert [schedule.ratio(n) for n in (0, 50, 100, 1000)] == pytest.approx([0.5, 0.4, 0.3, 0.3])
    assert parse_schedule("0.25").ratio(7) == 0.25


@pytest.mark.parametrize("text", ["", "half", "1.5", "0.5:0.3", "0.5:2@10", "-0.1"])
def test_a_ratio_that_makes_no_sense_is_refused_with_the_flag(text):
    with pytest.raises(ConvTextError, match="--glancing-ratio"):
        parse_schedule(text)


def test_as_many_positions_are_shown_as_the_wrong_ones_times_the_ratio_and_none_outside():
    inside = torch.arange(20) < torch.tensor([20, 10, 5])[:, None]
    wrong = torch.arange(20) < torch.tensor([12, 10, 0])[:, None]
    shown = choose_positions(wrong, inside, 0.5)
    assert shown.sum(dim=1).tolist() == [6, 5, 0]
    assert not (shown & ~inside).any()


def test_positions_that_are_right_are_shown_as_often_as_wrong_ones():
    inside = torch.ones(4000, 10, dtype=torch.bool)
    wrong = torch.arange(10).expand(4000, -1) < 4
    rate = choose_positions(wrong, inside, 0.5).float().mean(dim=0)
    torch.testing.assert_close(rate, torch.full((10,), 0.2), rtol=0, atol=0.03)


def test_a_model_that_reads_the_target_right_is_shown_nothing():
    logits = torch.full((1, 4, 5), -9.0)
    for position, symbol in enumerate([3, 0, 3, 4]):
        logits[0, position, symbol] = 9.0
    aligned, shown = make_glance(ctc_path(torch.tensor([[3, 3, 4]]), torch.tensor([3]), 0), 1.0)(
        logits, {"bound": torch.tensor([4])}
    )
    assert aligned.tolist() == [[3, 0, 3, 4]]
    assert not shown.any()


def test_on_a_graph_only_wrong_positions_of_the_best_path_count_and_only_its_positions_are_shown():
    # Six positions; the links lead 0 -> 2 -> 3 -> 5 and nowhere else.
    links = torch.full((1, 6, 3), -torch.inf)
    for start, jump in [(0, 2), (2, 1), (3, 2), (1, 1), (4, 1)]:
        links[0, start, jump - 1] = 0.0
    logits = torch.zeros(1, 6, 8)
    logits[0, 2, 5] = 9.0  # right, and position 3 wrong
    path = dag_path(torch.tensor([[5, 6, 7]]), torch.tensor([2]), 0)
    symbols, inside = path(logits, {"links": links, "bound": torch.tensor([6])})
    assert symbols.tolist() == [[0, 0, 5, 6, 0, 0]]
    assert inside.tolist() == [[False, False, True, True, False, False]]
    output = {"links": links, "bound": torch.tensor([6])}
    shown = torch.stack([make_glance(path, 1.0)(logits, output)[1] for _ in range(50)])
    assert bool((shown.sum(dim=2) == 1).all())
    assert set(shown[:, 0].float().argmax(dim=1).tolist()) == {2, 3}
