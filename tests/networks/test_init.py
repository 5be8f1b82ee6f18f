import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

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


# --- weights that a mask by name cannot hold ------------------------------------------------------


def sequence():
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))


def tied_to_a_layer():
    network = sequence()
    network[2].weight = network[0].weight
    return network


def tied_to_an_embedding():
    network = nn.Sequential(nn.Embedding(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    return network


def tied_by_address():
    network = sequence()
    network[2].weight = nn.Parameter(network[0].weight.data)
    return network


def one_layer_of_two_names():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (tied_to_a_layer, r"2\.weight and 0\.weight"),
        (tied_to_an_embedding, r"0\.weight and 1\.weight"),
        (tied_by_address, r"2\.weight and 0\.weight"),
        (one_layer_of_two_names, r"2\.weight and 0\.weight"),
    ],
)
def test_tied_weights_are_refused_by_name(make, names):
    with pytest.raises(InputError, match=rf"belong to one layer, but {names} are the same tensor"):
        weights(make())
    with pytest.raises(InputError, match="same tensor"):
        prunable(make())


def test_weights_that_are_left_out_may_be_tied_or_computed():
    network = nn.Sequential(nn.Linear(3, 3), nn.Embedding(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    network[2].weight = network[1].weight
    parametrizations.weight_norm(network[3])
    assert list(prunable(network, only="0.*")) == ["0.weight"]
    with pytest.raises(InputError, match=r"1\.weight and 2\.weight"):
        prunable(network, except_="3.*")


def test_a_layer_that_is_used_twice_under_one_name_is_not_tied():
    network = sequence()
    network.again = [network[0]]  # a list: no second name
    assert list(weights(network)) == ["0.weight", "2.weight"]


@pytest.mark.parametrize("layer", [nn.LazyLinear(2), nn.LazyConv2d(2, 3), nn.LazyBatchNorm1d()])
def test_lazy_layers_are_refused_until_they_have_seen_a_batch(layer):
    network = nn.Sequential(nn.Linear(3, 3), layer)
    for function in (weights, prunable):
        with pytest.raises(InputError, match=r"1 is lazy .*run one batch first"):
            function(network)


def test_a_lazy_layer_that_has_seen_a_batch_is_a_layer():
    network = nn.Sequential(nn.LazyLinear(2))
    network(torch.ones(1, 3))
    assert weights(network)["0.weight"].shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(dtype):
    layer = nn.Linear(3, 2)
    layer.weight = nn.Parameter(torch.zeros(2, 3, dtype=dtype), requires_grad=False)
    with pytest.raises(InputError, match=rf"floating-point tensor, but weight is {dtype}"):
        weights(layer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_point_weight_is_prunable(dtype):
    assert weights(nn.Linear(3, 2, dtype=dtype))["weight"].dtype == dtype


def by_weight_norm():
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (
            lambda: prune.l1_unstructured(nn.Linear(3, 2), "weight", amount=0.5),
            r"secateurs\.masks\.import_torch_prune_\(network\)",
        ),
        (lambda: parametrizations.weight_norm(nn.Linear(3, 2)), "remove_parametrizations"),
        (lambda: parametrizations.orthogonal(nn.Linear(3, 2)), "remove_parametrizations"),
        (lambda: nn.utils.spectral_norm(nn.Linear(3, 2)), "remove_spectral_norm"),
        (by_weight_norm, "remove_weight_norm"),
    ],
)
def test_weights_that_are_computed_are_refused_with_the_remedy(make, remedy):
    network = nn.Sequential(make())
    with pytest.raises(InputError, match=rf"0\.weight is computed from others; .*{remedy}") as err:
        weights(network)
    assert "\n" not in str(err.value)


def test_the_remedies_work():
    pruned = prune.l1_unstructured(nn.Linear(3, 2), "weight", amount=0.5)
    prune.remove(pruned, "weight")
    normed = parametrizations.weight_norm(nn.Linear(3, 2))
    parametrize.remove_parametrizations(normed, "weight")
    spectral = nn.utils.remove_spectral_norm(nn.utils.spectral_norm(nn.Linear(3, 2)))
    assert all(list(weights(layer)) == ["weight"] for layer in (pruned, normed, spectral))
