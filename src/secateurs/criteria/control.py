"""The score that knows nothing: what every other criterion must beat."""

import torch
from torch import nn

from secateurs.masks import Scores
from secateurs.networks.init import Patterns, prunable

__all__ = ["random"]


def random(
    network: nn.Module,
    *,
    generator: torch.Generator,
    only: Patterns = None,
    except_: Patterns = None,
) -> Scores:
    """Score each weight by a uniform random number: the control that every criterion must beat.

    The numbers are drawn on the generator's device, so that a seed means the same everywhere.

    Args:
        network: any module with Linear or Conv layers.
        generator: the only source of randomness.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, or a weight that no mask by name can hold.

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
