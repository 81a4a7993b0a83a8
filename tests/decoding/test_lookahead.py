import pytest
import torch

from fairseq_convtext.decoding.lookahead import read_lookahead
from fairseq_convtext.decoding.one_pass import Symbols
from fairseq_convtext.modules.links import Links

EOS = 2
BOUND = torch.tensor([9, 3, 6])


def canvas(seed, jumps=3, positions=9):
    torch.manual_seed(seed)
    links = Links(5, jumps)(3 * torch.randn(3, positions, 5), BOUND).detach()
    log_probs = -3 * torch.rand(3, positions)
    return Symbols(torch.randint(4, 20, (3, positions)), log_probs, torch.full_like(log_probs, -torch.inf)), links


def followed(symbols, links, row):
    """The same, one jump after the other: positions and log-probabilities."""
    last, place, found = int(BOUND[row]) - 1, 0, []
    while place < last:
        ways = []
        for jump in range(1, links.size(2) + 1):
            end = place + jump
            if end > last or (place == 0 and end == last):
                continue
            certainty = 0.0 if end == last else float(symbols.log_probs[row, end])
            ways.append((float(links[row, place, jump - 1]) + certainty, end))
        score, place = max(ways)
        found.append((place, score))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("jumps", [2, 3, 12])
def test_every_step_goes_to_the_most_probable_position_and_token(seed, jumps):
    symbols, links = canvas(seed, jumps)
    found = read_lookahead(symbols, links, BOUND, EOS)
    for row in range(3):
        path = followed(symbols, links, row)
        length = int(found.lengths[row])
        assert found.positions[row, :length].tolist() == [place for place, _ in path]
        torch.testing.assert_close(found.log_probs[row, :length], torch.tensor([score for _, score in path]))
        written = [int(symbols.tokens[row, place]) for place, _ in path[:-1]]
        assert found.tokens[row, :length].tolist() == [*written, EOS]
        assert bool((found.tokens[row, length:] == EOS).all()) and not found.log_probs[row, length:].any()


def test_no_hypothesis_is_empty_even_where_the_end_is_the_most_probable():
    symbols, links = canvas(0, jumps=2, positions=9)
    links[1, 0] = torch.tensor([-50.0, -1e-9])  # three positions: at once to the last one
    found = read_lookahead(symbols, links, BOUND, EOS)
    assert found.tokens[1, :2].tolist() == [int(symbols.tokens[1, 1]), EOS] and int(found.lengths[1]) == 2
