"""Figure 2 for MLP_TAB: validation accuracy against compression, by objective and small start.

secateurs paper papers/iunet/figure_2.py --out runs/figure_2 --scale small
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import recipe

from secateurs.experiments.spec import Run
from secateurs.report.figures import accuracy_by_compression
from secateurs.report.page import Block, Cell, Figure, Table, Value
from secateurs.report.tables import arms_summary, chosen
from secateurs.tickets import TicketConfig

TITLE = "IUNet figure 2: objectives and small starts against compression (MLP_TAB)"
CLAIM = (
    "The paper: with the invariance objective and a small start, accuracy holds or rises as the "
    "network is compressed, and falls with cross-entropy and a full start. The paper prints a "
    "picture and no numbers."
)
PUBLISHED: dict[tuple[str, str], float] = {}
SETS = {"smoke": ("sklearn:wine",), "small": ("vehicle",), "paper": ("arrhythmia", "vehicle")}
OBJECTIVES = {"cross-entropy": (1.0, 0.0), "contrastive": (0.0, 1.0), "ILO": (1.0, 1.0)}
"""Weights of the cross-entropy and of the contrastive term."""
KAPPAS = (1.0, 0.25, 0.125, 0.0625)
COMPRESSIONS = (1.0, 2.0, 4.0, 8.0, 16.0)
VALUE = "accuracy"


def changed(base: TicketConfig, objective: str, kappa: float, compression: float) -> TicketConfig:
    loss_weight, contrastive_weight = OBJECTIVES[objective]
    search = replace(base.search, loss_weight=loss_weight, contrastive_weight=contrastive_weight)
    return replace(base, search=search, init_scale=kappa, compression=compression)


def arm_of(objective: str, kappa: float) -> str:
    return f"{objective}, kappa {kappa:g}"


def runs(scale: str) -> list[Run]:
    """Return twelve lines of five compressions; compression 1 is the dense network in all."""
    base = recipe.iunet(scale)
    return [
        Run(
            cell=recipe.cell(scale, dataset, split, changed(base, objective, kappa, r)),
            arm=arm_of(objective, kappa),
        )
        for split in range(recipe.SCALES[scale].splits)
        for dataset in SETS[scale]
        for objective in OBJECTIVES
        for kappa in KAPPAS
        for r in COMPRESSIONS
    ]


def _value(point: pd.Series) -> Value:
    return Value(point["mean"], error=point["sem"], digits=1)


def _numbers(means: pd.DataFrame, frame: pd.DataFrame) -> Table:
    """Return the pictures' numbers, and how far each search moved the weights."""
    points = means.set_index(["arm", "compression"])
    regime = ["regime.weight_movement", "regime.start_mask_overlap"]
    moved = frame[frame["config.compression"] == 8].groupby("arm")[regime].mean()
    rows: list[list[Cell]] = []
    for arm in dict.fromkeys(frame["arm"]):
        row: list[Cell] = [arm]
        for r in COMPRESSIONS:
            there = (arm, r) in points.index
            row.append(_value(points.loc[(arm, r)]) if there else None)
        row += [Value(x) for x in moved.loc[arm]] if arm in moved.index else [None, None]
        rows.append(row)
    return Table(
        title="Validation accuracy in %, by compression",
        columns=["search", *(f"r = {r:g}" for r in COMPRESSIONS), "movement", "overlap"],
        rows=rows,
        note="Mean ± standard error over cells. Movement of the weights in the search, from the "
        "scaled start; overlap (IoU) of the mask at r = 8 with that of the largest initial ones.",
    )


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return a picture for each objective, and the numbers at r = 8."""
    column = f"validation.{VALUE}"
    best = chosen(frame, VALUE, by=["config.compression"])
    means = best.groupby(["arm", "config.compression"], as_index=False)[column].agg(["mean", "sem"])
    means = means.rename(columns={"config.compression": "compression"})
    means[["mean", "sem"]] *= 100
    blocks: list[Block] = []
    for objective in OBJECTIVES:
        lines = [arm_of(objective, kappa) for kappa in KAPPAS]
        part = means[means["arm"].isin(lines)]
        if part.empty:
            continue
        blocks.append(
            Figure(
                title=f"Search by {objective}",
                svg=accuracy_by_compression(
                    part, value="mean", error="sem", ylabel="validation accuracy, %"
                ),
                alt=f"Validation accuracy against compression 1 to 16 for searches by {objective} "
                "from starts scaled by 1, 1/4, 1/8 and 1/16.",
                caption="Mean ± standard error over cells: data sets and splits together.",
            )
        )
    blocks.append(_numbers(means, frame))
    at_8 = frame[frame["config.compression"].isin([8.0])]
    lines = [arm_of(objective, kappa) for objective in OBJECTIVES for kappa in KAPPAS]
    if not at_8.empty:
        blocks.append(
            arms_summary(
                at_8, VALUE, arms=lines, baseline=lines[0], title="At r = 8", side="validation"
            )
        )
    return blocks
