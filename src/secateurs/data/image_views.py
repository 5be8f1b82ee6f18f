"""SimCLR's views of images (Chen et al. 2020, appendix A): crop, flip, colours, each image its own.

They take [rows, channels, height, width] in 0..255, uint8 or float, and return float32 in 0..255.
Every view draws its parameters for all rows first and then applies them; neither waits for the
device, so that a step with views in it can be a CUDA graph.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from secateurs.data.views import View, compose
from secateurs.errors import InputError

__all__ = [
    "IMAGE_VIEWS",
    "colour_jitter",
    "grayscale",
    "horizontal_flip",
    "random_resized_crop",
    "simclr",
]

TRIES = 10
"""Crops that are drawn for an image before its centre is taken, as in torchvision."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def _pixels(x: Tensor, *, colours: bool = False) -> Tensor:
    if x.ndim != 4 or not (x.dtype == torch.uint8 or x.dtype.is_floating_point):
        raise InputError(
            "a view of images needs [rows, channels, height, width] of uint8 or float, got shape"
            f" {tuple(x.shape)} of {x.dtype}; unflatten or convert the batch"
        )
    if colours and x.shape[1] not in (1, 3):
        raise InputError(
            f"colours need 1 (grey) or 3 (red, green, blue) channels, got {x.shape[1]};"
            " drop the alpha channel"
        )
    return x.float()


def _check_share(p: float) -> None:
    if not 0 <= p <= 1:
        raise InputError(f"p must be in [0, 1], got {p}; it is the share of images that change")


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


# --- crop and flip ------------------------------------------------------------------------------


class _Crops(NamedTuple):
    """Whole pixels, [rows] each, float32."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def _centre(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return height and width of the largest crop of an allowed ratio."""
    if width / height < ratio[0]:
        return max(round(width / ratio[0]), 1), width
    if width / height > ratio[1]:
        return height, max(round(height * ratio[1]), 1)
    return height, width


