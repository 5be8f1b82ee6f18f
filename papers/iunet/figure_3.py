"""Figure 3: where the weights are, epoch by epoch, for every small start; and what is overfitted.

Histograms of |w| over the search by kappa, and beside them the contrastive term on training and on
validation images: the paper says that contrastive objectives are overfitted (section 3.2.1).

secateurs paper papers/iunet/figure_3.py --out runs/vision --scale small
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import vision
import vision_page

from secateurs.experiments.spec import Run
from secateurs.measures.regime import HISTOGRAM_EDGES
from secateurs.report.figures import curves, weight_histograms
from secateurs.report.page import Axis, Block, Cell, Figure, Scrubber, Table
from secateurs.report.paired import MOVEMENT, OVERLAP, contrast, over, told

TITLE = "IUNet figure 3: weight magnitudes over the search, by kappa"
CLAIM = (
    "The paper: from a small start almost all weights stay small, and the important ones grow; "
    "from the full start nearly none moves. It prints pictures and no numbers."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = vision.VALUE
KAPPAS = (1.0, 0.25, 0.125, 0.0625)
SEEDS = {"smoke": 2, "small": 1, "paper": 3}


def _arm(kappa: float) -> str:
    return f"kappa {kappa:g}"


def runs(scale: str) -> list[Run]:
    """Return the search of IUNet from each start: one seed at scale "small"."""
    found = []
    for seed in range(SEEDS[scale]):
        for task in vision.tasks(scale):
            for kappa in KAPPAS:
                config = replace(vision.config(scale, task, "IUNet"), init_scale=kappa)
                cell = vision.cell(task, seed, config).search_cell
                found.append(Run(cell=cell, arm=_arm(kappa)))
    return found


def _first(part: pd.DataFrame, arm: str) -> pd.Series | None:
    rows = part[part["arm"] == arm]
    return None if rows.empty else rows.sort_values("rows.split").iloc[0]


def _histograms(part: pd.DataFrame, task: vision.Task) -> list[Block]:
    shown = {arm: one for k in KAPPAS if (one := _first(part, arm := _arm(k))) is not None}
    epochs = sorted({one["epochs.epoch"] for one in shown.values()}, key=len)
    if not shown or len(epochs) != 1:
        return []
    counts = {arm: list(one["epochs.histogram"]) for arm, one in shown.items()}
    svg, labels = weight_histograms(counts, np.log10(HISTOGRAM_EDGES), list(epochs[0]))
    return [
        Scrubber(
            title=f"|w| of the encoder, {task.name}",
            frames_svg=svg,
            axes=[Axis("epoch", labels)],
            alt=f"Histograms of weight magnitudes after each epoch of searches from starts scaled "
            f"by {', '.join(f'{k:g}' for k in KAPPAS)}.",
            caption="One seed. A slider moves through the epochs of the search.",
        )
    ]


def _gap(part: pd.DataFrame, task: vision.Task) -> list[Block]:
    sides = ("training", "validation")
    lines = []
    for kappa in (0.25, 1.0):
        one = _first(part, _arm(kappa))
        for side in sides:
            told = None if one is None else one.get(f"epochs.{side}_contrastive")
            if isinstance(told, tuple):  # absent where there are fewer images than a batch
                points = {"epoch": one["epochs.epoch"], "value": pd.to_numeric(pd.Series(told))}
                lines.append(pd.DataFrame(points).assign(arm=f"{side}, {_arm(kappa)}").dropna())
    if not lines or not len(pd.concat(lines)):
        return []
    return [
        Figure(
            title=f"Contrastive term, {task.name}",
            svg=curves(pd.concat(lines), x="epoch", y="value", by="arm", ylabel="contrastive loss"),
            alt="The contrastive loss on training and on validation images by epoch of the search.",
            caption="One seed, up to 1,024 images of each side, in evaluation mode, in batches of "
            "128. A gap that grows is overfitting.",
        )
    ]


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return the histograms and the contrastive losses of each task."""
    blocks: list[Block] = []
    for task in vision_page.each_task(frame):
        part = vision.of_task(frame, task)
        blocks += [*_histograms(part, task), *_gap(part, task)]
    return blocks


def _last(part: pd.DataFrame, column: str, arm: str) -> pd.Series:
    rows = part[(part["arm"] == arm) & part[column].notna()] if column in part else part[:0]
    values = {one["rows.split"]: one[column][-1] for _, one in rows.iterrows()}
    return pd.Series(values, dtype="float64").dropna()


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return movement, overlap and the contrastive gap at the end of each search."""
    found = []
    for task in vision_page.each_task(frame):
        part = vision.of_task(frame, task)
        rows: list[list[Cell]] = []
        samples = []
        for kappa in KAPPAS:
            arm = _arm(kappa)
            moved = vision_page.of_arm(part, MOVEMENT, arm)
            samples.append(moved)
            train, held = (
                _last(part, f"epochs.{side}_contrastive", arm)
                for side in ("training", "validation")
            )
            cells = [moved, vision_page.of_arm(part, OVERLAP, arm), train, held, held - train]
            if len(moved):
                rows.append([arm, *(told(contrast(one.dropna()), scale=1.0) for one in cells)])
        found.append(
            Table(
                title=f"At the end of the search, {task.name}",
                columns=["start", "movement", "overlap", "training NCE", "validation NCE", "gap"],
                rows=rows,
                note=f"{over(samples)} Movement: |w - start| / |start|, from the scaled start; "
                "overlap: IoU of the largest eighth of the weights with that of the start. NCE: "
                "the contrastive term in evaluation mode.",
            )
        )
    return found
