"""ILO against none at matched movement: what does invariance add beyond richness?

secateurs paper benchmarks/tabular/movement.py --out runs/tabular --scale small

Both searches at four learning rates, all else as the default. The contrastive term moves the
weights further by itself, so that equal rates confound it with the regime: its gain is read at
equal movement, between the two rates of the search without it that enclose that movement.
"""

from collections.abc import Sequence
from dataclasses import replace

import design
import numpy as np
import pandas as pd
import study

from secateurs.experiments.arms import arm
from secateurs.experiments.spec import Run
from secateurs.optimizers import SGD
from secateurs.report.page import Block, Cell, Table, Value
from secateurs.report.tables import DATASET, SPLIT

TITLE = "Tables: ILO at matched movement"
CLAIM = "The contrastive term adds accuracy beyond what the movement that it brings adds."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
SEARCHES = ("IUNet", "no-ILO")
SPLITS = 2
MOVEMENT = "regime.weight_movement"


def runs(scale: str) -> list[Run]:
    """Return tickets of both searches at every rate."""
    iunet = design.methods(smoke=scale == "smoke")["IUNet"]
    found = []
    for split in range(min(SPLITS, study.SPLITS[scale])):
        for dataset in study.sets(scale):
            for name in SEARCHES:
                for lr in RATES:
                    search = replace(iunet.config.search, optimizer=SGD(lr=lr))
                    config = arm(name, replace(iunet.config, search=search))
                    cell = design.cell(iunet.parent, dataset, split, config, smoke=scale == "smoke")
                    found.append(Run(cell=cell, arm=f"{name}, search lr {lr:g}"))
    return found


def at_movement(
    movement: float, movements: Sequence[float], values: Sequence[float]
) -> float | None:
    """Return a value at a movement, linear in its logarithm; None outside of what was measured.

    Args:
        movement: where to read.
        movements: measured ones, in any order, all different.
        values: one for each.
    """
    order = np.argsort(movements)
    x, y = np.log(np.asarray(movements)[order]), np.asarray(values)[order]
    if not x[0] <= np.log(movement) <= x[-1]:
        return None
    return float(np.interp(np.log(movement), x, y))


def matched(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each IUNet cell: its gain over no ILO at its rate and at its movement."""
    value, rows = f"test.{VALUE}", []
    for (dataset, split), cells in frame.groupby([DATASET, SPLIT]):
        by_name = cells.set_index("arm")
        plain = by_name[by_name.index.str.startswith("no-ILO")]
        for lr in RATES:
            ours, same = f"IUNet, search lr {lr:g}", f"no-ILO, search lr {lr:g}"
            if not {ours, same} <= set(by_name.index):
                continue
            moved, accuracy = by_name.loc[ours, MOVEMENT], by_name.loc[ours, value]
            at = at_movement(moved, plain[MOVEMENT].tolist(), plain[value].tolist())
            rows.append({
                DATASET: dataset, SPLIT: split, "lr": lr,
                "movement": moved, "movement without": by_name.loc[same, MOVEMENT],
                "at its rate": accuracy - by_name.loc[same, value],
                "at its movement": np.nan if at is None else accuracy - at,
            })  # fmt: skip
    return pd.DataFrame(rows)


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return the gain of the contrastive term by learning rate, at equal rate and movement."""
    cells = matched(frame)
    n_sets = cells[DATASET].nunique() if len(cells) else 0
    rows: list[list[Cell]] = []
    for lr in [*RATES, None] if len(cells) else []:
        at = cells if lr is None else cells[cells["lr"] == lr]

        def mean(column: str, scale: float, at: pd.DataFrame = at) -> Cell:
            sets = scale * at.groupby(DATASET)[column].mean().dropna()
            return Value(sets.mean(), error=sets.sem()) if len(sets) > 1 else None

        rows.append([
            "all" if lr is None else f"{lr:g}",
            mean("movement without", 1), mean("movement", 1),
            mean("at its rate", 100), mean("at its movement", 100),
            int(at["at its movement"].notna().sum()),
        ])  # fmt: skip
    return [
        Table(
            title="Gain of ILO, points",
            columns=[
                "search lr", "movement without", "movement with",
                "gain at equal rate", "gain at equal movement", "cells matched",
            ],
            rows=rows,
            note=f"{n_sets} data sets, {SPLITS} splits at most; corrected balanced accuracy of the "
            "finetuned ticket at r = 8, mean ± standard error over data sets. At equal movement: "
            "minus the search without ILO, read between its two rates that enclose the movement; "
            "cells that move further than it ever does are left out.",
        )
    ]  # fmt: skip
