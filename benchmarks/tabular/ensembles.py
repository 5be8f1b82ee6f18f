"""Several tickets in the bytes of one dense network, against it and several small dense ones.

secateurs paper benchmarks/tabular/ensembles.py --out runs/tabular --scale small
"""

from collections.abc import Sequence

import design
import pandas as pd
import study

from secateurs.experiments.spec import Run
from secateurs.report.page import Block

TITLE = "Tables: ensembles of tickets"
CLAIM = "Tickets that weigh no more than one dense network together are better than it."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE
BASELINE = "dense"

NAMES = ("dense", "IUNet", "5 tickets", "6 dense 2x176")
PEERS = ("xgboost", "catboost", "realmlp", "tabnet")


def runs(scale: str) -> list[Run]:
    """Return the ensembles, what they are compared with, and models that need `[peers]`."""
    return [*study.networks(scale, NAMES, splits=3), *study.peers(scale, PEERS, splits=3)]


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return endpoints, arms and regimes."""
    return study.results(frame, BASELINE)
