import pytest
import torch
from torch import nn

from reference import criteria as slow
from secateurs import criteria, masks
from secateurs.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def batches(x, sizes=None):
    return [(part, torch.zeros(len(part))) for part in (x.split(sizes) if sizes else [x])]


@pytest.mark.parametrize("shape", [(7, 4), (5, 3, 4), (2, 3, 2, 4)], ids=str)
def test_linear_equals_the_slow_twin(shape):
    layer, x = nn.Linear(4, 3, dtype=torch.float64), drawn(*shape)
    score = criteria.wanda(layer, batches(x, 2))["weight"]
    twin = slow.wanda_linear(layer.weight.detach(), x)
    torch.testing.assert_close(score, twin, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": 2},
        {"groups": 2, "stride": 2},
        {"groups": 4, "padding": 1},
        {"padding": 1, "padding_mode": "circular"},
    ],
    ids=str,
)
@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_convolutions_equal_the_slow_twin(convolution, options):
    n_dims = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[convolution]
    layer = convolution(4, 4, (3, 2, 1)[:n_dims], dtype=torch.float64, **options)
    x = drawn(3, 4, *(6, 5, 3)[:n_dims])
    score = criteria.wanda(layer, batches(x, 2))["weight"]
    twin = slow.wanda_conv(
        layer.weight.detach(),
        x,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        mode=options.get("padding_mode", "constant"),
    )
    torch.testing.assert_close(score, twin, rtol=1e-12, atol=0)


def test_a_convolution_of_one_pixel_is_a_linear_layer():
    layer, x = nn.Conv2d(4, 3, 1, dtype=torch.float64), drawn(2, 4, 3, 3)
    linear = nn.Linear(4, 3, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(layer.weight[:, :, 0, 0])
    score = criteria.wanda(layer, batches(x))["weight"][:, :, 0, 0]
    expected = criteria.wanda(linear, batches(x.movedim(1, -1)))["weight"]
    torch.testing.assert_close(score, expected)


def test_inputs_of_norm_1_leave_the_magnitude(make_network):
    layer = nn.Linear(6, 4)
    scores = criteria.wanda(layer, batches(torch.eye(6)))
    torch.testing.assert_close(scores, criteria.magnitude(layer))


@pytest.mark.parametrize("sizes", [[97], [1, 95, 1], [10] * 9 + [7]], ids=["97", "1+95+1", "10"])
def test_how_rows_are_cut_into_batches_does_not_matter(make_network, data, sizes):
    network, whole = make_network(), criteria.wanda(make_network(), [data.train])
    cut = list(zip(*(part.split(sizes) for part in data.train), strict=True))
    for name, score in criteria.wanda(network, cut).items():
        torch.testing.assert_close(score, whole[name])


class Twice(nn.Module):
    """One layer used twice, once by keyword."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4, dtype=torch.float64)

    def forward(self, x):
        return self.layer(input=self.layer(x))


def test_a_layer_used_several_times_sums_over_its_uses():
    network, x = Twice(), drawn(5, 4)
    with torch.no_grad():
        inputs = torch.cat([x, network.layer(x)])
    score = criteria.wanda(network, batches(x))["layer.weight"]
    torch.testing.assert_close(score, criteria.wanda(network.layer, batches(inputs))["weight"])


def test_a_deaf_input_is_pruned_however_large_its_weights():
    layer, x = nn.Linear(4, 3, dtype=torch.float64), drawn(9, 4)
    with torch.no_grad():
        layer.weight[:, 2] = 1e6
    x[:, 2] = 0
    mask = masks.keep_top(criteria.wanda(layer, batches(x)), 0.75)["weight"]
    assert mask.tolist() == [[True, True, False, True]] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_squared_in_float32(dtype):
    layer = nn.Linear(2, 1, dtype=dtype)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    score = criteria.wanda(layer, batches(torch.full((4, 2), 3e4, dtype=dtype)))["weight"]
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, torch.full((1, 2), 1.2e5), rtol=5e-3, atol=0)


class Hidden(nn.Module):
    """The weight of a layer that is never called as a module."""

    def __init__(self):
        super().__init__()
        self.called, self.read = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.linear(self.called(x), self.read.weight)


def test_a_layer_that_is_never_called_is_named():
    x = batches(torch.ones(2, 4))
    with pytest.raises(InputError, match=r"must call every scored layer.*of read\.weight; "):
        criteria.wanda(Hidden(), x)
    assert list(criteria.wanda(Hidden(), x, except_="read*")) == ["called.weight"]


def test_the_targets_are_not_looked_at(make_network, data):
    x, _ = data.train
    one, other = (criteria.wanda(make_network(), [(x, "y" * n)]) for n in (1, 2))
    for name, score in one.items():
        assert torch.equal(score, other[name])
