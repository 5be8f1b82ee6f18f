import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reference import criteria as slow
from secateurs import criteria, masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=100, *, width=5, classes=3, seed=0):
    x = torch.randn(n, width, generator=seeded(seed), dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=seeded(seed))


def tanh_network(seed=0, *, scale=1.0):
    """Return a float64 network of 5, 4, 4 and 3 units with biases."""
    sizes = ((5, 4), (4, 4), (4, 3))
    network = nn.Sequential()
    for n_in, n_out in sizes:
        network.append(nn.Linear(n_in, n_out, dtype=torch.float64)).append(nn.Tanh())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(seed)) * scale)
    return network[:-1]


def parts(network):
    layers = [module for module in network if isinstance(module, nn.Linear)]
    return [m.weight.detach() for m in layers], [m.bias.detach() for m in layers]


def densities(mask):
    return [float(kept.double().mean()) for kept in mask.values()]


@pytest.mark.parametrize("seed", range(3))
def test_snip_equals_central_differences(seed):
    network, batch = tanh_network(seed), rows(20)
    scores = criteria.snip(network, [batch])
    for score, twin in zip(scores.values(), slow.snip(*parts(network), *batch), strict=True):
        torch.testing.assert_close(score, twin, rtol=1e-5, atol=1e-9)


def test_gradient_is_that_of_a_plain_backward_pass(make_network, data):
    network = make_network().eval()
    F.cross_entropy(network(data.train[0]), data.train[1]).backward()
    for name, score in criteria.gradient(network, [data.train]).items():
        torch.testing.assert_close(score, network.get_parameter(name).grad.abs())


@pytest.mark.parametrize("name", ["gradient", "snip"])
def test_gradients_of_batches_are_summed_with_their_signs(name):
    network, x = nn.Linear(5, 1).double(), rows(8)[0]
    opposite = [(x, torch.ones(8)), (x, -torch.ones(8))]
    scores = criteria.CRITERIA[name](network, opposite, loss=lambda o, y: (o[:, 0] * y).mean())
    assert (scores["weight"].abs() < 1e-15).all()


def test_networks_are_scored_in_evaluation_mode(make_network, data):
    network = make_network()
    network.encoder.append(nn.Dropout(0.5))
    network(data.train[0])
    training = criteria.snip(network.train(), [data.train])
    evaluating = criteria.snip(network.eval(), [data.train])
    assert all(torch.equal(training[name], evaluating[name]) for name in training)


@pytest.mark.parametrize("seed", range(3))
def test_snip_starves_the_first_layer_at_one_percent(make_lenet, seed):
    batch = (torch.randn(100, 784, generator=seeded(seed)), rows(classes=10, seed=seed)[1])
    kept = densities(masks.keep_top(criteria.snip(make_lenet(seed), [batch]), 0.01))
    assert kept[0] < 0.002
    assert kept[1:] == pytest.approx([0.068, 0.441], rel=0.2)


def test_weights_of_a_dead_input_score_zero(make_lenet):
    x = torch.randn(20, 784, generator=seeded())
    x[:, :100] = 0
    scores = criteria.snip(make_lenet(0), [(x, rows(20, classes=10)[1])])
    assert (scores["0.weight"][:, :100] == 0).all()
    assert (scores["0.weight"][:, 100:] != 0).any(0).all()
