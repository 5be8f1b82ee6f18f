"""Table 2: wins, averages and ranks of the methods of table 7 over its data sets.

    secateurs paper papers/iunet/table_2.py --out runs/table_7 --scale small

Its cells are those of table 7: in the same store nothing is run twice.
"""

from collections.abc import Sequence

import pandas as pd
import recipe
import table_7

from secateurs.experiments.spec import Run
from secateurs.measures.statistics import mean_over_datasets
from secateurs.report.page import Cell, Table, Value
from secateurs.report.tables import DATASET, chosen

TITLE = "IUNet table 2: wins, averages and ranks over the data sets of table 7"
CLAIM = (
    "The paper: over 40 data sets IUNet has the best average, and a better average rank than its "
    "dense parent, one-shot magnitude pruning, beta-Lasso, XGBoost and TabNet. Its summary adds "
    "up table 7, which mixes metrics, so it is shown here beside both metrics."
)
PUBLISHED = table_7.PUBLISHED
METHODS = tuple(table_7.COLUMNS)
COLUMNS = (
    "method",
    "mean %",
    "best on",
    "rank",
    "published metric",
    "published %",
    "published best on",
    "published rank",
)

NEAR_BALANCED = 1.35
"""Largest over smallest class up to which plain and balanced accuracy nearly coincide."""


def runs(scale: str) -> list[Run]:
    """Return the runs of table 7."""
    runs_of_table_7: list[Run] = table_7.runs(scale)
    return runs_of_table_7


def summary(values: pd.DataFrame) -> pd.DataFrame:
    """Return top1, average and rank of every column; tied methods all win, and share their ranks.

    Args:
        values: [data sets, methods] percentages, none missing.
    """
    return pd.DataFrame(
        {
            "top1": values.eq(values.max(axis=1), axis=0).sum(),
            "average": values.mean(),
            "rank": values.rank(axis=1, ascending=False).mean(),
        }
    )


def measured(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return [data sets, arms] mean percentages over splits; NaN where nothing is finished."""
    best = chosen(frame, value)
    means = best.groupby([DATASET, "arm"])[f"test.{value}"].mean().unstack("arm")
    return 100 * means.reindex(columns=list(table_7.ARMS))


def _cells(summed: pd.Series) -> list[Cell]:
    return [Value(summed["average"]), int(summed["top1"]), Value(summed["rank"])]


def _metric(column: str) -> str:
    known = {table_7.COLUMNS[arm] for arm in table_7.ELSEWHERE} | {"MLP_TAB_C"}
    return "balanced" if column in known else "unclear"


def _ours(frame: pd.DataFrame, value: str) -> Table:
    """Return our summary in one metric, beside the printed one over the same sets and methods."""
    found = measured(frame, value)
    methods = [arm for arm in METHODS if found[arm].notna().any()]
    whole = found.dropna(subset=methods)
    ours = summary(whole[methods])
    columns = {arm: table_7.COLUMNS[arm] for arm in methods}
    printed = [name for name, source in table_7.SOURCES.items() if source in whole.index]
    theirs = summary(table_7.PRINTED.loc[printed, list(columns.values())])
    rows: list[list[Cell]] = []
    for arm in table_7.ARMS:
        values = whole[arm].dropna()
        mean = mean_over_datasets(values, values.index)
        row: list[Cell] = [arm, Value(mean.mean, error=mean.standard_error)]
        if arm in methods:
            row += _cells(ours.loc[arm])[1:]
        if arm in methods and len(printed) == len(whole):
            row += [_metric(columns[arm]), *_cells(theirs.loc[columns[arm]])]
        rows.append([*row, *[None] * (len(COLUMNS) - len(row))])
    word = value.replace("_", " ").capitalize()
    note = (
        f"{word} in % on test rows, mean ± standard error over {len(whole)} data sets of their "
        f"means over splits. Best on, and mean rank among, the {len(methods)} methods of the paper "
        "that are here. Published: over the same data sets and methods, whatever their metric."
    )
    left, absent = len(found) - len(whole), [arm for arm in METHODS if arm not in methods]
    if left:
        note += f" Left out: {left} data sets on which a method is not finished."
    if absent:
        note += f" Not finished anywhere: {', '.join(absent)}."
    note += (
        " Networks are weighted for balanced accuracy; the other models are their libraries' "
        f"defaults, without weights. {recipe.UNCLEAR}"
    )
    return Table(title=word, columns=COLUMNS, rows=rows, note=note)


def as_printed() -> Table:
    """Return the printed summary, and what it comes to where the two metrics nearly coincide."""
    facts = table_7.FACTS
    near = facts.index[facts["majority_pct"] <= NEAR_BALANCED * facts["minority_pct"]]
    columns = [*table_7.COLUMNS.values(), "MLP_TAB_C"]
    whole, part = (summary(table_7.PRINTED.loc[at, columns]) for at in (facts.index, near))
    return Table(
        title="As published",
        columns=[
            "method",
            "metric",
            "average %",
            "best on",
            "rank",
            "near-balanced %",
            "near-balanced best on",
            "near-balanced rank",
        ],
        rows=[
            [column, _metric(column), *_cells(whole.loc[column]), *_cells(part.loc[column])]
            for column in columns
        ],
        note=f"Table 2 as printed, which follows from table 7: 40 data sets, 7 methods. Beside it "
        f"the {len(near)} sets whose largest class has at most {NEAR_BALANCED:g} times the rows of "
        "the smallest: there the metrics nearly coincide. XGB, TABN and MLP_TAB_C were tuned in "
        f"another study. {recipe.UNCLEAR}",
    )


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return our summary in both metrics, and the printed one."""
    return [*(_ours(frame, value) for value in recipe.METRICS), as_printed()]
