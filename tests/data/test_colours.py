import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import image_views as slow
from secateurs.data.colours import (
    CONTRAST,
    HUE,
    SATURATION,
    Jitter,
    blends,
    draw_jitter,
    luma,
    mix,
    recolour,
    turn_hue,
)

RANGES = [(0.2, 1.8)] * 3 + [(-0.2, 0.2)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n, *, channels=3, height=4, width=5, seed=0):
    return torch.randint(256, (n, channels, height, width), generator=seeded(seed)).float()


def only(kind, factors):
    """Return the jitter that changes one thing."""
    idle = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(len(factors), 1)
    idle[:, kind] = factors
    return Jitter(idle, torch.arange(4).expand(len(factors), 4), torch.ones(len(factors)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_jitter_equals_its_slow_twin(channels, seed):
    x = photos(150, channels=channels, seed=seed)
    ranges = [*RANGES[:3], (-0.5, 0.5)] if channels == 3 else [*RANGES[:2], (1, 1), (0, 0)]
    jitter = draw_jitter(x, seeded(seed), ranges=ranges, p=0.8)
    assert len({tuple(order) for order in jitter.order.tolist()}) == 24
    assert 0 < jitter.applied.sum() < 150
    fast = recolour(x, blends(jitter))
    for i, (factors, order, applied) in enumerate(zip(*jitter, strict=True)):
        expected = slow.jitter(
            x[i], factors=factors.tolist(), order=order.tolist(), applied=bool(applied)
        )
        torch.testing.assert_close(fast[i], expected, atol=0.02, rtol=0)


def test_the_order_matters_and_is_each_images_own():
    x = photos(1).expand(24, -1, -1, -1)
    jitter = draw_jitter(x, seeded(), ranges=RANGES, p=1)
    factors = torch.tensor([1.6, 0.5, 1.7, 0.2]).expand(24, 4)
    orders = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]).repeat(12, 1)
    out = recolour(x, blends(jitter._replace(factors=factors, order=orders)))
    assert torch.equal(out[::2], out[:1].expand(12, -1, -1, -1))
    assert torch.equal(out[1::2], out[1:2].expand(12, -1, -1, -1))
    assert (out[0] - out[1]).abs().max() > 1


@pytest.mark.parametrize("kind", range(4))
def test_factors_are_uniform_in_their_ranges(kind):
    factors = draw_jitter(photos(20_000, height=1, width=1), seeded(), ranges=RANGES, p=1).factors
    low, high = RANGES[kind]
    values = factors[:, kind].double()
    assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3
    others = np.corrcoef(factors.T.double())[kind]
    assert (np.abs(np.delete(others, kind)) < 0.03).all()
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.03  # neighbours


def test_all_24_orders_are_equally_likely_whatever_the_factors():
    jitter = draw_jitter(photos(24_000, height=1, width=1), seeded(), ranges=RANGES, p=1)
    code = (jitter.order * torch.tensor([64, 16, 4, 1])).sum(1)
    _, index, counts = code.unique(return_inverse=True, return_counts=True)
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    bright = jitter.factors[:, 0] > 1
    table = np.stack([index[bright].bincount(), index[~bright].bincount()])
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("p", [0.0, 0.2, 0.8, 1.0])
def test_the_share_that_is_changed_is_p(p):
    applied = draw_jitter(photos(10_000, height=1, width=1), seeded(), ranges=RANGES, p=p).applied
    assert scipy.stats.binomtest(int(applied.sum()), 10_000, p).pvalue > 1e-3


def test_images_that_are_not_changed_stay_to_the_bit():
    x = 255 * torch.rand(100, 3, 4, 4, generator=seeded())
    jitter = draw_jitter(x, seeded(), ranges=RANGES, p=0.5)
    out = recolour(x, blends(jitter))
    same = (out == x).flatten(1).all(1)
    assert torch.equal(same, jitter.applied == 0)


@pytest.mark.parametrize("kind", range(3))
def test_idle_factors_change_nothing_to_the_bit(kind):
    x = 255 * torch.rand(9, 1, 4, 4, generator=seeded())  # grey: no hue to turn
    assert torch.equal(recolour(x, blends(only(kind, torch.ones(9)))), x)


