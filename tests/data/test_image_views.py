import functools

import pytest
import scipy.stats
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from secateurs.data import image_views
from secateurs.data.image_views import (
    IMAGE_VIEWS,
    colour_jitter,
    grayscale,
    horizontal_flip,
    random_resized_crop,
    simclr,
)
from secateurs.data.views import compose
from secateurs.errors import InputError

ALL = pytest.mark.parametrize("name", IMAGE_VIEWS)
HALVES = {"flip": horizontal_flip, "grayscale": grayscale}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n, *, channels=3, height=32, width=32, seed=0):
    shape = (n, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=seeded(seed))


@ALL
def test_every_image_of_a_batch_draws_its_own(name):
    """One parameter set for a whole batch is wrong."""
    x = photos(1).expand(60, -1, -1, -1)
    if name in HALVES:  # one of two results each
        changed = (HALVES[name](p=0.5)(x, seeded()) != x).flatten(1).any(1)
        assert scipy.stats.binomtest(int(changed.sum()), 60).pvalue > 1e-3
        switches = int((changed[1:] != changed[:-1]).sum())
        assert scipy.stats.binomtest(switches, 59).pvalue > 1e-3
    else:
        assert len(IMAGE_VIEWS[name]()(x, seeded()).flatten(1).unique(dim=0)) == 60


def test_simclr_is_crop_flip_colours_and_grey_one_after_the_other():
    x = photos(200)
    parts = compose(random_resized_crop(), horizontal_flip(), colour_jitter(), grayscale())
    torch.testing.assert_close(simclr()(x, seeded(1)), parts(x, seeded(1)), atol=0.02, rtol=0)


def test_strength_scales_the_colours():
    x = photos(50)
    ours = simclr(strength=0.5, scale=(1, 1), ratio=(1, 1), flip=0, grey=0)(x, seeded(3))
    generator = seeded(3)
    for shape in [(2, 10, 50), (2, 50), (50,)]:  # the crop's and the flip's draws
        torch.rand(*shape, generator=generator)
    jitter = colour_jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    torch.testing.assert_close(ours, jitter(x, generator), atol=0.02, rtol=0)


def test_shares_of_0_and_whole_crops_change_nothing():
    x = photos(20, height=5, width=7)
    view = simclr(scale=(1, 1), ratio=(7 / 5, 7 / 5), flip=0, jitter=0, grey=0)
    for nothing in (view, horizontal_flip(p=0), colour_jitter(p=0), grayscale(p=0)):
        assert torch.equal(nothing(x, seeded()), x.float())
    still = colour_jitter(brightness=0, contrast=0, saturation=0, hue=0, p=1)
    torch.testing.assert_close(still(x, seeded()), x.float(), atol=1e-3, rtol=0)


def test_the_single_transforms_of_the_table_change_every_image():
    assert list(IMAGE_VIEWS) == ["simclr", "crop", "flip", "colour", "grayscale"]
    x = photos(300)
    assert torch.equal(IMAGE_VIEWS["flip"]()(x, seeded()), x.flip(3).float())
    grey = IMAGE_VIEWS["grayscale"]()(x, seeded())
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close(grey[:, 0], (x * weights).sum(1), atol=1e-3, rtol=0)
    assert (IMAGE_VIEWS["colour"]()(x, seeded()) != x).flatten(1).any(1).all()


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("make", [horizontal_flip, colour_jitter, grayscale])
def test_p_is_the_share_that_changes(make, p):
    x = photos(3000, height=2, width=2)
    changed = (make(p=p)(x, seeded()) != x).flatten(1).any(1)
    assert scipy.stats.binomtest(int(changed.sum()), 3000, p).pvalue > 1e-3


def test_parts_of_simclr_are_drawn_apart_from_each_other():
    x = torch.zeros(4000, 3, 1, 2, dtype=torch.uint8)
    x[:, 0, :, 0] = 200  # red on the left
    out = simclr(scale=(1, 1), ratio=(2, 2), jitter=0)(x, seeded())
    flipped, grey = out[:, 0, 0, 1] > 0, out[:, 1].amax((1, 2)) > 0
    table = [[int((flipped & grey).sum()), int((flipped & ~grey).sum())]]
    table.append([int((~flipped & grey).sum()), int((~flipped & ~grey).sum())])
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3
    assert scipy.stats.binomtest(int(flipped.sum()), 4000, 0.5).pvalue > 1e-3
    assert scipy.stats.binomtest(int(grey.sum()), 4000, 0.2).pvalue > 1e-3


# --- what every view keeps ----------------------------------------------------------------------


