"""Learning rates of the lottery experiments: searched for the dense LeNet-300-100 only.

Chosen by validation accuracy at the end of training, then frozen in `recipe.LEARNING_RATES`. Test
images take no part.

secateurs paper papers/lottery/tune.py --out runs/lottery --scale small
"""

from collections.abc import Sequence
from dataclasses import replace

import at_equal_steps
import pandas as pd
import recipe

from secateurs.experiments.spec import Run
from secateurs.report.page import Table, Value
from secateurs.tickets import TicketConfig

TITLE = "Learning rates of LeNet-300-100, dense"
CLAIM = "Adam's learning rate, by validation images; no pruned network took part."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = recipe.VALUE

RATES = (3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3)
SEEDS = (100, 101, 102)
"""Other draws of the validation images, and other starts, than those that are reported."""


def runs(scale: str) -> list[Run]:
    """Return the dense network of every task at every rate."""
    found = []
    for seed in SEEDS[: recipe.SCALES[scale].seeds]:
        for task in at_equal_steps.TASKS[scale]:
            phase = recipe.PRESETS["lth2019"].phase(task.steps)
            for rate in RATES:
                tried = replace(phase, optimizer=replace(phase.optimizer, lr=rate))
                config = TicketConfig(compression=1.0, finetune=tried)
                cell = recipe.cell(scale, task.dataset, seed, config, n_train=task.n_train)
                found.append(Run(cell=cell, arm=f"{rate:g}", tried=len(RATES)))
    return found


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return validation accuracy by task and rate."""
    frame = frame.assign(n_train=frame["rows.n_train"].fillna(0).astype(int))
    rows = []
    for (dataset, n_train), part in frame.groupby(["rows.dataset", "n_train"], sort=False):
        of_rate = part.groupby("arm")["validation.accuracy"]
        mean, error = of_rate.mean(), of_rate.sem()
        values = [Value(100 * mean[f"{r:g}"], error=100 * error[f"{r:g}"], digits=2) for r in RATES]
        rows.append([f"{dataset}, {n_train:,} images" if n_train else dataset, *values])
    return [
        Table(
            title="Validation accuracy in %, by learning rate",
            columns=["task", *(f"{rate:g}" for rate in RATES)],
            rows=rows,
            note=f"Mean ± standard error over {len(SEEDS)} seeds that are not reported on.",
        )
    ]
