"""Tier "large": the four large reporting sets, one split, with the recipe's own epochs and batches.

secateurs paper benchmarks/tabular/large.py --out runs/tabular --scale small
"""

from collections.abc import Sequence

import design
import pandas as pd
import study

from secateurs.experiments.spec import Run
from secateurs.report.page import Block

TITLE = "Tables: the large sets"
CLAIM = "What holds on small tables holds on large ones."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE
BASELINE = "dense"

CHOICE = ("dense", "dense 2x128", "dense 3x256")
NAMES = (*CHOICE, "omp-rich", "IUNet", "shuffled mask")
PEERS = ("majority", "logistic_regression", "xgboost", "catboost", "realmlp")


def runs(scale: str) -> list[Run]:
    """Return the main arms, the choice among three dense networks, and other models."""
    return [
        *study.networks(scale, NAMES, splits=1, of=design.LARGE),
        *study.choosing(scale, CHOICE, splits=1, of=design.LARGE),
        *study.peers(scale, PEERS, splits=1, of=design.LARGE),
    ]


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return endpoints, arms and regimes."""
    return study.results(frame, BASELINE)