def test_mix_takes_each_image_from_one_side():
    x, y = photos(4), photos(4, seed=1) + 0.1
    out = mix(x, y, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert torch.equal(out, torch.stack([x[0], y[1], y[2], x[3]]))


# --- limits of each -----------------------------------------------------------------------------


def test_contrast_0_is_the_mean_grey_and_saturation_0_the_grey_image():
    x = photos(5)
    flat = recolour(x, blends(only(CONTRAST, torch.zeros(5))))
    expected = luma(x).mean((1, 2)).view(5, 1, 1, 1).expand_as(x)
    torch.testing.assert_close(flat, expected, atol=1e-3, rtol=0)
    unsaturated = recolour(x, blends(only(SATURATION, torch.zeros(5))))
    torch.testing.assert_close(unsaturated, luma(x)[:, None].expand_as(x), atol=1e-3, rtol=0)


def test_a_third_of_the_circle_moves_red_to_green_to_blue():
    x = photos(6, height=16, width=16)
    third = torch.full((6,), 1 / 3)
    torch.testing.assert_close(turn_hue(x, third), x.roll(1, 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(turn_hue(x, -third), x.roll(-1, 1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("turn", [0.0, 1.0, -1.0])
def test_no_turn_and_a_whole_one_change_nothing(turn):
    x = photos(6, height=16, width=16)
    out = turn_hue(x, torch.full((6,), turn))
    torch.testing.assert_close(out, x, atol=1e-3, rtol=0)


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-20, 1e-3, 1.0, 255.0]))
def test_turns_of_the_hue_keep_the_least_and_the_most_channel_and_add_up(seed, scale):
    x = scale * torch.rand(8, 3, 4, 4, generator=seeded(seed))
    one, two = torch.rand(2, 8, generator=seeded(seed + 1)) - 0.5
    out = turn_hue(x, one)
    assert torch.equal(out.amin(1), x.amin(1))
    assert torch.equal(out.amax(1), x.amax(1))
    both = turn_hue(out, two)
    torch.testing.assert_close(both, turn_hue(x, one + two), atol=scale * 1e-4, rtol=0)


def test_grey_pixels_have_no_hue_to_turn_and_ties_are_no_matter():
    grey = torch.arange(256.0).view(1, 1, 16, 16).expand(3, 3, 16, 16)
    assert torch.equal(turn_hue(grey, torch.tensor([0.1, 0.5, -0.3])), grey)
    levels = torch.tensor([0.0, 100.0, 255.0])
    x = torch.cartesian_prod(levels, levels, levels).view(27, 3, 1, 1)
    out = turn_hue(x, torch.full((27,), 0.15))
    expected = torch.stack([slow.hue(image, 0.15) for image in x])
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=0)


@given(seed=st.integers(0, 2**31), channels=st.sampled_from([1, 3]))
def test_colours_stay_in_0_to_255(seed, channels):
    x = photos(16, channels=channels, seed=seed)
    out = recolour(x, blends(draw_jitter(x, seeded(seed), ranges=[(0, 3)] * 3 + [(-1, 1)], p=1)))
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 255


# --- against kornia -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kornia():
    return pytest.importorskip("kornia", reason="kornia comes with [dev]")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (0, "adjust_brightness_accumulative"),
        (CONTRAST, "adjust_contrast_with_mean_subtraction"),
        (SATURATION, "adjust_saturation_with_gray_subtraction"),
        (HUE, "adjust_hue"),
    ],
)
def test_each_step_equals_kornias_of_the_same_meaning(kornia, kind, name):
    x = photos(30, height=16, width=16)
    factors = torch.linspace(-0.5, 0.5, 30) if kind == HUE else torch.linspace(0, 2, 30)
    ours = recolour(x, blends(only(kind, factors)))
    theirs_factor = 2 * torch.pi * factors if kind == HUE else factors
    theirs = getattr(kornia.enhance, name)(x / 255, theirs_factor) * 255
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)


def test_grey_equals_kornias(kornia):
    x = photos(30)
    expected = 255 * kornia.color.rgb_to_grayscale(x / 255)
    torch.testing.assert_close(luma(x)[:, None], expected, atol=1e-3, rtol=0)
