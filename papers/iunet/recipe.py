"""What the tables of the IUNet paper share: its recipe for tables, its scales, its data sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from secateurs.experiments.arms import arm
from secateurs.experiments.spec import Rows, Run, TicketCell
from secateurs.networks.dense import MLP_TAB
from secateurs.optimizers import SGD, AdamW
from secateurs.report.page import Table
from secateurs.report.tables import arms_by_dataset, arms_summary, regime_by_dataset
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

VALUE = "balanced_accuracy"
"""The one endpoint, named before anything was run. The paper mixes metrics (its table 7)."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of an experiment is run."""

    splits: int
    search_epochs: int = 105
    finetune_epochs: int = 105
    widths: tuple[int, ...] = MLP_TAB


SCALES = {
    # two bundled sets and a toy network: shows that everything runs, proves nothing
    "smoke": Scale(splits=2, search_epochs=2, finetune_epochs=7, widths=(32, 32)),
    "small": Scale(splits=3),
    "paper": Scale(splits=10),
}

SMOKE_SETS = ("sklearn:wine", "sklearn:breast_cancer")


def iunet(scale: str) -> TicketConfig:
    """Return the paper's settings for tables (method, section 2)."""
    size = SCALES[scale]
    return TicketConfig(
        search=PhaseConfig(
            epochs=size.search_epochs, optimizer=SGD(lr=1e-3), contrastive_weight=1.0
        ),
        finetune=PhaseConfig(epochs=size.finetune_epochs, optimizer=AdamW(), snapshots=3),
        compression=8.0,
        init_scale=0.25,
    )


def rows(dataset: str, split: int) -> Rows:
    """Return the paper's shares: 60% trained on, 20% watched, 20% tested."""
    return Rows(dataset=dataset, split=split, test_folds=5, validation_folds=4)


def cell(scale: str, dataset: str, split: int, config: TicketConfig) -> TicketCell:
    """Return a ticket cell of MLP_TAB, weighted since balanced accuracy is the endpoint."""
    return TicketCell(
        rows=rows(dataset, split),
        config=config,
        widths=SCALES[scale].widths,
        class_weight="balanced",
        seed=split,
    )


def arms(scale: str, datasets: tuple[str, ...], names: tuple[str, ...]) -> list[Run]:
    """Return every arm on every split of every data set."""
    config = iunet(scale)
    return [
        Run(cell=cell(scale, dataset, split, arm(name, config)), arm=name)
        for split in range(SCALES[scale].splits)
        for dataset in datasets
        for name in names
    ]


def tables(
    frame: pd.DataFrame, names: Sequence[str], printed: Mapping[tuple[str, str], float]
) -> list[Table]:
    """Return the arms over all sets, and by set beside what was published."""
    return [
        arms_summary(frame, VALUE, arms=names, baseline="dense", title="Arms over all data sets"),
        arms_by_dataset(frame, VALUE, arms=names, title="Arms by data set", published=printed),
        regime_by_dataset(frame, arms=names, title="Regime of the searches"),
    ]


def published(file: str) -> pd.DataFrame:
    """Return a table as the paper prints it."""
    return pd.read_csv(Path(__file__).parent.parent / "data" / file)
