import math

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.networks import NETWORKS
from secateurs.networks.dense import MLP
from secateurs.networks.init import LAYERS, initialise_
from secateurs.networks.lenet import LeNet300100


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def started(seed=0):
    network = LeNet300100(784, 10)
    initialise_(network, generator=seeded(seed))
    return network


def test_it_is_the_network_of_the_papers():
    shapes = {name: tuple(tensor.shape) for name, tensor in LeNet300100(784, 10).named_parameters()}
    assert shapes == {
        "encoder.1.weight": (300, 784),
        "encoder.1.bias": (300,),
        "encoder.3.weight": (100, 300),
        "encoder.3.bias": (100,),
        "decoder.weight": (10, 100),
        "decoder.bias": (10,),
    }


def test_it_computes_what_its_equation_says():
    network, x = started(), torch.randn(5, 1, 28, 28, generator=seeded(1))
    with torch.no_grad():
        for bias in (network.encoder[1].bias, network.encoder[3].bias, network.decoder.bias):
            bias.normal_(generator=seeded(2))
        w1, b1, w2, b2, w3, b3 = network.parameters()
        h = (x.reshape(5, 784) @ w1.T + b1).clamp(min=0)
        h = (h @ w2.T + b2).clamp(min=0)
        torch.testing.assert_close(network.encoder(x), h)
        torch.testing.assert_close(network(x), h @ w3.T + b3)
        assert torch.equal(network(x), network(x.flatten(1)))


def test_its_start_is_gaussian_glorot():
    network = started()
    for layer, (n_in, n_out) in {
        network.encoder[1]: (784, 300),
        network.encoder[3]: (300, 100),
    }.items():
        expected = math.sqrt(2 / (n_in + n_out))
        weight = layer.weight.detach()
        assert float(weight.std()) == pytest.approx(expected, rel=0.02)
        # a normal has 0.27% beyond 3 deviations, a uniform none
        assert float((weight.abs() > 3 * expected).double().mean()) > 0.001
        assert (layer.bias == 0).all()


def test_its_start_depends_on_the_generator_only():
    state = torch.get_rng_state()
    network, same, other = started(1), started(1), started(2)
    torch.set_rng_state(state)
    initialise_(network, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    assert not torch.equal(network.decoder.weight, other.decoder.weight)


def test_other_networks_start_as_they_did():
    network, generator = MLP(6, 3, widths=(16, 16)), seeded(4)
    initialise_(network, generator=seeded(4))
    for layer in network.modules():
        if isinstance(layer, LAYERS):
            drawn = torch.randn(layer.weight.shape, generator=generator)
            torch.testing.assert_close(layer.weight, drawn * math.sqrt(2 / layer.in_features))


def test_an_unknown_initial_lists_the_valid_ones():
    network = nn.Sequential(nn.Linear(2, 2))
    network.initial = "glorrot"
    with pytest.raises(InputError, match="must be 'kaiming' or 'glorot', got 'glorrot'"):
        initialise_(network, generator=seeded())


def test_it_is_made_by_name_and_with_other_widths():
    assert isinstance(NETWORKS["lenet_300_100"](64, 10), LeNet300100)
    assert LeNet300100(4, 2, widths=(6, 5)).encoder[3].weight.shape == (5, 6)


@pytest.mark.parametrize(
    ("n_inputs", "n_outputs", "widths"),
    [(0, 1, (4, 4)), (1, 0, (4, 4)), (1, 1, (4,)), (1, 1, (4, 0)), (1, 1, (4, 4, 4)), (1, 1, ())],
)
def test_empty_layers_and_other_depths_are_refused(n_inputs, n_outputs, widths):
    with pytest.raises(InputError, match="two hidden layers and sizes of at least 1"):
        LeNet300100(n_inputs, n_outputs, widths=widths)
