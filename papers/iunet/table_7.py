"""Table 7: MLP_TAB, OMP, beta-Lasso, IUNet and XGBoost on tables.

    secateurs paper papers/iunet/table_7.py --out runs/table_7 --scale small

"small" takes the nine smallest of the sets that stand in the data root, "paper" all forty: those
that do not stand there are fetched from OpenML.
"""

from collections.abc import Sequence

import pandas as pd
import recipe

from secateurs.experiments import arms
from secateurs.experiments.spec import PeerCell, Run
from secateurs.report.page import Table

TITLE = "IUNet table 7: MLP_TAB against its tickets and against trees, on tables"
CLAIM = (
    "The paper: IUNet has a better average rank than its dense parent, than one-shot magnitude "
    "pruning and than beta-Lasso. Its printed table mixes metrics: the XGB, TABN and MLP+C columns "
    "are balanced accuracies from another study, while several of the authors' own cells equal the "
    "plain accuracy of a constant prediction. Ours are all balanced accuracies."
)
SMALL = {  # names as printed
    "arrhythmia": "arrhythmia",
    "australian": "australian",
    "vehicle": "vehicle",
    "credit-g": "credit-g",
    "cnae": "cnae-9",
    "mfeat.": "mfeat-factors",
    "kc1": "kc1",
    "kr-vs-kp": "kr-vs-kp",
    "sylvine": "sylvine",
}
LARGE = {
    "jungle.": "jungle_chess_2pcs_raw_endgame_complete",
    "bank.": "bank-marketing",
    "adult": "adult",
    "connect.": "connect-4",
    "walking.": "walking-activity",
    "skin-seg.": "skin-segmentation",
}
L1 = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5)
ARMS = ("majority", "logistic_regression", "xgboost", "dense", "omp-paper", "beta-Lasso", "IUNet")
COLUMNS = {
    "dense": "MLP_TAB",
    "omp-paper": "OMP",
    "beta-Lasso": "beta_lasso",
    "IUNet": "IUNET",
    "xgboost": "XGB",
}

_printed = recipe.published("table_7_tabular.csv").set_index("dataset")
_tasks = recipe.published("table_9_datasets.csv")
PUBLISHED = {
    (name, arm): float(_printed.loc[printed, column])
    for printed, name in (SMALL | LARGE).items()
    for arm, column in COLUMNS.items()
}


def _datasets(scale: str) -> tuple[str, ...]:
    if scale == "smoke":
        return recipe.SMOKE_SETS
    if scale == "small":
        return tuple(SMALL.values())
    names = _tasks["dataset"].str.lower().replace("jungle-chess-2pcs", LARGE["jungle."])
    elsewhere = _tasks[~names.isin((SMALL | LARGE).values())]
    fetched = [f"openml:{task}" for task in elsewhere["openml_task_id"]]
    return (*SMALL.values(), *LARGE.values(), *fetched)


def runs(scale: str) -> list[Run]:
    """Return seven arms; beta-Lasso has five strengths, among which validation rows choose."""
    datasets = _datasets(scale)
    found = recipe.arms(scale, datasets, ("dense", "omp-paper", "IUNet"))
    for split in range(recipe.SCALES[scale].splits):
        for dataset in datasets:
            found += [
                Run(cell=PeerCell(rows=recipe.rows(dataset, split), model=model), arm=model)
                for model in ("majority", "logistic_regression", "xgboost")
            ]
            for l1 in L1:
                lasso = arms.beta_lasso(recipe.iunet(scale), l1=l1)
                lasso_cell = recipe.cell(scale, dataset, split, lasso)
                found.append(Run(cell=lasso_cell, arm="beta-Lasso"))
    return found


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return what was measured, beside what was published."""
    return recipe.tables(frame, ARMS, PUBLISHED)
