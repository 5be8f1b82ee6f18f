"""Which masks are good: from the start, once, in rounds or by IUNet, at equal steps.

Every method trains LeNet-300-100 for the same number of steps in all, its search included, and
keeps the same number of weights. Learning rates are the dense network's (`tune.py`).

secateurs paper papers/lottery/at_equal_steps.py --out runs/lottery --scale small
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import recipe

from secateurs import criteria
from secateurs.experiments.spec import Run
from secateurs.schedules import exponential
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

TITLE = "Masks of LeNet-300-100 at equal density and equal steps"
CLAIM = (
    "A mask is only as good as the feature learning that made it: masks found by training beat "
    "masks found at the start, and the more so the fewer weights and the fewer labels there are."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = recipe.VALUE
BASELINE = "dense"

DENSITIES = (0.5, 0.21, 0.13, 0.05, 0.02, 0.01)
ROUNDS = 3
"""Prunings of the iterative method: four trainings of a quarter of the steps."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Images, how many labels, and the steps that every method has."""

    dataset: str
    n_train: int | None
    steps: int

    @property
    def name(self) -> str:
        """Name of the rows in the tables."""
        return self.dataset if self.n_train is None else f"{self.dataset}, {self.n_train:,} images"


TASKS = {
    "smoke": (Task(dataset="sklearn:digits", n_train=200, steps=120),),
    "small": (
        Task(dataset="mnist", n_train=None, steps=8_000),
        Task(dataset="mnist", n_train=1_000, steps=4_000),
        Task(dataset="fashion_mnist", n_train=1_000, steps=4_000),
    ),
    "paper": (
        Task(dataset="mnist", n_train=None, steps=100_000),
        Task(dataset="fashion_mnist", n_train=None, steps=100_000),
        Task(dataset="mnist", n_train=1_000, steps=20_000),
        Task(dataset="fashion_mnist", n_train=1_000, steps=20_000),
    ),
}

VIEW = {"shift": 2, "corruption_rate": 0.1}
"""Views of IUNet: shifts by up to 2 pixels, and a tenth of the pixels from other images."""

KAPPA = 0.25

Arm = Callable[[TicketConfig, int], TicketConfig]


def _phase(config: TicketConfig, steps: int) -> PhaseConfig:
    return replace(config.finetune, steps=steps)


def _at_start(criterion: str, *, rounds: int = 1, scored_rows: int = 100) -> Arm:
    def arm(base: TicketConfig, steps: int) -> TicketConfig:
        config = replace(
            base, search=PhaseConfig(epochs=0), finetune=_phase(base, steps),
            criterion=criteria.CRITERIA[criterion], scored_rows=scored_rows,
        )  # fmt: skip
        return (
            config if rounds == 1 else replace(config, schedule=partial(exponential, rounds=rounds))
        )

    return arm


def _searched(*, contrastive_weight: float = 0.0, init_scale: float = 1.0, **changes: str) -> Arm:
    def arm(base: TicketConfig, steps: int) -> TicketConfig:
        half = _phase(base, steps // 2)
        search = replace(half, contrastive_weight=contrastive_weight)
        return replace(base, search=search, finetune=half, init_scale=init_scale, **changes)

    return arm


def _in_rounds(base: TicketConfig, steps: int) -> TicketConfig:
    part = _phase(base, steps // (ROUNDS + 1))
    return replace(base, search=part, finetune=part, schedule=partial(exponential, rounds=ROUNDS))


ARMS: dict[str, Arm] = {
    "random": _at_start("random"),
    "magnitude at start": _at_start("magnitude"),
    "SNIP": _at_start("snip"),
    "GraSP": _at_start("grasp", scored_rows=250),
    "SynFlow": _at_start("synflow", rounds=100),
    "one-shot magnitude": _searched(),
    "one-shot, mask shuffled": _searched(control="shuffled"),
    "in rounds": _in_rounds,
    "small start": _searched(init_scale=KAPPA),
    "IUNet": _searched(contrastive_weight=1.0, init_scale=KAPPA),
}
"""The GraSP paper scores 25 examples of each class, SNIP's one batch of 100."""


def runs(scale: str) -> list[Run]:
    """Return every method at every density of every task and seed, and the dense network."""
    found = []
    for seed in range(recipe.SCALES[scale].seeds):
        for task in TASKS[scale]:
            base = TicketConfig(
                finetune=recipe.PRESETS["lth2019"].phase(task.steps), init_scale=1.0,
                only=recipe.ALL,
            )  # fmt: skip
            lr = recipe.LEARNING_RATES.get((task.dataset, task.n_train), base.finetune.optimizer.lr)
            tuned = replace(base.finetune, optimizer=replace(base.finetune.optimizer, lr=lr))
            base = replace(base, finetune=tuned)

            cell = partial(recipe.cell, scale, task.dataset, seed, n_train=task.n_train)
            dense = replace(base, compression=1.0, rewind="start")
            found.append(Run(cell=cell(dense), arm="dense"))
            for density in DENSITIES:
                at = replace(base, compression=1 / density)
                for name, arm in ARMS.items():
                    config = arm(at, task.steps)
                    view = VIEW if config.search.contrastive_weight else {}
                    found.append(Run(cell=cell(config, **view), arm=name))
    return found
