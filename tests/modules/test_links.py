import torch

from fairseq_convtext.modules.links import Links

BOUND = torch.tensor([7, 3, 6])


def links_and_features():
    torch.manual_seed(0)
    links = Links(5, 4)
    torch.nn.init.normal_(links.bias)
    return links, torch.randn(3, 7, 5)


def test_the_jumps_from_a_position_share_the_probability_and_none_leaves_the_canvas():
    links, x = links_and_features()
    found = links(x, BOUND).exp()
    for row, bound in enumerate(BOUND.tolist()):
        for start in range(7):
            allowed = [start + jump < bound for jump in range(1, 5)]
            assert (found[row, start] > 0).tolist() == allowed
            total = 0.0 if start >= bound - 1 else 1.0
            torch.testing.assert_close(float(found[row, start].sum()), total, rtol=0, atol=1e-6)


def test_links_do_not_depend_on_the_batch():
    links, x = links_and_features()
    together = links(x, BOUND)
    for row, bound in enumerate(BOUND.tolist()):
        alone = links(x[row : row + 1, :bound], BOUND[row : row + 1])
        torch.testing.assert_close(alone[0], together[row, :bound])


def test_the_gradient_is_finite_although_some_jumps_are_impossible():
    links, x = links_and_features()
    found = links(x, BOUND)
    found.masked_fill(found.isinf(), 0.0).sum().backward()
    assert bool(links.weight.grad.isfinite().all()) and bool(links.weight.grad.any())
