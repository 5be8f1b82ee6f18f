"""How large a network is: all that a user pays for, every member of an ensemble counted."""

from collections.abc import Mapping

from torch import Tensor, nn

from secateurs import masks

__all__ = ["n_parameters", "n_parameters_kept"]


def n_parameters(network: nn.Module) -> int:
    """Return the number of parameters, pruned ones included.

    >>> n_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in network.parameters())


def n_parameters_kept(network: nn.Module, mask: Mapping[str, Tensor]) -> int:
    """Return the number of parameters that remain: kept weights and everything unprunable."""
    n_masked = sum(kept.numel() for kept in mask.values())
    return n_parameters(network) - n_masked + masks.count(mask)
