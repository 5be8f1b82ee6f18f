"""The fair picture as one page: accuracy against latency and bytes, a figure each."""

from pathlib import Path

import pandas as pd
from runtime_fronts import Point

from secateurs.report.page import Figure, Section, render, write
from secateurs.report.scatter import accuracy_against_cost

FAMILIES = {"XGBoost": "other models", "CatBoost": "other models"}


def _column(batch: int) -> str:
    return f"microseconds for {batch:,} row{'s' * (batch > 1)}"


def _frame(own: list[Point]) -> pd.DataFrame:
    """Return the fp32 networks and the trees as the figure reads them."""
    return pd.DataFrame(
        [
            {
                "arm": point.name,
                "tried": 1,
                "rows.dataset": "one",
                "rows.split": split,
                "seed": 0,
                "test.accuracy": point.test[i],
                "size.bytes": point.n_bytes,
                **{_column(b): us for b, (us, _) in point.latency.items()},
            }
            for point in own
            if "int8" not in point.name
            for i, split in enumerate(point.splits)
        ]
    )


def _figure(table: str, own: list[Point], cost: str, command: str) -> Figure:
    return accuracy_against_cost(
        _frame(own),
        "accuracy",
        cost=cost,
        families={p.name: FAMILIES.get(p.family, p.family) for p in own},
        title=f"{table}: accuracy against {cost.removeprefix('size.')}",
        command=command,
    )


def save(path: Path, tables: dict[str, list[Point]], command: str) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        tables: the models of each.
        command: that reproduces it.
    """
    sections = []
    for table, own in tables.items():
        costs = map(_column, sorted(own[0].latency))
        figures = [_figure(table, own, cost, command) for cost in (*costs, "size.bytes")]
        sections.append(Section(title=table, blocks=figures))
    write(path, render("Accuracy, latency and bytes on one thread", sections))
