"""The richness autopilot: does movement tell a bad ticket, and is a target better than a rate?

    python benchmarks/tabular/autopilot.py tune --out runs/autopilot      # validation rows
    python benchmarks/tabular/autopilot.py grid --out runs/autopilot
    python benchmarks/tabular/autopilot.py report --out runs/autopilot    # reporting sets, once
    python benchmarks/tabular/autopilot.py table --out runs/autopilot     # prints what is there
    python benchmarks/tabular/autopilot.py grid --out runs/autopilot --roc roc.svg

Named before any of it was read. `tune` chooses the target of regime="auto": the highest mean over
the tuning sets of the corrected balanced accuracy at r = 8, on validation rows. A ticket is bad
where its balanced accuracy is more than 1 point below that of its dense twin (the same parent,
rows, seed and finetuning); the score that is to foretell it is minus the movement. `report` asks
whether auto is nowhere more than half a point below the fixed default, and better on average.

Cells are kept in a store; a killed run resumes. The large sets are left out for their time, and
from the grid two more.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import design
import numpy as np
import pandas as pd
from scipy.stats import t as student_t
from sklearn.metrics import roc_auc_score, roc_curve

from secateurs.experiments.arms import arm
from secateurs.experiments.run import plan_line, run
from secateurs.experiments.spec import Run, key
from secateurs.experiments.store import Store
from secateurs.recipes import AUTO_MOVEMENT, LAZY_MOVEMENT, PRESETS
from secateurs.report.page import write
from secateurs.report.roc import roc
from secateurs.report.tables import DATASET, SPLIT
from secateurs.tickets import TicketConfig

TARGETS = (0.2, 0.4, 0.8, 1.6)
RATES = (0.01 / 30, 0.001, 0.01 / 3, 0.01, 0.1 / 3, 0.1)
COMPRESSIONS = (8, 32)
BUNDLED = ("sklearn:wine", "sklearn:breast_cancer", "sklearn:digits")
SETS = (*design.REPORTING, "kc1", *BUNDLED)
DEAR = ("kr-vs-kp", "sylvine")
"""Half of the time that a grid would take: they are in the cells of 2026-11-25."""

SPLITS = {"tune": 3, "grid": 1, "report": 3}
BAD = 0.01
THRESHOLDS = (0.05, LAZY_MOVEMENT, 0.2, 0.4)
CELLS = Path(__file__).parents[1] / "reports" / "2026-11-25-tabular-cells.csv.gz"
VALUE = design.VALUE
MOVEMENT, OVERLAP = "regime.weight_movement", "regime.start_mask_overlap"


def base(rate: float = PRESETS["default"].search_lr, **changes: Any) -> TicketConfig:
    """Return the default recipe at a rate."""
    config = design.iunet("default", rate, PRESETS["default"].search_epochs)
    return replace(config, **changes)


def cells(stage: str) -> list[Run]:
    """Return what a stage runs."""
    sets, first, validation = SETS, 0, stage != "report"
    if stage == "tune":
        sets, first = design.TUNING, 100
    configs: dict[str, TicketConfig] = {"dense": arm("dense", base())}
    for r in COMPRESSIONS[: 1 if stage == "tune" else None]:
        at = f", r = {r}"
        configs[f"default{at}"] = base(compression=float(r))
        if stage == "tune":
            configs |= {f"{t:g}{at}": base(compression=float(r), movement=t) for t in TARGETS}
        elif stage == "grid":
            configs |= {f"lr {lr:.3g}{at}": base(lr, compression=float(r)) for lr in RATES}
        else:
            configs[f"auto{at}"] = base(compression=float(r), movement=AUTO_MOVEMENT)
    found = []
    if stage == "grid":
        sets = (*design.TUNING, *(one for one in SETS if one not in DEAR))
    for dataset in sets:
        shift = 100 if dataset in design.TUNING else first
        for split in range(shift, shift + SPLITS[stage]):
            for name, config in configs.items():
                cell = design.cell("default", dataset, split, config, validation=validation)
                found.append(Run(cell=cell, arm=name))
    return found


# --- what comes out --------------------------------------------------------------------------


def frame(store: Store, stage: str) -> pd.DataFrame:
    """Return the finished cells of a stage."""
    runs = [{"key": key(one.cell), "arm": one.arm, "tried": 1} for one in cells(stage)]
    return store.frame([one for one in runs if store.finished(one["key"])])


def differences(found: pd.DataFrame, one: str, other: str, value: str) -> pd.Series:
    """Return one minus the other by data set and split, in points."""
    wide = found.pivot_table(index=[DATASET, SPLIT], columns="arm", values=value)
    return 100 * (wide[one] - wide[other]).dropna()


def summary(cells: pd.Series) -> str:
    """Return mean and standard error over splits of each set, then over sets."""
    by = cells.groupby(DATASET)
    mean, sem, n = by.mean(), by.sem(), by.size()
    half = student_t.ppf(0.975, len(mean) - 1) * mean.sem()
    lines = [
        f"  {name:<24}{mean[name]:+7.2f} ± {sem[name]:.2f}  ({n[name]})" for name in mean.index
    ]
    return "\n".join([
        *lines,
        f"  {'mean over sets':<24}{mean.mean():+7.2f} ± {mean.sem():.2f}  "
        f"[{mean.mean() - half:+.2f}, {mean.mean() + half:+.2f}]  worst {mean.min():+.2f}",
    ])  # fmt: skip


def tune_table(store: Store) -> None:
    """Print the mean over tuning sets of each target, on validation rows."""
    found = frame(store, "tune")
    if not len(found):
        return
    value = f"validation.{VALUE}"
    wide = 100 * found.pivot_table(index="arm", columns=DATASET, values=value)
    wide.insert(0, "mean", wide.mean(axis=1))
    wide["log-loss"] = found.groupby("arm")["validation.log_loss"].mean()
    wide["movement"] = found.groupby("arm")[MOVEMENT].mean()
    wide["fit CPU s"] = found.groupby("arm")["fit_seconds"].mean()
    wide["cells"] = found.groupby("arm").size()
    print(f"tune: {VALUE} %, validation rows, r = 8")
    print(wide.sort_values("mean", ascending=False).round(3).to_string())
    names = [one for one in wide.index if one not in ("dense", "default, r = 8")]
    for name in names:
        print(f"{name} minus default:")
        print(summary(differences(found, name, "default, r = 8", value)))
    reached(found[found["config.movement"].notna()], store, "tune")


def reached(found: pd.DataFrame, store: Store, stage: str) -> None:
    """Print how near the searches came to their targets, and how many it took."""
    asked = {one.cell.search_cell for one in cells(stage)}
    names = [key(one) for one in asked if one is not None and one.movement is not None]
    told = [store.result(name)["steering"] for name in names if store.finished(name)]
    if told:
        pilots, searches = (np.mean([len(one[n]) for one in told]) for n in ("pilots", "searches"))
        print(f"{len(told)} steered searches: {pilots:.2f} pilots, {searches:.2f} searches each")
    if len(found):
        off = found[MOVEMENT] / found["config.movement"]
        print(
            f"movement over target: {off.min():.3f} to {off.max():.3f}, "
            f"{100 * (abs(off - 1) <= 0.25).mean():.0f}% of {len(off)} within 25%"
        )


def twins(found: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return tickets with how far they are below their dense twin, in points."""
    value, on = f"{side}.balanced_accuracy", [DATASET, SPLIT, "rows.validation_folds"]
    dense = found[found["twin"]].groupby(on)[value].mean()
    tickets = found[~found["twin"] & found[MOVEMENT].notna() & found[value].notna()].copy()
    known = pd.MultiIndex.from_frame(tickets[on])
    tickets = tickets[known.isin(dense.index)]
    tickets["below"] = dense.reindex(pd.MultiIndex.from_frame(tickets[on])).to_numpy()
    tickets["below"] -= tickets[value].to_numpy()
    return tickets


