"""Lazy or rich: how far did the weights move, and is the mask more than that of the start?

Magnitude pruning finds structure only if training was rich (method, section 5). In lazy training
the weights hardly move and the mask is the mask of the initial weights.
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from secateurs import masks
from secateurs.errors import InputError
from secateurs.masks import Mask

__all__ = [
    "HISTOGRAM_EDGES",
    "OVERLAP_DENSITY",
    "largest_overlap",
    "log_spaced",
    "movement_by_layer",
    "start_mask_overlap",
    "weight_histogram",
    "weight_movement",
]

HISTOGRAM_EDGES = tuple(10 ** (i / 10) for i in range(-50, 11))
"""Edges of the bins of `weight_histogram`: ten a decade from 1e-5 to 10."""

OVERLAP_DENSITY = 1 / 8
"""Density at which `largest_overlap` compares."""


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


def movement_by_layer(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    names: Iterable[str],
    *,
    mask: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """Return |end - start| / |start| of each named weight, on the weights that its mask keeps.

    Pruned weights count neither as size nor as movement, whatever they hold. A layer that keeps
    nothing moves by 0, and one that leaves a start of zeros by inf.

    Args:
        start: weights by name; with PIS the *scaled* start.
        end: weights by name, after training.
        names: which of them.
        mask: of these weights; names that it lacks count in full. None is no mask.

    Raises:
        InputError: a mask that does not fit, or is not bool.

    >>> import torch
    >>> start, end = {"w": torch.tensor([3.0, 4.0, 9.0])}, {"w": torch.tensor([3.0, 7.0, 0.0])}
    >>> movement_by_layer(start, end, ["w"], mask={"w": torch.tensor([True, True, False])})
    {'w': 0.6}
    """
    names = list(names)
    kept = {name: mask[name] for name in names if mask is not None and name in mask}
    masks.check(start, kept)
    found = {}
    for name in names:
        support = kept[name].to(start[name].device) if name in kept else slice(None)
        from_, to = start[name][support].double(), end[name][support].double()
        moved, size = float((to - from_).norm()), float(from_.norm())
        found[name] = moved / size if size else (math.inf if moved else 0.0)
    return found


def log_spaced(last: int, n: int) -> list[int]:
    """Return n distinct steps from 0 to `last`: every step at first, then equal ratios.

    The checkpoints of Geiger et al. 2020: training is fast at first, and lazy and rich differ by
    orders of magnitude in when they end. All steps if there are no more than n.

    Args:
        last: the last step, at least 0.
        n: how many, at least 2.

    Raises:
        InputError: a negative `last`, or fewer than 2 steps.

    >>> log_spaced(1000, 10)
    [0, 1, 2, 5, 12, 29, 70, 170, 412, 1000]
    """
    if last < 0 or n < 2:
        raise InputError(
            f"checkpoints need last >= 0 and n >= 2, got {last} and {n}; both ends are among them"
        )
    if last < n:
        return list(range(last + 1))
    if n == 2:
        return [0, last]
    steps = [0, 1]
    for left in range(n - 2, 0, -1):  # by the ratio that is left, so that none is used up twice
        steps.append(max(steps[-1] + 1, round(steps[-1] * (last / steps[-1]) ** (1 / left))))
    return steps


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


def largest_overlap(
    start: Mapping[str, Tensor], state: Mapping[str, Tensor], names: Iterable[str]
) -> float:
    """Return the overlap with the start of the mask that magnitude would find now, at density 1/8.

    Args:
        start: initial weights by name.
        state: present ones.
        names: which of them.

    >>> import torch
    >>> start, turned = {"w": torch.arange(16.0)}, {"w": torch.arange(16.0).flip(0)}
    >>> largest_overlap(start, start, ["w"]), largest_overlap(start, turned, ["w"])
    (1.0, 0.0)
    """
    top = masks.keep_top(
        {name: state[name].abs() for name in names}, OVERLAP_DENSITY, allow_empty=True
    )
    return start_mask_overlap(start, top)
