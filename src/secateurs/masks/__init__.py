"""Which weights stay: pure functions over masks, `dict[str, BoolTensor]` keyed by parameter name.

Words (method, section 1): *density* is the kept fraction of the prunable weights; a *score* is one
number a weight, higher = keep.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import InputError

__all__ = [
    "Mask",
    "Scores",
    "apply_",
    "check_held",
    "count",
    "density",
    "iou",
    "keep_top",
    "kept_per_layer",
    "n_to_keep",
    "ones",
    "pack",
    "shuffle",
    "top_like",
    "unpack",
]

Mask = dict[str, Tensor]
Scores = dict[str, Tensor]


def ones(weights: Mapping[str, Tensor]) -> Mask:
    """Return the mask that keeps everything, shaped like `weights`.

    >>> ones({"w": torch.zeros(2)})
    {'w': tensor([True, True])}
    """
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def count(mask: Mapping[str, Tensor]) -> int:
    """Return the number of kept weights."""
    return sum(int(kept.sum()) for kept in mask.values())


def density(mask: Mapping[str, Tensor]) -> float:
    """Return the kept fraction of the masked weights, of which there is at least one.

    >>> density({"w": torch.tensor([True, False, False, False])})
    0.25
    """
    return count(mask) / sum(kept.numel() for kept in mask.values())


def kept_per_layer(mask: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of kept weights of each layer."""
    return {name: int(kept.sum()) for name, kept in mask.items()}


def n_to_keep(density: float, n: int) -> int:
    """Return round(density * n), halves upwards: the exact number of weights kept out of n.

    Raises:
        InputError: density is not in (0, 1].
    """
    if not 0 < density <= 1:
        raise InputError(
            f"density must be in (0, 1], got {density:g}; pass a kept fraction, not a percentage"
        )
    return int(density * n + 0.5)


def _best(scores: Tensor, candidates: Tensor, k: int) -> Tensor:
    """Return the positions of the k highest of `scores[candidates]`, ties to the first position."""
    if k == 0:
        return candidates[:0]
    values = scores[candidates]
    threshold = torch.kthvalue(values, values.numel() - k + 1).values
    above = candidates[values > threshold]
    tied = candidates[values == threshold]  # candidates ascend, so the first ties are kept
    return torch.cat([above, tied[: k - above.numel()]])


def keep_top(
    scores: Mapping[str, Tensor],
    density: float,
    *,
    within: Mapping[str, Tensor] | None = None,
    scope: Literal["global", "layer"] = "global",
    min_per_layer: int = 0,
    allow_empty: bool = False,
) -> Mask:
    """Keep the highest scores: exactly round(density * n) of all n weights.

    Ties go to the first position (layers in the order of `scores`, weights in memory order), so
    that equal scores give the same mask on every machine. A weight outside `within` never returns.

    Args:
        scores: one number for each prunable weight, higher = keep.
        density: kept fraction, in (0, 1], of *all* the scored weights, pruned before or not.
        within: an earlier mask; only its kept weights can be kept.
        scope: "global" compares all layers with each other, "layer" each layer with itself.
        min_per_layer: a floor for each layer (or all that it has left), taken first.
        allow_empty: accept a layer that keeps nothing (layer collapse) instead of raising.

    Raises:
        InputError: density out of range, a score that is NaN, more weights asked for than `within`
            has left, floors that need more than the budget, or an empty layer.

    >>> keep_top({"w": torch.tensor([3.0, 1.0, 2.0, 2.0])}, density=0.5)
    {'w': tensor([ True, False,  True, False])}
    """
    if scope not in ("global", "layer"):
        raise InputError(f"scope must be 'global' or 'layer', got {scope!r}")
    if scope == "layer":
        mask: Mask = {}
        for name, score in scores.items():
            part = None if within is None else {name: within[name]}
            mask |= keep_top(
                {name: score},
                density,
                within=part,
                min_per_layer=min_per_layer,
                allow_empty=allow_empty,
            )
        return mask

    names = list(scores)
    flat = torch.cat([scores[name].detach().flatten() for name in names])
    if bool(flat.isnan().any()):
        bad = [name for name in names if bool(scores[name].isnan().any())]
        raise InputError(f"scores must be numbers, got NaN in {', '.join(bad)}")
    k = n_to_keep(density, flat.numel())
    alive = torch.ones_like(flat, dtype=torch.bool)
    if within is not None:
        alive = torch.cat([within[name].flatten() for name in names]).to(flat.device)
    n_alive = int(alive.sum())
    if k > n_alive:
        raise InputError(
            f"density {density:g} asks for {k} weights but only {n_alive} are left in `within`; "
            "pruned weights never return, so pass a lower density"
        )

    kept = torch.zeros_like(alive)
    if min_per_layer > 0:
        offset = 0
        for name in names:
            layer = alive[offset : offset + scores[name].numel()].nonzero().flatten() + offset
            kept[_best(flat, layer, min(min_per_layer, layer.numel()))] = True
            offset += scores[name].numel()
        n_floor = int(kept.sum())
        if n_floor > k:
            raise InputError(
                f"min_per_layer={min_per_layer} needs {n_floor} weights but density {density:g} "
                f"leaves {k}; raise the density or lower min_per_layer"
            )
        k -= n_floor
    kept[_best(flat, (alive & ~kept).nonzero().flatten(), k)] = True

    parts = kept.split([scores[name].numel() for name in names])
    mask = {name: part.view(scores[name].shape) for name, part in zip(names, parts, strict=True)}
    empty = [name for name, n in kept_per_layer(mask).items() if n == 0]
    if empty and not allow_empty:
        raise InputError(
            f"layer collapse: no weight is kept in {', '.join(empty)} at density {density:g}; "
            "raise the density, set min_per_layer, use scope='layer', or pass allow_empty=True"
        )
    return mask


