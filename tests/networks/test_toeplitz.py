import pytest
import torch
from torch import nn

from secateurs import masks
from secateurs.errors import InputError
from secateurs.networks.conv import CNN, MLPVis, cnn_shapes
from secateurs.networks.init import initialise_, prunable
from secateurs.networks.pixels import Normalise
from secateurs.networks.toeplitz import position_fields, receptive_field_mask, write_

SIZES = [(1, 8, 3), (1, 28, 1), (2, 9, 3), (2, 32, 3), (3, 16, 2), (1, 1, 1), (2, 5, 4)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def both(alpha, size, channels, *, dtype=torch.float32, normalise=None, n_outputs=10):
    """Return a CNN as if it were trained, and an MLP that is told nothing of it."""
    options = {"size": size, "channels": channels, "n_outputs": n_outputs, "normalise": normalise}
    mlp, cnn = MLPVis(alpha, **options).to(dtype), CNN(alpha, **options).to(dtype)
    generator = seeded(alpha + size)
    for network in (mlp, cnn):
        initialise_(network, generator=generator)
    for module in cnn.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.num_batches_tracked.fill_(7)
    cnn.decoder.bias.data.normal_(generator=generator)
    return mlp.eval(), cnn.eval()


@pytest.mark.parametrize(("alpha", "size", "channels"), SIZES)
def test_the_written_cnn_gives_the_same_outputs(alpha, size, channels):
    mlp, cnn = both(alpha, size, channels)
    x = torch.randn(5, channels, size, size, generator=seeded(1))
    with torch.no_grad():
        assert not torch.allclose(mlp(x), cnn(x), atol=0.1)
        write_(mlp, cnn)
        torch.testing.assert_close(mlp(x), cnn(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("alpha", "size", "channels"), SIZES)
def test_in_float64_they_differ_by_rounding_only_layer_by_layer(alpha, size, channels):
    mlp, cnn = both(alpha, size, channels, dtype=torch.float64)
    write_(mlp, cnn)
    h = g = torch.randn(3, channels, size, size, generator=seeded(2), dtype=torch.float64)
    after = [m for m in cnn.encoder if not isinstance(m, nn.Flatten)]
    with torch.no_grad():
        for ours, theirs in zip(mlp.encoder, after, strict=True):
            g = theirs(g.flatten(1) if isinstance(theirs, nn.Linear) else g)
            h = ours(h)
            torch.testing.assert_close(h.flatten(1), g.flatten(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("alpha", "size", "channels"), [(1, 8, 3), (2, 9, 1), (1, 5, 2)])
def test_a_block_is_what_the_convolution_does_to_each_single_pixel(alpha, size, channels):
    mlp, cnn = both(alpha, size, channels, dtype=torch.float64)
    write_(mlp, cnn)
    shape = (channels, size, size)
    convolutions = [m for m in cnn.encoder if isinstance(m, nn.Conv2d)]
    linears = [m for m in mlp.encoder if isinstance(m, nn.Linear)]
    for conv, linear, after in zip(convolutions, linears, cnn_shapes(alpha, size), strict=False):
        pixels = torch.eye(linear.in_features, dtype=torch.float64).view(-1, *shape)
        with torch.no_grad():
            # not to the bit: the convolution may go another way and round zeros
            torch.testing.assert_close(conv(pixels).flatten(1).T, linear.weight, atol=1e-15, rtol=0)
        shape = after
    assert len(convolutions) == 8


def test_everything_else_is_copied_too():
    normalise = Normalise([0.5, 0.4, 0.3], [0.2, 0.3, 0.1])
    mlp, cnn = both(1, 8, 3, normalise=normalise)
    mlp.encoder[0][0] = Normalise([0.0] * 3, [1.0] * 3)
    cnn.encoder[2].eps = 0.1
    write_(mlp, cnn)
    x = torch.randint(0, 256, (4, 3, 8, 8), generator=seeded(3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), cnn(x), rtol=1e-5, atol=1e-5)
    assert mlp.encoder[2].num_batches_tracked == 7
    assert torch.equal(mlp.encoder[2].running_var[:64], cnn.encoder[2].running_var.expand(64))
    kernels = cnn.encoder[1].weight.clone()
    with torch.no_grad():
        mlp.encoder[1].weight.add_(1)
    assert torch.equal(cnn.encoder[1].weight, kernels)  # a copy, not a view


@pytest.mark.parametrize(("alpha", "size", "channels"), SIZES)
def test_the_fields_are_where_a_written_cnn_is_not_zero(alpha, size, channels):
    mlp, cnn = both(alpha, size, channels)
    with torch.no_grad():
        for weight in cnn.parameters():
            weight.add_(weight.sign() + (weight == 0))  # none is zero
    write_(mlp, cnn)
    fields = receptive_field_mask(mlp)
    assert list(fields) == list(prunable(mlp, only="encoder.*"))
    for name, weight in prunable(mlp, only="encoder.*").items():
        assert torch.equal(fields[name], weight != 0), name


def test_fields_fit_the_network_and_the_last_layer_is_all_of_it():
    mlp = MLPVis(2)
    fields = receptive_field_mask(mlp)
    masks.check(mlp, fields)
    assert fields["encoder.25.weight"].all()
    # a 3 x 3 window at 32 x 32 positions, less the taps beyond the border
    per_channel = (3 * 32 - 2) ** 2
    assert int(fields["encoder.1.weight"].sum()) == 3 * 2 * per_channel


def test_an_mlp_with_the_mask_of_the_fields_is_still_that_cnn():
    mlp, cnn = both(1, 12, 3)
    write_(mlp, cnn)
    before = {name: weight.clone() for name, weight in prunable(mlp, only="encoder.*").items()}
    masks.apply_(mlp, receptive_field_mask(mlp))
    for name, weight in prunable(mlp, only="encoder.*").items():
        assert torch.equal(weight, before[name])


def test_a_network_on_the_meta_device_gives_its_fields_on_the_cpu():
    with torch.device("meta"):
        mlp = MLPVis(1, size=10)
    fields = receptive_field_mask(mlp)
    for name, kept in receptive_field_mask(MLPVis(1, size=10)).items():
        assert torch.equal(fields[name], kept)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (2, 2), (5, 1), (5, 2), (6, 2)])
def test_position_fields_are_the_pixels_a_convolution_of_ones_answers_to(size, stride):
    ones, pixels = torch.ones(1, 1, 3, 3), torch.eye(size**2).view(-1, 1, size, size)
    answers = nn.functional.conv2d(pixels, ones, stride=stride, padding=1)
    assert torch.equal(position_fields(size, stride), answers.flatten(1).T > 0.5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"alpha": 2}, "alpha 2, size 8, 3 channels, 10 outputs"),
        ({"size": 9}, "alpha 1, size 9, 3 channels, 10 outputs"),
        ({"channels": 1}, "alpha 1, size 8, 1 channels, 10 outputs"),
        ({"n_outputs": 5}, "alpha 1, size 8, 3 channels, 5 outputs"),
    ],
)
def test_another_cnn_is_refused_before_anything_is_written(options, told):
    mlp = MLPVis(1, size=8)
    before = {name: value.clone() for name, value in mlp.state_dict().items()}
    with pytest.raises(InputError, match=told) as caught:
        write_(mlp, CNN(**{"alpha": 1, "size": 8, **options}))
    assert "\n" not in str(caught.value)
    for name, value in mlp.state_dict().items():
        assert torch.equal(value, before[name])


def test_normalising_on_one_side_only_is_refused():
    normalise = Normalise([0.5] * 3, [0.2] * 3)
    with pytest.raises(InputError, match="got Identity in the MLP and Normalise in the CNN"):
        write_(MLPVis(1, size=8), CNN(1, size=8, normalise=normalise))
    with pytest.raises(InputError, match="got Normalise in the MLP and Identity in the CNN"):
        write_(MLPVis(1, size=8, normalise=normalise), CNN(1, size=8))
