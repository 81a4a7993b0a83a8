"""The loss and the best path of a directed acyclic canvas against all paths, one by one."""

from itertools import combinations

import pytest
import torch

from fairseq_convtext.losses.dag import best_path, dag_loss
from fairseq_convtext.modules.links import Links

VOCABULARY, JUMPS = 6, 3
BOUND = torch.tensor([8, 5, 7, 4])
TARGETS = torch.tensor([[3, 3, 5, 1], [2, 4, 0, 0], [5, 1, 3, 0], [0, 0, 0, 0]])
LENGTHS = torch.tensor([4, 2, 3, 0])


def canvas(seed=0):
    """Scores and links of four canvases, both to be differentiated."""
    torch.manual_seed(seed)
    links = Links(5, JUMPS)(torch.randn(4, 8, 5), BOUND).detach()
    return (2 * torch.randn(4, 8, VOCABULARY)).requires_grad_(), links.requires_grad_()


def all_paths(logits, links, row):
    """The positions of the tokens of every path, and its log-probability."""
    log_probs, last = logits[row].log_softmax(dim=1), int(BOUND[row]) - 1
    for positions in combinations(range(1, last), int(LENGTHS[row])):
        stations = [0, *positions, last]
        jumps = [end - start for start, end in zip(stations, stations[1:])]
        if max(jumps) > JUMPS:
            continue
        total = sum(links[row, start, jump - 1] for start, jump in zip(stations, jumps))
        written = [log_probs[position, token] for position, token in zip(positions, TARGETS[row].tolist())]
        yield list(positions), total + sum(written)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_and_its_gradient_are_those_of_all_paths_together(seed):
    logits, links = canvas(seed)
    losses = dag_loss(logits, links, TARGETS, BOUND, LENGTHS)
    expected = torch.stack(
        [-torch.stack([p for _, p in all_paths(logits, links, row)]).logsumexp(dim=0) for row in range(4)]
    )
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    found = torch.autograd.grad((weights * losses).sum(), (logits, links))
    wanted = torch.autograd.grad((weights * expected).sum(), (logits, links))
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_path_is_the_most_probable_of_all(seed):
    logits, links = canvas(seed)
    places = best_path(logits, links, TARGETS, BOUND, LENGTHS)
    for row in range(4):
        best, _ = max(all_paths(logits, links, row), key=lambda path: float(path[1]))
        assert places[row].tolist() == best + [8] * (4 - len(best))


@pytest.mark.parametrize("tokens, fits", [(4, False), (3, True), (1, True), (0, False)])
def test_a_target_without_a_path_has_an_infinite_loss_and_no_gradient(tokens, fits):
    logits, links = canvas()
    # Five positions: start, three for tokens, end; jumps of at most 3 need one token on the way of 4.
    losses = dag_loss(logits[1:2], links[1:2], torch.tensor([[1, 2, 3, 4]]), BOUND[1:2], torch.tensor([tokens]))
    assert bool(losses.isfinite()) == fits
    losses.masked_fill(losses.isinf(), 0.0).sum().backward()
    for grad in (logits.grad, links.grad):
        assert bool(grad.isfinite().all()) and bool(grad.any()) == fits
    places = best_path(logits[1:2], links[1:2], torch.tensor([[1, 2, 3, 4]]), BOUND[1:2], torch.tensor([tokens]))
    assert bool((places < 8).any()) == fits


def test_a_sentence_has_the_same_loss_and_path_by_itself():
    logits, links = canvas()
    together = dag_loss(logits, links, TARGETS, BOUND, LENGTHS)
    places = best_path(logits, links, TARGETS, BOUND, LENGTHS)
    for row, (bound, length) in enumerate(zip(BOUND.tolist(), LENGTHS.tolist())):
        mine = (
            logits[row : row + 1, :bound], links[row : row + 1, :bound], TARGETS[row : row + 1, :length],
            BOUND[row : row + 1], LENGTHS[row : row + 1],
        )
        torch.testing.assert_close(dag_loss(*mine)[0], together[row])
        assert best_path(*mine)[0].tolist() == places[row, :length].tolist()
