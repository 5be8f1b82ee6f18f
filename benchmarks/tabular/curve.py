"""Tier "curve": accuracy against compression.

secateurs paper benchmarks/tabular/curve.py --out runs/tabular --scale small
"""

from collections.abc import Sequence

import design
import pandas as pd
import study

from secateurs.experiments.spec import Run
from secateurs.report.page import Block

TITLE = "Tables: accuracy against compression"
CLAIM = "A ticket keeps the accuracy of the best dense network down to 1/32 of its weights."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE
BASELINE = "dense"

RATIOS = (2, 4, 16, 32)
NAMES = (
    "dense",
    "dense 2x128",
    "dense 2x80",
    *(f"{name}, r = {r}" for name in ("IUNet", "omp-rich") for r in RATIOS),
    *(f"{name}, r = 32" for name in design.CONTROLS),
)


def runs(scale: str) -> list[Run]:
    """Return both searches at every compression but 8, which the core has."""
    return study.networks(scale, (*NAMES, "IUNet", "omp-rich"), splits=3)


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return endpoints, arms, regimes, and what is forgotten at each compression."""
    return [*study.results(frame, BASELINE), study.forgetting(study.tested(frame))]
