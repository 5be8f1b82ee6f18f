"""Masks on a live network: its class, the keys of its state and its copies stay as they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from secateurs.masks.matching import check

__all__ = ["applied", "apply_", "check_held"]


@torch.no_grad()
def apply_(network: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Set every pruned weight of `network` to zero, in place.

    Args:
        network: any module, plain or wrapped (compiled, data-parallel, an averaged copy).
        mask: a mask of this network.

    Raises:
        InputError: a mask of another network; lists the names and shapes that differ.

    >>> net = nn.Linear(2, 1)
    >>> apply_(net, {"weight": torch.tensor([[True, False]])})
    >>> net.weight[0, 1].item()
    0.0
    """
    for name, weight in check(network, mask).items():
        weight.masked_fill_(~mask[name].to(weight.device), 0)


@contextmanager
def applied(network: nn.Module, mask: Mapping[str, Tensor]) -> Iterator[None]:
    """Zero the pruned weights inside the block; on leaving they are back, bit for bit.

    What happens to kept weights inside the block stays.

    Args:
        network: any module, plain or wrapped.
        mask: a mask of this network.

    Raises:
        InputError: a mask of another network; lists the names and shapes that differ.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> before = net.weight.clone()
    >>> with applied(net, {"weight": torch.tensor([[True, False]])}):
    ...     print(net.weight[0, 1].item())
    0.0
    >>> torch.equal(net.weight, before)
    True
    """
    weights = check(network, mask)
    # whole copies: picking out the pruned values and putting them back takes ten times as long
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    apply_(network, mask)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                kept = mask[name].to(weight.device)
                weight.copy_(torch.where(kept, weight, before[name].to(weight)))


def check_held(weights: nn.Module | Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> None:
    """Raise unless every pruned weight is exactly zero.

    Momentum, weight decay and snapshots are the usual ways in which pruned weights come back.

    Args:
        weights: a network or its weights by name.
        mask: a mask of them.

    Raises:
        AssertionError: a pruned weight is not zero: a defect of the code, not of the input.
        InputError: a mask of other weights; lists the names and shapes that differ.

    >>> check_held({"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([False, True])})
    """
    for name, weight in check(weights, mask).items():
        alive = int((weight.detach() != 0).logical_and(~mask[name].to(weight.device)).sum())
        if alive:
            raise AssertionError(f"{alive} pruned weights of {name} are not zero")
