"""Tier "core", the paper's parent: MLP_TAB, 9 layers of 512, against its tickets.

secateurs paper benchmarks/tabular/paper_parent.py --out runs/tabular --scale small
"""

from collections.abc import Sequence

import design
import pandas as pd
import study

from secateurs.experiments.spec import Run
from secateurs.report.page import Block

TITLE = "Tables, core: the paper's parent"
CLAIM = "The paper: IUNet at r = 8 is better than its dense 9x512 parent."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE
BASELINE = "9x512 dense"

PRIMARY = ("9x512 dense", "9x512 IUNet")
"""On every split: the endpoint is named for them."""

SECONDARY = ("9x512 dense, lr 1e-3", "9x512 IUNet, lr 1e-3")
"""On two splits: each costs as much as all arms of the default parent."""


def runs(scale: str) -> list[Run]:
    """Return the parent and its tickets, and the parent's part in the choice among dense ones."""
    return [
        *study.networks(scale, PRIMARY),
        *study.networks(scale, SECONDARY, splits=2),
        *study.choosing(scale, ("9x512 dense",), splits=2),
    ]


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return endpoints, arms and regimes."""
    return study.results(frame, BASELINE)
