"""Table 4, tabular half: IUNet without pruning, without ILO, without PIS, on MLP_TAB.

secateurs paper papers/iunet/table_4.py --out runs/table_4 --scale small
"""

from collections.abc import Sequence

import pandas as pd
import recipe

from secateurs.experiments.spec import Run
from secateurs.report.page import Table

TITLE = "IUNet table 4: which of its parts IUNet needs (MLP_TAB)"
CLAIM = (
    "The paper: pruning, the invariance objective (ILO) and the small start (PIS) each add to the "
    "accuracy of IUNet. With BatchNorm the small start is a learning rate, so no-PIS is also shown "
    "at the encoder learning rate that the small start amounts to."
)
SETS = ("arrhythmia", "mfeat-factors", "vehicle")
ARMS = ("dense", "no-prune", "no-ILO", "no-PIS", "no-PIS, matched lr", "IUNet")
COLUMNS = {
    "dense": "dense",
    "no-prune": "no_prune",
    "no-ILO": "no_ilo",
    "no-PIS": "no_pis",
    "IUNet": "IUNET",
}

_printed = recipe.published("table_4_ablation.csv")
_printed = _printed[_printed["network"] == "MLP_TAB"].set_index("dataset")
PUBLISHED = {(d, arm): float(_printed.loc[d, c]) for d in SETS for arm, c in COLUMNS.items()}


def runs(scale: str) -> list[Run]:
    """Return six arms on three sets: at scale "small" 3 splits, at "paper" 10."""
    return recipe.arms(scale, recipe.SMOKE_SETS if scale == "smoke" else SETS, ARMS)


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return what was measured, beside what was published."""
    return recipe.tables(frame, ARMS, PUBLISHED)
