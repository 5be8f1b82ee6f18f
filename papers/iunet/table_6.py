"""Table 6: MLP_VIS, pruned to IUNet, against the CNN that it contains, and IUNet of ResNet-18.

secateurs paper papers/iunet/table_6.py --out runs/vision --scale small

Its cells are among those of `vision_rows.py`, but for IUNet's CNN, which the paper does not have.
"""

from collections.abc import Sequence

import pandas as pd
import recipe
import vision
import vision_page

from secateurs.experiments.spec import Run
from secateurs.report.page import Cell, Table, Value
from secateurs.report.paired import END, contrast, over, told

TITLE = "IUNet table 6: how much of the way from MLP to CNN pruning goes"
CLAIM = (
    "The paper: IUNet narrows the gap between MLP_VIS and the CNN of the same layers without human "
    "design, and does not close it; IUNet of ResNet-18 is the best of all."
)
VALUE = vision.VALUE
BASELINE = "dense"
ARMS = ("dense", "IUNet")
NETWORKS = (vision.MLP_VIS, vision.CNN, vision.RESNET)
COLUMNS = {
    (vision.MLP_VIS, "dense"): "MLP_VIS",
    (vision.MLP_VIS, "IUNet"): "IUNET_MLP_VIS",
    (vision.CNN, "dense"): "CNN",
    (vision.RESNET, "IUNet"): "IUNET_RESNET",
}

PRINTED = "Published: of alpha = 8 and the whole set."

_printed = recipe.published("table_6_cnn.csv").set_index("dataset")
PUBLISHED = {
    (name, f"{network}, {arm}"): float(_printed.loc[vision_page.PRINTED_SET[name], column])
    for name in vision.PAPER_SETS
    for (network, arm), column in COLUMNS.items()
}


def runs(scale: str) -> list[Run]:
    """Return the dense network and IUNet of each network."""
    return vision.arms(scale, vision.tasks(scale, *NETWORKS), ARMS)


def _row(frame: pd.DataFrame, task: vision.Task, arm: str) -> tuple[list[Cell], pd.Series]:
    values = vision_page.of_arm(vision.of_task(frame, task), END, arm)
    known = PUBLISHED.get((task.dataset, f"{task.network}, {arm}"))
    return [task.name, arm, told(contrast(values)), None if known is None else Value(known)], values


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return each network dense and pruned, and the share of the gap that pruning closes."""
    tasks = vision_page.each_task(frame, *NETWORKS)
    found = [_row(frame, task, arm) for task in tasks for arm in ARMS]
    gaps: list[str] = []
    for dataset in dict.fromkeys(task.dataset for task in tasks):
        of = {
            task.network: vision.of_task(frame, task) for task in tasks if task.dataset == dataset
        }
        if vision.MLP_VIS not in of or vision.CNN not in of:
            continue
        gain = vision_page.minus(of[vision.MLP_VIS], "IUNet", "dense")
        cnn = vision_page.of_arm(of[vision.CNN], END, "dense")
        gap = (cnn - vision_page.of_arm(of[vision.MLP_VIS], END, "dense")).dropna()
        if len(gain) and len(gap):
            name = dataset.removeprefix("sklearn:")
            gaps.append(
                f"On {name} pruning gains {100 * gain.mean():+.2f} of the {100 * gap.mean():+.2f} "
                "points between MLP_VIS and the CNN."
            )
    return [
        Table(
            title="Networks of images, dense and pruned at r = 8",
            columns=["set, network", "arm", "test accuracy %", "published %"],
            rows=[row for row, values in found if len(values)],
            note=" ".join([over(values for _, values in found), *gaps, PRINTED]),
        )
    ]
