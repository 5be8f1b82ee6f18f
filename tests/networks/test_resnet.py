import math

import pytest
import torch
from torch import nn

from reference import resnet
from secateurs.errors import InputError
from secateurs.networks import NETWORKS
from secateurs.networks.init import initialise_, prunable
from secateurs.networks.pixels import Normalise
from secateurs.networks.resnet import ResNet18


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def started(**options):
    network = ResNet18(**{"width": 4, **options})
    initialise_(network, generator=seeded())
    return network


def test_it_has_the_parameters_of_the_paper():
    network = ResNet18(n_outputs=1000)
    assert sum(p.numel() for p in network.parameters()) == 11_689_512
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 17 + 3  # 17 and the Linear make 18; 3 shortcuts change the shape
    assert all(convolution.bias is None for convolution in convolutions)


def test_its_weights_have_the_usual_names_behind_the_encoder():
    names = list(prunable(ResNet18(width=1), only="encoder.*"))
    expected = ["encoder.conv1.weight"]
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            expected += [f"encoder.layer{stage}.{block}.conv{i}.weight" for i in (1, 2)]
            expected += [f"encoder.layer{stage}.0.downsample.0.weight"] * (stage > 1 and not block)
    assert names == expected


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("size", [32, 28, 65])
def test_it_computes_what_the_paper_says(stem, size):
    network = started(stem=stem, channels=2, n_outputs=5).double().eval()
    for module in network.modules():  # statistics and parameters of their own
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.normal_(generator=seeded(module.num_features))
                module.running_var.uniform_(0.5, 2, generator=seeded(1))
    x = torch.randn(3, 2, size, size, dtype=torch.float64, generator=seeded(2))
    with torch.no_grad():
        expected = resnet.resnet18(network.state_dict(), x, stem=stem)
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(
    ("stem", "size", "sides"),
    [
        ("imagenet", 224, [56, 28, 14, 7]),
        ("imagenet", 32, [8, 4, 2, 1]),
        ("cifar", 32, [32, 16, 8, 4]),
    ],
)
def test_the_stages_halve_the_sides_and_double_the_width(stem, size, sides):
    network, seen = started(stem=stem), []
    for stage in range(1, 5):
        network.encoder.get_submodule(f"layer{stage}").register_forward_hook(
            lambda _module, _inputs, out: seen.append(tuple(out.shape[1:]))
        )
    h = network.encoder(torch.randn(2, 3, size, size, generator=seeded()))
    assert seen == [(4 * 2**i, side, side) for i, side in enumerate(sides)]
    assert h.shape == (2, 32)
    assert float(h.detach().min()) >= 0  # the mean of what a ReLU gives
    assert network.decoder(h).shape == (2, 10)


def test_its_start_is_kaiming_over_the_inputs_of_a_unit():
    network = started(width=32)
    for name, weight in prunable(network).items():
        fan_in = weight[0].numel()
        spread = float(weight.detach().std())
        assert spread == pytest.approx(math.sqrt(2 / fan_in), rel=0.1), name


def test_pixels_are_normalised_inside():
    normalise = Normalise([0.2, 0.4, 0.6], [0.1, 0.2, 0.3])
    network, bare = started(normalise=normalise).eval(), started().eval()
    x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=seeded())
    assert torch.equal(network(x), bare(normalise(x)))


def test_it_is_listed_and_told_apart_by_its_width():
    network = NETWORKS["resnet18"](n_outputs=7, width=2, stem="cifar")
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"width": 0}, "must be at least 1, got 10, 3 and 0"),
        ({"channels": -1}, "must be at least 1, got 10, -1 and 64"),
        ({"n_outputs": 0}, "must be at least 1, got 0, 3 and 64"),
        ({"stem": "mnist"}, "stem must be 'imagenet' or 'cifar', got 'mnist'"),
    ],
)
def test_impossible_networks_are_refused(options, told):
    with pytest.raises(InputError, match=told) as err:
        ResNet18(**options)
    assert "\n" not in str(err.value)
