import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.networks import NETWORKS
from secateurs.networks.dense import MLP, MLP_TAB, mlp_tab


def test_mlp_tab_is_nine_hidden_layers_of_512_with_a_linear_head():
    network = mlp_tab(20, 4)
    kinds = [type(module) for module in network.encoder]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 9
    assert MLP_TAB == (512,) * 9
    shapes = [tuple(m.weight.shape) for m in network.encoder if isinstance(m, nn.Linear)]
    assert shapes == [(512, 20)] + [(512, 512)] * 8
    assert isinstance(network.decoder, nn.Linear)
    assert (network.decoder.in_features, network.decoder.out_features) == (512, 4)


def test_parameters_by_hand():
    # 2 Linear without bias, 2 BatchNorm of two vectors each, a head with bias
    network = MLP(5, 3, widths=(8, 4))
    assert sum(p.numel() for p in network.parameters()) == 5 * 8 + 2 * 8 + 8 * 4 + 2 * 4 + 4 * 3 + 3


def test_the_hidden_representation_is_what_the_decoder_reads(make_network):
    network, x = make_network().eval(), torch.randn(7, 6)
    h = network.encoder(x)
    assert h.shape == (7, 16)
    assert (h >= 0).all()
    assert torch.equal(network(x), network.decoder(h))


@pytest.mark.parametrize(
    ("n_inputs", "n_outputs", "widths"), [(0, 1, (4,)), (1, 0, (4,)), (1, 1, ()), (1, 1, (4, 0))]
)
def test_empty_layers_are_refused(n_inputs, n_outputs, widths):
    with pytest.raises(InputError, match="at least one hidden layer and sizes of at least 1"):
        MLP(n_inputs, n_outputs, widths=widths)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_named_network_is_built_from_inputs_and_outputs(name):
    network = NETWORKS[name](3, 2).eval()
    assert network(torch.zeros(2, 3)).shape == (2, 2)
