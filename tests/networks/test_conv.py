import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.networks import NETWORKS
from secateurs.networks.conv import CNN, MLPVis, cnn_layers, cnn_shapes, mlp_vis_widths
from secateurs.networks.init import prunable
from secateurs.networks.pixels import Normalise


def test_widths_are_those_of_the_method():
    assert mlp_vis_widths(8, 32) == (8192, 4096, 4096, 2048, 2048, 1024, 1024, 512, 512)
    a, s = 3, 16  # its closed form
    flat = [a * s * s // share for share in (1, 2, 2, 4, 4, 8, 8, 16)]
    assert mlp_vis_widths(a, s) == (*flat, 64 * a)


def test_at_28_the_closed_form_fails_and_the_convolutions_are_right():
    assert [size for _, size, _ in cnn_shapes(1, 28)] == [28, 14, 14, 7, 7, 4, 4, 2]
    assert mlp_vis_widths(1, 28)[5] == 8 * 4 * 4  # not 28 * 28 / 8


@pytest.mark.parametrize(("alpha", "size", "channels"), [(1, 32, 3), (2, 28, 1), (1, 9, 4)])
def test_shapes_are_those_of_the_convolutions(alpha, size, channels):
    cnn = CNN(alpha, size=size, channels=channels).eval()
    x = torch.zeros(2, channels, size, size)
    found = []
    for module in cnn.encoder:
        x = module(x)
        if isinstance(module, nn.Conv2d):
            found.append(tuple(x.shape[1:]))
    assert found == cnn_shapes(alpha, size)
    assert x.shape == (2, 64 * alpha)
    linears = [m for m in MLPVis(alpha, size=size, channels=channels).encoder if hasattr(m, "bias")]
    widths = [m.out_features for m in linears if isinstance(m, nn.Linear)]
    assert widths == [int(torch.tensor(one).prod()) for one in found] + [64 * alpha]


def test_the_convolutions_are_the_papers():
    assert cnn_layers(4) == [(4, 1), (8, 2), (8, 1), (16, 2), (16, 1), (32, 2), (32, 1), (64, 2)]
    kinds = [type(module) for module in CNN(1).encoder]
    assert kinds == [
        nn.Identity,
        *[nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 8,
        nn.Flatten,
        nn.Linear,
        nn.BatchNorm1d,
        nn.ReLU,
    ]
    convolutions = [m for m in CNN(1).encoder if isinstance(m, nn.Conv2d)]
    assert all(m.kernel_size == (3, 3) and m.padding == (1, 1) for m in convolutions)


def test_prunable_weights_are_the_encoders_by_name():
    places = range(1, 25, 3)
    cnn, mlp = (prunable(kind(1), only="encoder.*") for kind in (CNN, MLPVis))
    assert list(mlp) == [f"encoder.{i}.weight" for i in [*places, 25]]
    assert list(cnn) == [f"encoder.{i}.weight" for i in [*places, 26]]
    assert [w.ndim for w in cnn.values()] == [4] * 8 + [2]
    assert [w.ndim for w in mlp.values()] == [2] * 9
    names = {name for name, _ in CNN(1).named_parameters()}
    assert {"decoder.weight", "decoder.bias"} < names
    assert "encoder.1.bias" not in names


@pytest.mark.parametrize("kind", [CNN, MLPVis])
@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 1)])
def test_a_batch_of_uint8_images_goes_in(kind, size, channels):
    network = kind(
        1, size=size, channels=channels, n_outputs=7, normalise=Normalise([0.5] * channels,
                                                                          [0.2] * channels)
    )  # fmt: skip
    x = torch.randint(0, 256, (4, channels, size, size), dtype=torch.uint8)
    logits = network(x)
    assert logits.shape == (4, 7)
    assert torch.equal(network.eval()(x), network(x.float()))
    assert network.encoder(x).shape == (4, 64)
    logits.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_they_are_made_by_name():
    assert isinstance(NETWORKS["cnn"](1), CNN)
    network = NETWORKS["mlp_vis"](1, size=28, channels=1, n_outputs=3)
    assert (network.alpha, network.size, network.channels) == (1, 28, 1)


@pytest.mark.parametrize("kind", [CNN, MLPVis])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"alpha": 0}, "got 0, 32, 3 and 10"),
        ({"alpha": 1, "size": 0}, "got 1, 0, 3 and 10"),
        ({"alpha": 1, "channels": 0}, "got 1, 32, 0 and 10"),
        ({"alpha": 1, "n_outputs": -1}, "got 1, 32, 3 and -1"),
    ],
)
def test_sizes_below_one_are_refused(kind, options, told):
    with pytest.raises(InputError, match=told):
        kind(**options)


@pytest.mark.parametrize("kind", [CNN, MLPVis])
@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (2, 1, 8, 8), (3, 8, 8), (2, 192)])
def test_other_images_are_refused(kind, shape):
    with pytest.raises(InputError, match=r"must be \[rows, 3, 8, 8\], got shape") as caught:
        kind(1, size=8)(torch.zeros(shape))
    assert "\n" not in str(caught.value)
