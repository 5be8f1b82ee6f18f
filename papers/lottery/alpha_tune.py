"""Learning rates along alpha: searched for the dense LeNet-300-100, four for each regime.

Chosen by validation accuracy at the end of training, then frozen in `alpha_recipe.CHOSEN`. Test
images and pruned networks take no part.

secateurs paper papers/lottery/alpha_tune.py --out runs/regime --scale small
"""

import math
from collections.abc import Sequence

import alpha_recipe
import pandas as pd
import recipe
from alpha_recipe import RATES, REGIMES, SCALES

from secateurs.experiments.spec import Run
from secateurs.report.page import Table, Value

TITLE = "Learning rates of LeNet-300-100 along alpha, dense"
CLAIM = "SGD's learning rate, by validation images, for each alpha and without one."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = recipe.VALUE

SEEDS = (100, 101)
"""Other draws of the validation images, and other starts, than those that are reported."""


def runs(scale: str) -> list[Run]:
    """Return the dense network of every task and regime at every rate."""
    found = []
    for seed in SEEDS:
        for task in SCALES[scale].tasks:
            for alpha in REGIMES:
                for rate in RATES:
                    config = alpha_recipe.dense(alpha_recipe.phase(scale, alpha, rate))
                    cell = alpha_recipe.cell(scale, task, seed, config)
                    arm = f"{alpha_recipe.name(alpha)}, {rate:g}"
                    found.append(Run(cell=cell, arm=arm, tried=len(RATES)))
    return found


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return validation accuracy by task and regime, a column a rate; a missing one diverged."""
    frame = frame.assign(n_train=frame["rows.n_train"].fillna(0).astype(int))
    tables = []
    for (dataset, n_train), part in frame.groupby(["rows.dataset", "n_train"], sort=False):
        accuracy = 100 * part["validation.accuracy"]
        of_arm = accuracy.groupby(part["arm"])
        mean, error, n = of_arm.mean(), of_arm.sem(), of_arm.count()
        rows = []
        for alpha in REGIMES:
            arms = [f"{alpha_recipe.name(alpha)}, {rate:g}" for rate in RATES]
            whole = [arm for arm in arms if n.get(arm, 0) == len(SEEDS)]
            best = max(whole, key=lambda arm: mean[arm], default=None)
            cells = [Value(mean[a], error=error[a]) if a in mean.index else None for a in arms]
            chosen = RATES[arms.index(best)] if best else math.nan
            rows.append([alpha_recipe.name(alpha), *cells, f"{chosen:g}"])
        name = f"{dataset}, {n_train:,} images" if n_train else str(dataset)
        tables.append(
            Table(
                title=f"{name}: validation accuracy in %",
                columns=["regime", *(f"{rate:g}" for rate in RATES), "chosen"],
                rows=rows,
                note=f"Mean ± standard error over {len(SEEDS)} seeds that are not reported on. "
                "Rates are before the rule, which multiplies them by min(1, alpha)^(4/3); a rate "
                "that diverged on a seed cannot be chosen, and the smallest of equal ones is.",
            )
        )
    return tables
