"""The richness autopilot: the learning rate at which a search moves its weights as far as asked.

Movement is |w - w0| / |w0| over the prunable weights, w0 the scaled start of the search. With
BatchNorm after every layer it depends on the learning rate over init_scale squared only (method,
section 5), so that the rate is the dial. Short pilots, the first steps of the search itself, tell
how far a rate would lead; the search is checked, and repeated if it missed.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import nn

from secateurs.data.batches import batch_spans
from secateurs.errors import DivergedError, InputError
from secateurs.optimizers import SGD
from secateurs.training import PhaseConfig, State, Trained, Watch

__all__ = [
    "COST",
    "PILOTS",
    "PILOT_SHARE",
    "SEARCHES",
    "TOLERANCE",
    "Attempt",
    "Run",
    "Steering",
    "at_rate",
    "extrapolated",
    "next_rate",
    "pilot",
    "steer",
]

PILOT_SHARE = 0.3
"""Steps of a pilot, as a share of the search's."""

PILOTS = 3
"""Pilots at most; none follows one that is within `_NEAR` of the target."""

SEARCHES = 3
"""Whole searches at most; none follows one that is within `TOLERANCE` of the target."""

TOLERANCE = 0.2
"""How far from the target, relative to it, a search may end."""

COST = 1.0 + PILOT_SHARE * PILOTS
"""Searches' worth of time that a steered search takes: one search in most cases, and the pilots."""

_NEAR = 0.1
_SLOWING = 0.6  # movement slows down beyond a power of the steps: benchmarks/tabular/pilots.py
_SLOPES = (0.4, 2.0)  # of log movement by log rate: .3 to 1.5 there, .001 to .3
_FIRST_SLOPE = 0.7
_STEP = 30.0  # greatest factor between one rate and the next
_HALVINGS = 12


class Run(Protocol):
    """Trains a phase from the scaled start, always the same one."""

    def __call__(
        self,
        phase: PhaseConfig,
        *,
        name: str,
        deadline: float,
        follow: Watch | None = None,
        every: int = 1,
    ) -> Trained:
        """Return what the phase left; `name` is "pilot" or "search"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A learning rate and where it led: a pilot's movement is that expected of a whole search.

    Infinite movement is a loss that was not finite.
    """

    rate: float
    movement: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Steering:
    """How the rate of a search was found; the last of `searches` is the one that was kept."""

    target: float
    pilots: tuple[Attempt, ...]
    searches: tuple[Attempt, ...]

    @property
    def kept(self) -> Attempt:
        """The search that came nearest."""
        return _nearest(self.searches, self.target)


def _off(attempt: Attempt, target: float) -> float:
    """Return by how much a movement is off, as a logarithm of positive sign."""
    return abs(math.log(attempt.movement / target)) if attempt.movement else math.inf


def _nearest(attempts: Sequence[Attempt], target: float) -> Attempt:
    return min(attempts, key=lambda one: _off(one, target))


def at_rate(phase: PhaseConfig, rate: float) -> PhaseConfig:
    """Return the phase at another learning rate; one for the encoder alone scales with it.

    >>> at_rate(PhaseConfig(), 0.5).optimizer.lr
    0.5
    """
    optimizer = phase.optimizer
    changes: dict[str, Any] = {"lr": rate}
    if isinstance(optimizer, SGD) and optimizer.encoder_lr is not None:
        changes["encoder_lr"] = optimizer.encoder_lr * rate / optimizer.lr
    return replace(phase, optimizer=replace(optimizer, **changes))


def pilot(phase: PhaseConfig, n_rows: int) -> PhaseConfig:
    """Return the first steps of a phase, `PILOT_SHARE` of them.

    >>> pilot(PhaseConfig(epochs=10, batch_size=10), 100).steps
    30
    """
    steps = max(1, math.ceil(PILOT_SHARE * phase.n_steps(n_rows)))
    return replace(phase, steps=steps, snapshots=1)


def extrapolated(curve: Iterable[tuple[int, float]], n_steps: int) -> float:
    """Return the movement to expect after `n_steps`, from a pilot's.

    A power of the steps through the last two points, slowed down: its exponent times .6.

    Args:
        curve: (step, movement), in order.
        n_steps: of the whole search.

    >>> round(extrapolated([(10, 0.1), (20, 0.2)], 40), 4)
    0.3031
    """
    points = [(step, moved) for step, moved in curve if step > 0 and moved > 0]
    if not points:
        return 0.0
    step, moved = points[-1]
    exponent = 0.5 / _SLOWING
    if len(points) > 1:
        before, least = points[-2]
        exponent = min(max(math.log(moved / least) / math.log(step / before), 0.0), 1.5)
    return moved * math.pow(max(n_steps / step, 1.0), _SLOWING * exponent)


def _slope(attempts: Sequence[Attempt], target: float) -> float:
    """Return d log movement / d log rate near the target."""
    near = sorted(attempts, key=lambda one: _off(one, target))[:2]
    if len(near) < 2 or near[0].rate == near[1].rate:
        return _FIRST_SLOPE
    return min(max(_secant(*near), _SLOPES[0]), _SLOPES[1])


def _secant(one: Attempt, other: Attempt) -> float:
    return math.log(one.movement / other.movement) / math.log(one.rate / other.rate)


