"""Lazy or rich: how far did the weights move, and is the mask more than that of the start?

Magnitude pruning finds structure only if training was rich (method, section 5). In lazy training
the weights hardly move and the mask is the mask of the initial weights.
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from secateurs import masks
from secateurs.masks import Mask

__all__ = ["HISTOGRAM_EDGES", "start_mask_overlap", "weight_histogram", "weight_movement"]

HISTOGRAM_EDGES = tuple(10 ** (i / 10) for i in range(-50, 11))
"""Edges of the bins of `weight_histogram`: ten a decade from 1e-5 to 10."""


def weight_histogram(weights: Iterable[Tensor]) -> list[int]:
    """Return how many weights have |w| in each bin of `HISTOGRAM_EDGES` (figure 3).

    Smaller ones, zeros included, count in the first bin, larger ones in the last.

    >>> counts = weight_histogram([torch.tensor([0.0, 1.05, -1.05])])
    >>> counts[0], counts[50], sum(counts)
    (1, 2, 3)
    """
    exponents = torch.cat([w.detach().flatten() for w in weights]).abs().log10()
    places = ((exponents + 5) * 10).floor().clamp(0, len(HISTOGRAM_EDGES) - 2)
    counted: list[int] = torch.bincount(places.long(), minlength=len(HISTOGRAM_EDGES) - 1).tolist()
    return counted


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
    return masks.iou(masks.top_like({name: start[name].abs() for name in mask}, mask), mask)
