"""Blocks of the pages about images: rows of arms, verdicts, invariance, where weights are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import recipe
import vision
from vision import Task

from secateurs.report.page import Cell, Table, Value
from secateurs.report.paired import (
    AGREES,
    END,
    MOVEMENT,
    OVERLAP,
    agrees,
    contrast,
    over,
    told,
)
from secateurs.report.tables import SPLIT

DENSITY = "size.density"


def of_arm(frame: pd.DataFrame, column: str, arm: str, *, split: str = SPLIT) -> pd.Series:
    """Return the values of an arm by seed, a column; empty where nothing is finished."""
    if column not in frame:
        return pd.Series(dtype="float64")
    rows = frame[frame["arm"] == arm]
    values: pd.Series = pd.to_numeric(rows[column]).groupby(rows[split]).mean().dropna()
    return values


def minus(frame: pd.DataFrame, arm: str, baseline: str, *, column: str = END) -> pd.Series:
    """Return the differences of two arms by seed."""
    return (of_arm(frame, column, arm) - of_arm(frame, column, baseline)).dropna()


def thinnest(frame: pd.DataFrame) -> pd.Series:
    """Return the smallest density that a layer of each run's mask has."""
    layers = [c for c in frame if str(c).startswith("layer_density.")]
    return frame[layers].apply(pd.to_numeric).min(axis=1)


def rows_table(
    frame: pd.DataFrame,
    task: Task,
    arms: Sequence[str],
    *,
    published: Mapping[str, tuple[float, float]] | None = None,
    baselines: Sequence[str] = ("dense", "omp-rich"),
) -> Table:
    """Return one row an arm: test accuracy, paired differences, what is kept, the regime.

    Args:
        frame: of all tasks.
        task: whose rows.
        arms: in order; those without a finished cell are left out.
        published: percent and standard deviation by arm.
        baselines: arms that are subtracted.
    """
    part = vision.of_task(frame, task)
    part = part.assign(thinnest=thinnest(part))
    rows: list[list[Cell]] = []
    samples = []
    for arm in arms:
        values = of_arm(part, END, arm)
        if values.empty:
            continue
        samples.append(values)
        row: list[Cell] = [arm, told(contrast(values))]
        for baseline in baselines:
            gap = contrast(minus(part, arm, baseline)) if arm != baseline else None
            row.append(told(gap))
        for column, scale in ((DENSITY, 100.0), ("thinnest", 100.0), (MOVEMENT, 1.0), (OVERLAP, 1)):
            row.append(told(contrast(of_arm(part, column, arm)), scale=scale))
        if published is not None:
            known = published.get(arm)
            row.append(None if known is None else Value(known[0], error=known[1], digits=2))
        rows.append(row)
    columns = ["arm", "test accuracy %", *(f"minus {name}" for name in baselines)]
    columns += ["kept %", "thinnest layer %", "movement", "overlap"]
    columns += [] if published is None else ["published %"]
    return Table(
        title=f"Arms, {task.name}",
        columns=columns,
        rows=rows,
        note=f"{over(samples)} Differences in points, paired by seed. Kept: of the encoder's "
        "weights; thinnest layer: the smallest share that a layer keeps. Movement: |w - start| / "
        "|start| of the search; overlap: IoU of the mask with that of the largest initial weights."
        + ("" if published is None else PRINTED),
    )


PRINTED = " Published: mean and standard deviation over 3 runs, of the whole set and alpha = 8."


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A difference of two arms that the paper prints, or that ours is: its sign, 0 for none."""

    words: str
    arm: str
    minus: str
    sign: int


def claims_table(frame: pd.DataFrame, task: Task, claims: Sequence[Claim]) -> Table:
    """Return each claim's paired difference with its interval, and whether it agrees."""
    part = vision.of_task(frame, task)
    rows: list[list[Cell]] = []
    samples = []
    for claim in claims:
        values = minus(part, claim.arm, claim.minus)
        found = contrast(values)
        samples.append(values)
        rows.append(
            [
                claim.words,
                f"{claim.arm} minus {claim.minus}",
                {1: "above 0", -1: "below 0", 0: "0"}[claim.sign],
                told(found),
                found.interval() if found else None,
                agrees(found, sign=claim.sign),
            ]
        )
    return Table(
        title=f"Claims, {task.name}",
        columns=["claim", "difference", "claimed", "points", "95% interval", "agrees"],
        rows=rows,
        note=f"{over(samples)} Test accuracy, paired by seed. {AGREES}",
    )


PRINTED_NETWORK = {vision.MLP_VIS: "MLP_VIS", vision.RESNET: "RESNET"}
PRINTED_SET = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN"}


def printed(task: Task) -> dict[str, tuple[float, float]]:
    """Return table 1's percentages and standard deviations of a task, by arm."""
    table = recipe.published("table_1_vision.csv")
    of_network = table["network"] == PRINTED_NETWORK.get(task.network, "")
    found = table[of_network & (table["dataset"] == PRINTED_SET.get(task.dataset, ""))]
    if found.empty:
        return {}
    row = found.iloc[0]
    columns = {"dense": "dense", "omp-paper": "OMP", "beta-Lasso": "beta_lasso", "IUNet": "IUNET"}
    return {arm: (float(row[c]), float(row[f"{c}_std"])) for arm, c in columns.items()}


def each_task(frame: pd.DataFrame, *networks: str) -> list[Task]:
    """Return the tasks that a frame has rows of, of these networks; all without any."""
    return [t for t in vision.tasks_of(frame) if not networks or t.network in networks]
