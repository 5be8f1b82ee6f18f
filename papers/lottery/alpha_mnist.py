"""Tickets of LeNet-300-100 along alpha, lazy to rich, against other ways to a mask.

At the same density every arm has had the same number of steps: 3,000 in each of its trainings, or
as many in one. Rates are the dense network's, four tried for each regime (`alpha_tune.py`).

secateurs paper papers/lottery/alpha_mnist.py --out runs/regime --scale small
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import alpha_recipe
import at_equal_steps
import numpy as np
import page
import pandas as pd
import recipe
from alpha_recipe import ALPHAS, REGIMES, SCALES, Task

from secateurs.experiments.spec import Run
from secateurs.report import paired
from secateurs.report.heatmaps import matrix
from secateurs.report.page import Block, Cell, Figure, Table
from secateurs.report.paired import END, MOVEMENT, OVERLAP
from secateurs.report.tables import SPLIT, choose_arm
from secateurs.tickets import TicketConfig

TITLE = "Tickets of LeNet-300-100 along alpha"
CLAIM = (
    "The second document: tuning alpha, the scale of the centred outputs, beats the state of the "
    "art in pruning. Ours: the alpha that finds the mask matters, not the one that trains it, and "
    "in the lazy limit a ticket is no better than its controls."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = recipe.VALUE
BASELINE = "LTH"

PRIMARY = 6
"""The round of the primary endpoint: 4.7% of the weights are left."""

CONTROL_ROUNDS = (2, 4, 6, 8)
"""Rounds at whose densities there are controls."""

CONTROLS = {
    "re-initialised": {"rewind": "random"},
    "shuffled mask": {"control": "shuffled"},
    "top-|start| mask": {"control": "top_start"},
}
OTHERS = ("SNIP", "GraSP", "SynFlow", "one-shot magnitude", "IUNet")
"""Methods of `at_equal_steps.py`, where other densities are, that are run plain: no alpha."""

CURVES_ONLY = {"controls": ("re-initialised", "shuffled mask"), "others": ("SNIP", "SynFlow")}
"""What is run beside the curves, at the primary density, where not every arm is."""


def _transferred(found: float, trained: float) -> str:
    return f"found at {alpha_recipe.name(found)}, trained at {alpha_recipe.name(trained)}"


def _along_alpha(scale: str, task: Task) -> Iterator[tuple[str, TicketConfig]]:
    """Yield dense networks, tickets and controls of every regime, tickets of plain training too."""
    primary = min(PRIMARY, SCALES[scale].rounds)
    for alpha in REGIMES:
        name, trained = alpha_recipe.name(alpha), alpha_recipe.tuned(scale, task, alpha)
        yield f"dense, {name}", alpha_recipe.dense(trained)
        tickets = {
            n: alpha_recipe.ticket(scale, trained, trained, n)
            for n in range(1, SCALES[scale].rounds + 1)
        }
        for config in tickets.values():
            yield "LTH" if alpha is None else f"ticket, {name}", config
        if alpha is None:
            continue
        controls = CONTROLS if task.every_arm else CURVES_ONLY["controls"]
        for n in sorted({*CONTROL_ROUNDS, primary}) if task.every_arm else (primary,):
            for control in controls if n in tickets else ():
                yield f"{control}, {name}", replace(tickets[n], **CONTROLS[control])
        if task.every_arm:
            for n in range(1, primary + 1):
                yield f"no rewind, {name}", replace(tickets[n], rewind="none")


def _transfers(scale: str, task: Task) -> Iterator[tuple[str, TicketConfig]]:
    """Yield tickets that one alpha found and another one trains."""
    primary = min(PRIMARY, SCALES[scale].rounds)
    phases = {alpha: alpha_recipe.tuned(scale, task, alpha) for alpha in ALPHAS}
    for found in ALPHAS:
        for trained in ALPHAS:
            if found != trained:
                config = alpha_recipe.ticket(scale, phases[found], phases[trained], primary)
                yield _transferred(found, trained), config


def _others(scale: str, task: Task) -> Iterator[tuple[str, TicketConfig]]:
    """Yield the methods without rounds, with the steps that a ticket of that density has had."""
    plain = alpha_recipe.tuned(scale, task, alpha_recipe.PLAIN)
    base = replace(alpha_recipe.dense(plain), rewind="start", finetune=plain)
    primary = min(PRIMARY, SCALES[scale].rounds)
    steps = (primary + 1) * SCALES[scale].steps
    at = replace(base, compression=1 / alpha_recipe.densities(scale, primary)[-1])
    for name in OTHERS if task.every_arm else CURVES_ONLY["others"]:
        yield name, at_equal_steps.ARMS[name](at, steps)
    if task.every_arm:
        yield "dense, equal steps", replace(base, finetune=replace(plain, steps=steps))


def runs(scale: str) -> list[Run]:
    """Return every arm of every task and seed."""
    found = []
    for seed in range(SCALES[scale].seeds):
        for task in SCALES[scale].tasks:
            arms = [*_along_alpha(scale, task), *_others(scale, task)]
            arms += _transfers(scale, task) if task.every_arm else ()
            for arm, config in arms:
                view = at_equal_steps.VIEW if config.search.contrastive_weight else {}
                cell = alpha_recipe.cell(scale, task, seed, config, **view)
                found.append(Run(cell=cell, arm=arm, tried=len(alpha_recipe.RATES)))
    return found


# ---- the page --------------------------------------------------------------------------------

TUNED, BEST = "ticket, alpha tuned", "best of the others"
RIVALS = ("LTH", *OTHERS)
DROP = 0.005
"""How far accuracy may fall below the dense network's: the point of the second document's curve."""


def _primary(frame: pd.DataFrame) -> float | None:
    """Return the primary compression, or the highest there is at scale smoke."""
    found = page.compressions(frame)
    share = alpha_recipe.densities("small", PRIMARY)[-1]
    return page.nearest(frame, 100 * share) or (found[-1] if found else None)


def _chosen(frame: pd.DataFrame, arms: Sequence[str], name: str, r: float | None) -> pd.DataFrame:
    """Return the arm that validation images prefer on each seed, at one compression."""
    at = frame[frame[paired.COMPRESSION] == r]
    if not arms or not set(arms) <= set(at["arm"]):
        return frame.iloc[:0]
    return choose_arm(at, at, arms=arms, value=VALUE, name=name, unpaired="drop")


def _row(name: str, values: pd.Series, *, scale: float = 100.0) -> list[Cell]:
    found = paired.contrast(values)
    if found is None:
        return [name, None, 0, None, None]
    answer = {True: "above", False: "below"}
    sign = "not resolved"
    if not math.isnan(found.low) and (found.low > 0 or found.high < 0):
        sign = answer[found.low > 0]
    return [name, found.value(scale=scale), found.n, found.interval(scale=scale), sign]


def headline(frame: pd.DataFrame, name: str) -> Table:
    """Return what tuning alpha gains on every other method, at the primary density."""
    r = _primary(frame)
    tickets = [f"ticket, {alpha_recipe.name(alpha)}" for alpha in ALPHAS]
    rivals = [arm for arm in RIVALS if arm in set(frame["arm"])]
    tuned = _chosen(frame, tickets, TUNED, r)
    best = _chosen(frame, rivals, BEST, r)
    both = pd.concat([frame, *(part for part in (tuned, best) if len(part))])
    lines = {
        f"{TUNED} - {rival}": paired.minus(both, END, TUNED, rival, r) for rival in (*rivals, BEST)
    }
    for alpha in ALPHAS:
        arm = f"ticket, {alpha_recipe.name(alpha)}"
        lines[f"{arm} - LTH"] = paired.minus(both, END, arm, "LTH", r)
    longer = paired.seen(both, END, "dense, equal steps", 1.0)
    if len(longer):
        lines[f"{TUNED} - dense, equal steps"] = paired.seen(both, END, TUNED, r) - longer
    took = [*tuned.get("chosen_arm", ()), *best.get("chosen_arm", ())]
    counted = pd.Series(took, dtype=object).value_counts()
    return Table(
        title=f"{name}: does tuning alpha beat the others, at {paired.left(r or 1.0)}?",
        columns=["contrast", "points", "seeds", "95% interval", "verdict"],
        rows=[_row(told, values.dropna()) for told, values in lines.items()],
        note=f"{paired.over(lines.values())} Test accuracy at the end, in points, paired by seed; "
        "Student's t over seeds, not adjusted for the number of contrasts. Alpha, and the best of "
        "the others, are chosen by validation accuracy on each seed: "
        + ", ".join(f"{n} times {arm}" for arm, n in counted.items())
        + ". Four rates were tried for each regime, so that alpha has five times the budget.",
    )


def controls(frame: pd.DataFrame, name: str) -> Table:
    """Return by how much tickets are above their controls, by alpha, at the primary density."""
    r = _primary(frame)
    arms = [*CONTROLS, "no rewind"]
    rows, samples = [], []
    for alpha in ALPHAS:
        told = alpha_recipe.name(alpha)
        ticket = paired.seen(frame, END, f"ticket, {told}", r)
        gaps = [(ticket - paired.seen(frame, END, f"{arm}, {told}", r)).dropna() for arm in arms]
        gaps.append((ticket - paired.seen(frame, END, f"dense, {told}", 1.0)).dropna())
        samples += gaps
        found = [paired.contrast(gap) for gap in gaps]
        regime = [
            paired.contrast(paired.seen(frame, column, f"ticket, {told}", r))
            for column in (MOVEMENT, OVERLAP)
        ]
        rows.append(
            [
                told,
                *(one and one.value() for one in found),
                *(one and one.value(scale=1.0) for one in regime),
            ]
        )
    return Table(
        title=f"{name}: ticket minus control, at {paired.left(r or 1.0)}",
        columns=["regime", *arms, "dense", "movement", "overlap"],
        rows=rows,
        note=f"{paired.over(samples)} "
        "Test accuracy in points, paired by seed. Movement: of the last "
        "training that the mask was found by; overlap: IoU of the mask with that of the largest "
        "initial weights. A ticket without rewinding has had its steps in one run.",
    )


def _grid(frame: pd.DataFrame, seed: int, r: float) -> np.ndarray:
    """Return [found, trained] test accuracy of a seed."""
    found = np.full((len(ALPHAS), len(ALPHAS)), np.nan)
    for i, one in enumerate(ALPHAS):
        for j, other in enumerate(ALPHAS):
            arm = f"ticket, {alpha_recipe.name(one)}" if i == j else _transferred(one, other)
            found[i, j] = paired.seen(frame, END, arm, r).get(seed, np.nan)
    return found


def transfer(frame: pd.DataFrame, name: str) -> list[Block]:
    """Return the mask-transfer matrix, and what its rows and columns explain."""
    r = _primary(frame)
    if r is None:
        return []
    grids = [_grid(frame, seed, r) for seed in sorted(frame[SPLIT].unique())]
    whole = [grid for grid in grids if np.isfinite(grid).all()]
    if not whole:
        return []
    names = [alpha_recipe.name(alpha) for alpha in ALPHAS]
    svg = matrix(
        100 * np.mean(whole, axis=0), rows=names, columns=names,
        ylabel="alpha that found the mask", xlabel="alpha that trains the ticket",
    )  # fmt: skip
    parts = np.array([page.two_way(np.log(np.maximum(1 - grid, 1e-6))) for grid in whole])
    found, trained = (pd.Series(parts[:, i]) for i in (0, 1))
    lines = {
        "variance by the alpha that found the mask, %": found,
        "variance by the alpha that trains, %": trained,
        "difference": found - trained,
    }
    return [
        Figure(
            title=f"{name}: who finds, who trains, at {paired.left(r)}",
            svg=svg,
            alt="Test accuracy by the alpha that found the mask and the alpha that trains it.",
            caption=f"Test accuracy in %, mean over {len(whole)} seeds.",
        ),
        Table(
            title=f"{name}: two-way analysis of the log error, at {paired.left(r)}",
            columns=["part", "%", "seeds", "95% interval", "verdict"],
            rows=[_row(told, values) for told, values in lines.items()],
            note=f"{paired.over(lines.values())} Shares of the variance over the cells of each "
            "seed's matrix; what is left is the interaction.",
        ),
    ]


def kept_within(frame: pd.DataFrame, name: str) -> Table:
    """Return the smallest share of weights at which accuracy stays near the dense network's."""
    rows, samples = [], []
    for alpha in REGIMES:
        told = alpha_recipe.name(alpha)
        arm = "LTH" if alpha is None else f"ticket, {told}"
        dense = paired.seen(frame, END, f"dense, {told}", 1.0)
        least: dict[int, float] = {}
        for r in page.compressions(frame):
            gap = (dense - paired.seen(frame, END, arm, r)).dropna()
            for seed, lost in gap.items():
                if lost <= DROP and least.get(seed, 1.0) > 1 / r:
                    least[seed] = 1 / r
        found = pd.Series({seed: least.get(seed, 1.0) for seed in dense.index}, dtype=float)
        samples.append(found)
        one = paired.contrast(found)
        rows.append([arm, one and one.value(digits=1)])
    return Table(
        title=f"{name}: weights left within half a point of the dense network",
        columns=["arm", "% left"],
        rows=rows,
        note=f"{paired.over(samples)} "
        "The smallest share of weights, among those measured, with test "
        "accuracy at most half a point below that of the dense network of the same regime.",
    )


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return accuracy against density by alpha, the headline, controls, and mask transfer."""
    blocks: list[Block] = []
    tickets = [f"ticket, {alpha_recipe.name(alpha)}" for alpha in ALPHAS]
    dense = [f"dense, {alpha_recipe.name(alpha)}" for alpha in REGIMES]
    lines = [*tickets, *RIVALS]
    for name, part in page.tasks(frame):
        ratios = page.compressions(part)
        blocks += page.by_density(
            part[part["arm"].isin([*tickets, "LTH"])],
            END,
            title=f"{name}: accuracy",
            ylabel="test accuracy, %",
            order=[*tickets, "LTH"],
        )
        controlled = [f"{c}, {alpha_recipe.name(a)}" for c in CONTROLS for a in ALPHAS]
        blocks += [
            paired.grid(
                f"{name}: numbers", [*dense, *lines], [1.0, *ratios],
                partial(paired.seen, part, END),
                note="Test accuracy at the end, in %, by weights left.",
            ),
            headline(part, name),
            controls(part, name),
            paired.grid(
                f"{name}: controls", controlled, ratios, partial(paired.seen, part, END),
                note="Test accuracy at the end, in %, by weights left.",
            ),
            *transfer(part, name),
            kept_within(part, name),
        ]  # fmt: skip
    return blocks
