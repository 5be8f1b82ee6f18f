"""What the tiers of the study share: which cells a list of methods makes, and their tables."""

from collections.abc import Sequence

import design
import pandas as pd

from secateurs.experiments.spec import PeerCell, Rows, Run

SPLITS = {"smoke": 1, "small": 5, "paper": 10}
"""Splits of a tier at each scale; "paper" wants a GPU."""

CHOOSING = "choosing: "
"""Prefix of the arms that only choose: trained on 60% of the rows, read on 20% of validation."""


def sets(scale: str, of: Sequence[str] = design.REPORTING) -> Sequence[str]:
    """Return the data sets of a tier."""
    return design.SMOKE if scale == "smoke" else of


def networks(
    scale: str,
    names: Sequence[str],
    *,
    splits: int | None = None,
    of: Sequence[str] = design.REPORTING,
) -> list[Run]:
    """Return the named methods, trained on 80% of the rows and tested on the rest."""
    known = design.methods(smoke=scale == "smoke")
    return [
        Run(
            cell=design.cell(
                known[name].parent,
                dataset,
                split,
                known[name].config,
                n_tickets=known[name].n_tickets,
                smoke=scale == "smoke",
            ),
            arm=name,
            tried=known[name].tried,
        )
        for split in range(_n_splits(scale, splits))
        for dataset in sets(scale, of)
        for name in names
    ]


def choosing(
    scale: str,
    names: Sequence[str],
    *,
    splits: int | None = None,
    of: Sequence[str] = design.REPORTING,
) -> list[Run]:
    """Return the runs on validation rows by which the best of several is chosen on every split."""
    known = design.methods(smoke=scale == "smoke")
    return [
        Run(
            cell=design.cell(
                known[name].parent,
                dataset,
                split,
                known[name].config,
                validation=True,
                smoke=scale == "smoke",
            ),
            arm=f"{CHOOSING}{name}",
        )
        for split in range(_n_splits(scale, splits))
        for dataset in sets(scale, of)
        for name in names
    ]


def peers(
    scale: str,
    models: Sequence[str],
    *,
    splits: int | None = None,
    of: Sequence[str] = design.REPORTING,
) -> list[Run]:
    """Return models of other kinds on the same rows, by their libraries' defaults."""
    return [
        Run(
            cell=PeerCell(rows=Rows(dataset=dataset, split=split), model=model, seed=split),
            arm=model.replace("_", " "),
        )
        for split in range(_n_splits(scale, splits))
        for dataset in sets(scale, of)
        for model in models
    ]


def _n_splits(scale: str, splits: int | None) -> int:
    return min(SPLITS[scale], splits or SPLITS[scale]) if scale != "paper" else SPLITS[scale]


def tested(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a frame that are about test rows, none that only chose."""
    return frame[~frame["arm"].str.startswith(CHOOSING)]
