"""Tier "core": every arm and control on the default parent, the paper's two, and other models.

secateurs paper benchmarks/tabular/core.py --out runs/tabular --scale small
"""

from collections.abc import Sequence

import design
import pandas as pd
import study

from secateurs.experiments.arms import ARMS
from secateurs.experiments.spec import Run
from secateurs.report.page import Block

TITLE = "Tables, core: every arm at r = 8"
CLAIM = "A ticket keeps the accuracy of the best dense network at an eighth of its weights."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE
BASELINE = "dense"

NAMES = (
    *ARMS,
    "dense, lr 1e-3",
    "beta-Lasso",
    *(one for one in design.DENSE if one.startswith("dense ") and "x" in one),
)
PEERS = ("majority", "logistic_regression", "random_forest", "xgboost")
CHOICE = tuple(name for name in design.DENSE if not name.startswith("9x512"))


def runs(scale: str) -> list[Run]:
    """Return the arms, the choice among dense networks, and models that need no extra library."""
    return [
        *study.networks(scale, NAMES),
        *study.choosing(scale, CHOICE),
        *study.peers(scale, PEERS),
    ]


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return endpoints, arms and regimes."""
    return study.results(frame, BASELINE)
