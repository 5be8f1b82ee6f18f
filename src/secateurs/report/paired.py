"""Arms that are paired by seed: means and differences with their errors, tables of them.

A seed, the column `rows.split`, is a start, an order of the data and a draw of validation and
training rows at once; it pairs arms. Test rows are the same for all seeds. Cells that are not
finished are left out: whatever is there is told.
"""

import math
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from secateurs.measures import statistics
from secateurs.report.figures import DENSE
from secateurs.report.page import Cell, Table, Value
from secateurs.report.tables import SPLIT

__all__ = [
    "AGREES",
    "COMPRESSION",
    "END",
    "MOVEMENT",
    "OVERLAP",
    "Contrast",
    "agrees",
    "contrast",
    "grid",
    "layers",
    "left",
    "minus",
    "over",
    "seen",
    "told",
]

COMPRESSION, END = "config.compression", "test.accuracy"
MOVEMENT, OVERLAP = "regime.weight_movement", "regime.start_mask_overlap"


# ---- what is in a frame ----------------------------------------------------------------------


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


def told(found: Contrast | None, *, scale: float = 100.0, digits: int = 2) -> Cell:
    """Return a contrast as a cell of a table, empty where there is none."""
    return None if found is None else found.value(scale=scale, digits=digits)


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


# ---- tables ----------------------------------------------------------------------------------


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
            rows.append([arm, *map(told, found)])
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
    kept = [str(c) for c in frame if str(c).startswith("layer_density.") and frame[c].notna().any()]
    rows: list[list[Cell]] = []
    samples = []
    for name, arm, r in lines:
        found = [contrast(seen(frame, column, arm, r)) for column in (*kept, MOVEMENT, OVERLAP)]
        if any(found):
            samples.append(seen(frame, "size.density", arm, r))
            regime = [told(one, scale=1.0) for one in found[-2:]]
            rows.append([name, *map(told, found[: len(kept)]), *regime])
    names = [c.removeprefix("layer_density.").removesuffix(".weight") for c in kept]
    return Table(
        title=title,
        columns=["mask", *(f"{name}, %" for name in names), "movement", "overlap"],
        rows=rows,
        note=f"{over(samples)} Weights that each layer keeps. Movement: |w - start| / |start| of "
        "the last search; overlap: IoU of the mask with that of the largest initial weights.",
    )
