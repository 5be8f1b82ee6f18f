"""Table 9: the data sets, as they are read here and as the paper describes them.

    secateurs paper papers/iunet/table_9.py --out runs/table_7 --scale small

Its cells are the majority-class rows of table 7: what always predicting one class scores. The
other facts are read from the tables themselves. The paper's "OpenML ID" is that of a *task*.
"""

from collections.abc import Sequence

import pandas as pd
import recipe
import table_7

from secateurs.data.tables import read_table, split_target
from secateurs.experiments.rows import prepare
from secateurs.experiments.spec import Run
from secateurs.report.page import Cell, Table, Value
from secateurs.report.tables import DATASET

TITLE = "IUNet table 9: the data sets as they are read"
CLAIM = (
    "The paper lists 40 data sets, 60% of the rows trained on, 20% watched, 20% tested. A constant "
    "prediction scores the majority class's share in accuracy, and 1 / number of classes in "
    "balanced accuracy."
)
PUBLISHED: dict[tuple[str, str], float] = {
    (source, "majority"): float(table_7.FACTS.loc[printed, "majority_pct"])
    for printed, source in table_7.SOURCES.items()
}


def runs(scale: str) -> list[Run]:
    """Return the majority-class runs of table 7."""
    return [run for run in table_7.runs(scale) if run.arm == "majority"]


def _beside(value: float, printed: pd.Series | None, column: str, *, digits: int) -> Value:
    note = "" if printed is None else f"printed {printed[column]:.{digits}f}"
    return Value(value, digits=digits, note=note)


def facts(dataset: str) -> list[Cell]:
    """Return what a set is, beside what is printed, in the order of the columns of the table."""
    source = read_table(dataset)
    X, y = split_target(source, source.target or "target")
    shares = 100 * y.value_counts(normalize=True)
    names = [name for name, where in table_7.SOURCES.items() if where == dataset]
    printed = table_7.FACTS.loc[names[0]] if names else None
    prepared = prepare(recipe.rows(dataset, 0))
    sizes = [len(part) for part in prepared.raw]
    told = ["n_train", "n_valid", "n_test"]
    return [
        dataset.removeprefix("sklearn:"),
        "" if printed is None else str(printed["openml_task_id"]),
        " / ".join(map(str, sizes)),
        "" if printed is None else " / ".join(str(printed[name]) for name in told),
        _beside(X.shape[1] + 1, printed, "n_columns_with_target", digits=0),
        int(shares[shares > 0].size),
        _beside(float(shares.max()), printed, "majority_pct", digits=2),
        _beside(float(shares[shares > 0].min()), printed, "minority_pct", digits=2),
        Value(100 * float(X.isna().to_numpy().mean())),
        Value(100 * float(X.duplicated(keep=False).mean())),
    ]


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return the facts of every set that is at hand, and what a constant prediction scores."""
    rows: list[list[Cell]] = []
    for dataset, cells in frame.groupby(DATASET, sort=False):
        scores = [100 * cells[f"test.{value}"].mean() for value in reversed(recipe.METRICS)]
        rows.append([*facts(str(dataset)), *map(Value, scores)])
    return [
        Table(
            title="Data sets",
            columns=[
                "data set",
                "OpenML task",
                "rows trained / watched / tested",
                "printed",
                "columns with the target",
                "classes",
                "majority %",
                "minority %",
                "missing %",
                "twins %",
                "constant: accuracy %",
                "balanced accuracy %",
            ],
            rows=rows,
            note="Rows of the first split. Identical rows stay on one side here, so that sizes "
            "differ from the printed ones where there are any; twins: rows whose features occur "
            "more than once, which a plain random split would leak. Missing: share of all values. "
            "Constant: always predicting the class that is most frequent in training, mean over "
            "splits.",
        )
    ]
