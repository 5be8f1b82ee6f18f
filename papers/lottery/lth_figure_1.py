"""Lottery tickets of LeNet-300-100: accuracy and early stopping against density, with controls.

Frankle & Carbin (2019), figures 1, 3 and 4, and late rewinding (Frankle et al. 2020).

secateurs paper papers/lottery/lth_figure_1.py --out runs/lottery --scale small
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import page
import pandas as pd
import recipe
from page import EARLY, STOP

from secateurs.experiments.spec import Run
from secateurs.report import paired
from secateurs.report.page import Block, Cell, Table
from secateurs.report.paired import END
from secateurs.tickets import TicketConfig

TITLE = "Lottery tickets of LeNet-300-100"
CLAIM = (
    "Frankle & Carbin (2019): the ticket at 21.1% learns faster (its validation loss is lowest 38% "
    "earlier) and, fresh or shuffled, clearly slower and worse; it is above the dense network at "
    "13.5% and back at it at 3.6%."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = recipe.VALUE
BASELINE = "dense"
PRESET = "lth2019"

SETS = {
    "smoke": ("sklearn:digits",),
    "small": ("mnist", "fashion_mnist"),
    "paper": ("mnist", "fashion_mnist"),
}
SEEDS = {"smoke": 2, "small": 5, "paper": 5}
REWIND_SHARE = 0.025
"""Of the steps, after which the late rewind keeps the weights: 100 of 4,000."""

CONTROLS = {
    "ticket": {},
    "re-initialised": {"rewind": "random"},
    "shuffled mask": {"control": "shuffled"},
}
ARMS = ("dense", *CONTROLS, "rewound to step K", "no rewind")
LONG = "dense, 50,000 steps"
"""At scale "small" also run: what the dense network lacks after 4,000 of the published steps."""
FEWER = {"fashion_mnist": (*CONTROLS, "dense")}
"""Sets on which fewer arms are run at scale "small"."""


def base(scale: str, preset: str) -> TicketConfig:
    """Return the settings of a preset's ticket, before it has rounds."""
    chosen = recipe.PRESETS[preset]
    phase = chosen.phase(recipe.SCALES[scale].steps)
    return TicketConfig(
        search=phase,
        finetune=phase,
        scope=chosen.scope,
        init_scale=1.0,
        only=chosen.only,
    )


def dense(ticket: TicketConfig) -> TicketConfig:
    """Return the dense network: what the search of the ticket trains, and nothing more."""
    nothing = replace(ticket.finetune, epochs=0)
    return replace(ticket, compression=1.0, rewind="none", finetune=nothing)


def _changes(arm: str, steps: int) -> dict[str, str]:
    if arm == "rewound to step K":
        return {"rewind": f"step:{max(1, int(REWIND_SHARE * steps))}"}
    return {"rewind": "none"} if arm == "no rewind" else CONTROLS[arm]


def runs(scale: str) -> list[Run]:
    """Return every arm at every density of every seed; the dense network is the search itself."""
    ticket = base(scale, PRESET)
    size = recipe.SCALES[scale]
    steps = ticket.search.n_steps(55_000)
    kept = recipe.densities(scale, size.rounds)
    found = []
    for seed in range(SEEDS[scale]):
        for dataset in SETS[scale]:
            arms = FEWER.get(dataset, ARMS) if scale == "small" else ARMS
            cell = recipe.cell(scale, dataset, seed, dense(ticket))
            found.append(Run(cell=cell, arm="dense"))
            if scale == "small":
                whole = replace(ticket.search, steps=recipe.PRESETS[PRESET].steps)
                longer = replace(ticket, search=whole, finetune=whole)
                cell = recipe.cell(scale, dataset, seed, dense(longer))
                found.append(Run(cell=cell, arm=LONG))
            for n in range(1, size.rounds + 1):
                config = recipe.in_rounds(ticket, kept[:n])
                for arm in (name for name in arms if name != "dense"):
                    asked = replace(config, **_changes(arm, steps))
                    found.append(Run(cell=recipe.cell(scale, dataset, seed, asked), arm=arm))
    return found


# ---- the page --------------------------------------------------------------------------------

TOLD = (51.3, 21.1, 13.5, 7.0, 3.6)
"""Per cent of the weights left, in the tables."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What Frankle & Carbin state of MNIST, or what stands beside it without a published number.

    Args:
        name: what it is, with its unit.
        arms: whose; without their cells it is not told.
        values: one a seed, of a data set's frame.
        published: in that unit, or None.
        sign: of the published difference, 0 for none.
        null: what no difference is: 0, or 1 for a ratio.
        scale: from values to the unit.
    """

    name: str
    arms: tuple[str, str]
    values: Callable[[pd.DataFrame], pd.Series]
    published: float | None = None
    sign: int = 1
    null: float = 0.0
    scale: float = 100.0


def _steps(frame: pd.DataFrame, arm: str, other: str) -> pd.Series:
    """Return how many times later an arm stops than another at 21.1%, by seed."""
    r = page.nearest(frame, 21.1)
    steps = [paired.seen(frame, STOP, name, 1.0 if name == "dense" else r) for name in (arm, other)]
    one, of_other = (found[found > 0] for found in steps)  # a stop at the start has no ratio
    return (one / of_other).dropna()


