"""Pruning schedules: the densities of the successive rounds. The last one is the target.

They say how much is kept of all scored weights together; how a round shares it among the layers is
the scope's (`masks.keep_top`).
"""

from collections.abc import Callable
from itertools import pairwise

from secateurs.errors import InputError

__all__ = [
    "SCHEDULES",
    "Schedule",
    "cubic",
    "exponential",
    "geometric",
    "linear",
    "listed",
    "one_shot",
]

Schedule = tuple[float, ...]


def _check(density: float, rounds: int) -> None:
    if not 0 < density <= 1:
        raise InputError(
            f"density must be in (0, 1], got {density:g}; pass a kept fraction, not a percentage"
        )
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, got {rounds}")


def one_shot(density: float) -> Schedule:
    """Prune once, to the target density (OMP, one-shot magnitude pruning).

    >>> one_shot(0.125)
    (0.125,)
    """
    return (density,)


def geometric(density: float, *, rate: float = 0.2, last_share: float = 0.0) -> Schedule:
    """Prune the same share of what is left in each round, until the target (Frankle & Carbin 2019).

    With the scope "halved_last" the last layer loses half of that share; then tell how much of the
    network it is.

    Args:
        density: target kept fraction, in (0, 1].
        rate: share of the remaining weights that a round prunes, in (0, 1).
        last_share: share of all weights that are the last layer's.

    Raises:
        InputError: density, rate or last_share out of range.

    >>> [round(d, 3) for d in geometric(0.5)]
    [0.8, 0.64, 0.512, 0.5]
    """
    _check(density, 1)
    if not 0 < rate < 1 or not 0 <= last_share < 1:
        raise InputError(
            "rate must be in (0, 1) and last_share in [0, 1), got "
            f"{rate:g} and {last_share:g}; 0.2 prunes a fifth of what is left"
        )

    def left(n: int) -> float:
        """Return P_m(n), the density after n rounds."""
        kept: float = (1 - last_share) * (1 - rate) ** n + last_share * (1 - rate / 2) ** n
        return kept

    rounds: list[float] = []
    while (after := left(len(rounds) + 1)) > density * (1 + 1e-6):
        rounds.append(after)
    return (*rounds, density)


def exponential(density: float, *, rounds: int) -> Schedule:
    """Keep the same fraction of what is left in each round: density^(i / rounds).

    SynFlow scores in 100 such rounds (Tanaka et al. 2020).

    Args:
        density: target kept fraction, in (0, 1].
        rounds: number of prunings, at least 1; with 1 this is `one_shot`.

    Raises:
        InputError: density out of range, rounds < 1.

    >>> exponential(0.125, rounds=3)
    (0.5, 0.25, 0.125)
    """
    _check(density, rounds)
    return (*(density ** (i / rounds) for i in range(1, rounds)), density)


def linear(density: float, *, rounds: int) -> Schedule:
    """Prune equally many weights in each round.

    Arguments and errors as for `exponential`.

    >>> linear(0.25, rounds=3)
    (0.75, 0.5, 0.25)
    """
    _check(density, rounds)
    return (*(1 - (1 - density) * i / rounds for i in range(1, rounds)), density)


def listed(density: float, *, densities: Schedule) -> Schedule:
    """Take the densities of the rounds as they are; the last is the target.

    Raises:
        InputError: none, not falling, or another target than `density`.

    >>> listed(0.5, densities=(0.8, 0.5))
    (0.8, 0.5)
    """
    falling = all(one > other for one, other in pairwise((1.0 + 1e-12, *densities)))
    if not densities or not falling or densities[-1] <= 0:
        raise InputError(f"densities must fall within (0, 1], got {list(densities)}")
    if abs(densities[-1] / density - 1) > 1e-9:
        raise InputError(
            f"the last of the densities must be the target, got {densities[-1]:g} and {density:g}; "
            "set compression to 1 / the last density"
        )
    return densities


def cubic(density: float, *, rounds: int) -> Schedule:
    """Prune much at first and little at the end: gradual pruning (Zhu & Gupta 2017).

    density + (1 - density) * (1 - i / rounds)^3 after round i. It is meant for pruning *during*
    training: with `masks.hold`, or in `TicketConfig` with rewind "none" and short rounds.
    Arguments and errors as for `exponential`.

    >>> cubic(0.2, rounds=2)
    (0.30000000000000004, 0.2)
    """
    _check(density, rounds)
    pruned = 1 - density
    return (*(density + pruned * (1 - i / rounds) ** 3 for i in range(1, rounds)), density)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "one_shot": one_shot,
    "geometric": geometric,
    "exponential": exponential,
    "linear": linear,
    "cubic": cubic,
    "listed": listed,
}