def _draw_crops(
    x: Tensor,
    generator: torch.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> _Crops:
    rows, _, full_height, full_width = x.shape
    u, v = torch.rand(2, TRIES, rows, generator=generator, device=x.device)
    area = full_height * full_width * (scale[0] + (scale[1] - scale[0]) * u)
    lowest, highest = map(math.log, ratio)
    aspect = (lowest + (highest - lowest) * v).exp()
    sides = torch.stack([(area / aspect).sqrt().round(), (area * aspect).sqrt().round()])
    tops, lefts = torch.rand(2, rows, generator=generator, device=x.device)
    fits = (sides[0] <= full_height) & (sides[1] <= full_width) & (sides > 0).all(0)
    # The centre is one try more, which always fits: the first that fits is taken.
    central = _centre(full_height, full_width, ratio)
    fits = F.pad(fits.byte(), (0, 0, 0, 1), value=1)
    first = fits.argmax(0)
    chosen = []
    for tried, centre in zip(sides, central, strict=True):
        with_centre = F.pad(tried, (0, 0, 0, 1), value=float(centre))
        chosen.append(with_centre.gather(0, first[None])[0])
    height, width = chosen

    def start(u: Tensor, full: int, size: Tensor) -> Tensor:
        room = full - size
        drawn = (u * (room + 1)).floor().minimum(room)  # u * n may round up to n
        return torch.where(first == TRIES, (room / 2).floor(), drawn)

    return _Crops(start(tops, full_height, height), start(lefts, full_width, width), height, width)


def _interpolation(start: Tensor, size: Tensor, full: int, flipped: Tensor | None = None) -> Tensor:
    """Return [rows, to, from] bilinear weights that spread a span over the full side."""
    to = torch.arange(full, device=start.device)
    places = to.expand(len(start), full)
    if flipped is not None:
        places = torch.where(flipped[:, None], full - 1 - to, to)
    source = (places + 0.5) * (size[:, None] / full) - 0.5
    # As in a crop that is cut out first: its border pixels go on, nothing outside is read.
    source = start[:, None] + source.clamp_min(0).minimum(size[:, None] - 1)
    return (1 - (source[:, :, None] - to).abs()).clamp_min_(0)


def _resize(x: Tensor, crops: _Crops, flipped: Tensor | None = None) -> Tensor:
    rows, channels, height, width = x.shape
    across = _interpolation(crops.left, crops.width, width, flipped)
    down = _interpolation(crops.top, crops.height, height)
    x = torch.bmm(x.reshape(rows, channels * height, width), across.mT)
    return down[:, None] @ x.view(rows, channels, height, width)


def _check_crop(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise InputError(
            f"scale must be shares of the area, 0 < lowest <= highest <= 1, got {scale}"
        )
    if not 0 < ratio[0] <= ratio[1] < math.inf:
        raise InputError(f"ratio must be widths over heights, 0 < lowest <= highest, got {ratio}")


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
    _check_crop(scale, ratio)

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        x = _pixels(x)
        return _resize(x, _draw_crops(x, generator, scale=scale, ratio=ratio))

    return view


def _draw_share(x: Tensor, generator: torch.Generator, *, p: float) -> Tensor:
    return torch.rand(len(x), generator=generator, device=x.device) < p


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
    _check_share(p)

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        x = _pixels(x)
        flipped = _draw_share(x, generator, p=p)
        return torch.where(_per_image(flipped), x.flip(3), x)

    return view


# --- colours ------------------------------------------------------------------------------------


class _Jitter(NamedTuple):
    """[rows, 4] factors (the hue's is a turn of the circle), [rows, 4] what is done first, second
    ..., [rows] whether anything is done.
    """

    factors: Tensor
    order: Tensor
    applied: Tensor


def _draw_jitter(
    x: Tensor, generator: torch.Generator, *, ranges: list[tuple[float, float]], p: float
) -> _Jitter:
    u = torch.rand(9, len(x), generator=generator, device=x.device)
    factors = [low + (high - low) * one for (low, high), one in zip(ranges, u, strict=False)]
    return _Jitter(torch.stack(factors, 1), u[4:8].argsort(0).T, u[8] < p)


def _grey(x: Tensor) -> Tensor:
    """Return [rows, 1, height, width] luma (ITU-R BT.601)."""
    if x.shape[1] == 1:
        return x
    return 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def _blend(x: Tensor, factors: Tensor, order: Tensor, step: int, active: Tensor) -> Tensor:
    """Return the images after brightness, contrast or saturation: factor * x + (1 - factor) * base.

    The base is black, the mean of the grey image, or the grey image. Images whose `step` is not
    active come out to the bit as they went in.
    """
    kind = torch.where(active, order[:, step], HUE)
    factor = factors.gather(1, kind[:, None])[:, 0]
    factor = torch.where(active, factor, 1)
    grey = _grey(x)
    mean = grey.mean((2, 3), keepdim=True)
    base = mean * _per_image(torch.where(kind == CONTRAST, 1 - factor, 0))
    base = base + grey * _per_image(torch.where(kind == SATURATION, 1 - factor, 0))
    return torch.addcmul(base, x, _per_image(factor)).clamp_(0, 255)


def _turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Return the images with their hue turned by [rows] shares of the circle; HSV, no branches.

    With M and m the largest and smallest channel, a hue of h (circle = 1) has the channels
    m + (M - m) * clamp(2 - 6 |distance on the circle of h and 0, 1/3, 2/3|, 0, 1).
    """
    red, green, blue = x.unbind(1)
    least, most = x.amin(1), x.amax(1)
    chroma = most - least
    scale = 1 / (6 * chroma.clamp_min(1e-30))  # of grey pixels any hue is right
    of_blue = torch.addcmul(turn.view(-1, 1, 1) + 2 / 3, red - green, scale)
    of_green = torch.addcmul(turn.view(-1, 1, 1) + 1 / 3, blue - red, scale)
    of_red = torch.addcmul(turn.view(-1, 1, 1), green - blue, scale)
    hue = torch.where(red == most, of_red, torch.where(green == most, of_green, of_blue))
    places = torch.arange(3, device=x.device).view(1, 3, 1, 1) / 3
    apart = hue[:, None] - places
    apart = (apart - apart.round()).abs()
    return torch.addcmul(least[:, None], chroma[:, None], (2 - 6 * apart).clamp_(0, 1))


def _recolour(x: Tensor, jitter: _Jitter) -> Tensor:
    """Return the images after all four, in each one's own order.

    The hue is turned once, all images at the same time: what an image wants before it and after it
    are three steps each, idle where there is less.
    """
    factors, order, applied = jitter
    if x.shape[1] == 1:
        factors = factors.clone()
        factors[:, SATURATION] = 1
    turned_at = (order == HUE).byte().argmax(1)
    out = x
    for step in range(3):
        out = _blend(out, factors, order, step, turned_at > step)
    if x.shape[1] == 3:
        out = _turn_hue(out, factors[:, HUE])
    for step in range(1, 4):
        out = _blend(out, factors, order, step, turned_at < step)
    return torch.where(_per_image(applied), out, x)


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
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, b in strengths.items():
        if not 0 <= b < math.inf:
            raise InputError(f"{name} must be 0 or more, got {b}; 0 leaves it as it is")
    if not 0 <= hue <= 0.5:
        raise InputError(f"hue must be in [0, 0.5], got {hue}; 0.5 is half the circle")
    _check_share(p)
    ranges = [(max(0.0, 1 - b), 1 + b) for b in strengths.values()] + [(-hue, hue)]

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        x = _pixels(x, colours=True)
        return _recolour(x, _draw_jitter(x, generator, ranges=ranges, p=p))

    return view


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
    _check_share(p)

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        x = _pixels(x, colours=True)
        return torch.where(_per_image(_draw_share(x, generator, p=p)), _grey(x), x)

    return view


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
    return compose(
        random_resized_crop(scale=scale, ratio=ratio),
        horizontal_flip(p=flip),
        colour_jitter(
            brightness=0.8 * strength,
            contrast=0.8 * strength,
            saturation=0.8 * strength,
            hue=0.2 * strength,
            p=jitter,
        ),
        grayscale(p=grey),
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
