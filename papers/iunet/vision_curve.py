"""IUNet and equally tuned OMP on images over compressions, and other ways to share out r = 8.

Global magnitude pruning compares weights of layers whose fans differ by a factor of 16: those of
layers with a large fan-in start small, and may be emptied. So at r = 8 IUNet's searched weights are
also pruned by magnitudes in units of each layer's start, by LAMP, and by layer.

secateurs paper papers/iunet/vision_curve.py --out runs/vision --scale small
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import vision
import vision_page

from secateurs import criteria
from secateurs.experiments.spec import Run
from secateurs.report.figures import accuracy_by_compression
from secateurs.report.page import Block, Figure, Table
from secateurs.report.paired import COMPRESSION, END, contrast, over, seen, told

TITLE = "IUNet on images against compression"
CLAIM = (
    "The paper: IUNet's accuracy holds or rises with compression, while OMP's does not rise above "
    "its dense parent."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = vision.VALUE
BASELINE = "dense"
COMPRESSIONS = (2.0, 4.0, 8.0, 16.0)
LINES = ("IUNet", "omp-rich")
SHARES = {
    "IUNet": {},
    "IUNet, normalised magnitude": {"criterion": criteria.normalised_magnitude},
    "IUNet, LAMP": {"criterion": criteria.lamp},
    "IUNet, by layer": {"scope": "layer"},
}
"""Settings of the pruning at r = 8; the search is the same."""
SEEDS = {"smoke": 1, "small": 1, "paper": 3}


def runs(scale: str) -> list[Run]:
    """Return both lines over compressions, and the other criteria: one seed at scale "small"."""
    found = []
    for seed in range(SEEDS[scale]):
        for task in vision.tasks(scale):
            cells = {("dense", 1.0): vision.config(scale, task, "dense")}
            for arm in LINES:
                config = vision.config(scale, task, arm)
                cells |= {(arm, r): replace(config, compression=r) for r in COMPRESSIONS}
            iunet = vision.config(scale, task, "IUNet")
            cells |= {(arm, 8.0): replace(iunet, **changed) for arm, changed in SHARES.items()}
            found += [
                Run(cell=vision.cell(task, seed, config), arm=arm)
                for (arm, _), config in cells.items()
            ]
    return found


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return accuracy against compression for each task."""
    blocks: list[Block] = []
    for task in vision_page.each_task(frame):
        part = vision.of_task(frame, task)
        shown = part[part["arm"].isin(["dense", *LINES]) & part[END].notna()]
        if shown.empty:
            continue
        points = pd.DataFrame(
            {
                "arm": shown["arm"],
                "compression": shown[COMPRESSION],
                "value": 100 * pd.to_numeric(shown[END]),
            }
        )
        blocks.append(
            Figure(
                title=f"Test accuracy against compression, {task.name}",
                svg=accuracy_by_compression(
                    points, value="value", ylabel="test accuracy, %", order=["dense", *LINES]
                ),
                alt="Test accuracy of IUNet and OMP at compressions from 2 to 16, and of the dense "
                "network.",
                caption=over(group for _, group in points.groupby(["arm", "compression"])),
            )
        )
    return blocks


def _numbers(part: pd.DataFrame, task: vision.Task) -> Table:
    rows = []
    samples = []
    for arm in ("dense", *LINES):
        values = [seen(part, END, arm, r) for r in ((1.0,) if arm == "dense" else COMPRESSIONS)]
        samples += values
        cells = [told(contrast(one)) for one in values]
        rows.append([arm, *cells, *[None] * (len(COMPRESSIONS) - len(cells))])
    return Table(
        title=f"Test accuracy in %, {task.name}",
        columns=["arm", *(f"r = {r:g}" for r in COMPRESSIONS)],
        rows=rows,
        note=f"{over(samples)} The dense network's stands in the first column.",
    )


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return the numbers of each picture, and the ways to share out r = 8."""
    found = []
    for task in vision_page.each_task(frame):
        part = vision.of_task(frame, task)
        found.append(_numbers(part, task))
        at_8 = frame[(frame[COMPRESSION] == 8.0) | (frame["arm"] == "dense")]
        table = vision_page.rows_table(at_8, task, ("dense", *SHARES), baselines=("dense", "IUNet"))
        found.append(replace(table, title=f"Ways to share out r = 8, {task.name}"))
    return found
