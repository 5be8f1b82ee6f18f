"""Views of images, one image and one pixel at a time: torchvision's definitions, plainly."""

import colorsys
import math

import torch
import torch.nn.functional as F


def crop_of(height, width, *, scale, ratio, uniforms, places):
    """Return (top, left, height, width) as torchvision's RandomResizedCrop chooses it.

    `uniforms` are pairs for the tries, of area and ratio, `places` those of the row and column.
    """
    for u, v in uniforms:
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u)
        aspect = math.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * v)
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(places[0] * (height - h + 1)), int(places[1] * (width - w + 1)), h, w
    if width / height < ratio[0]:
        h, w = round(width / ratio[0]), width
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


def crop(image, *, top, left, height, width, flipped=False):
    """Cut out, resize to the old size, mirror."""
    part = image[None, :, top : top + height, left : left + width]
    out = F.interpolate(part, size=image.shape[1:], mode="bilinear", align_corners=False)[0]
    return out.flip(2) if flipped else out


def grey(image):
    if len(image) == 1:
        return image
    return (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])[None]


def brightness(image, factor):
    return (image * factor).clamp(0, 255)


def contrast(image, factor):
    return (factor * image + (1 - factor) * grey(image).mean()).clamp(0, 255)


def saturation(image, factor):
    return (factor * image + (1 - factor) * grey(image)).clamp(0, 255)


def hue(image, turn):
    if len(image) == 1:
        return image
    out = torch.empty_like(image)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            h, s, v = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
            out[:, row, column] = torch.tensor(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
    return out.clamp(0, 255)


STEPS = (brightness, contrast, saturation, hue)


def jitter(image, *, factors, order, applied=True):
    """Apply the four in the order given."""
    if applied:
        for kind in order:
            image = STEPS[kind](image, factors[kind])
    return image
