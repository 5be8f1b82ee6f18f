import torch

from secateurs import criteria


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_random_scores_depend_on_the_generator_only(make_network):
    network, state = make_network(), torch.get_rng_state()
    one, same, other = (criteria.random(network, generator=seeded(s)) for s in (1, 1, 2))
    for name in one:
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])
        assert ((one[name] >= 0) & (one[name] < 1)).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_random_scores_do_not_know_the_weights(make_network):
    one, other = (criteria.random(make_network(s), generator=seeded()) for s in (1, 2))
    assert all(torch.equal(one[name], other[name]) for name in one)
