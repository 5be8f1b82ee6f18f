"""Table 4 on images (table_4_vision): IUNet without pruning, without ILO, without PIS, on MLP_VIS.

secateurs paper papers/iunet/table_4_vision.py --out runs/vision --scale small

Its cells are among those of `vision_rows.py`.
"""

from collections.abc import Sequence

import pandas as pd
import recipe
import vision
import vision_page
from table_4 import ARMS, COLUMNS
from vision_page import Claim

from secateurs.experiments.spec import Run
from secateurs.report.page import Table

TITLE = "IUNet table 4: which of its parts IUNet needs (MLP_VIS)"
CLAIM = (
    "The paper: pruning, the invariance objective (ILO) and the small start (PIS) each add to the "
    "accuracy of IUNet. With BatchNorm the small start is a learning rate, so no-PIS is also shown "
    "at the encoder learning rate that the small start amounts to."
)
VALUE = vision.VALUE
BASELINE = "dense"

CLAIMS = (
    Claim(words="pruning helps", arm="IUNet", minus="no-prune", sign=1),
    Claim(words="ILO helps", arm="IUNet", minus="no-ILO", sign=1),
    Claim(words="PIS helps", arm="IUNet", minus="no-PIS", sign=1),
    Claim(words="PIS is a learning rate", arm="IUNet", minus="no-PIS, matched lr", sign=0),
)

_printed = recipe.published("table_4_ablation.csv").set_index(["network", "dataset"])
_sets = {name: vision_page.PRINTED_SET[name] for name in vision.PAPER_SETS}
PUBLISHED = {
    (name, arm): float(_printed.loc[("MLP_VIS", printed), column])
    for name, printed in _sets.items()
    for arm, column in COLUMNS.items()
}


def runs(scale: str) -> list[Run]:
    """Return six arms of MLP_VIS."""
    return vision.arms(scale, vision.tasks(scale, vision.MLP_VIS), ARMS)


def _published(dataset: str) -> dict[str, tuple[float, float]]:
    known = {arm: (p, float("nan")) for (name, arm), p in PUBLISHED.items() if name == dataset}
    if not known:
        return {}
    row = _printed.loc[("MLP_VIS", _sets[dataset])]
    spread = {arm: f"{c}_std" for arm, c in COLUMNS.items() if f"{c}_std" in row.index}
    return known | {arm: (known[arm][0], float(row[c])) for arm, c in spread.items()}


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return the arms of each set, beside what was published, and whether each part helps."""
    found = []
    for task in vision_page.each_task(frame, vision.MLP_VIS):
        found.append(
            vision_page.rows_table(
                frame, task, ARMS, published=_published(task.dataset), baselines=("dense", "IUNet")
            )
        )
        found.append(vision_page.claims_table(frame, task, CLAIMS))
    return found
