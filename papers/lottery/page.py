"""Blocks of the lottery experiments' pages: pictures by density and by step."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from secateurs.report import figures
from secateurs.report.page import Block, Figure
from secateurs.report.paired import COMPRESSION, over
from secateurs.report.tables import DATASET

EARLY, STOP = "early_stop.test_accuracy", "early_stop.step"
CURVE = ["curve.step", "curve.validation_accuracy"]

HALF_A_ROUND = 1.12
"""Rounds lie a factor of 1.25 apart: within half of that a density counts as the one asked for."""

DEPTH = 0.15
"""Accuracies further below the best are not drawn: they would press all else into one line."""

NEAR_THE_TOP = 0.04
"""Learning curves begin where the first comes this near to the best accuracy: what lies before
rises from chance and would set the scale."""


# ---- what is in a frame ----------------------------------------------------------------------


def tasks(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each data set and number of training images with its name."""
    told = frame.get("rows.n_train", pd.Series(np.nan, index=frame.index))
    n_train = pd.to_numeric(told).fillna(0).astype(int).rename("n_train")
    for (dataset, n), part in frame.groupby([frame[DATASET], n_train], sort=False):
        name = str(dataset).removeprefix("sklearn:")
        yield f"{name}, {n:,} images" if n else name, part


def compressions(frame: pd.DataFrame, *, at_most: float = 1.0) -> list[float]:
    """Return what pruned cells have, ascending, down from a density of `at_most`."""
    found = sorted(r for r in frame[COMPRESSION].dropna().unique() if r > 1)
    return [float(r) for r in found if 1 / r <= at_most * (1 + 1e-9)]


def nearest(frame: pd.DataFrame, percent: float) -> float | None:
    """Return the compression that leaves about so many per cent of the weights, None if none."""
    far = {r: abs(math.log(100 / r / percent)) for r in compressions(frame)}
    found = min(far, key=far.__getitem__, default=None)
    return found if found is not None and far[found] <= math.log(HALF_A_ROUND) else None


# ---- statistics ------------------------------------------------------------------------------


def two_way(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the shares of the variance of a [rows, columns] table: rows, columns, what is left.

    Analysis of variance without repeats, so that what is left is their interaction, and noise.

    >>> two_way(np.array([[1.0, 1.0], [3.0, 3.0]]))
    (1.0, 0.0, 0.0)
    """
    mean = values.mean()
    whole = np.square(values - mean).mean()
    rows, columns = (np.square(values.mean(axis) - mean).mean() / whole for axis in (1, 0))
    return float(rows), float(columns), float(1 - rows - columns)


# ---- blocks ----------------------------------------------------------------------------------


def by_density(
    frame: pd.DataFrame, column: str, *, title: str, ylabel: str, order: Sequence[str]
) -> list[Block]:
    """Return a picture of a column against the weights left; none of nothing."""
    if column not in frame:
        return []
    share = column != STOP
    shown = pd.DataFrame({"arm": frame["arm"], "compression": frame[COMPRESSION]})
    shown["value"] = pd.to_numeric(frame[column]) * (100 if share else 1)
    shown = shown.dropna()
    if shown.empty:
        return []
    points = shown.groupby(["arm", "compression"])["value"]
    caption = over(group for _, group in points)
    if share:
        means = points.transform("mean")
        floor = means.max() - 100 * DEPTH
        below = shown.loc[means < floor, ["arm", "compression"]].drop_duplicates()
        if len(below):
            caption += f" Below {floor:.1f}, and not drawn: {len(below)} points of "
            caption += f"{', '.join(a for a in order if a in set(below['arm']))}."
        shown = shown[means >= floor]
    svg = figures.accuracy_by_compression(
        shown, value="value", ylabel=ylabel, order=order, percent_left=True
    )
    arms = ", ".join(arm for arm in order if arm in set(shown["arm"]))
    return [
        Figure(
            title=title,
            svg=svg,
            alt=f"{ylabel} against the share of weights left: {arms}.",
            caption=caption,
        )
    ]


def learning_curves(
    frame: pd.DataFrame, lines: Sequence[tuple[str, str, float | None]], *, title: str
) -> list[Block]:
    """Return a picture of validation accuracy by step; lines are name, arm, compression."""
    if not set(CURVE) <= set(frame.columns):
        return []
    parts = [
        frame.loc[(frame["arm"] == arm) & (frame[COMPRESSION] == r), CURVE]
        .explode(CURVE)
        .astype(np.float64)
        .set_axis(["step", "value"], axis=1)
        .assign(arm=name)
        for name, arm, r in lines
    ]
    shown = pd.concat(parts).dropna()
    if shown.empty:
        return []
    best = shown.groupby(["arm", "step"])["value"].mean().groupby("step").max()
    shown = shown[shown["step"] >= best.index[best >= best.max() - NEAR_THE_TOP][0]]
    shown["value"] *= 100
    names = [name for name, *_ in lines]
    svg = figures.curves(
        shown, x="step", y="value", by="arm", ylabel="validation accuracy, %", order=names
    )
    repeats = (points for _, points in shown.groupby(["arm", "step"]))
    return [
        Figure(
            title=title,
            svg=svg,
            alt=f"Validation accuracy by step of {', '.join(shown['arm'].unique())}.",
            caption=f"{over(repeats)} From step {shown['step'].min():.0f} on.",
        )
    ]
