"""Table 7: MLP_TAB, OMP, beta-Lasso, IUNet, XGBoost and TabNet on tables.

    secateurs paper papers/iunet/table_7.py --out runs/table_7 --scale small

"small" takes the nine smallest of the sets that stand in the data root, "paper" all forty: those
that do not stand there are fetched from OpenML. TabNet needs `secateurs[peers]`, an environment of
its own: elsewhere its cells fail, and the same command there fills them in.
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
FACTS = recipe.printed_facts()
SOURCES = {
    printed: (SMALL | LARGE).get(printed, f"openml:{task}")
    for printed, task in FACTS["openml_task_id"].items()
}
"""Where every set comes from, by its name as printed; ids are those of OpenML *tasks*."""

L1 = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5)
PEERS = ("majority", "logistic_regression", "xgboost")
COLUMNS = {
    "dense": "MLP_TAB",
    "omp-paper": "OMP",
    "beta-Lasso": "beta_lasso",
    "IUNet": "IUNET",
    "xgboost": "XGB",
    "tabnet": "TABN",
}
ARMS = ("majority", "logistic_regression", *COLUMNS)
ELSEWHERE = ("xgboost", "tabnet")
"""Arms whose printed columns are balanced accuracies from another study, where they were tuned."""

PRINTED = recipe.published("table_7_tabular.csv").set_index("dataset")
PUBLISHED = {
    (source, arm): float(PRINTED.loc[printed, column])
    for printed, source in SOURCES.items()
    for arm, column in COLUMNS.items()
}


def _datasets(scale: str) -> tuple[str, ...]:
    if scale == "smoke":
        return recipe.SMOKE_SETS
    if scale == "small":
        return tuple(SMALL.values())
    first = (*SMALL.values(), *LARGE.values())
    return (*first, *(source for source in SOURCES.values() if source not in first))


def runs(scale: str) -> list[Run]:
    """Return eight arms; beta-Lasso has five strengths, among which validation rows choose.

    At scale "smoke" there is no TabNet, which needs another environment.
    """
    datasets = _datasets(scale)
    peers = PEERS if scale == "smoke" else (*PEERS, "tabnet")
    found = recipe.arms(scale, datasets, ("dense", "omp-paper", "IUNet"))
    for split in range(recipe.SCALES[scale].splits):
        for dataset in datasets:
            found += [
                Run(cell=PeerCell(rows=recipe.rows(dataset, split), model=model), arm=model)
                for model in peers
            ]
            for l1 in L1:
                lasso = arms.beta_lasso(recipe.iunet(scale), l1=l1)
                lasso_cell = recipe.cell(scale, dataset, split, lasso)
                found.append(Run(cell=lasso_cell, arm="beta-Lasso"))
    return found


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return what was measured, beside what was published."""
    sources = set(frame["rows.dataset"])
    constant = [
        f"{source} ({column})"
        for printed, source in SOURCES.items()
        for column in COLUMNS.values()
        if source in sources
        and recipe.is_constant(PRINTED.loc[printed, column], FACTS.loc[printed])
    ]
    note = (
        "The published XGB and TABN are balanced accuracies of another study, which tuned them; "
        "ours are the libraries' defaults, without class weights."
    )
    if constant:
        note += f" The plain accuracy of a constant prediction: {', '.join(constant)}."
    return recipe.tables(frame, ARMS, PUBLISHED, balanced=ELSEWHERE, note=note)
