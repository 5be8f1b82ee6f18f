"""What the tiers of the study share: which cells a list of methods makes, and their tables."""

from collections.abc import Iterator, Sequence

import design
import numpy as np
import pandas as pd

from secateurs.experiments.spec import PeerCell, Rows, Run, TicketCell
from secateurs.report.page import Block, Cell, Table, Value
from secateurs.report.tables import (
    DATASET,
    SPLIT,
    EndpointSpec,
    arms_by_dataset,
    arms_summary,
    choose_arm,
    endpoints,
    regime_by_dataset,
)

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
    return [
        Run(cell=_cell(scale, one, dataset, split), arm=name, tried=one.tried)
        for dataset, split, name, one in _methods(scale, names, splits, of)
    ]


def choosing(
    scale: str,
    names: Sequence[str],
    *,
    splits: int | None = None,
    of: Sequence[str] = design.REPORTING,
) -> list[Run]:
    """Return the runs on validation rows by which the best of several is chosen on every split."""
    return [
        Run(cell=_cell(scale, one, dataset, split, validation=True), arm=f"{CHOOSING}{name}")
        for dataset, split, name, one in _methods(scale, names, splits, of)
    ]


def _methods(
    scale: str, names: Sequence[str], splits: int | None, of: Sequence[str]
) -> Iterator[tuple[str, int, str, design.Method]]:
    known = design.methods(smoke=scale == "smoke")
    for split in range(_n_splits(scale, splits)):
        for dataset in sets(scale, of):
            for name in names:
                yield dataset, split, name, known[name]


def _cell(
    scale: str, method: design.Method, dataset: str, split: int, *, validation: bool = False
) -> TicketCell:
    return design.cell(
        method.parent,
        dataset,
        split,
        method.config,
        validation=validation,
        n_tickets=method.n_tickets,
        smoke=scale == "smoke",
    )


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


# --- tables ----------------------------------------------------------------------------------

BEST = "best dense"
"""The dense network that validation rows chose on each split."""

PRIMARY = (
    EndpointSpec(name="paper", arm="9x512 IUNet", baseline="9x512 dense"),
    EndpointSpec(name="product", arm="IUNet", baseline=BEST, margin=0.005),
)
"""Named before the reporting sets were read."""

SECONDARY = tuple(
    EndpointSpec(
        name=f"{arm} - {baseline}",
        arm=arm,
        baseline=baseline,
        # the product's promise, at another compression, is that nothing is lost
        margin=0.005 if arm.startswith("IUNet, r = ") else 0.0,
    )
    for arm, baseline in (
        ("IUNet", "dense"),
        ("IUNet", "omp-rich"),
        ("IUNet", "omp-paper"),
        ("IUNet", "no-ILO"),
        ("IUNet", "no-PIS"),
        ("IUNet", "no-PIS, matched lr"),
        ("IUNet", "no rewind"),
        ("IUNet", "shuffled mask"),
        ("IUNet", "top-|start| mask"),
        ("IUNet", "re-initialised"),
        ("IUNet", "dense 2x176"),
        ("untrained ticket", "untrained shuffled mask"),
        ("untrained ticket", "untrained top-|start| mask"),
        ("untrained ticket", "untrained, re-initialised"),
        ("IUNet, r = 32", BEST),
        ("9x512 IUNet, lr 1e-3", "9x512 dense, lr 1e-3"),
        ("9x512 dense", BEST),
        ("5 tickets", "dense"),
        ("5 tickets", BEST),
        ("5 tickets", "6 dense 2x176"),
        ("5 tickets", "realmlp"),
        ("5 tickets", "catboost"),
        ("IUNet", "realmlp"),
        ("IUNet", "catboost"),
        ("IUNet", "xgboost"),
    )
)

EXPLORATORY = tuple(
    EndpointSpec(name=f"IUNet, r = 32 - {baseline}", arm="IUNet, r = 32", baseline=baseline)
    for baseline in (
        *(f"{name}, r = 32" for name in design.CONTROLS),
        "omp-rich, r = 32",
        "dense 2x80",
        "dense 2x128",
    )
)
"""Named after the first split was read, where no control was resolved at r = 8."""

COLUMNS = (
    "accuracy",
    "ROC-AUC",
    "log-loss",
    "calibration error",
    "kept",
    "bytes",
    "movement",
    "overlap",
    "fit CPU s",
    "ms per 1,000 rows",
)


def best_dense(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the test rows of the best dense network of every split, chosen on validation rows.

    Among those that have both on that split: 9x512 is dear and has fewer splits than the others.
    """
    on = [DATASET, SPLIT]
    validation = frame[frame["arm"].str.startswith(CHOOSING)]
    validation = validation.assign(arm=validation["arm"].str.removeprefix(CHOOSING))
    both = validation.merge(tested(frame)[[*on, "arm"]].drop_duplicates(), on=[*on, "arm"])
    candidates: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for split, cells in both.groupby(on):
        present = set(cells["arm"])
        known = tuple(name for name in design.DENSE if name in present)
        candidates.setdefault(known, []).append(split)
    found = []
    for arms, splits in candidates.items():
        wanted = pd.MultiIndex.from_tuples(splits)
        on_validation, on_test = (
            rows[pd.MultiIndex.from_frame(rows[on]).isin(wanted)] for rows in (both, tested(frame))
        )
        found.append(choose_arm(on_validation, on_test, arms=arms, value=design.VALUE, name=BEST))
    return found


def results(frame: pd.DataFrame, baseline: str) -> list[Block]:
    """Return endpoints, all arms over the sets and by set, and the regime of the searches."""
    test = tested(frame)
    best = best_dense(frame)
    test = pd.concat([test, *best], ignore_index=True)
    names = list(dict.fromkeys(test["arm"]))
    present = set(names)
    blocks: list[Block] = []
    for title, specs, holm in (
        ("Primary endpoints", PRIMARY, False),
        ("Secondary endpoints", SECONDARY, True),
        ("Exploratory: named after split 0 was read", EXPLORATORY, True),
    ):
        known = [one for one in specs if {one.arm, one.baseline} <= present]
        if known:
            blocks.append(endpoints(test, design.VALUE, known, title=title, holm=holm))
    blocks += [
        arms_summary(
            test, design.VALUE, arms=names, baseline=baseline, title="Arms over all data sets",
            columns=COLUMNS,
        ),
        arms_by_dataset(test, design.VALUE, arms=names, title="Arms by data set"),
        regime_by_dataset(test, arms=names, title="Regime of the searches"),
    ]  # fmt: skip
    return blocks


def forgetting(frame: pd.DataFrame) -> Table:
    """Return the recall of the smallest and the largest class of each set, by arm."""
    cells = frame[frame["test_recall"].notna()] if "test_recall" in frame else frame[:0]
    rows: list[list[Cell]] = []
    for arm in dict.fromkeys(cells["arm"]):
        of_arm = cells[cells["arm"] == arm]
        worst = of_arm["test_recall"].map(lambda r: np.nanmin(np.array(r, dtype=float)))
        best = of_arm["test_recall"].map(lambda r: np.nanmax(np.array(r, dtype=float)))
        by_set = [100 * v.groupby(of_arm["rows.dataset"]).mean() for v in (worst, best)]
        rows.append([arm, *(Value(v.mean(), error=v.sem()) for v in by_set)])
    return Table(
        title="Recall of the worst and of the best class",
        columns=["arm", "worst class %", "best class %"],
        rows=rows,
        note='Test rows, argmax; "selective forgetting" (section 3.2.1) would lower the first.',
    )