def auc(score: pd.Series, bad: pd.Series, sets: pd.Series) -> str:
    """Return the area under the ROC with its 95% interval over bootstrapped data sets."""
    if bad.all() or not bad.any():
        return "one kind of ticket only"
    rng, names, draws = np.random.default_rng(0), sets.unique(), []
    groups = {name: np.flatnonzero(sets == name) for name in names}
    s, b = score.to_numpy(), bad.to_numpy()
    for _ in range(2000):
        rows = np.concatenate([groups[name] for name in rng.choice(names, len(names))])
        if 0 < b[rows].sum() < len(rows):
            draws.append(roc_auc_score(b[rows], s[rows]))
    low, high = np.quantile(draws, [0.025, 0.975])
    within = [
        roc_auc_score(b[rows], s[rows]) for rows in groups.values() if 0 < b[rows].sum() < len(rows)
    ]
    return (
        f"AUC {roc_auc_score(b, s):.3f} [{low:.3f}, {high:.3f}], within a set "
        f"{np.mean(within):.3f} ± {np.std(within, ddof=1) / np.sqrt(len(within)):.3f} "
        f"({len(within)} sets)"
    )


Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def foretold(tickets: pd.DataFrame, title: str, curves: Curves) -> None:
    """Print how well movement and overlap foretell tickets that are below their twin.

    The curve of movement joins `curves`.
    """
    sets = tickets[DATASET]
    bad = tickets["below"] > BAD
    print(f"{title}: {len(tickets)} tickets of {sets.nunique()} sets, {bad.sum()} bad")
    if not len(tickets):
        return
    if 0 < bad.sum() < len(bad):
        curves[title] = roc_curve(bad, -tickets[MOVEMENT], drop_intermediate=False)[:2]
    print(f"  -movement      {auc(-tickets[MOVEMENT], bad, sets)}")
    print(f"  mask overlap   {auc(tickets[OVERLAP], bad, sets)}")
    edges = [0, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.6, np.inf]
    bins = pd.cut(tickets[MOVEMENT], edges)
    told = tickets.groupby(bins, observed=True).agg(
        tickets=("below", "size"), below=("below", lambda b: 100 * b.mean()),
        bad=("below", lambda b: (b > BAD).mean()), overlap=(OVERLAP, "mean"),
    )  # fmt: skip
    print(told.round(3).to_string())
    for threshold in THRESHOLDS:
        warned = tickets[MOVEMENT] < threshold
        if not warned.any() or warned.all():
            continue
        print(
            f"  movement < {threshold:g}: {warned.sum()} warned; of the bad "
            f"{100 * warned[bad].mean():.0f}%, of the others {100 * warned[~bad].mean():.0f}%; "
            f"bad among the warned {100 * bad[warned].mean():.0f}%, else "
            f"{100 * bad[~warned].mean():.0f}%"
        )


