"""Controls: masks and scores from which what should matter has been taken away."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.masks.matching import Mask, Scores, check_boolean

__all__ = ["reverse", "shuffle"]


def _permuted(kept: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(kept.numel(), generator=generator, device=generator.device)
    return kept.flatten()[order.to(kept.device)].view(kept.shape)


def shuffle(
    mask: Mapping[str, Tensor],
    *,
    generator: torch.Generator,
    scope: Literal["layer", "global"] = "layer",
) -> Mask:
    """Permute the kept positions: as many kept, the structure destroyed.

    The control of the lottery papers (Frankle & Carbin 2019). Within layers, whatever a ticket owes
    to *which* weights stayed is gone; over the whole network, what it owes to *how many stayed in
    each layer* is gone too, and a layer may come out empty.

    Args:
        mask: any mask; it is left as it is.
        generator: the only source of randomness.
        scope: "layer" keeps the count of each layer, "global" the total.

    Raises:
        InputError: unknown scope, or a mask that is not bool.

    >>> kept = shuffle({"w": torch.tensor([True, False])}, generator=torch.Generator())["w"]
    >>> int(kept.sum())
    1
    """
    check_boolean(mask)
    if scope not in ("layer", "global"):
        raise InputError(f"scope of a shuffle must be 'layer' or 'global', got {scope!r}")
    if scope == "layer":
        return {name: _permuted(kept, generator) for name, kept in mask.items()}
    flat = _permuted(torch.cat([kept.flatten() for kept in mask.values()]), generator)
    parts = flat.split([kept.numel() for kept in mask.values()])
    return {name: part.view(mask[name].shape) for name, part in zip(mask, parts, strict=True)}


def reverse(scores: Mapping[str, Tensor]) -> Scores:
    """Return negated scores: keep what the criterion would remove first.

    A criterion that says something does worse reversed than at random.

    >>> reverse({"w": torch.tensor([1.0, -2.0])})
    {'w': tensor([-1.,  2.])}
    """
    return {name: -score for name, score in scores.items()}
