import itertools

import pytest
import torch
from torch import nn

from secateurs import masks
from secateurs.errors import InputError
from secateurs.measures.weight_maps import first_layer_maps, logit_maps
from secateurs.networks.conv import CNN, MLPVis
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_, prunable
from secateurs.networks.lenet import LeNet300100


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def started(network, seed=0):
    initialise_(network, generator=seeded(seed))
    return network


def all_paths(weights):
    """Sum the products of |w| over every single path, from each input to each output."""
    widths = [weights[0].shape[1], *(len(weight) for weight in weights)]
    sums = torch.zeros(widths[-1], widths[0], dtype=torch.float64)
    for path in itertools.product(*map(range, widths)):
        product = 1.0
        for weight, source, target in zip(weights, path, path[1:], strict=False):
            product *= abs(float(weight[target, source]))
        sums[path[-1], path[0]] += product
    return sums


@pytest.mark.parametrize("widths", [(3,), (4, 3), (2, 3, 2)])
def test_maps_are_the_sums_over_every_single_path(widths):
    network = started(MLP(5, 3, widths=widths))
    with torch.no_grad():
        network.encoder[0].weight[:, 1:3] *= torch.tensor([0.0, -1.0])
    linears = [m.weight.detach() for m in network.modules() if isinstance(m, nn.Linear)]
    torch.testing.assert_close(logit_maps(network), all_paths(linears))


def test_one_layer_is_its_absolute_weights():
    layer = nn.Linear(4, 2)
    torch.testing.assert_close(logit_maps(layer), layer.weight.detach().abs().double())


def test_a_pixel_that_no_unit_reads_has_nothing():
    network = started(MLPVis(1, size=6, n_outputs=4))
    mask = masks.ones(prunable(network, only="encoder.*"))
    mask["encoder.1.weight"].view(-1, 3, 6, 6)[:, 1, 2, 5] = False
    masks.apply_(network, mask)
    maps = logit_maps(network)
    assert maps.shape == (4, 3, 6, 6)
    assert (maps == 0).nonzero().tolist() == [[logit, 1, 2, 5] for logit in range(4)]


def test_norms_count_where_they_are_asked_for():
    network = started(MLP(4, 2, widths=(3, 3)))
    plain = logit_maps(network)
    norm = network.encoder[1]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-2.0, 0.0, 1.0]))
        norm.running_var.copy_(torch.tensor([3.0, 1.0, 8.0]) - norm.eps)
    torch.testing.assert_close(logit_maps(network), plain)
    weights = [m.weight.detach().double() for m in network.modules() if isinstance(m, nn.Linear)]
    weights[0] *= torch.tensor([[2 / 3**0.5], [0.0], [1 / 8**0.5]])
    weights[1] /= (1 + norm.eps) ** 0.5
    torch.testing.assert_close(logit_maps(network, with_norm=True), all_paths(weights))


def test_lenet_is_given_the_shape_of_its_images():
    network = started(LeNet300100(2 * 3 * 4, 5))
    flat = logit_maps(network)
    assert flat.shape == (5, 24)
    assert torch.equal(logit_maps(network, shape=(2, 3, 4)), flat.view(5, 2, 3, 4))


def test_deep_networks_with_large_weights_stay_finite():
    network = started(MLP(8, 2, widths=(64,) * 30))
    with torch.no_grad():
        for weight in prunable(network).values():
            weight.mul_(1e3)
    assert logit_maps(network).isfinite().all()


def test_first_layer_maps_are_units_with_most_weight_first():
    network = started(MLPVis(1, size=4))
    mask = masks.ones(prunable(network, only="encoder.*"))
    mask["encoder.1.weight"][3] = False
    masks.apply_(network, mask)
    weight = network.encoder[1].weight.detach().abs()
    maps, units = first_layer_maps(network)
    assert maps.shape == (16, 3, 4, 4)
    assert sorted(units.tolist()) == list(range(16))
    assert units[-1] == 3
    assert (maps[-1] == 0).all()
    for image, unit in zip(maps, units, strict=True):
        assert torch.equal(image.float().flatten(), weight[unit])
    sums = maps.flatten(1).sum(1)
    assert (sums[:-1] >= sums[1:]).all()
    few = first_layer_maps(network, top=2)
    assert torch.equal(few.maps, maps[:2])
    assert torch.equal(few.units, units[:2])


def test_first_layer_maps_of_a_table_are_rows():
    assert first_layer_maps(MLP(5, 2, widths=(3, 3))).maps.shape == (3, 5)


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (lambda: CNN(1, size=4), {}, "encoder.1 is a Conv2d; write a CNN into an MLP first"),
        (nn.ReLU, {}, "need a Linear layer, but ReLU has none"),
        (
            lambda: nn.ModuleList([nn.Linear(2, 3), nn.Linear(4, 1)]),
            {},
            "got 3 outputs before 4 inputs",
        ),
        (lambda: nn.Linear(12, 2), {"shape": (3, 4, 4)}, r"of the 12 inputs, got \(3, 4, 4\)"),
        (lambda: nn.Linear(12, 2), {"shape": (3, 4)}, r"of the 12 inputs, got \(3, 4\)"),
        (
            lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)),
            {"with_norm": True},
            "0 does not; pass with_norm=False",
        ),
    ],
)
def test_what_has_no_map_is_refused(make, options, told):
    with pytest.raises(InputError, match=told) as caught:
        logit_maps(make(), **options)
    assert "\n" not in str(caught.value)


def test_no_unit_is_refused():
    with pytest.raises(InputError, match="top must be at least 1, got 0"):
        first_layer_maps(nn.Linear(2, 2), top=0)
