"""SimCLR's views of images (Chen et al. 2020, appendix A): crop, flip, colours, each image its own.

They take [rows, channels, height, width] in 0..255, uint8 or float, and return float32 in 0..255.
All draws come from the generator before anything is computed, and nothing waits for the device.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from secateurs.data.colours import Blends, blends, draw_jitter, luma, mix, recolour
from secateurs.data.crops import Places, draw_crops, places, resize
from secateurs.data.views import View
from secateurs.errors import InputError

__all__ = [
    "IMAGE_VIEWS",
    "colour_jitter",
    "grayscale",
    "horizontal_flip",
    "random_resized_crop",
    "simclr",
]

_AT_ONCE = 2**16
"""Values that a CPU works on at a time, the cache's measure. Of whole batches the intermediate
results are so large that glibc gives their memory back each time (benchmarks/bench_views.py)."""


class _Transform(NamedTuple):
    """`draw(x, generator)` returns tensors of [rows, ...]; `apply(x, *drawn)` new float images."""

    draw: Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]
    apply: Callable[..., Tensor]
    of_colours: bool


def _check(x: Tensor, *, of_colours: bool) -> None:
    if x.ndim != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise InputError(
            "a view of images needs [rows, channels, height, width] of uint8 or float, got shape"
            f" {tuple(x.shape)} of {x.dtype}; unflatten or convert the batch"
        )
    if of_colours and x.shape[1] not in (1, 3):
        raise InputError(
            "colours need 1 channel (grey) or 3 (red, green, blue), got"
            f" {x.shape[1]}; keep the colours only, x[:, :3]"
        )


def _view(*transforms: _Transform) -> View:
    """Return the view that draws for all rows, transform by transform, and then applies all."""
    of_colours = any(one.of_colours for one in transforms)

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        _check(x, of_colours=of_colours)
        drawn = [one.draw(x, generator) for one in transforms]

        def apply(rows: slice) -> Tensor:
            part = x[rows].float()
            for one, tensors in zip(transforms, drawn, strict=True):
                part = one.apply(part, *(tensor[rows] for tensor in tensors))
            return part

        n = len(x)
        step = max(_AT_ONCE * n // max(x.numel(), 1), 1) if x.device.type == "cpu" else n
        # Autocast would make bfloat16 of the products that resize.
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            if step >= n:
                return apply(slice(None))
            out = torch.empty(x.shape)
            for first in range(0, n, step):
                rows = slice(first, first + step)
                out[rows] = apply(rows)
            return out

    return view


def _check_p(p: float) -> None:
    if not 0 <= p <= 1:
        raise InputError(f"p must be in [0, 1], got {p}; it is the share of images that change")


def _draw_share(x: Tensor, generator: torch.Generator, *, p: float) -> Tensor:
    """Return [rows] 1.0 with probability p, else 0.0."""
    return (torch.rand(len(x), generator=generator, device=x.device) < p).float()


# --- crop and flip ------------------------------------------------------------------------------


def _crop(
    scale: tuple[float, float], ratio: tuple[float, float], *, flip: float | None = None
) -> _Transform:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise InputError(
            f"scale must be shares of the area, 0 < lowest <= highest <= 1, got {scale};"
            " (0.08, 1.0) is SimCLR's"
        )
    if not 0 < ratio[0] <= ratio[1] < math.inf:
        raise InputError(
            f"ratio must be widths over heights, 0 < lowest <= highest, got {ratio};"
            " (3 / 4, 4 / 3) is SimCLR's"
        )
    if flip is not None:
        _check_p(flip)

    def draw(x: Tensor, generator: torch.Generator) -> Places:
        crops = draw_crops(x, generator, scale=scale, ratio=ratio)
        flipped = None if flip is None else _draw_share(x, generator, p=flip)
        return places(crops, height=x.shape[2], width=x.shape[3], flipped=flipped)

    return _Transform(draw, lambda x, *at: resize(x, Places(*at)), of_colours=False)


def random_resized_crop(
    *, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> View:
    """Return the view that shows a part of each image, resized bilinearly to the image's own size.

    The area's share is uniform in `scale`, width over height log-uniform in `ratio`, the place
    uniform; of 10 tries the first that fits, else the centre (as torchvision has it). A crop is
    never larger than the image and so never sampled down: antialiasing would change nothing.

    Args:
        scale: lowest and highest share of the image's area, in (0, 1].
        ratio: lowest and highest width over height, positive.

    Raises:
        InputError: ranges that are out of range or reversed, or a batch that is not
            [rows, channels, height, width] of uint8 or float.

    >>> x = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    >>> view = random_resized_crop(scale=(0.25, 0.25), ratio=(1, 1))
    >>> view(x, torch.Generator().manual_seed(0))[0, 0, :, 0].diff()
    tensor([1., 2., 1.])
    """
    return _view(_crop(scale, ratio))


def horizontal_flip(*, p: float = 0.5) -> View:
    """Return the view that mirrors each image, left to right, with probability p.

    Args:
        p: the share of images that are mirrored, in [0, 1].

    Raises:
        InputError: p out of range, or a batch that is not [rows, channels, height, width] of uint8
            or float.

    >>> horizontal_flip(p=1)(torch.tensor([[[[1.0, 2.0]]]]), torch.Generator())
    tensor([[[[2., 1.]]]])
    """
    _check_p(p)
    return _view(
        _Transform(
            lambda x, generator: (_draw_share(x, generator, p=p),),
            lambda x, flipped: mix(x, x.flip(3), flipped),
            of_colours=False,
        )
    )


# --- colours ------------------------------------------------------------------------------------


def _jitter(
    brightness: float, contrast: float, saturation: float, hue: float, p: float
) -> _Transform:
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, b in strengths.items():
        if not 0 <= b < math.inf:
            raise InputError(f"{name} must be 0 or more, got {b}; 0 leaves it as it is")
    if not 0 <= hue <= 0.5:
        raise InputError(f"hue must be in [0, 0.5], got {hue}; 0.5 is half the circle")
    _check_p(p)
    ranges = [(max(0.0, 1 - b), 1 + b) for b in strengths.values()] + [(-hue, hue)]
    of_grey = [*ranges[:2], (1.0, 1.0), (0.0, 0.0)]

    def draw(x: Tensor, generator: torch.Generator) -> Blends:
        valid = of_grey if x.shape[1] == 1 else ranges
        return blends(draw_jitter(x, generator, ranges=valid, p=p))

    return _Transform(draw, lambda x, *steps: recolour(x, Blends(*steps)), of_colours=True)


def colour_jitter(
    *,
    brightness: float = 0.8,
    contrast: float = 0.8,
    saturation: float = 0.8,
    hue: float = 0.2,
    p: float = 0.8,
) -> View:
    """Return the view that changes brightness, contrast, saturation and hue in a random order.

    Factors are uniform in [max(0, 1 - b), 1 + b], the turn of the hue uniform in [-hue, hue] of the
    circle (HSV); each image draws its own, and its own order of the four; every step is clipped to
    0..255. Brightness blends with black, contrast with the mean of the grey image, saturation
    with the grey image (torchvision's ColorJitter). Grey images have neither saturation nor hue.

    Args:
        brightness: b of the brightness, 0 or more.
        contrast: b of the contrast, 0 or more.
        saturation: b of the saturation, 0 or more.
        hue: the largest turn, in [0, 0.5].
        p: the share of images that are changed, in [0, 1].

    Raises:
        InputError: strengths or p out of range, or a batch that is not [rows, 1 or 3 channels,
            height, width] of uint8 or float.

    >>> view = colour_jitter(brightness=0.5, contrast=0, saturation=0, hue=0, p=1)
    >>> factors = view(torch.ones(99, 3, 2, 2), torch.Generator().manual_seed(0))[:, 0, 0, 0]
    >>> bool(factors.min() > 0.5), bool(factors.max() < 1.5), len(factors.unique())
    (True, True, 99)
    """
    return _view(_jitter(brightness, contrast, saturation, hue, p))


def _grayscale(p: float) -> _Transform:
    _check_p(p)
    return _Transform(
        lambda x, generator: (_draw_share(x, generator, p=p),),
        lambda x, share: mix(x, luma(x)[:, None].expand_as(x), share),
        of_colours=True,
    )


def grayscale(*, p: float = 0.2) -> View:
    """Return the view that makes each image grey, in all its channels, with probability p.

    Args:
        p: the share of images that become grey, in [0, 1].

    Raises:
        InputError: p out of range, or a batch that is not [rows, 1 or 3 channels, height, width]
            of uint8 or float.

    >>> x = torch.tensor([100.0, 200.0, 0.0]).view(1, 3, 1, 1)
    >>> grayscale(p=1)(x, torch.Generator()).ravel()
    tensor([147.3000, 147.3000, 147.3000])
    """
    return _view(_grayscale(p))


def simclr(
    *,
    strength: float = 1.0,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    jitter: float = 0.8,
    grey: float = 0.2,
) -> View:
    """Return SimCLR's view: crop, flip, colour jitter, grayscale (Chen et al. 2020, appendix A).

    No blur: they leave it out for CIFAR too.

    Args:
        strength: s of the colours; brightness, contrast and saturation by 0.8 s, hue by 0.2 s.
        scale: lowest and highest share of the area that a crop shows.
        ratio: lowest and highest width over height of a crop.
        flip: the share of images that are mirrored.
        jitter: the share of images whose colours change.
        grey: the share of images that become grey.

    Raises:
        InputError: anything out of range, or a batch that is not [rows, 1 or 3 channels, height,
            width] of uint8 or float.

    >>> x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    >>> simclr()(x, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 32, 32])
    """
    if not 0 <= strength <= 2.5:
        raise InputError(
            f"strength must be in [0, 2.5], got {strength}; it is s, 1 for ImageNet, 0.5 for CIFAR"
        )
    s = 0.8 * strength
    return _view(
        _crop(scale, ratio, flip=flip),
        _jitter(s, s, s, 0.2 * strength, jitter),
        _grayscale(grey),
    )


IMAGE_VIEWS: dict[str, Callable[[], View]] = {
    "simclr": simclr,
    "crop": random_resized_crop,
    "flip": lambda: horizontal_flip(p=1),
    "colour": lambda: colour_jitter(p=1),
    "grayscale": lambda: grayscale(p=1),
}
"""SimCLR's view, and each transform alone: these change every image, for the consistency of each g
(a p of SimCLR's would count images that nothing was done to)."""