def next_rate(
    attempts: Sequence[Attempt], target: float, *, slopes: Sequence[Attempt] = ()
) -> float:
    """Return the rate to try next: a secant in logarithms, kept within what is known.

    Above a rate that diverged nothing is tried: half of the lowest such rate is the highest.

    Args:
        attempts: what was tried, at least one.
        target: movement that is wanted.
        slopes: attempts to take the slope from while there is but one finite attempt.

    >>> tried = [Attempt(rate=0.01, movement=0.1), Attempt(rate=0.1, movement=1.0)]
    >>> next_rate(tried, 0.5)
    0.05
    """
    highest = min((one.rate / 2 for one in attempts if one.movement == math.inf), default=math.inf)
    finite = [one for one in attempts if 0 < one.movement < math.inf]
    if not finite:
        still = [one.rate * _STEP for one in attempts if one.movement == 0]
        return _rounded(min([*still, highest]))
    at = _nearest(finite, target)
    below = max((one.rate for one in finite if one.movement <= target), default=0.0)
    above = min((one.rate for one in finite if one.movement > target), default=math.inf)
    if 0 < below < above < math.inf:
        low, high = (next(a for a in finite if a.rate == rate) for rate in (below, above))
        at, slope = low, _secant(low, high)
    else:
        enough = len(finite) > 1 or not slopes
        known = finite if enough else [a for a in slopes if 0 < a.movement < math.inf]
        slope = _slope(known, target)
    factor = math.pow(target / at.movement, 1 / slope)
    rate = at.rate * min(max(factor, 1 / _STEP), _STEP)
    if below < above:
        rate = min(max(rate, below), above)
    return _rounded(min(rate, highest))


def _rounded(rate: float) -> float:
    """Return three digits: the same rate where movements differ in their last bits."""
    return float(f"{rate:.3g}")


def _flown(
    run: Run,
    phase: PhaseConfig,
    *,
    n_rows: int,
    moved: Callable[[State], float],
    deadline: float,
) -> Attempt:
    """Return a pilot at the phase's rate."""
    short = pilot(phase, n_rows)
    n_steps = short.n_steps(n_rows)

    def follow(network: nn.Module, step: int) -> dict[str, Any]:
        return {"movement": moved(network.state_dict())}

    rate = phase.optimizer.lr
    try:
        every = math.ceil(n_steps / 2)
        trained = run(short, name="pilot", deadline=deadline, follow=follow, every=every)
    except DivergedError:
        return Attempt(rate=rate, movement=math.inf)
    done = min(len(trained.history) * len(batch_spans(n_rows, phase.batch_size)), n_steps)
    curve = {row["step"]: row["movement"] for row in trained.curve}
    curve[done] = moved(trained.snapshots[-1])
    return Attempt(rate=rate, movement=extrapolated(curve.items(), phase.n_steps(n_rows)))


def steer(
    run: Run,
    phase: PhaseConfig,
    target: float,
    *,
    n_rows: int,
    moved: Callable[[State], float],
    deadline: float = math.inf,
) -> tuple[Trained, Steering]:
    """Search at the rate that moves the weights by `target`.

    Up to `PILOTS` pilots approach the rate, the first at that of `phase`; then the search runs, and
    again if it ended beyond `TOLERANCE`, at most `SEARCHES` times: the nearest is kept. Where the
    loss stops being finite the rate is halved.

    Args:
        run: trains from the start of the search, the same one each time.
        phase: the search at the rate to begin with.
        target: relative movement that is wanted.
        n_rows: training rows.
        moved: relative movement of a state.
        deadline: `time.monotonic()` after which nothing more is tried; pilots take half of the time
            until then at most.

    Raises:
        InputError: as `training.train`; no rate was found at which the loss stays finite.
    """
    begin = time.monotonic()
    until = deadline if deadline == math.inf else (begin + deadline) / 2
    pilots: list[Attempt] = []
    rate = phase.optimizer.lr
    while _rounds(pilots) < PILOTS and (not pilots or time.monotonic() < until):
        there = at_rate(phase, rate)
        pilots.append(_flown(run, there, n_rows=n_rows, moved=moved, deadline=until))
        rate = next_rate(pilots, target)
        if _near(pilots[-1], target, _NEAR) or rate in [one.rate for one in pilots]:
            break

    searches: list[Attempt] = []
    kept: Trained | None = None
    seconds = 0.0
    while _rounds(searches) < SEARCHES and (kept is None or time.monotonic() + seconds < deadline):
        began = time.monotonic()
        try:
            trained = run(at_rate(phase, rate), name="search", deadline=deadline)
        except DivergedError:
            searches.append(Attempt(rate=rate, movement=math.inf))
        else:
            searches.append(Attempt(rate=rate, movement=moved(trained.snapshots[-1])))
            if _nearest(searches, target) is searches[-1] or kept is None:
                kept = trained
            if not trained.complete or _near(searches[-1], target, TOLERANCE):
                break
        seconds = time.monotonic() - began
        following = next_rate(searches, target, slopes=pilots)
        if following in [one.rate for one in searches]:
            break
        rate = following
    if kept is None:
        raise InputError(
            f"search diverged at every learning rate down to {searches[-1].rate:g}; "
            "check the scale of the loss, or train without a target movement"
        )
    return kept, Steering(target=target, pilots=tuple(pilots), searches=tuple(searches))


def _near(attempt: Attempt, target: float, tolerance: float) -> bool:
    return abs(attempt.movement / target - 1) <= tolerance


def _rounds(attempts: Sequence[Attempt]) -> float:
    """Return how many attempts count: halvings do not, until there are too many."""
    diverged = sum(one.movement == math.inf for one in attempts)
    return math.inf if diverged >= _HALVINGS else len(attempts) - diverged
