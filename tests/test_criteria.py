import pytest
import torch
from torch import nn

from secateurs import criteria, masks
from secateurs.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_magnitude_keeps_the_largest_absolute_weights():
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-5.0, 1.0, 3.0, -2.0]]))
    scores = criteria.magnitude(layer)
    assert scores["weight"].tolist() == [[5, 1, 3, 2]]
    assert not scores["weight"].requires_grad
    assert masks.keep_top(scores, 0.5)["weight"].tolist() == [[True, False, True, False]]


def test_scores_are_a_copy_of_the_weights(make_network):
    network = make_network()
    with torch.no_grad():
        for p in network.parameters():
            p.abs_()
    scores = criteria.magnitude(network)
    scores["decoder.weight"].zero_()
    assert (network.decoder.weight != 0).all()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["encoder.0.weight", "encoder.3.weight", "decoder.weight"]),
        ({"only": "encoder*"}, ["encoder.0.weight", "encoder.3.weight"]),
        ({"except_": "decoder*"}, ["encoder.0.weight", "encoder.3.weight"]),
        ({"only": ["encoder.0.*", "dec*"]}, ["encoder.0.weight", "decoder.weight"]),
        ({"only": "encoder*", "except_": ["*.0.*"]}, ["encoder.3.weight"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", sorted(criteria.CRITERIA))
def test_patterns_choose_the_weights(make_network, name, options, names):
    arguments = {"generator": seeded()} if name == "random" else {}
    scores = criteria.CRITERIA[name](make_network(), **options, **arguments)
    assert list(scores) == names
    assert all(scores[n].shape == make_network().get_parameter(n).shape for n in names)


def test_a_pattern_that_matches_nothing_lists_the_names(make_network):
    with pytest.raises(InputError, match=r"only='head\*'.*this network has encoder\.0\.weight"):
        criteria.magnitude(make_network(), only="head*")


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


@pytest.mark.parametrize("name", sorted(criteria.CRITERIA))
def test_tied_weights_are_refused(name):
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    arguments = {"generator": seeded()} if name == "random" else {}
    with pytest.raises(InputError, match=r"2\.weight and 0\.weight are the same tensor"):
        criteria.CRITERIA[name](network, **arguments)