@ALL
def test_views_leave_their_input_and_draw_from_the_generator_only(name):
    for x in (photos(5), photos(5).float()):
        before, state, view = x.clone(), torch.get_rng_state(), IMAGE_VIEWS[name]()
        one, same, other = (view(x, seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        if name not in HALVES:
            assert not torch.equal(one, other)
        assert torch.equal(x, before)
        assert one.data_ptr() != x.data_ptr()
        assert torch.equal(torch.get_rng_state(), state)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_floats_give_what_bytes_give(name, dtype):
    x = photos(4)
    out = IMAGE_VIEWS[name]()(x.to(dtype), seeded())
    assert out.dtype == torch.float32
    assert torch.equal(out, IMAGE_VIEWS[name]()(x, seeded()))


@ALL
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", [(32, 32), (5, 9), (1, 1)])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_any_number_of_images_of_any_sides(name, channels, sides, n):
    x = photos(n, channels=channels, height=sides[0], width=sides[1])
    out = IMAGE_VIEWS[name]()(x, seeded())
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert ((out >= 0) & (out <= 255 + 1e-3)).all()


@ALL
def test_strides_do_not_matter(name):
    x = photos(6)
    expected = IMAGE_VIEWS[name]()(x, seeded())
    last = x.contiguous(memory_format=torch.channels_last)
    part = torch.cat([x, x], 3)[..., :32]
    for same in (last, part):
        torch.testing.assert_close(IMAGE_VIEWS[name]()(same, seeded()), expected, atol=0.02, rtol=0)


@ALL
def test_pieces_of_a_batch_give_what_the_whole_gives(name, monkeypatch):
    x, view = photos(70), IMAGE_VIEWS[name]()
    in_pieces = view(x, seeded())
    monkeypatch.setattr(image_views, "_AT_ONCE", x.numel())
    assert torch.equal(view(x, seeded()), in_pieces)
    monkeypatch.setattr(image_views, "_AT_ONCE", 1)
    assert torch.equal(view(x, seeded()), in_pieces)


def test_grey_images_have_neither_saturation_nor_hue():
    x = photos(50, channels=1)
    full, less = colour_jitter(p=1), colour_jitter(saturation=0, hue=0, p=1)
    assert torch.equal(full(x, seeded()), less(x, seeded()))
    still = colour_jitter(brightness=0, contrast=0, p=1)
    assert torch.equal(still(x, seeded()), x.float())
    assert torch.equal(grayscale(p=1)(x, seeded()), x.float())


@ALL
def test_autocast_and_gradients_stay_outside(name):
    x = photos(4).float()
    expected = IMAGE_VIEWS[name]()(x, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(IMAGE_VIEWS[name]()(x, seeded()), expected)
    assert not IMAGE_VIEWS[name]()(x.requires_grad_(), seeded()).requires_grad


@ALL
def test_nothing_asks_for_values_of_tensors(name):
    """What a fake tensor cannot answer would wait for a device, and end a CUDA graph's capture."""
    with FakeTensorMode():
        x = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
        with pytest.raises(DataDependentOutputException):
            x.float().mean().item()
        with pytest.raises(DynamicOutputShapeException):
            x.nonzero()
        assert IMAGE_VIEWS[name]()(x, torch.Generator()).shape == x.shape


@pytest.mark.gpu
@ALL
def test_views_run_inside_a_cuda_graph(name):
    view, x = IMAGE_VIEWS[name](), photos(64).cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            view(x, generator)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        out = view(x, generator)
    graph.replay()
    one = out.clone()
    graph.replay()
    assert one.isfinite().all()
    assert torch.equal(one, out) == (name in HALVES)


# --- what is refused ----------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 3072), (1, 2, 3, 4, 4)])
def test_batches_that_are_not_images_are_refused(name, shape):
    with pytest.raises(InputError, match=r"needs \[rows, channels, height, width\] of uint8"):
        IMAGE_VIEWS[name]()(torch.zeros(shape), seeded())


@ALL
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.int8])
def test_other_numbers_are_refused(name, dtype):
    with pytest.raises(InputError, match=f"of uint8 or float, got .* of {dtype}"):
        IMAGE_VIEWS[name]()(torch.zeros(2, 3, 4, 4, dtype=dtype), seeded())


@pytest.mark.parametrize("channels", [2, 4])
def test_colours_need_colours(channels):
    x = photos(2, channels=channels)
    for name in ("simclr", "colour", "grayscale"):
        with pytest.raises(InputError, match=rf"1 channel \(grey\) or 3 .*, got {channels}"):
            IMAGE_VIEWS[name]()(x, seeded())
    for name in ("crop", "flip"):
        assert IMAGE_VIEWS[name]()(x, seeded()).shape == x.shape


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (functools.partial(random_resized_crop, scale=(0, 1)), "scale must be"),
        (functools.partial(random_resized_crop, scale=(0.5, 0.4)), "scale must be"),
        (functools.partial(random_resized_crop, scale=(0.5, 1.1)), "scale must be"),
        (functools.partial(random_resized_crop, scale=(NAN, 1)), "scale must be"),
        (functools.partial(random_resized_crop, ratio=(0, 1)), "ratio must be"),
        (functools.partial(random_resized_crop, ratio=(2, 1)), "ratio must be"),
        (functools.partial(random_resized_crop, ratio=(1, float("inf"))), "ratio must be"),
        (functools.partial(horizontal_flip, p=1.5), r"p must be in \[0, 1\], got 1.5"),
        (functools.partial(grayscale, p=-0.1), r"p must be in \[0, 1\], got -0.1"),
        (functools.partial(colour_jitter, p=NAN), r"p must be in \[0, 1\], got nan"),
        (functools.partial(colour_jitter, brightness=-1), "brightness must be 0 or more"),
        (functools.partial(colour_jitter, contrast=NAN), "contrast must be 0 or more"),
        (functools.partial(colour_jitter, saturation=float("inf")), "saturation must be 0 or"),
        (functools.partial(colour_jitter, hue=0.6), r"hue must be in \[0, 0.5\], got 0.6"),
        (functools.partial(simclr, strength=3), r"strength must be in \[0, 2.5\], got 3"),
        (functools.partial(simclr, flip=2), r"p must be in \[0, 1\], got 2"),
        (functools.partial(simclr, grey=2), r"p must be in \[0, 1\], got 2"),
        (functools.partial(simclr, jitter=2), r"p must be in \[0, 1\], got 2"),
        (functools.partial(simclr, scale=(0, 1)), "scale must be"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
