"""Which parameter a name means, through wrappers too, and whether a mask fits a network."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from secateurs.errors import InputError

__all__ = ["Mask", "Scores", "check", "check_boolean", "check_same", "owners"]

Mask = dict[str, Tensor]
Scores = dict[str, Tensor]

_WRAPPERS = (
    DataParallel,
    DistributedDataParallel,
    AveragedModel,
)  # all call the inner one `module`
_SHOWN = 4  # a longer list would bury the rule that the error states


def _walk(network: nn.Module, prefix: str) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    for name, _ in network.named_parameters(recurse=False):
        yield prefix + name, (network, name)
    for name, child in network.named_children():
        # `_orig_mod` is the name that torch.compile gives to what it wraps
        wrapped = name == "_orig_mod" or (name == "module" and isinstance(network, _WRAPPERS))
        yield from _walk(child, prefix if wrapped else f"{prefix}{name}.")


def owners(network: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return the module and the attribute behind each parameter name.

    Names are those of the plain network, whether or not it is wrapped by `torch.compile`,
    `DataParallel`, `DistributedDataParallel` or `AveragedModel`.

    >>> list(owners(nn.DataParallel(nn.Linear(2, 1))))
    ['weight', 'bias']
    """
    return dict(_walk(network, ""))


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "none"


def _differences(
    names: list[str], one: Mapping[str, Tensor], other: Mapping[str, Tensor], words: tuple[str, str]
) -> str:
    """Return "w (mask (2, 3), network none), ..." for what differs in name or shape."""
    differ = [name for name in names if _shape(one, name) != _shape(other, name)]
    listed = [
        f"{name} ({words[0]} {_shape(one, name)}, {words[1]} {_shape(other, name)})"
        for name in differ[:_SHOWN]
    ]
    return ", ".join(listed) + (f" and {len(differ) - _SHOWN} more" if differ[_SHOWN:] else "")


def check_boolean(mask: Mapping[str, Tensor]) -> None:
    """Refuse a mask that holds anything but bool.

    Raises:
        InputError: lists the names and types of what is not bool.

    >>> check_boolean({"w": torch.tensor([True, False])})
    """
    bad = [f"{name} ({kept.dtype})" for name, kept in mask.items() if kept.dtype != torch.bool]
    if bad:
        raise InputError(f"a mask must be bool, got {', '.join(bad[:_SHOWN])}; pass kept != 0")


def check_same(
    one: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    *,
    words: tuple[str, str] = ("one", "other"),
) -> None:
    """Refuse two mappings that differ in a name or a shape.

    Args:
        one: tensors by name.
        other: tensors by name, in any order.
        words: what the error calls the two.

    Raises:
        InputError: lists the names and the shapes in both.

    >>> check_same({"w": torch.zeros(2)}, {"w": torch.ones(2)})
    """
    found = _differences(list({**one, **other}), one, other, words)
    if found:
        raise InputError(
            f"{words[0]} and {words[1]} must be of the same weights, but they differ in {found}; "
            "make both from one network"
        )


def check(network: nn.Module | Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> Mask:
    """Return the weights that `mask` is about, by its names; refuse a mask of another network.

    The network may have weights that the mask does not name: those are not pruned.

    Args:
        network: the network, plain or wrapped, or its weights by name.
        mask: the mask, bool.

    Raises:
        InputError: lists names and shapes in both where they differ, or a mask that is not bool.

    >>> net = nn.Linear(3, 2)
    >>> list(check(net, {"weight": net.weight > 0}))
    ['weight']
    """
    check_boolean(mask)
    weights = network
    if isinstance(weights, nn.Module):
        weights = {name: getattr(*owner) for name, owner in owners(weights).items()}
    found = _differences(list(mask), mask, weights, ("mask", "network"))
    if found:
        raise InputError(
            f"a mask must fit the network by name and shape, but they differ in {found}; "
            "make the mask from this network's own weights"
        )
    return {name: weights[name] for name in mask}
