"""Which masks are good: from the start, once, in rounds or by IUNet, at equal steps.

Every method trains LeNet-300-100 for the same number of steps in all, its search included, and
keeps the same number of weights. Learning rates are the dense network's (`tune.py`).

secateurs paper papers/lottery/at_equal_steps.py --out runs/lottery --scale small
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import page
import pandas as pd
import recipe

from secateurs import criteria
from secateurs.experiments.spec import Run
from secateurs.report import paired
from secateurs.report.page import Block, Cell, Table
from secateurs.report.paired import COMPRESSION, END
from secateurs.report.tables import choose_arm
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

ALL_DENSITIES = (0.5, 0.21, 0.13, 0.05, 0.02, 0.01)
DENSITIES = {"smoke": (0.5, 0.13), "small": ALL_DENSITIES, "paper": ALL_DENSITIES}
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
            for density in DENSITIES[scale]:
                at = replace(base, compression=1 / density)
                for name, arm in ARMS.items():
                    config = arm(at, task.steps)
                    view = VIEW if config.search.contrastive_weight else {}
                    found.append(Run(cell=cell(config, **view), arm=name))
    return found


# ---- the page --------------------------------------------------------------------------------

AT_START = ("random", "magnitude at start", "SNIP", "GraSP", "SynFlow")
BEST = "best at start"
FEW = 0.13
"""Contrasts are over this density and below: above, masks hardly matter."""

CONTRASTS = {
    "in rounds - one-shot": ("in rounds", "one-shot magnitude"),
    "one-shot - best at start": ("one-shot magnitude", BEST),
    "one-shot - the same shuffled": ("one-shot magnitude", "one-shot, mask shuffled"),
    "IUNet - small start: what ILO adds": ("IUNet", "small start"),
    "small start - one-shot: what PIS adds": ("small start", "one-shot magnitude"),
    "IUNet - one-shot": ("IUNet", "one-shot magnitude"),
}


def _best_at_start(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the method that validation images prefer on each seed at each density."""
    found = [
        choose_arm(at, at, arms=AT_START, value=VALUE, name=BEST, unpaired="drop")
        for r in page.compressions(frame, at_most=FEW)
        if set((at := frame[frame[COMPRESSION] == r])["arm"]) & set(AT_START)
    ]
    return pd.concat([part for part in found if len(part)] or [frame.iloc[:0]])


def _by_seed(frame: pd.DataFrame, arm: str, baseline: str) -> pd.Series:
    """Return the mean difference over the few densities that both arms have, by seed."""
    ratios = page.compressions(frame, at_most=FEW)
    found = [paired.minus(frame, END, arm, baseline, r) for r in ratios]
    every = pd.concat([one for one in found if len(one)] or [pd.Series(dtype=float)])
    return every.groupby(level=0).mean()


def contrasts(frame: pd.DataFrame, name: str) -> Table:
    """Return what each way to find a mask gains on another, over few weights."""
    best = _best_at_start(frame)
    both = pd.concat([frame, best]) if len(best) else frame
    samples = {told: _by_seed(both, *arms) for told, arms in CONTRASTS.items()}
    rows: list[list[Cell]] = []
    for told, values in samples.items():
        found = paired.contrast(values)
        if found is None:
            rows.append([told, None, 0, None])
        else:
            rows.append([told, found.value(), found.n, found.interval()])
    took = best["chosen_arm"].value_counts().items() if len(best) else ()
    return Table(
        title=f"{name}: contrasts",
        columns=["contrast", "points", "seeds", "95% interval"],
        rows=rows,
        note=f"{paired.over(samples.values())} "
        "Test accuracy at the end, in points: on each seed the "
        f"mean over the densities of at most {100 * FEW:g}% that both arms have, paired. The "
        "interval is Student's t over seeds, not adjusted for the number of contrasts. Best at "
        "start: chosen by validation accuracy on each seed at each density"
        + ("".join(f", {n} times {arm}" for arm, n in took) + "."),
    )


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return accuracy against density of every task, contrasts, and what the layers keep."""
    blocks: list[Block] = []
    arms, baseline = ("dense", *ARMS), "one-shot magnitude"
    for name, part in page.tasks(frame):
        ratios, r = page.compressions(part), page.nearest(part, 5.0)
        blocks += page.by_density(
            part, END, title=f"{name}: accuracy", ylabel="test accuracy, %", order=arms
        )
        blocks += [
            paired.grid(
                f"{name}: numbers", arms, [1.0, *ratios], partial(paired.seen, part, END),
                note="Test accuracy at the end, in %, by weights left.",
            ),
            paired.grid(
                f"{name}: minus {baseline}", [arm for arm in arms if arm != baseline], ratios,
                lambda arm, r, part=part: paired.minus(part, END, arm, baseline, r),
                note="Differences of test accuracy at the end, in points, paired by seed.",
            ),
            contrasts(part, name),
            paired.layers(part, [(arm, arm, r) for arm in ARMS], title=f"{name}: layers at 5%"),
        ]  # fmt: skip
    return blocks
