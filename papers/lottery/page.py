"""Blocks of the lottery experiments' pages: means over seeds, paired contrasts, pictures.

A seed, the column `rows.split`, is a start, an order of the data and a draw of validation and
training images at once; it pairs arms. Test images are the same for all seeds. Cells that are not
finished are left out: whatever is there is drawn.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from secateurs.measures import statistics
from secateurs.report import figures
from secateurs.report.figures import DENSE
from secateurs.report.page import Block, Cell, Figure, Table, Value
from secateurs.report.tables import DATASET, SPLIT

COMPRESSION = "config.compression"
END, EARLY, STOP = "test.accuracy", "early_stop.test_accuracy", "early_stop.step"
MOVEMENT, OVERLAP = "regime.weight_movement", "regime.start_mask_overlap"
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


def left(compression: float) -> str:
    """Return how much is left in words: 51.3% of 1/.512987."""
    return f"{100 / compression:.1f}".removesuffix(".0") + "%"


def seen(frame: pd.DataFrame, column: str, arm: str, compression: float | None) -> pd.Series:
    """Return the values of an arm by seed; empty where nothing is finished."""
    if column not in frame or compression is None:
        return pd.Series(dtype=np.float64)
    rows = frame[(frame["arm"] == arm) & (frame[COMPRESSION] == compression)]
    values: pd.Series = pd.to_numeric(rows[column]).groupby(rows[SPLIT]).mean().dropna()
    return values


def minus(
    frame: pd.DataFrame, column: str, arm: str, baseline: str, compression: float | None
) -> pd.Series:
    """Return the differences of two arms by seed; a dense network is the same at any density."""
    one, other = (
        seen(frame, column, name, 1.0 if name.startswith(DENSE) and compression else compression)
        for name in (arm, baseline)
    )
    return (one - other).dropna()


# ---- statistics ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A mean over n seeds with its 95% t interval; error and ends are NaN for one seed."""

    mean: float
    error: float
    n: int
    low: float
    high: float

    def value(self, *, scale: float = 100.0, digits: int = 2) -> Value:
        """Return it as a cell of a table."""
        error = None if math.isnan(self.error) else scale * self.error
        return Value(scale * self.mean, error=error, digits=digits)

    def interval(self, *, scale: float = 100.0, digits: int = 2) -> str | None:
        """Return the interval in words; None for one seed."""
        if math.isnan(self.low):
            return None
        ends = (f"{scale * end:+z.{digits}f}" for end in (self.low, self.high))
        return " to ".join(ends).replace("-", "−")


def contrast(values: pd.Series) -> Contrast | None:
    """Return mean and interval of one value a seed; None of no value."""
    if values.empty:
        return None
    test = statistics.corrected_t(values, np.zeros(len(values)), test_share=0.0)
    half = float(stats.t.ppf(0.975, test.df)) * test.standard_error if test.df else math.nan
    mean = test.difference
    return Contrast(
        mean=mean, error=test.standard_error, n=len(values), low=mean - half, high=mean + half
    )


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


AGREES = (
    "Agrees: yes if the 95% t interval over seeds lies on the published side of no difference, no "
    "if it lies on the other; for a published 0, yes if the interval holds 0 and no if it does "
    "not; else not resolved, as with a single seed, which has no interval."
)


def agrees(found: Contrast | None, *, sign: int, null: float = 0.0) -> str:
    """Return whether a contrast is on the published side of `null`; see `AGREES`.

    Args:
        found: the measured one.
        sign: of the published difference, 0 for none.
        null: what no difference is: 0, or 1 for a ratio.
    """
    if found is None:
        return "no cells yet"
    if math.isnan(found.low):
        return "not resolved"
    side = int(found.low > null) - int(found.high < null)
    if sign == 0:
        return "no" if side else "yes"
    return {sign: "yes", -sign: "no"}.get(side, "not resolved")


def over(samples: Iterable[Sized]) -> str:
    """Return over how many seeds means are."""
    sizes = [n for n in map(len, samples) if n] or [0]
    low, high = min(sizes), max(sizes)
    n = f"{high} seed{'s' * (high != 1)}" if low == high else f"{low} to {high} seeds"
    return f"Mean ± standard error over {n}."


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


def grid(
    title: str,
    arms: Sequence[str],
    columns: Sequence[float],
    sample: Callable[[str, float], pd.Series],
    *,
    note: str,
) -> Table:
    """Return arms by compressions of what `sample(arm, compression)` gives, in %."""
    samples = {(arm, r): sample(arm, r) for arm in arms for r in columns}
    rows: list[list[Cell]] = []
    for arm in arms:
        found = [contrast(samples[arm, r]) for r in columns]
        if any(found):
            rows.append([arm, *(one and one.value() for one in found)])
    return Table(
        title=title,
        columns=["arm", *map(left, columns)],
        rows=rows,
        note=f"{over(samples.values())} {note}",
    )


def layers(
    frame: pd.DataFrame, lines: Sequence[tuple[str, str, float | None]], *, title: str
) -> Table:
    """Return what each layer keeps, and how far the search moved; lines as for the curves."""
    kept = [c for c in frame if c.startswith("layer_density.") and frame[c].notna().any()]
    rows: list[list[Cell]] = []
    samples = []
    for name, arm, r in lines:
        found = [contrast(seen(frame, column, arm, r)) for column in (*kept, MOVEMENT, OVERLAP)]
        if any(found):
            samples.append(seen(frame, "size.density", arm, r))
            percent = [one and one.value() for one in found[: len(kept)]]
            rows.append([name, *percent, *(one and one.value(scale=1.0) for one in found[-2:])])
    names = [c.removeprefix("layer_density.").removesuffix(".weight") for c in kept]
    return Table(
        title=title,
        columns=["mask", *(f"{name}, %" for name in names), "movement", "overlap"],
        rows=rows,
        note=f"{over(samples)} Weights that each layer keeps. Movement: |w - start| / |start| of "
        "the last search; overlap: IoU of the mask with that of the largest initial weights.",
    )
