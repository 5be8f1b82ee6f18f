"""From a store's tidy frame to tables: what is chosen on validation, means, paired differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from secateurs.errors import InputError
from secateurs.measures import statistics
from secateurs.report.page import Cell, Table, Value

__all__ = [
    "DATASET",
    "SPLIT",
    "arms_by_dataset",
    "arms_summary",
    "chosen",
    "regime_by_dataset",
    "reported_text",
]

DATASET, SPLIT = "rows.dataset", "rows.split"


def chosen(frame: pd.DataFrame, value: str, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row for each arm, data set and split: the best on validation rows.

    An arm that has several configurations there, such as the strengths of beta-Lasso, is
    represented by the one whose `validation.VALUE` is highest; test rows choose nothing. Column
    `tried` tells among how many, at least as many as the plan says.

    Args:
        frame: of `Store.frame` with a plan's runs.
        value: such as "balanced_accuracy".
        by: further columns within which to choose, such as "config.compression".

    Raises:
        InputError: several configurations and no validation rows to choose on.

    >>> frame = pd.DataFrame({
    ...     "arm": "a", "tried": 1, "rows.dataset": "d", "rows.split": 0, "seed": 0,
    ...     "validation.accuracy": [0.5, 0.7], "test.accuracy": [0.9, 0.6]})
    >>> chosen(frame, "accuracy")[["test.accuracy", "tried"]].values.tolist()
    [[0.6, 2.0]]
    """
    group = ["arm", DATASET, SPLIT, "seed", *by]
    counts = frame.groupby(group, dropna=False)["arm"].transform("size")
    if (counts == 1).all():
        return frame
    score = f"validation.{value}"
    several = frame[counts > 1]
    if score not in frame or several[score].isna().any():
        raise InputError(
            f"arm {several['arm'].iloc[0]!r} has several configurations on one split, and choosing "
            "needs validation rows; set rows.validation_folds"
        )
    best = frame.assign(tried=np.maximum(frame["tried"], counts))
    order = best[score].fillna(-np.inf)
    first = order.groupby([best[name] for name in group], dropna=False).idxmax()
    return best.loc[sorted(first)]


def _percent(mean: float, error: float | None, note: str = "") -> Value:
    scaled = None if error is None or not np.isfinite(error) else 100 * error
    return Value(100 * mean, error=scaled, note=note)


def _name(dataset: str) -> str:
    return dataset.removeprefix("sklearn:")


def arms_by_dataset(
    frame: pd.DataFrame,
    value: str,
    *,
    arms: Sequence[str],
    title: str,
    side: str = "test",
    published: Mapping[tuple[str, str], float] | None = None,
    command: str = "",
) -> Table:
    """Return one row a data set and one column an arm: mean ± standard error over splits, in %.

    Args:
        frame: of `Store.frame`.
        value: a share, such as "balanced_accuracy".
        arms: the columns, in order; arms without a finished cell stay empty.
        title: of the table.
        side: "test" or "validation".
        published: percentages by (data set, arm), shown below our own.
        command: that reproduces it.
    """
    best = chosen(frame, value)
    column = f"{side}.{value}"
    published = published or {}
    rows: list[list[Cell]] = []
    for dataset in best[DATASET].unique():
        row: list[Cell] = [_name(dataset)]
        for arm in arms:
            cells = best[(best[DATASET] == dataset) & (best["arm"] == arm)]
            values = cells.groupby(SPLIT)[column].mean()
            told = published.get((dataset, arm))
            note = "" if told is None else f"published {told:.2f}"
            row.append(_percent(values.mean(), values.sem(), note) if len(values) else None)
        rows.append(row)
    splits = best.groupby([DATASET, "arm"])[SPLIT].nunique()
    return Table(
        title=title,
        columns=["data set", *arms],
        rows=rows,
        note=f"{value.replace('_', ' ').capitalize()} in %, mean ± standard error over "
        f"{_range(splits.min(), splits.max())} paired splits, {side} rows. The standard error is "
        "that of the splits, which share rows: it says nothing about other data sets.",
        command=command,
    )


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _mean_of(frame: pd.DataFrame, column: str) -> float | None:
    """Return the mean over data sets of the data sets' means; None where nothing was measured."""
    if column not in frame or frame[column].isna().all():
        return None
    return float(frame.groupby(DATASET)[column].mean().mean())


