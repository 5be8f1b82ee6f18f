"""Scores that look at the weights alone."""

import torch
from torch import Tensor, nn

from secateurs.criteria.scoring import finite
from secateurs.masks import Scores
from secateurs.networks.init import Patterns, prunable

__all__ = ["lamp", "magnitude", "normalised_magnitude"]


@torch.no_grad()
def magnitude(network: nn.Module, *, only: Patterns = None, except_: Patterns = None) -> Scores:
    """Score each weight by its absolute value (Han et al. 2015; OMP after training).

    Args:
        network: any module with Linear or Conv layers.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, a weight that no mask by name can hold, or one that is NaN or
            infinite.

    >>> net = nn.Linear(2, 1)
    >>> _ = net.weight.data.copy_(torch.tensor([[-3.0, 1.0]]))
    >>> magnitude(net)
    {'weight': tensor([[3., 1.]])}
    """
    chosen = prunable(network, only=only, except_=except_)
    return finite({name: weight.detach().abs() for name, weight in chosen.items()})


@torch.no_grad()
def normalised_magnitude(
    network: nn.Module, *, only: Patterns = None, except_: Patterns = None
) -> Scores:
    """Score each weight by |w| / RMS of its layer, so that unequal fan-ins compete fairly.

    The root mean square runs over all weights of the layer, pruned ones (zeros) included. A layer
    of zeros scores zero.

    Args:
        network: any module with Linear or Conv layers.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, a weight that no mask by name can hold, or one that is NaN or
            infinite.

    >>> net = nn.Linear(2, 1)
    >>> _ = net.weight.data.copy_(torch.tensor([[-7.0, 1.0]]))
    >>> normalised_magnitude(net)
    {'weight': tensor([[1.4000, 0.2000]])}
    """
    scores = {}
    for name, weight in prunable(network, only=only, except_=except_).items():
        norm = torch.linalg.vector_norm(weight, dtype=torch.float64)
        rms = norm / weight.numel() ** 0.5
        scores[name] = weight.abs() / torch.where(rms > 0, rms, 1.0)
    return finite(scores)


def _lamp(weight: Tensor) -> Tensor:
    """Return w^2 over the sum of squares from the largest weight down to this one."""
    ordered, order = weight.abs().flatten().double().sort(descending=True, stable=True)
    largest = torch.where(ordered[0] > 0, ordered[0], 1.0)  # no square under- or overflows
    squares = (ordered / largest).square()
    ratios = squares / squares.cumsum(0).clamp_min(1.0)  # the clamp is for layers of zeros
    return torch.empty_like(ratios).scatter_(0, order, ratios).view(weight.shape)


@torch.no_grad()
def lamp(network: nn.Module, *, only: Patterns = None, except_: Patterns = None) -> Scores:
    """Score each weight by w^2 / sum of u^2 over its layer's |u| >= |w| (LAMP, Lee et al. 2021).

    The largest weight of each layer scores 1, so that a layer keeps its last weight longest. Of
    equal weights the first counts as the largest, as in `masks.keep_top`. Scores are float64:
    within a layer they order weights exactly as magnitude does.

    Args:
        network: any module with Linear or Conv layers.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, a weight that no mask by name can hold, or one that is NaN or
            infinite.

    >>> net = nn.Linear(2, 1)
    >>> _ = net.weight.data.copy_(torch.tensor([[-3.0, 1.0]]))
    >>> lamp(net)
    {'weight': tensor([[1.0000, 0.1000]], dtype=torch.float64)}
    """
    chosen = prunable(network, only=only, except_=except_)
    return finite({name: _lamp(weight.detach()) for name, weight in chosen.items()})
