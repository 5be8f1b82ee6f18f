"""Crops of images: what is drawn for each image, and the parts resized to the images' sides.

Nothing waits for the device: no count or index depends on what was drawn. Images are float32,
[rows, channels, height, width].
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Crops", "Places", "draw_crops", "places", "resize"]

_TRIES = 10
"""Crops that are drawn for an image before its centre is taken, as in torchvision."""


class Crops(NamedTuple):
    """The first row and column and the sides of each image's crop: whole pixels, [rows] float32."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def _central(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return the sides of the largest crop of an allowed ratio."""
    if width / height < ratio[0]:
        return max(round(width / ratio[0]), 1), width
    if width / height > ratio[1]:
        return height, max(round(height * ratio[1]), 1)
    return height, width


def draw_crops(
    x: Tensor,
    generator: torch.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Crops:
    """Return torchvision's random crops: of 10 tries the first that fits, else the centre.

    The area's share is uniform in scale, width over height log-uniform in ratio, the place uniform.
    All tries of all rows are drawn at once, so that no draw depends on which of them fit.

    Args:
        x: [rows, channels, height, width] images, for their sides and device.
        generator: of the draws.
        scale: lowest and highest share of the area, in (0, 1].
        ratio: lowest and highest width over height, positive.

    >>> crops = draw_crops(torch.zeros(1, 3, 4, 8), torch.Generator(), scale=(1, 1), ratio=(1, 1))
    >>> [int(one) for one in crops]  # no square has the whole area
    [0, 2, 4, 4]
    """
    rows, _, full_height, full_width = x.shape
    u, v = torch.rand(2, _TRIES, rows, generator=generator, device=x.device)
    area = full_height * full_width * (scale[0] + (scale[1] - scale[0]) * u)
    lowest, highest = map(math.log, ratio)
    aspect = (lowest + (highest - lowest) * v).exp()
    heights, widths = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (heights > 0) & (heights <= full_height) & (widths > 0) & (widths <= full_width)
    first = F.pad(fits.byte(), (0, 0, 0, 1), value=1).argmax(0, keepdim=True)
    height, width = (
        F.pad(tried, (0, 0, 0, 1), value=side).gather(0, first)[0]
        for tried, side in zip(
            (heights, widths), _central(full_height, full_width, ratio), strict=True
        )
    )
    room = torch.stack([full_height - height, full_width - width])
    u = torch.rand(2, rows, generator=generator, device=x.device)
    drawn = (u * (room + 1)).floor().minimum(room)  # u * n can round up to n
    top, left = torch.where(first[0] == _TRIES, (room / 2).floor(), drawn)
    return Crops(top, left, height, width)


class Places(NamedTuple):
    """Where in its image each row and column of a view is read: [rows, height], [rows, width]."""

    down: Tensor
    across: Tensor


def places(crops: Crops, *, height: int, width: int, flipped: Tensor | None = None) -> Places:
    """Return what resizes crops to height x width, as `F.interpolate` does without aligned corners.

    Args:
        crops: of each image.
        height: of the images.
        width: of the images.
        flipped: [rows] 1.0 for the images that are also mirrored, left to right.

    >>> crops = Crops(*torch.tensor([[1.0], [0.0], [2.0], [2.0]]))
    >>> places(crops, height=4, width=2, flipped=torch.ones(1))
    Places(down=tensor([[1.0000, 1.2500, 1.7500, 2.0000]]), across=tensor([[1., 0.]]))
    """

    def along(start: Tensor, size: Tensor, full: int, turned: Tensor | None) -> Tensor:
        at = torch.arange(full, device=start.device, dtype=torch.float32).expand(len(start), full)
        if turned is not None:
            at = torch.lerp(at, full - 1 - at, turned[:, None])
        at = (at + 0.5) * (size[:, None] / full) - 0.5
        # As in a crop that is cut out first: its border pixels go on, nothing outside is read.
        return start[:, None] + at.clamp_min_(0).minimum(size[:, None] - 1)

    return Places(
        along(crops.top, crops.height, height, None),
        along(crops.left, crops.width, width, flipped),
    )


def _interpolation(at: Tensor) -> Tensor:
    """Return [rows, to, from] bilinear weights."""
    pixels = torch.arange(at.shape[1], device=at.device)
    return torch.rsub((at[:, :, None] - pixels).abs_(), 1).clamp_min_(0)


def resize(x: Tensor, at: Places) -> Tensor:
    """Return the images, read bilinearly at their places: two products with small matrices.

    Args:
        x: [rows, channels, height, width] images.
        at: of each image.

    >>> at = Places(torch.tensor([[0.0]]), torch.tensor([[0.25, 1.0]]))
    >>> resize(torch.tensor([[[[10.0, 20.0]]]]), at)
    tensor([[[[12.5000, 20.0000]]]])
    """
    rows, channels, height, width = x.shape
    x = torch.bmm(x.reshape(rows, channels * height, width), _interpolation(at.across).mT)
    return _interpolation(at.down)[:, None] @ x.view(rows, channels, height, width)
