"""The mechanism: what the search moves, what the mask keeps, what a view still changes.

secateurs paper benchmarks/tabular/mechanism.py --out runs/tabular --scale small
"""

from collections.abc import Sequence

import design
import pandas as pd
import study

from secateurs.experiments.spec import ProbeCell, Run, TicketCell
from secateurs.report.page import Block, Cell, Table, Value

TITLE = "Tables: the mechanism"
CLAIM = (
    "The paper: a ticket is more invariant than its supernetwork before any training, and large "
    "weights are those that matter."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE

NAMES = ("IUNet", "no-ILO", "no-PIS", "no-PIS, matched lr", "omp-rich", "omp-paper",
         "shuffled mask", "top-|start| mask", "dense",
         "IUNet, r = 2", "IUNet, r = 32", "omp-rich, r = 32")  # fmt: skip
NETWORKS = ("start", "searched", "untrained", "fresh.mean", "trained")


def runs(scale: str) -> list[Run]:
    """Return the tickets and, for each, what it shows."""
    found = study.networks(scale, NAMES, splits=2)
    probes = [
        Run(cell=ProbeCell(ticket=run.cell), arm=f"{PROBED}{run.arm}")
        for run in found
        if isinstance(run.cell, TicketCell)
    ]
    return [*found, *probes]


PROBED = "probe of "


def _mean(cells: pd.DataFrame, column: str, scale: float = 1.0) -> Cell:
    """Return the mean over data sets and its standard error; None where nothing was measured."""
    if column not in cells or cells[column].isna().all():
        return None
    sets = scale * cells.groupby("rows.dataset")[column].mean().dropna()
    return Value(sets.mean(), error=sets.sem() if len(sets) > 1 else None)


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return invariance and consistency, coupling, layers and rare rows, by arm."""
    probed = frame[frame["arm"].str.startswith(PROBED)]
    probed = probed.assign(arm=probed["arm"].str.removeprefix(PROBED))
    arms = list(dict.fromkeys(probed["arm"]))
    by_arm = {arm: probed[probed["arm"] == arm] for arm in arms}
    n = f"{probed['rows.dataset'].nunique()} data sets, up to 2 splits; mean ± standard error over data sets."  # noqa: E501
    told = {
        "Invariance ratio": ("ratio", 1.0, "Mean distance between the hidden representations of "
            "different rows over that between a row and its view (eq. 4); 1 sees no difference."),
        "Consistency %": ("consistency", 100.0, "Share of rows whose predicted label the view does "
            "not change; read it beside the majority share."),
        "Majority share %": ("majority_share", 100.0, "Share of the most frequent prediction: a "
            "constant predictor is 100% consistent."),
        "Chance-corrected agreement": ("kappa", 1.0, "Cohen's kappa of the labels of rows and of "
            "their views."),
    }  # fmt: skip
    blocks: list[Block] = [
        Table(
            title=title,
            columns=["arm", *(name.replace("fresh.mean", "fresh weights") for name in NETWORKS)],
            rows=[
                [arm, *(_mean(by_arm[arm], f"invariance.{one}.{name}", scale) for one in NETWORKS)]
                for arm in arms
            ],
            note=f"{n} {note} Start: dense, untrained; searched: dense, as the search left it; "
            "untrained: the mask on the start; fresh weights: the mask on 20 new starts.",
        )
        for title, (name, scale, note) in told.items()
    ]
    columns = {
        "coupling, start": "coupling.start.change",
        "searched": "coupling.searched.change",
        "ticket": "coupling.trained.change",
        "rare rows %": "rare.accuracy",
        "other rows %": "rare.rest_accuracy",
    }
    blocks.append(
        Table(
            title="Do large weights matter, and what is forgotten",
            columns=["arm", *columns],
            rows=[
                [
                    arm,
                    *(
                        _mean(by_arm[arm], column, 100.0 if "%" in name else 1.0)
                        for name, column in columns.items()
                    ),
                ]
                for arm in arms
            ],
            note=f"{n} Coupling: Spearman's correlation of |w| with the change of the training "
            "loss when that weight alone is removed, over 500 weights (section 5.4). Rare rows: "
            "the tenth of the test rows that is farthest from the training rows.",
        )
    )
    layers = [name for name in probed if name.startswith("regime.layer_")]
    rows: list[list[Cell]] = []
    for arm in arms:
        cells = [_mean(by_arm[arm], name) for name in layers]
        if any(one is not None for one in cells):
            rows.append([arm, *cells])
    blocks.append(
        Table(
            title="Layers",
            columns=["arm", *(name.removeprefix("regime.layer_") for name in layers)],
            rows=rows,
            note=f"{n} Movement of the search relative to its scaled start; overlap: IoU of the "
            "mask with that of the layer's largest initial weights.",
        )
    )
    blocks.append(study.forgetting(frame))
    return blocks
