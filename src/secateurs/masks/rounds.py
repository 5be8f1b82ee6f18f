"""Pruning in rounds without training between them: SynFlow's loop, for any score."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from torch import Tensor, nn

from secateurs.masks.application import applied
from secateurs.masks.budgets import Scope
from secateurs.masks.matching import Mask, Scores
from secateurs.masks.selection import keep_top

__all__ = ["keep_in_rounds"]


def keep_in_rounds(
    network: nn.Module,
    score: Callable[[nn.Module], Scores],
    densities: Sequence[float],
    *,
    within: Mapping[str, Tensor] | None = None,
    scope: Scope = "global",
    min_per_layer: int = 0,
    allow_empty: bool = False,
) -> Mask:
    """Score what is left, keep the highest, and again, once for each density.

    Each round scores the network under the mask of the round before; afterwards its weights are
    what they were, bit for bit. One density is one-shot pruning. Tanaka et al. (2020) need 100
    rounds of `schedules.exponential` for SynFlow not to empty a layer.

    Args:
        network: any module.
        score: a criterion, called with the network; give it what else it needs by
            `functools.partial`.
        densities: of the rounds, falling; see `secateurs.schedules`.
        within: see `keep_top`.
        scope: see `keep_top`.
        min_per_layer: see `keep_top`.
        allow_empty: see `keep_top`.

    Raises:
        InputError: as `keep_top`, from any round.

    >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> def score(network):
    ...     return {"0.weight": network[0].weight.abs(), "2.weight": network[2].weight.abs()}
    >>> kept = keep_in_rounds(net, score, (0.8, 0.5))
    >>> sum(int(layer.sum()) for layer in kept.values())
    10
    """
    mask = dict(within or {})
    for density in densities:
        with applied(network, mask) if mask else nullcontext():
            scores = score(network)
        mask = keep_top(
            scores,
            density,
            within=mask or None,
            scope=scope,
            min_per_layer=min_per_layer,
            allow_empty=allow_empty,
        )
    return mask