def arms_summary(
    frame: pd.DataFrame,
    value: str,
    *,
    arms: Sequence[str],
    baseline: str,
    title: str,
    side: str = "test",
    command: str = "",
) -> Table:
    """Return one row an arm: its mean over data sets, and what it gains on the baseline.

    Differences are paired by split; standard errors are those over data sets, or over splits by
    the corrected resampled t where there is but one (`secateurs.measures.statistics`).

    Args:
        frame: of `Store.frame`.
        value: a share, such as "balanced_accuracy".
        arms: the rows, in order.
        baseline: the arm of the differences.
        title: of the table.
        side: "test" or "validation".
        command: that reproduces it.
    """
    best = chosen(frame, value)
    column = f"{side}.{value}"
    present = [arm for arm in arms if arm in set(best["arm"])]
    seeds = best.groupby(["arm", DATASET, SPLIT])[column].mean().reset_index()
    against: dict[str, Any] = {}
    of_one_set: dict[str, Any] = {}
    others = [arm for arm in present if arm != baseline]
    paired = set(best.loc[best["arm"] == baseline, DATASET])
    others = [a for a in others if paired & set(best.loc[best["arm"] == a, DATASET])]
    if baseline in present and others:
        family, by_dataset = statistics.compare_family(
            seeds,
            baseline=baseline,
            value=column,
            arms=others,
            dataset=DATASET,
            split=SPLIT,
            unpaired="drop",
        )
        against = {row["arm"]: row for row in family.to_dict("records")}
        if len(paired) == 1:
            of_one_set = {row["arm"]: row for row in by_dataset.to_dict("records")}

    def gain(arm: str) -> list[Cell]:
        row = against.get(arm)
        if row is None:
            return [None, None, None]
        one = of_one_set.get(arm)
        error = row["standard_error"] if one is None else one["standard_error"]
        p = row["holm_p"] if one is None else one["holm_p"]
        record = f"{row['wins']}/{row['ties']}/{row['losses']}"
        return [_percent(row["difference"], error), record, _number(p)]

    extra = {
        "accuracy": f"{side}.accuracy",
        "log-loss": f"{side}.log_loss",
        "density": "size.density",
        "kept": "size.parameters_kept",
        "movement": "regime.weight_movement",
        "overlap": "regime.start_mask_overlap",
        "CPU s": "cpu_seconds",
    }
    rows: list[list[Cell]] = []
    for arm in present:
        cells = best[best["arm"] == arm]
        mean = statistics.mean_over_datasets(cells[column], cells[DATASET])
        row: list[Cell] = [arm, _percent(mean.mean, mean.standard_error), *gain(arm)]
        for name, source in extra.items():
            found = _mean_of(cells, source)
            if name == "accuracy" and found is not None:
                row.append(Value(100 * found))
            elif name == "kept" and found is not None:
                row.append(round(found))
            else:
                row.append(found)
        rows.append([*row, int(cells["tried"].max())])
    n_sets = best[DATASET].nunique()
    splits = best.groupby([DATASET, "arm"])[SPLIT].nunique()
    word = value.replace("_", " ")
    over = "data sets" if n_sets > 1 else "splits (corrected resampled t)"
    return Table(
        title=title,
        columns=[
            "arm",
            f"{word} %",
            f"minus {baseline}",
            "w/t/l",
            "p (Holm)",
            *extra,
            "tried",
        ],
        rows=rows,
        note=f"{n_sets} data set{'s' * (n_sets != 1)}, {_range(splits.min(), splits.max())} paired "
        f"splits of each, {side} rows. Mean ± standard error over data sets; differences are "
        f"paired by split, with the standard error over {over}; p of "
        + ("Wilcoxon's signed ranks" if n_sets > 1 else "the corrected t")
        + ", adjusted over the arms. CPU seconds are the cell's own: a search is counted once, "
        "with its own cell. W/t/l: data sets won, tied, lost. Kept: parameters. Tried: among how "
        "many configurations validation rows chose.",
        command=command,
    )


def regime_by_dataset(
    frame: pd.DataFrame, *, arms: Sequence[str], title: str, command: str = ""
) -> Table:
    """Return one row a data set and pruned arm: how far its search moved, and accuracy for it.

    Args:
        frame: of `Store.frame`.
        arms: in order; those that are not pruned or not searched are left out.
        title: of the table.
        command: that reproduces it.
    """
    moved, overlap = "regime.weight_movement", "regime.start_mask_overlap"
    pruned = frame[(frame["size.density"] < 1) & frame[moved].notna()]
    means = pruned.groupby([DATASET, "arm"])[[moved, overlap, "test.accuracy"]].mean()
    rows: list[list[Cell]] = [
        [
            f"{_name(dataset)}, {arm}",
            Value(float(means.loc[(dataset, arm), moved])),
            Value(float(means.loc[(dataset, arm), overlap])),
            Value(100 * float(means.loc[(dataset, arm), "test.accuracy"]), digits=1),
        ]
        for dataset in frame[DATASET].unique()
        for arm in arms
        if (dataset, arm) in means.index
    ]
    return Table(
        title=title,
        columns=["data set, arm", "movement", "overlap", "accuracy %"],
        rows=rows,
        note="Means over splits. Movement is |w - start| / |start| from the scaled start; overlap "
        "is the IoU of the mask with that of the largest initial weights: 1 is lazy.",
        command=command,
    )


def _number(value: float) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)


def reported_text(table: Table) -> str:
    """Return a table as plain text for a terminal.

    >>> print(reported_text(Table(title="t", columns=["arm", "%"], rows=[["a", Value(50.0)]])))
    arm      %
    a    50.00
    """

    def text(cell: Cell) -> str:
        if cell is None:
            return ""
        if isinstance(cell, Value):
            if not np.isfinite(cell.mean):
                return ""
            error = "" if cell.error is None else f" ± {cell.error:.{cell.digits}f}"
            note = f" ({cell.note})" if cell.note else ""
            return f"{cell.mean:.{cell.digits}f}{error}{note}"
        if isinstance(cell, int):
            return f"{cell:,}"
        return f"{cell:.3g}" if isinstance(cell, float) else cell

    lines = [list(table.columns), *([text(cell) for cell in row] for row in table.rows)]
    sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(size) if i == 0 else cell.rjust(size)
            for i, (cell, size) in enumerate(zip(line, sizes, strict=True))
        ).rstrip()
        for line in lines
    )
