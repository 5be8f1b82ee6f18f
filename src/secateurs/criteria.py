"""Scores: one number for each prunable weight, higher = keep. Where to cut is `masks.keep_top`'s.

Every criterion returns `dict[str, Tensor]` keyed by parameter name, each tensor shaped like its
weight. Global or per layer is a matter of selection, not of scores.
"""

from collections.abc import Callable

import torch
from torch import nn

from secateurs.masks import Scores
from secateurs.networks.init import Patterns, prunable

__all__ = ["CRITERIA", "Criterion", "magnitude", "random"]

Criterion = Callable[..., Scores]


@torch.no_grad()
def magnitude(network: nn.Module, *, only: Patterns = None, except_: Patterns = None) -> Scores:
    """Score each weight by its absolute value (Han et al. 2015; OMP after training).

    >>> net = nn.Linear(2, 1)
    >>> _ = net.weight.data.copy_(torch.tensor([[-3.0, 1.0]]))
    >>> magnitude(net)
    {'weight': tensor([[3., 1.]])}
    """
    chosen = prunable(network, only=only, except_=except_)
    return {name: weight.detach().abs() for name, weight in chosen.items()}


def random(
    network: nn.Module,
    *,
    generator: torch.Generator,
    only: Patterns = None,
    except_: Patterns = None,
) -> Scores:
    """Score each weight by a uniform random number: the control that every criterion must beat.

    >>> scores = random(nn.Linear(2, 1), generator=torch.Generator().manual_seed(0))
    >>> scores["weight"].shape
    torch.Size([1, 2])
    """
    chosen = prunable(network, only=only, except_=except_)
    return {
        name: torch.rand(weight.shape, generator=generator, device=generator.device).to(
            weight.device
        )
        for name, weight in chosen.items()
    }


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "random": random}
