"""Tables 3 and 5 (table_3): what MLP_VIS sees of each transform, untrained, rewound and trained.

Consistency is the share of test images whose predicted label a transform does not change. A network
that always says the same is perfectly consistent, so the agreement beyond chance (Cohen's kappa)
and the invariance ratio stand beside it. The rewound subnetwork is measured with its own start and,
since the paper's claim is about architectures, with 20 fresh ones.

secateurs paper papers/iunet/table_3.py --out runs/vision --scale small
"""

from collections.abc import Sequence

import pandas as pd
import recipe
import vision
import vision_page

from secateurs.experiments.probes import TRANSFORMS
from secateurs.experiments.spec import ProbeCell, Run
from secateurs.report.page import Cell, Table, Value
from secateurs.report.paired import contrast, over, told

TITLE = "IUNet tables 3 and 5: consistency under each transform"
CLAIM = (
    "The paper: the untrained subnetwork that IUNet finds keeps its prediction under a transform "
    "more often than the untrained supernetwork (on CIFAR-10 97 to 99% against 44 to 82%)."
)
VALUE = vision.VALUE
BASELINE = "dense"
ARMS = ("dense", "IUNet", "omp-rich", "shuffled mask")
NETWORKS = (vision.MLP_VIS, vision.CNN)
PRINTED_VIEWS = {"crop": "resize", "flip": "horizontal_flip", "colour": "color"}

_printed = recipe.published("table_3_5_consistency.csv").set_index(["dataset", "transform"])


def _known(dataset: str, transform: str, arm: str) -> tuple[float, float] | None:
    at = (vision_page.PRINTED_SET.get(dataset, ""), PRINTED_VIEWS.get(transform, transform))
    if at not in _printed.index or arm not in ("dense", "IUNet"):
        return None
    row, column = _printed.loc[at], arm.replace("IUNet", "IUNET")
    return float(row[column]), float(row[f"{column}_std"])


PUBLISHED: dict[tuple[str, str], float] = {
    (name, f"{transform}, {arm}"): found[0]
    for name in vision.PAPER_SETS
    for transform in TRANSFORMS
    for arm in ("dense", "IUNet")
    if (found := _known(name, transform, arm)) is not None
}

STATES = {
    "supernetwork, untrained": ("dense", "start"),
    "IUNet rewound, untrained": ("IUNet", "untrained"),
    "IUNet's mask, fresh starts": ("IUNet", "fresh.mean"),
    "OMP rewound, untrained": ("omp-rich", "untrained"),
    "shuffled mask, untrained": ("shuffled mask", "untrained"),
    "supernetwork, searched": ("IUNet", "searched"),
    "dense, trained": ("dense", "trained"),
    "IUNet, trained": ("IUNet", "trained"),
    "OMP, trained": ("omp-rich", "trained"),
    "shuffled mask, trained": ("shuffled mask", "trained"),
}
"""What is measured: an arm and a state of its ticket (see `secateurs.experiments.probes`)."""

MEASURES = {"consistency": 100.0, "majority_share": 100.0, "kappa": 1.0, "ratio": 1.0}


def runs(scale: str) -> list[Run]:
    """Return a probe of four arms' tickets."""
    return [
        Run(cell=ProbeCell(ticket=run.cell), arm=run.arm)
        for run in vision.arms(scale, vision.tasks(scale, *NETWORKS), ARMS)
    ]


def of_task(frame: pd.DataFrame, task: vision.Task) -> pd.DataFrame:
    """Return the probes of a task."""
    same = frame["ticket.rows.dataset"] == task.dataset
    return frame[same & (frame["ticket.network"] == task.network)]


def _table(frame: pd.DataFrame, task: vision.Task, transform: str) -> Table:
    rows: list[list[Cell]] = []
    samples = []
    for words, (arm, state) in STATES.items():
        column = f"invariance.{transform}.{state}"
        found = [
            vision_page.of_arm(frame, f"{column}.{name}", arm, split="ticket.rows.split")
            for name in MEASURES
        ]
        if found[0].empty:
            continue
        samples += found  # a ratio may not be a number for some
        cells = [
            told(contrast(one), scale=scale)
            for one, scale in zip(found, MEASURES.values(), strict=True)
        ]
        printed = words in ("supernetwork, untrained", "IUNet rewound, untrained")
        first = printed and task.network == vision.MLP_VIS
        known = _known(task.dataset, transform, arm) if first else None
        rows.append([words, *cells, None if known is None else Value(known[0], error=known[1])])
    return Table(
        title=f"{transform.capitalize()}, {task.name}",
        columns=["network", "consistency %", "majority %", "kappa", "ratio", "published %"],
        rows=rows,
        note=f"{over(samples)} Up to 1,024 test images, one view of each. Majority: share of the "
        "most frequent prediction. Kappa: agreement beyond chance. Ratio: mean distance between "
        "representations of different images over that between an image and its view. Untrained "
        "weights have BatchNorm statistics of training images. Published: mean and standard "
        "deviation, of alpha = 8.",
    )


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return a table for each transform, of each network and set."""
    found = []
    known = {(t.dataset, t.network): t for s in vision.SCALES for t in vision.tasks(s, *NETWORKS)}
    for task in known.values():
        part = of_task(frame, task)
        found += [_table(part, task, transform) for transform in TRANSFORMS if len(part)]
    return found
