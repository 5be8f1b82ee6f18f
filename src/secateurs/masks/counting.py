"""How much a mask keeps, and how much two masks share."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateurs.masks.matching import Mask, check_same

__all__ = ["count", "density", "iou", "kept_per_layer", "ones", "report"]


def ones(weights: Mapping[str, Tensor]) -> Mask:
    """Return the mask that keeps everything, shaped like `weights`.

    >>> ones({"w": torch.zeros(2)})
    {'w': tensor([True, True])}
    """
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def count(mask: Mapping[str, Tensor]) -> int:
    """Return the number of kept weights.

    >>> count({"w": torch.tensor([True, False]), "v": torch.tensor([True])})
    2
    """
    return sum(int(kept.count_nonzero()) for kept in mask.values())


def density(mask: Mapping[str, Tensor]) -> float:
    """Return the kept fraction of the masked weights, of which there is at least one.

    >>> density({"w": torch.tensor([True, False, False, False])})
    0.25
    """
    return count(mask) / sum(kept.numel() for kept in mask.values())


def kept_per_layer(mask: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of kept weights of each layer.

    >>> kept_per_layer({"w": torch.tensor([True, False]), "v": torch.tensor([True])})
    {'w': 1, 'v': 1}
    """
    return {name: int(kept.count_nonzero()) for name, kept in mask.items()}


def report(mask: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return a row for each layer and the total last: layer, shape, kept, total, density.

    The total has no shape (None). `pandas.DataFrame(report(mask))` prints it as a table.

    >>> for row in report({"w": torch.tensor([[True, False]])}):
    ...     print(*row.values())
    w (1, 2) 1 2 0.5
    total None 1 2 0.5
    """
    sizes = [(name, tuple(k.shape), int(k.count_nonzero()), k.numel()) for name, k in mask.items()]
    total = ("total", None, sum(row[2] for row in sizes), sum(row[3] for row in sizes))
    return [
        {"layer": name, "shape": shape, "kept": kept, "total": n, "density": kept / n}
        for name, shape, kept, n in [*sizes, total]
    ]


def iou(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the overlap of two masks: kept by both over kept by either, in [0, 1].

    Raises:
        InputError: the masks are of different weights.

    >>> iou({"w": torch.tensor([True, True])}, {"w": torch.tensor([True, False])})
    0.5
    """
    check_same(one, other)
    both = sum(int((one[name] & other[name]).count_nonzero()) for name in one)
    either = sum(int((one[name] | other[name]).count_nonzero()) for name in one)
    return both / either if either else 1.0  # two masks that keep nothing agree