def _minus(frame: pd.DataFrame, arm: str, baseline: str, percent: float, column: str) -> pd.Series:
    return paired.minus(frame, column, arm, baseline, page.nearest(frame, percent))


def _difference(
    arm: str, baseline: str, percent: float, column: str, published: float | None = None, **how: int
) -> Fact:
    when = "at early stopping" if column == EARLY else "at the end"
    return Fact(
        name=f"{arm} at {percent:g}% minus {baseline}, {when}, points",
        arms=(arm, baseline),
        values=partial(_minus, arm=arm, baseline=baseline, percent=percent, column=column),
        published=published,
        **how,
    )


FACTS = (
    Fact(
        name="ticket at 21.1% stops earlier than dense, % of the steps",
        arms=("ticket", "dense"),
        values=lambda frame: 1 - _steps(frame, "ticket", "dense"),
        published=38.0,
    ),
    Fact(
        name="re-initialised at 21.1% stops later than ticket, ratio of steps",
        arms=("re-initialised", "ticket"),
        values=lambda frame: _steps(frame, "re-initialised", "ticket"),
        published=2.51,
        null=1.0,
        scale=1.0,
    ),
    _difference("ticket", "re-initialised", 21.1, EARLY, 0.5),
    _difference("ticket", "dense", 13.5, EARLY, 0.3),
    _difference("ticket", "dense", 3.6, EARLY, 0.0, sign=0),
    _difference("ticket", LONG, 13.5, EARLY),
    _difference("ticket", LONG, 3.6, EARLY),
    _difference("re-initialised", "ticket", 3.6, END),
    _difference("shuffled mask", "ticket", 3.6, END),
    *(
        _difference(arm, "ticket", percent, END)
        for arm in ("rewound to step K", "no rewind")
        for percent in (13.5, 3.6)
    ),
)


def facts(frame: pd.DataFrame, name: str) -> Table:
    """Return what was published beside what was measured on a data set."""
    told_of = [fact for fact in FACTS if set(fact.arms) <= set(frame["arm"])]
    samples = [fact.values(frame) for fact in told_of]
    rows: list[list[Cell]] = []
    for fact, sample in zip(told_of, samples, strict=True):
        found = paired.contrast(sample)
        answer = paired.agrees(found, sign=fact.sign, null=fact.null)
        measured: list[Cell] = [None, 0, None]
        if found is not None:
            interval = found.interval(scale=fact.scale)
            measured = [found.value(scale=fact.scale), found.n, interval]
        told = None if fact.published is None else answer
        rows.append([fact.name, fact.published, *measured, told])
    return Table(
        title=f"{name}: published facts",
        columns=["fact", "published", "measured", "seeds", "95% interval", "agrees"],
        rows=rows,
        note=f"{paired.over(samples)} "
        "Paired by seed. Published: Frankle & Carbin 2019, of MNIST and "
        "50,000 steps; without a number there, nothing agrees or not. Early stopping is at the "
        f"lowest validation loss. {paired.AGREES}",
    )


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return figures 1, 3 and 4 of each data set, their numbers, and the published facts."""
    blocks: list[Block] = []
    for name, part in page.tasks(frame):
        near = [page.nearest(part, percent) for percent in TOLD]
        columns = [r for r in near if r is not None]
        arms = [*ARMS, LONG] if LONG in set(part["arm"]) else ARMS
        for column, title, ylabel in (
            (END, "accuracy at the end", "test accuracy, %"),
            (EARLY, "accuracy at early stopping", "test accuracy, %"),
            (STOP, "step of early stopping", "step of the lowest validation loss"),
        ):
            drawn = part[part["arm"] != LONG]
            blocks += page.by_density(
                drawn, column, title=f"{name}: {title}", ylabel=ylabel, order=ARMS
            )
        tickets = [(f"ticket, {paired.left(r)}", "ticket", r) for r in columns]
        fresh = page.nearest(part, 21.1)
        blocks += page.learning_curves(
            part,
            [
                ("dense", "dense", 1.0),
                *(line for line in tickets if line[2] != page.nearest(part, 7.0)),
                *(
                    [(f"re-initialised, {paired.left(fresh)}", "re-initialised", fresh)]
                    if fresh
                    else []
                ),
            ],
            title=f"{name}: learning curves",
        )
        blocks += [
            paired.grid(
                f"{name}: numbers", arms, [1.0, *columns], partial(paired.seen, part, END),
                note="Test accuracy at the end, in %, by weights left.",
            ),
            paired.grid(
                f"{name}: at early stopping", arms, [1.0, *columns],
                partial(paired.seen, part, EARLY),
                note="Test accuracy at the lowest validation loss, in %, by weights left.",
            ),
            paired.grid(
                f"{name}: minus dense", ARMS[1:], columns,
                lambda arm, r, part=part: paired.minus(part, END, arm, "dense", r),
                note="Differences of test accuracy at the end, in points, paired by seed.",
            ),
            facts(part, name),
            paired.layers(part, tickets, title=f"{name}: layers of the ticket"),
        ]  # fmt: skip
    return blocks
