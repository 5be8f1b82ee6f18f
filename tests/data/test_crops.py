import random

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from reference import image_views as slow
from secateurs.data.crops import Crops, draw_crops, places, resize

SIMCLR = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blank(n, height=32, width=32):
    return torch.zeros(n, 1, height, width)


def drawn(n, *, seed=0, height=32, width=32, **options):
    crops = draw_crops(blank(n, height, width), seeded(seed), **(SIMCLR | options))
    return torch.stack(crops, 1).double().numpy()


def by_definition(n, *, seed=0, height=32, width=32, **options):
    """Return torchvision's crops, drawn from another generator."""
    rng = random.Random(seed)

    def pairs(k):
        return [(rng.random(), rng.random()) for _ in range(k)]

    found = [
        slow.crop_of(height, width, **(SIMCLR | options), uniforms=pairs(10), places=pairs(1)[0])
        for _ in range(n)
    ]
    return np.array(found)


@pytest.mark.parametrize("sides", [(32, 32), (9, 14), (28, 7), (1, 1)])
@pytest.mark.parametrize("options", [SIMCLR, {"scale": (0.7, 1.0), "ratio": (0.4, 2.5)}])
def test_draws_equal_their_slow_twin(sides, options):
    fast = torch.stack(draw_crops(blank(300, *sides), seeded(1), **options), 1)
    generator = seeded(1)
    tries, at = (torch.rand(*shape, generator=generator) for shape in [(2, 10, 300), (2, 300)])
    for i in range(300):
        expected = slow.crop_of(
            *sides, **options, uniforms=tries[:, :, i].T.tolist(), places=at[:, i].tolist()
        )
        assert tuple(fast[i].int().tolist()) == expected


@pytest.mark.parametrize(
    "options",
    [{}, {"height": 20, "width": 40}, {"scale": (0.6, 1.0)}, {"ratio": (0.25, 4.0)}],
    ids=["SimCLR", "wide", "large", "any ratio"],
)
def test_areas_ratios_and_places_have_torchvisions_distribution(options):
    fast, slowly = drawn(20_000, **options), by_definition(20_000, seed=1, **options)
    for measure in (
        lambda c: c[:, 2] * c[:, 3],
        lambda c: np.log(c[:, 3] / c[:, 2]),
        lambda c: c[:, 0],
        lambda c: c[:, 1],
        lambda c: c[:, 0] + c[:, 2],
        lambda c: c[:, 1] + c[:, 3],
    ):
        assert scipy.stats.ks_2samp(measure(fast), measure(slowly)).pvalue > 1e-3
    # sides together, not each alone
    counts = np.zeros((2, 41, 41))
    for side, crops in zip(counts, (fast, slowly), strict=True):
        np.add.at(side, tuple(crops[:, 2:].astype(int).T), 1)
    often = counts[:, counts.sum(0) >= 20]
    assert scipy.stats.chi2_contingency(often).pvalue > 1e-3


def test_before_rounding_the_area_is_uniform_and_the_ratio_log_uniform():
    # of images so large that rounding is nothing and of areas so small that everything fits
    crops = draw_crops(
        blank(1, 1, 1).expand(20_000, 1, 10_000, 10_000),
        seeded(),
        **SIMCLR | {"scale": (0.08, 0.5)},
    )
    share = (crops.height * crops.width / 1e8).double()
    assert scipy.stats.kstest(share, scipy.stats.uniform(0.08, 0.42).cdf).pvalue > 1e-3
    position = ((crops.width / crops.height).log() / np.log(4 / 3)).double()
    assert scipy.stats.kstest(position, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(share, position)[0, 1]) < 0.03


def test_every_place_of_a_crop_is_equally_likely():
    crops = drawn(20_000, height=8, width=8, scale=(0.25, 0.25), ratio=(1, 1))
    assert (crops[:, 2:] == 4).all()
    counts = np.bincount((crops[:, 0] * 5 + crops[:, 1]).astype(int), minlength=25)
    assert counts.size == 25
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ("sides", "ratio", "expected"),
    [
        ((10, 20), (1, 1), (0, 5, 10, 10)),
        ((20, 10), (1, 1), (5, 0, 10, 10)),
        ((10, 20), (2.5, 3.0), (1, 0, 8, 20)),
        ((10, 20), (0.5, 1.5), (0, 2, 10, 15)),
        ((1, 5), (0.1, 0.2), (0, 2, 1, 1)),
        ((5, 1), (4.0, 9.0), (2, 0, 1, 1)),
    ],
)
def test_where_nothing_fits_the_centre_is_taken(sides, ratio, expected):
    crops = drawn(5, height=sides[0], width=sides[1], scale=(1, 1), ratio=ratio)
    assert (crops == expected).all()


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    lowest=st.floats(0.01, 1),
    ratio=st.floats(0.05, 20),
    seed=st.integers(0, 2**31),
)
def test_crops_lie_inside_their_image(height, width, lowest, ratio, seed):
    options = {"scale": (lowest, 1.0), "ratio": (min(ratio, 1), max(ratio, 1))}
    top, left, h, w = drawn(50, seed=seed, height=height, width=width, **options).T
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize("sides", [(32, 32), (9, 14), (14, 9), (1, 1), (1, 5)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_resizing_equals_its_slow_twin(sides, channels):
    x = 255 * torch.rand(40, channels, *sides, generator=seeded())
    crops = draw_crops(x, seeded(1), **SIMCLR)
    flipped = (torch.rand(40, generator=seeded(2)) < 0.5).float()
    fast = resize(x, places(crops, height=sides[0], width=sides[1], flipped=flipped))
    for i, (top, left, height, width) in enumerate(torch.stack(crops, 1).int().tolist()):
        box = {"top": top, "left": left, "height": height, "width": width}
        expected = slow.crop(x[i], **box, flipped=bool(flipped[i]))
        torch.testing.assert_close(fast[i], expected, atol=1e-3, rtol=0)
        smoothed = F.interpolate(  # nothing is sampled down, so that antialiasing changes nothing
            x[i : i + 1, :, top : top + height, left : left + width],
            size=sides,
            mode="bilinear",
            antialias=True,
        )[0]
        if flipped[i]:
            smoothed = smoothed.flip(2)
        torch.testing.assert_close(fast[i], smoothed, atol=1e-2, rtol=0)


def test_a_crop_of_everything_is_the_image_to_the_bit():
    x = 255 * torch.rand(3, 3, 7, 9, generator=seeded())
    whole = Crops(torch.zeros(3), torch.zeros(3), torch.full((3,), 7.0), torch.full((3,), 9.0))
    assert torch.equal(resize(x, places(whole, height=7, width=9)), x)
    flipped = torch.tensor([0.0, 1.0, 0.0])
    mirrored = resize(x, places(whole, height=7, width=9, flipped=flipped))
    assert torch.equal(mirrored[1], x[1].flip(2))
    assert torch.equal(mirrored[::2], x[::2])


def test_nothing_outside_of_a_crop_is_read():
    x = torch.full((1, 1, 8, 8), 1e9)
    x[..., 2:5, 3:6] = 1.0
    crops = Crops(*torch.tensor([[2.0], [3.0], [3.0], [3.0]]))
    torch.testing.assert_close(resize(x, places(crops, height=8, width=8)), torch.ones(1, 1, 8, 8))
