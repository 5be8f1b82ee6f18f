"""How large a network is: all that a user pays for, every member of an ensemble counted."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from secateurs import masks

__all__ = ["forward_flops", "n_parameters", "n_parameters_kept"]


@torch.no_grad()
def forward_flops(network: nn.Module, example: Tensor) -> int:
    """Return the floating-point operations of one forward pass, a multiply-add counted as two.

    Matrix products and convolutions only, as torch counts them; pruned weights count, since dense
    training computes with them. Training costs three times as much: outputs, and the gradients of
    inputs and of weights.

    Args:
        network: any module.
        example: the inputs of the pass, [rows, ...].

    >>> forward_flops(nn.Linear(3, 2), torch.ones(5, 3))
    60
    """
    was_training = network.training
    with FlopCounterMode(display=False) as counter:
        network.eval()(example)  # neither statistics nor random numbers move
    network.train(was_training)
    return int(counter.get_total_flops())


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
