import pytest
import torch

from secateurs.errors import InputError
from secateurs.networks.pixels import Normalise


def test_the_training_images_come_out_with_mean_0_and_deviation_1():
    x = torch.randint(0, 256, (50, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator())
    x[:, 1] //= 3
    shares = x.double().transpose(0, 1).flatten(1) / 255
    out = Normalise(shares.mean(1).tolist(), shares.std(1, correction=0).tolist())(x)
    assert out.dtype == torch.float32
    by_channel = out.double().transpose(0, 1).flatten(1)
    assert by_channel.mean(1).tolist() == pytest.approx([0] * 3, abs=1e-6)
    assert by_channel.std(1, correction=0).tolist() == pytest.approx([1] * 3, abs=1e-6)


def test_uint8_and_float_images_are_the_same_and_left_as_they_were():
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    normalise = Normalise([0.25], [0.5])
    assert torch.equal(normalise(x), normalise(x.float()))
    assert torch.equal(x.flatten(), torch.arange(256, dtype=torch.uint8))
    assert normalise.double()(x).dtype == torch.float64


def test_its_statistics_are_buffers_so_they_are_stored_and_not_trained():
    normalise = Normalise([0.5, 0.1], [0.25, 0.2])
    assert list(normalise.state_dict()) == ["mean", "std"]
    assert list(normalise.parameters()) == []
    other = Normalise([0.0, 0.0], [1.0, 1.0])
    other.load_state_dict(normalise.state_dict())
    x = torch.full((1, 2, 2, 2), 51, dtype=torch.uint8)
    assert torch.equal(other(x), normalise(x))


def test_it_can_be_built_on_the_meta_device():
    with torch.device("meta"):
        assert Normalise([0.5], [0.2]).mean.is_meta


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.5], [0.0]), ([0.5], [-1.0]), ([0.5], [float("nan")]), ([0.5, 0.5], [1.0])],
)
def test_deviations_that_cannot_divide_are_refused(mean, std):
    with pytest.raises(InputError, match="a positive deviation for each channel, got"):
        Normalise(mean, std)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (3, 4, 4), (2, 48)])
def test_other_channels_are_refused(shape):
    with pytest.raises(InputError, match=r"must be \[rows, 3, height, width\] in 0..255") as caught:
        Normalise([0.5] * 3, [0.2] * 3)(torch.zeros(shape))
    assert "\n" not in str(caught.value)