def grid_tables(store: Store) -> Curves:
    """Print what movement foretells in the cells at hand and in the grid of rates; return ROCs."""
    curves: Curves = {}
    old = pd.read_csv(CELLS)
    old = old[old["kind"] == "TicketCell"].copy()
    old["twin"] = old["arm"].isin(["dense, lr 1e-3"]) | (
        (old["arm"] == "dense")
        & ~old[DATASET].isin(old.loc[old["arm"] == "dense, lr 1e-3", DATASET])
    )
    searched = old["config.compression"] > 1
    plain = (
        (old["config.control"] == "none") & (old["config.rewind"] == "start")
        & (old["config.finetune.epochs"] > 0) & (old["n_tickets"].fillna(1) == 1)
        & (old["widths"] == "[512, 512]")
    )  # fmt: skip
    old = old[old["twin"] | (searched & plain)].drop_duplicates("key")
    foretold(twins(old, "test"), "cells of 2026-11-25, test rows", curves)
    found = frame(store, "grid")
    if not len(found):
        return curves
    found["twin"] = found["arm"] == "dense"
    found = found.drop_duplicates("key")
    for side in ("validation", "test"):
        tickets = twins(found, side)
        foretold(tickets, f"grid of rates, {side} rows", curves)
        for r in COMPRESSIONS:
            part = tickets[tickets["config.compression"] == r]
            foretold(part, f"grid, {side} rows, r = {r}", {})
    return curves


def report_table(store: Store) -> None:
    """Print auto against the fixed default on the reporting sets, test rows."""
    found = frame(store, "report")
    if not len(found):
        return
    value = f"test.{VALUE}"
    wide = 100 * found.pivot_table(index=DATASET, columns="arm", values=value)
    print(f"report: {VALUE} %, test rows, target {AUTO_MOVEMENT:g}")
    print(wide.round(2).to_string())
    moved = found.pivot_table(index=DATASET, columns="arm", values=MOVEMENT)
    print("movement")
    print(moved.round(3).to_string())
    print("fit CPU s", found.groupby("arm")["fit_seconds"].mean().round(1).to_dict())
    for r in COMPRESSIONS:
        for name in ("corrected_balanced_accuracy", "balanced_accuracy", "log_loss"):
            both = differences(found, f"auto, r = {r}", f"default, r = {r}", f"test.{name}")
            print(f"auto minus default, r = {r}, {name} x 100:")
            print(summary(both))
    reached(found[found["config.movement"].notna()], store, "report")


def main() -> None:
    """Run a stage, or print what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["tune", "grid", "report", "table"])
    parser.add_argument("--out", type=Path, default=Path("runs/autopilot"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--roc", type=Path, help="SVG file for the curves of `grid`")
    options = parser.parse_args()
    store = Store(options.out)
    if options.stage != "table":
        asked = [one.cell for one in cells(options.stage)]
        print(plan_line(asked, store, jobs=options.jobs), flush=True)
        print(run(asked, store, jobs=options.jobs, device="cpu"), flush=True)
    if options.stage in ("table", "tune"):
        tune_table(store)
    if options.stage in ("table", "grid"):
        curves = grid_tables(store)
        if options.roc is not None and curves:
            write(options.roc, roc(curves))
    if options.stage in ("table", "report"):
        report_table(store)


if __name__ == "__main__":
    main()
