"""Pruning schedules: the densities of the successive rounds. The last one is the target."""

from collections.abc import Callable

from secateurs.errors import InputError

__all__ = ["SCHEDULES", "Schedule", "geometric", "one_shot"]

Schedule = tuple[float, ...]


def one_shot(density: float) -> Schedule:
    """Prune once, to the target density (OMP, one-shot magnitude pruning).

    >>> one_shot(0.125)
    (0.125,)
    """
    return (density,)


def geometric(density: float, *, rounds: int) -> Schedule:
    """Keep the same fraction of what is left in each round (iterative magnitude pruning).

    Args:
        density: target kept fraction, in (0, 1].
        rounds: number of prunings, at least 1; with 1 this is `one_shot`.

    Raises:
        InputError: rounds < 1.

    >>> geometric(0.125, rounds=3)
    (0.5, 0.25, 0.125)
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, got {rounds}")
    return (*(density ** (i / rounds) for i in range(1, rounds)), density)


SCHEDULES: dict[str, Callable[..., Schedule]] = {"one_shot": one_shot, "geometric": geometric}
