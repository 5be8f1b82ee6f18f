"""Lazy or rich: how far did the weights move, and is the mask more than that of the start?

Magnitude pruning finds structure only if training was rich (method, section 5). In lazy training
the weights hardly move and the mask is the mask of the initial weights.
"""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from secateurs import masks
from secateurs.masks import Mask

__all__ = ["start_mask_overlap", "weight_movement"]


def weight_movement(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], names: Iterable[str]
) -> float:
    """Return |end - start| / |start| over the named weights together.

    With PIS pass the *scaled* start: what the search began from.

    >>> import torch
    >>> one, two = {"w": torch.ones(4)}, {"w": torch.full((4,), 1.5)}
    >>> weight_movement(one, two, ["w"])
    0.5
    """
    names = list(names)
    moved = sum(float((end[name] - start[name]).double().square().sum()) for name in names)
    size = sum(float(start[name].double().square().sum()) for name in names)
    return math.sqrt(moved / size)


def start_mask_overlap(start: Mapping[str, Tensor], mask: Mask) -> float:
    """Return the IoU of `mask` with the mask of the largest initial weights, layer by layer.

    The reference keeps in each layer as many weights as `mask` does, by |start|. Lazy searches
    come near 1; independent masks of density d come near d / (2 - d).

    >>> import torch
    >>> start = {"w": torch.tensor([3.0, -2.0, 1.0, 0.0])}
    >>> start_mask_overlap(start, {"w": torch.tensor([True, True, False, False])})
    1.0
    """
    reference: Mask = {}
    for name, kept in mask.items():
        share = {name: start[name].abs()}
        density = int(kept.sum()) / kept.numel()
        reference |= masks.keep_top(share, density) if density else {name: kept}
    return masks.iou(reference, mask)
