"""Masks that change while training, at a constant count: SET and RigL."""

from collections.abc import Mapping

from torch import Tensor

from secateurs.errors import InputError
from secateurs.masks.budgets import n_to_keep
from secateurs.masks.matching import Mask, check_boolean, check_same
from secateurs.masks.selection import check_scores, highest

__all__ = ["rewire"]


def rewire(
    mask: Mapping[str, Tensor],
    *,
    keep: Mapping[str, Tensor],
    grow: Mapping[str, Tensor],
    fraction: float,
) -> Mask:
    """Drop the worst kept weights of each layer and grow as many others.

    Of the k kept weights of a layer, round(fraction * k) with the lowest `keep` scores go, and as
    many come from those that were not kept before, by the highest `grow` scores. (In a layer with
    fewer than that to grow, as few are dropped.) Each layer's count stays exact.

    With |w| as `keep`, random `grow` is SET (Mocanu et al. 2018), which the gradient's size turns
    into RigL (Evci et al. 2020). In a loop: `held.update(rewire(held.mask, ...))`.

    Args:
        mask: the present mask; it is left as it is.
        keep: scores of the kept weights, higher = keep.
        grow: scores of the others, higher = grow.
        fraction: share of the kept weights to replace, in (0, 1].

    Raises:
        InputError: fraction out of range, or scores that are NaN or of other weights.

    >>> import torch
    >>> mask = {"w": torch.tensor([True, True, False, False])}
    >>> keep, grow = {"w": torch.tensor([1, 2, 0, 0])}, {"w": torch.tensor([9, 9, 1, 2])}
    >>> rewire(mask, keep=keep, grow=grow, fraction=0.5)
    {'w': tensor([False,  True, False,  True])}
    """
    check_boolean(mask)
    for scores, word in ((keep, "keep"), (grow, "grow")):
        check_scores(scores)
        check_same(mask, scores, words=("mask", word))
    if not 0 < fraction <= 1:
        raise InputError(
            f"fraction must be in (0, 1], got {fraction}; pass the share of kept weights to replace"
        )
    rewired = {}
    for name, kept in mask.items():
        alive = kept.reshape(1, -1)
        n_kept = int(alive.count_nonzero())
        n_moved = min(n_to_keep(fraction, n_kept), alive.numel() - n_kept)
        stay = highest(keep[name].reshape(1, -1).to(kept.device), n_kept - n_moved, alive=alive)
        new = highest(grow[name].reshape(1, -1).to(kept.device), n_moved, alive=~alive)
        rewired[name] = (stay | new).view(kept.shape)
    return rewired
