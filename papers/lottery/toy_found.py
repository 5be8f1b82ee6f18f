"""What the cells of `toy.py` left: records of one teacher, by arm, density, alpha and seed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from secateurs.report.tables import DATASET

FULL = "NTK readout"
TEACHERS = ("sparse teacher", "dense teacher")
DENSE, TICKET, OWN, FRESH, SHUFFLED, TOP = (
    "dense", "ticket", "no rewind", "re-init", "shuffled", "top start",
)  # fmt: skip
CONTROLS = (OWN, FRESH, SHUFFLED, TOP)
ORDER = (DENSE, TICKET, *CONTROLS)


def listed(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the records of all cells below each other, with their teacher and width."""
    parts = [
        pd.DataFrame(list(row[column])).assign(teacher=row[DATASET], width=row["width"])
        for row in frame.to_dict("records")
        if isinstance(row.get(column), tuple) and row[column]
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the study of arms left of one teacher.

    Args:
        records: of every arm, level, alpha and seed.
        level: the followed one.
        followed: records over its steps.
        transfer: records of masks found at one alpha and trained at another.
    """

    records: pd.DataFrame
    level: int
    followed: pd.DataFrame
    transfer: pd.DataFrame

    @property
    def alphas(self) -> list[float]:
        """Ascending: the first is the richest."""
        return sorted(self.records["alpha"].unique())

    @property
    def density(self) -> float:
        """Of the followed level."""
        at = self.records.loc[self.records["level"] == self.level, "density"]
        return float(at.iloc[0])

    def seen(self, arm: str, column: str, alpha: float) -> pd.Series:
        """Return a column of an arm at the followed level, or of the dense student, by seed."""
        rows = self.records
        level = 0 if arm == DENSE else self.level
        rows = rows[(rows["arm"] == arm) & (rows["level"] == level) & (rows["alpha"] == alpha)]
        values: pd.Series = rows.set_index("seed")[column].astype(float)
        return values

    def log_ratio(self, arm: str, other: str, alpha: float) -> pd.Series:
        """Return the log of the ratio of two arms' test errors, by seed."""
        one, two = (self.seen(name, "test_mse", alpha) for name in (arm, other))
        return (np.log(one) - np.log(two)).dropna()

    def over_time(self, arm: str, column: str, alpha: float) -> pd.Series:
        """Return the mean of a column over log-spaced steps after the first, by seed."""
        rows = self.followed
        rows = rows[(rows["arm"] == arm) & (rows["alpha"] == alpha) & (rows["step"] > 0)]
        return rows.groupby("seed")[column].mean().dropna()


def study(frame: pd.DataFrame, teacher: str) -> Found | None:
    """Return the study of arms of one teacher; None if no cell is finished."""
    part = frame[(frame["arm"] == FULL) & (frame[DATASET] == teacher)]
    if part.empty:
        return None
    return Found(
        records=listed(part, "records"),
        level=int(part["follow"].iloc[0]),
        followed=listed(part, "followed"),
        transfer=listed(part, "transfer"),
    )
