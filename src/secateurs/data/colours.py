"""Colours of images: jitter, hue and grey, each image by its own parameters.

Nothing waits for the device: no count or index depends on what was drawn. Images are float32 in
0..255, [rows, 1 or 3 channels, height, width].
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "BRIGHTNESS",
    "CONTRAST",
    "HUE",
    "SATURATION",
    "Blends",
    "Jitter",
    "blends",
    "draw_jitter",
    "luma",
    "mix",
    "recolour",
    "turn_hue",
]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def mix(x: Tensor, changed: Tensor, share: Tensor) -> Tensor:
    """Return `changed` for the images whose [rows] share is 1, x for those of 0, to the bit.

    Args:
        x: [rows, channels, height, width] images.
        changed: the same, changed.
        share: [rows] 1.0 or 0.0.

    >>> mix(torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1), torch.tensor([0.0, 1.0])).ravel()
    tensor([0., 1.])
    """
    return torch.lerp(x, changed, share.view(-1, 1, 1, 1))  # several times faster than torch.where


class Jitter(NamedTuple):
    """What each image's colours go through.

    [rows, 4] factors of brightness, contrast and saturation and the turn of the hue (circle = 1);
    [rows, 4] which of them is done first, second, third, last; [rows] 1.0 if any is done.
    """

    factors: Tensor
    order: Tensor
    applied: Tensor


def draw_jitter(
    x: Tensor, generator: torch.Generator, *, ranges: Sequence[tuple[float, float]], p: float
) -> Jitter:
    """Return factors that are uniform in their ranges, in a random order.

    Args:
        x: [rows, ...] images, for their number and device.
        generator: of the draws.
        ranges: lowest and highest of brightness, contrast, saturation and the turn of the hue.
        p: the share of images to which anything is done.

    >>> ranges = [(0.5, 1.5), (1, 1), (1, 1), (0, 0)]
    >>> jitter = draw_jitter(torch.zeros(1, 3, 1, 1), torch.Generator(), ranges=ranges, p=1)
    >>> jitter.order.sort(1).values
    tensor([[0, 1, 2, 3]])
    """
    u = torch.rand(9, len(x), generator=generator, device=x.device)
    factors = [low + (high - low) * one for (low, high), one in zip(ranges, u[:4], strict=True)]
    return Jitter(torch.stack(factors, 1), u[4:8].argsort(0).T, (u[8] < p).float())


class Blends(NamedTuple):
    """`Jitter` as it is carried out: three blends, the turn of the hue, three blends.

    The hue is turned once, all images at the same time. What an image wants before and after it
    are up to three steps each; the others are idle: a weight of 1 on the image itself.

    [rows, 18] weights of the image, of the mean of its grey and of its grey, of each step in turn;
    [rows] turn of the hue; [rows] 1.0 if anything is done.
    """

    weights: Tensor
    turn: Tensor
    applied: Tensor


def blends(jitter: Jitter) -> Blends:
    """Return the steps of every image.

    Args:
        jitter: what is done to each image, and in which order.

    >>> order = torch.tensor([[BRIGHTNESS, HUE, CONTRAST, SATURATION]])
    >>> jitter = Jitter(torch.tensor([[0.5, 0.75, 0.25, 0.1]]), order, torch.ones(1))
    >>> blends(jitter).weights.view(6, 3)[[0, 1, 4, 5]]  # 1 and 2 before the hue are idle, 3 after
    tensor([[0.5000, 0.0000, 0.0000],
            [1.0000, 0.0000, 0.0000],
            [0.7500, 0.2500, 0.0000],
            [0.2500, 0.0000, 0.7500]])
    """
    factors, order, applied = jitter
    turned_at = (order == HUE).byte().argmax(1, keepdim=True)
    place = torch.arange(6, device=order.device)
    early = place < 3
    place = torch.where(early, place, place - 2)
    active = torch.where(early, place < turned_at, place > turned_at)
    kind = order.gather(1, place.expand(len(order), 6))
    factor = torch.where(active, factors.gather(1, kind), 1)
    rest = 1 - factor
    weights = torch.stack([factor, rest * (kind == CONTRAST), rest * (kind == SATURATION)], 2)
    return Blends(weights.flatten(1), factors[:, HUE], applied)


def luma(x: Tensor) -> Tensor:
    """Return [rows, height, width] luma of images (ITU-R BT.601), in new memory.

    Args:
        x: [rows, 1 or 3 channels, height, width] images.

    >>> luma(torch.tensor([100.0, 200.0, 0.0]).view(1, 3, 1, 1))
    tensor([[[147.3000]]])
    """
    if x.shape[1] == 1:
        return x[:, 0].clone()
    red, green, blue = x.unbind(1)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _blend(x: Tensor, weights: tuple[Tensor, ...], out: Tensor | None = None) -> Tensor:
    """Return the images, the means of their grey and their grey, added by weight and clipped."""
    of_image, of_mean, of_grey = weights
    base = luma(x)
    mean = base.mean((1, 2), keepdim=True)
    base.mul_(of_grey).add_(mean.mul_(of_mean))
    return torch.addcmul(base[:, None], x, of_image[..., None], out=out).clamp_(0, 255)


def _hue(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return [rows, height, width] hue in [0, 1], any where there is none, least and most channel.

    The channels are sorted, and what was swapped kept as 0.0 and 1.0: torch.where is ten times
    slower on a CPU. The hue is |offset + (middle - least of green and blue) / 6 (most - least)|,
    with an offset of 0 or -1 where red is most, of -1/3 where green is, of 2/3 where blue is.
    """
    red, green, blue = x.unbind(1)
    swapped = green.clone().lt_(blue)
    high, low = torch.maximum(green, blue), torch.minimum(green, blue)
    of_red = red.clone().ge_(high)
    most, middle = torch.maximum(red, high), torch.minimum(red, high)
    least = torch.minimum(middle, low)
    offset = torch.lerp(swapped - 1 / 3, -swapped, of_red)
    chroma = torch.sub(most, least, out=high).clamp_min_(1e-30)
    return offset.addcdiv_(middle.sub_(low), chroma, value=1 / 6).abs_(), least, most


def turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Return images of 3 channels with their hue turned in HSV, without a branch.

    With m and M the least and the most channel and h the hue (circle = 1), the channels become
    m + (M - m) (2 - 6 d) clipped to m..M, d the distance on the circle from h to 0, 1/3 and 2/3.

    Args:
        x: [rows, 3, height, width] images.
        turn: [rows] shares of the circle.

    >>> red = torch.tensor([200.0, 50.0, 50.0]).view(1, 3, 1, 1)
    >>> turn_hue(red, torch.tensor([0.5])).ravel().round()
    tensor([ 50., 200., 200.])
    """
    hue, least, most = (one[:, None] for one in _hue(x))
    places = torch.arange(3, device=x.device).view(1, 3, 1, 1) / 3
    apart = hue.add_(turn.view(-1, 1, 1, 1)) - places
    apart.sub_(apart.round()).abs_()
    chroma = most - least
    start = torch.add(least, chroma, alpha=2)
    return torch.addcmul(start, chroma, apart, value=-6, out=apart).clamp_(least, most)


def recolour(x: Tensor, steps: Blends) -> Tensor:
    """Return the images after all steps, clipped to 0..255 after each; the others to the bit.

    Args:
        x: [rows, 1 or 3 channels, height, width] images.
        steps: of each image.

    >>> nothing = Blends(torch.zeros(1, 18), torch.zeros(1), torch.zeros(1))
    >>> recolour(torch.full((1, 3, 1, 1), 7.0), nothing).ravel()
    tensor([7., 7., 7.])
    """
    weights = steps.weights[..., None, None].unbind(1)
    out = _blend(x, weights[:3])
    for i in (3, 6):
        _blend(out, weights[i : i + 3], out=out)
    if x.shape[1] == 3:
        out = turn_hue(out, steps.turn)
    for i in (9, 12, 15):
        _blend(out, weights[i : i + 3], out=out)
    return mix(x, out, steps.applied)
