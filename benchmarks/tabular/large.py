"""Tier "large": the large reporting sets, one split, with the recipe's own epochs and batches.

Apart from them, kc1 and skin-segmentation: many of their rows occur more than once, and identical
rows stand on one side of every split.

secateurs paper benchmarks/tabular/large.py --out runs/tabular --scale small
"""

from collections.abc import Sequence

import design
import pandas as pd
import study

from secateurs.experiments.spec import Run
from secateurs.report.page import Block
from secateurs.report.tables import arms_by_dataset

TITLE = "Tables: the large sets"
CLAIM = "What holds on small tables holds on large ones."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE
BASELINE = "dense"

SETS = {
    "smoke": design.SMOKE,
    "small": (*design.LARGE, "kc1"),
    "paper": (*design.LARGE, *design.APART),
}
CHOICE = ("dense", "dense 2x128", "dense 3x256")
NAMES = (*CHOICE, "omp-rich", "IUNet", "shuffled mask")
PEERS = ("majority", "logistic_regression", "xgboost", "catboost")
DEAR = ("realmlp",)
"""Five to fifteen minutes of a core for each large set: for scale "paper", as skin-segmentation."""


def runs(scale: str) -> list[Run]:
    """Return the main arms, the choice among three dense networks, and other models."""
    sets, models = SETS[scale], (*PEERS, *DEAR) if scale == "paper" else PEERS
    return [
        *study.networks(scale, NAMES, splits=1, of=sets),
        *study.choosing(scale, CHOICE, splits=1, of=sets),
        *study.peers(scale, models, splits=1, of=sets),
    ]


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return endpoints, arms and regimes, and the sets whose rows repeat apart."""
    apart = frame["rows.dataset"].isin(design.APART)
    blocks = study.results(frame[~apart], BASELINE)
    if apart.any():
        test = study.tested(frame[apart])
        names = list(dict.fromkeys(test["arm"]))
        blocks.append(arms_by_dataset(test, VALUE, arms=names, title="Sets whose rows repeat"))
    return blocks
