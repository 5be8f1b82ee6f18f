"""What the experiments along alpha share: SGD, the rule of rates, tasks, tuned rates."""

from dataclasses import dataclass, replace
from functools import partial

import recipe

from secateurs.experiments.spec import ImageRows, TicketCell
from secateurs.optimizers import SGD
from secateurs.regime.dial import lr_at
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

ALPHAS = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""From rich to lazy."""

PLAIN = None
"""No centring and no scaling: how everybody trains, and what the other methods are trained by."""

REGIMES = (PLAIN, *ALPHAS)

RATES = (0.003, 0.01, 0.03, 0.1)
"""Tried for each regime, times the rule `lr_at` (alpha* = 1, three layers): the same budget."""

ROUND = 0.4
"""Share of the remaining weights that a round prunes, half of it in the last layer."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Images, how many labels, and whether every arm is run or the curves only."""

    dataset: str
    n_train: int | None
    every_arm: bool = True


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run."""

    tasks: tuple[Task, ...]
    seeds: int
    steps: int
    rounds: int
    n_validation: int = 1_000


_FEW = (
    Task(dataset="fashion_mnist", n_train=1_000),
    Task(dataset="mnist", n_train=1_000),
)

SCALES = {
    "smoke": Scale(
        tasks=(Task(dataset="sklearn:digits", n_train=200),),
        seeds=2, steps=60, rounds=3, n_validation=120,
    ),
    "small": Scale(
        tasks=(
            *_FEW,
            Task(dataset="mnist", n_train=None, every_arm=False),
        ),
        seeds=3, steps=3_000, rounds=8,
    ),
    "paper": Scale(
        tasks=(
            *_FEW,
            Task(dataset="mnist", n_train=None),
            Task(dataset="fashion_mnist", n_train=None),
        ),
        seeds=5, steps=20_000, rounds=9,
    ),
}  # fmt: skip

CHOSEN: dict[tuple[str, int | None], dict[float | None, float]] = {
    ("fashion_mnist", 1_000): {PLAIN: 0.03, 1 / 16: 0.1, 1 / 4: 0.03, 1: 0.03, 4: 0.1, 16: 0.03},
    ("mnist", 1_000): {PLAIN: 0.03, 1 / 16: 0.1, 1 / 4: 0.1, 1: 0.03, 4: 0.1, 16: 0.03},
    ("mnist", None): {PLAIN: 0.01, 1 / 16: 0.03, 1 / 4: 0.03, 1: 0.03, 4: 0.03, 16: 0.1},
}
"""Rate of each regime by task, before the rule: `alpha_tune.py` chose them on validation images of
other seeds; .03 where none is."""


def name(alpha: float | None) -> str:
    """Return a regime in words: alpha 1/16, alpha 4, plain."""
    if alpha is None:
        return "plain"
    return f"alpha {alpha:g}" if alpha >= 1 else f"alpha 1/{1 / alpha:g}"


def phase(scale: str, alpha: float | None, rate: float) -> PhaseConfig:
    """Return the training of a regime at a rate of `RATES`."""
    lr = rate if alpha is None else lr_at(alpha, lr=rate, alpha_star=1.0, n_layers=3)
    return PhaseConfig(steps=SCALES[scale].steps, batch_size=60, optimizer=SGD(lr=lr), alpha=alpha)


def tuned(scale: str, task: Task, alpha: float | None) -> PhaseConfig:
    """Return the training of a regime at the rate that was chosen for it."""
    rates = CHOSEN.get((task.dataset, task.n_train), {})
    return phase(scale, alpha, rates.get(alpha, 0.03))


def dense(trained: PhaseConfig) -> TicketConfig:
    """Return the dense network, as the search of the tickets trains it."""
    return TicketConfig(
        search=trained, finetune=replace(trained, epochs=0), init_scale=1.0, compression=1.0,
        rewind="none", only=recipe.ALL,
    )  # fmt: skip


def densities(scale: str, rounds: int) -> tuple[float, ...]:
    """Return the densities after each round."""
    return recipe.densities(scale, rounds, rate=ROUND)


def ticket(scale: str, found: PhaseConfig, trained: PhaseConfig, rounds: int) -> TicketConfig:
    """Return a ticket of so many rounds, found by one training and finally trained by another."""
    config = TicketConfig(
        search=found, finetune=trained, scope="halved_last", init_scale=1.0, only=recipe.ALL
    )
    return recipe.in_rounds(config, densities(scale, rounds))


def cell(scale: str, task: Task, seed: int, config: TicketConfig, **views: float) -> TicketCell:
    """Return a cell of LeNet-300-100, or of its toy at scale smoke."""
    rows = ImageRows(
        dataset=task.dataset, split=seed, n_validation=SCALES[scale].n_validation,
        n_train=task.n_train,
    )  # fmt: skip
    make = partial(TicketCell, rows=rows, config=config, seed=seed, network="lenet_300_100")
    return make(widths=recipe.SCALES[scale].widths, **views)
