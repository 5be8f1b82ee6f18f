"""What the tables of the IUNet paper share: its recipe for tables, its scales, its data sets."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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

METRICS = (VALUE, "accuracy")
"""Both are shown, since nobody can tell which of them a printed cell is."""

UNCLEAR = (
    "The metric of the published columns of the paper's own methods is unclear: it says balanced "
    "accuracy, and several cells equal the plain accuracy of a constant prediction."
)


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
    frame: pd.DataFrame,
    names: Sequence[str],
    printed: Mapping[tuple[str, str], float],
    *,
    balanced: Collection[str] = (),
    note: str = "",
) -> list[Table]:
    """Return the arms over all sets, and by set beside what was published, in both metrics.

    Args:
        frame: of the runs.
        names: arms, in order.
        printed: percentages by data set and arm.
        balanced: arms whose printed numbers are known to be balanced accuracies: they stand beside
            those only.
        note: what else is to be said of the printed numbers.
    """
    by_set = []
    for value in METRICS:
        beside = {at: p for at, p in printed.items() if value == VALUE or at[1] not in balanced}
        title = f"Arms by data set, {value.replace('_', ' ')}"
        table = arms_by_dataset(frame, value, arms=names, title=title, published=beside)
        by_set.append(replace(table, note=" ".join([table.note, UNCLEAR, note]).strip()))
    return [
        arms_summary(frame, VALUE, arms=names, baseline="dense", title="Arms over all data sets"),
        *by_set,
        regime_by_dataset(frame, arms=names, title="Regime of the searches"),
    ]


# --- what the paper prints -------------------------------------------------------------------


def published(file: str) -> pd.DataFrame:
    """Return a table as the paper prints it."""
    return pd.read_csv(Path(__file__).parent.parent / "data" / file)


def _squeezed(name: str) -> str:
    return name.lower().replace(".", "").replace(" ", "")


def printed_facts() -> pd.DataFrame:
    """Return table 9, its rows named as table 7 abbreviates them ("walking.", "cnae")."""
    facts = published("table_9_datasets.csv")
    short = published("table_7_tabular.csv")["dataset"]
    names = [
        next(name for name in short if _squeezed(full).startswith(_squeezed(name)))
        for full in facts["dataset"]
    ]
    return facts.set_index(pd.Index(names, name="printed"))


def is_constant(percent: float, facts: pd.Series) -> bool:
    """Return whether a printed percentage is the plain accuracy of always predicting one class.

    Table 9's sizes are cut to whole rows, while the split rounds the test rows up, so there may be
    one more; its share of the majority has two decimals.
    """
    for n_rows in (facts["n_test"], facts["n_test"] + 1):
        middle, slack = facts["majority_pct"] / 100 * n_rows, 0.5 + 0.005 / 100 * n_rows
        hits = round(percent / 100 * n_rows)
        if abs(hits - middle) <= slack and abs(100 * hits / n_rows - percent) < 0.00051:
            return True
    return False
