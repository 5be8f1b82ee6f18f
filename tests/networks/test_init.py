import copy

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_, prunable, scale_, weights


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Mixed(nn.Module):
    """Convolutions, an own parameter, normalisations and an embedding."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8)
        )
        self.norm = nn.LayerNorm(8)
        self.table = nn.Embedding(5, 8)
        self.gain = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 2)


def test_kaiming_normal_has_variance_2_over_fan_in_and_zero_biases():
    network = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(20, 100, 5))
    initialise_(network, generator=seeded())
    for layer, fan_in in zip(network, (300, 20 * 25), strict=True):
        weight = layer.weight.detach()
        assert float(weight.var()) == pytest.approx(2 / fan_in, rel=0.03)
        assert abs(float(weight.mean())) < 4 * (2 / fan_in / weight.numel()) ** 0.5
        # a normal has 0.27% beyond 3 deviations, a uniform none
        assert float((weight.abs() > 3 * (2 / fan_in) ** 0.5).double().mean()) > 0.001
        assert (layer.bias == 0).all()


def test_initialising_resets_batchnorm_and_depends_on_the_generator_only():
    network, state = MLP(6, 3, widths=(16, 16)), torch.get_rng_state()
    network(torch.randn(10, 6, generator=seeded()))
    with torch.no_grad():
        network.encoder[1].weight.fill_(3.0)
    same = MLP(6, 3, widths=(16, 16))
    torch.set_rng_state(state)
    initialise_(network, generator=seeded(1))
    initialise_(same, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    initialise_(same, generator=seeded(2))
    assert not torch.equal(network.decoder.weight, same.decoder.weight)


def test_scaling_touches_linear_and_conv_weights_only():
    network = Mixed()
    before = copy.deepcopy(network.state_dict())
    scale_(network, 0.25)
    scaled = {"features.0.weight", "features.4.weight", "head.weight"}
    for name, tensor in network.state_dict().items():
        expected = before[name] * 0.25 if name in scaled else before[name]
        assert torch.equal(tensor, expected), name


def test_behind_batchnorm_scaling_the_encoder_hardly_changes_the_function(make_network, data):
    network, (x, _) = make_network(), data.train
    with torch.no_grad():
        before = network(x)
        scale_(network.encoder, 0.25)
        torch.testing.assert_close(network(x), before, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("init_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_scales_are_refused(init_scale):
    with pytest.raises(InputError, match="init_scale must be a positive number"):
        scale_(nn.Linear(1, 1), init_scale)


def test_prunable_are_the_encoders_weights_not_biases_or_norms_or_the_head():
    assert list(prunable(Mixed(), only="features*")) == ["features.0.weight", "features.4.weight"]
    assert list(weights(Mixed())) == ["features.0.weight", "features.4.weight", "head.weight"]


def test_prunable_are_the_parameters_themselves():
    network = Mixed()
    assert prunable(network, only="head*")["head.weight"] is network.head.weight


def test_a_bare_layer_is_prunable():
    assert list(prunable(nn.Linear(2, 2))) == ["weight"]


def test_a_network_without_layers_says_so():
    with pytest.raises(InputError, match="this network has none"):
        prunable(nn.ReLU())
