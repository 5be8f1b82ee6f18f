"""Linear mode connectivity: is there a barrier on the straight line between two trained states?"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs import masks
from secateurs.errors import InputError
from secateurs.masks.matching import check_same

__all__ = ["Barrier", "barrier"]


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """A straight path between two states, and how far its values rise above the ends.

    Args:
        height: the largest rise above the line between the values of the ends; at least 0, which
            is what the ends have.
        instability: the largest value less the mean of the two ends; the same as the height
            where the ends are equal.
        t: the points, from 0 (state a) to 1 (state b).
        values: the loss or error at each point.
    """

    height: float
    instability: float
    t: tuple[float, ...]
    values: tuple[float, ...]


def _between(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Return (1 - t) a + t b, exactly a or b at the ends and where both are equal."""
    return torch.lerp(a, b.to(a), t) if a.is_floating_point() else a


def _check_values(t: tuple[float, ...], values: tuple[float, ...]) -> None:
    for at, value in zip(t, values, strict=True):
        if math.isnan(value) or (math.isinf(value) and at in (0, 1)):
            raise InputError(
                f"loss_or_error must give numbers, and finite ones at the ends, got {value} at "
                f"t={at:g}; use an error rate, or leave diverged runs out"
            )


@torch.no_grad()
def barrier(
    network: nn.Module,
    state_a: Mapping[str, Tensor],
    state_b: Mapping[str, Tensor],
    loss_or_error: Callable[[nn.Module], float],
    *,
    points: int = 11,
    mask: Mapping[str, Tensor] | None = None,
    refresh: Callable[[nn.Module], object] | None = None,
) -> Barrier:
    """Return the barrier between two states of a network on the straight line between them.

    The height is max over t of E((1-t) a + t b) - ((1-t) E(a) + t E(b)) (Entezari et al. 2022);
    the instability takes the mean of the ends off the largest value (Frankle et al. 2020). Two
    runs of one mask and start that differ in the order of the data alone are stable if there is
    no barrier between them: sparse networks were found to train to full accuracy where they are.

    BatchNorm's running statistics are interpolated too, and between two networks they are those of
    neither (Jordan et al. 2023): errors then rise for that reason alone. Pass a `refresh` that
    estimates them anew, such as
    `lambda net: training.reestimate_statistics_(net, x_train, batch_size=128)`.

    Args:
        network: gives the architecture; it is copied and left as it was.
        state_a: the `state_dict` of one end.
        state_b: that of the other. Integers, such as BatchNorm's counter, are those of a.
        loss_or_error: of a network in evaluation mode, without gradients; lower is better.
        points: how many, ends included, equally spaced; at least 3.
        mask: pruned weights are zero at every point, ends included.
        refresh: called with the network at every point, ends included, before it is evaluated.

    Raises:
        InputError: states of other weights, a mask that does not fit, too few points, NaN, or an
            end without a finite value.

    >>> network = nn.Linear(1, 1, bias=False)
    >>> ends = {"weight": torch.tensor([[-1.0]])}, {"weight": torch.tensor([[1.0]])}
    >>> double_well = lambda net: float((net.weight**2 - 1) ** 2)
    >>> barrier(network, *ends, double_well, points=5).values
    (0.0, 0.5625, 1.0, 0.5625, 0.0)
    """
    if points < 3:
        raise InputError(f"points must be at least 3, both ends and one between, got {points}")
    check_same(state_a, state_b, words=("state_a", "state_b"))
    check_same(state_a, network.state_dict(), words=("state_a", "network"))
    network = copy.deepcopy(network)
    t = tuple(i / (points - 1) for i in range(points))
    found = []
    for at in t:
        network.load_state_dict(
            {name: _between(state_a[name], state_b[name], at) for name in state_a}
        )
        if mask is not None:
            masks.apply_(network, mask)
        network.eval()
        if refresh is not None:
            refresh(network)
            network.eval()
        found.append(float(loss_or_error(network)))
    values = tuple(found)
    _check_values(t, values)
    first, last = values[0], values[-1]
    rises = [
        value - (first + at * (last - first))
        for at, value in zip(t[1:-1], values[1:-1], strict=True)
    ]
    return Barrier(
        height=max(0.0, *rises),
        instability=max(values) - (first + last) / 2,
        t=t,
        values=values,
    )