def shuffle(mask: Mapping[str, Tensor], *, generator: torch.Generator) -> Mask:
    """Permute the kept positions within each layer: the same counts, the structure destroyed.

    The control of the lottery papers: whatever a ticket owes to *which* weights stayed is gone.

    >>> kept = shuffle({"w": torch.tensor([True, False])}, generator=torch.Generator())["w"]
    >>> int(kept.sum())
    1
    """
    shuffled = {}
    for name, kept in mask.items():
        order = torch.randperm(kept.numel(), generator=generator, device=generator.device)
        shuffled[name] = kept.flatten()[order.to(kept.device)].view(kept.shape)
    return shuffled


def top_like(scores: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> Mask:
    """Keep the highest scores, in each layer as many as `mask` keeps there.

    With |start| as scores it is the mask of a search that moved nothing.

    >>> top_like({"w": torch.tensor([3.0, 1.0, 2.0])}, {"w": torch.tensor([False, True, False])})
    {'w': tensor([ True, False, False])}
    """
    found: Mask = {}
    for name, kept in mask.items():
        density = int(kept.sum()) / kept.numel()
        found |= keep_top({name: scores[name]}, density) if density else {name: kept}
    return found


def iou(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the overlap of two masks: kept by both over kept by either, in [0, 1].

    >>> iou({"w": torch.tensor([True, True])}, {"w": torch.tensor([True, False])})
    0.5
    """
    both = sum(int((one[name] & other[name]).sum()) for name in one)
    either = sum(int((one[name] | other[name]).sum()) for name in one)
    return both / either if either else 1.0  # two masks that keep nothing agree


@torch.no_grad()
def apply_(network: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Set every pruned weight of `network` to zero, in place."""
    weights = dict(network.named_parameters())
    for name, kept in mask.items():
        weights[name].mul_(kept)


def check_held(weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> None:
    """Raise unless every pruned weight is exactly zero.

    Momentum, weight decay and snapshots are the usual ways in which pruned weights come back.

    Raises:
        AssertionError: a pruned weight is not zero: a defect of the code, not of the input.
    """
    for name, kept in mask.items():
        alive = int((weights[name].detach() != 0).logical_and(~kept).sum())
        if alive:
            raise AssertionError(f"{alive} pruned weights of {name} are not zero")


def pack(mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each mask as bits, eight weights a byte (uint8, little-endian bit order).

    >>> pack({"w": torch.tensor([True, False, True])})
    {'w': tensor([5], dtype=torch.uint8)}
    """
    return {
        name: torch.from_numpy(np.packbits(kept.cpu().numpy().ravel(), bitorder="little"))
        for name, kept in mask.items()
    }


def unpack(packed: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Mask:
    """Undo `pack`.

    Raises:
        InputError: the bits of a layer do not fit its shape.

    >>> unpack({"w": torch.tensor([5], dtype=torch.uint8)}, {"w": (3,)})
    {'w': tensor([ True, False,  True])}
    """
    mask = {}
    for name, shape in shapes.items():
        n = int(np.prod(shape))
        bits = packed[name]
        if bits.dtype != torch.uint8 or bits.shape != ((n + 7) // 8,):
            raise InputError(
                f"the packed mask of {name} must be {(n + 7) // 8} bytes for shape "
                f"{tuple(shape)}, got {tuple(bits.shape)} of {bits.dtype}"
            )
        kept = np.unpackbits(bits.numpy(), count=n, bitorder="little").astype(bool)
        mask[name] = torch.from_numpy(kept).view(shape)
    return mask
