"""The page of a store: results, regime, structure and cost of every plan in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from secateurs.errors import InputError
from secateurs.experiments.spec import TicketCell, key
from secateurs.experiments.store import Store
from secateurs.experiments.trained import trained
from secateurs.measures.regime import HISTOGRAM_EDGES
from secateurs.measures.structure import column_norms
from secateurs.report import figures
from secateurs.report.page import (
    Axis,
    Block,
    Cell,
    Facts,
    Figure,
    Scrubber,
    Section,
    Table,
    Text,
    Value,
    render,
)
from secateurs.report.tables import DATASET, SPLIT, arms_by_dataset, arms_summary, chosen

__all__ = ["page", "results", "store_page"]

_LISTED = 300
"""Cells that are listed one by one; more are only counted."""


def store_page(store: Store, *, heading: str = "Runs") -> str:
    """Return the page of every plan in a store.

    Raises:
        InputError: there is no plan, or nothing is finished.
    """
    plans = store.plans()
    if not plans:
        raise InputError(
            f"{store.root} must be a folder that `secateurs run` or `secateurs paper` filled, but "
            "it has no plan"
        )
    sections: list[Section] = []
    for plan in plans:
        sections += _sections(store, plan, None)
    if len(plans) == 1:
        heading = plans[0]["title"]
    stamps = sorted({plan["stamp"] for plan in plans} - {""})
    return render(heading, sections, stamp="; ".join(stamps), subtitle=_subtitle(plans))


def page(store: Store, plan: Mapping[str, Any], blocks: Sequence[Block] | None = None) -> str:
    """Return the page of one plan.

    Args:
        store: with its cells.
        plan: one of `store.plans()`.
        blocks: its own tables and figures; None draws the usual ones.
    """
    sections = _sections(store, plan, blocks)
    return render(plan["title"], sections, stamp=plan["stamp"], subtitle=_subtitle([plan]))


def _subtitle(plans: Sequence[Mapping[str, Any]]) -> str:
    n = sum(len({run["key"] for run in plan["runs"]}) for plan in plans)
    return f"{n:,} cells" + (f" in {len(plans)} plans" if len(plans) > 1 else "")


def _arms(plan: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(run["arm"] for run in plan["runs"]))


def results(frame: pd.DataFrame, plan: Mapping[str, Any]) -> list[Block]:
    """Return the usual tables of a plan, and accuracy against compression where it varies.

    Cells that measure something else have no part in them.
    """
    value, command = plan["value"], plan["command"]
    column = f"test.{value}"
    finished = set(frame["arm"])
    frame = _measured(frame, [column, DATASET, SPLIT])
    if frame.empty:
        return [Text(paragraphs=f"No finished cell of this plan has {column}.")]
    others = finished - set(frame["arm"])
    arms = [arm for arm in _arms(plan) if arm not in others]
    baseline = plan["baseline"] or (figures.DENSE if figures.DENSE in arms else arms[0])
    blocks: list[Block] = []
    ratios: list[float] = []
    if "config.compression" in frame:
        ratios = frame["config.compression"].dropna().unique().tolist()
    if len(ratios) > 1 and frame.groupby("arm")["config.compression"].nunique().max() > 1:
        best = chosen(frame, value, by=["config.compression"])
        drawn = pd.DataFrame(
            {
                "arm": best["arm"],
                "compression": best["config.compression"],
                "value": 100 * best[column],
            }
        ).dropna()
        word = value.replace("_", " ")
        blocks.append(
            Figure(
                title="Against compression",
                svg=figures.accuracy_by_compression(
                    drawn, value="value", ylabel=f"{word}, %", order=arms
                ),
                alt=f"Test {word} against compression, a line for each of {len(arms)} arms.",
                caption="Mean ± standard error over cells: data sets and splits together.",
                command=command,
            )
        )
        for r in sorted(ratios):
            part = frame[(frame["config.compression"] == r) | frame["config.compression"].isna()]
            part = pd.concat([part, frame[(frame["arm"] == baseline)]]).drop_duplicates(
                subset=["key", "arm"]
            )
            if (
                part.groupby(["arm", DATASET, SPLIT, "seed"]).size().max() == 1
                and part["arm"].nunique() > 1
            ):
                blocks.append(
                    arms_summary(
                        part, value, arms=arms, baseline=baseline, title=f"Arms at r = {r:g}"
                    )
                )
        return blocks
    blocks.append(
        arms_summary(
            frame, value, arms=arms, baseline=baseline, title="Arms over all data sets",
            command=command,
        )
    )  # fmt: skip
    blocks.append(
        arms_by_dataset(
            frame, value, arms=arms, title="Arms by data set", published=plan["published"],
            command=command,
        )
    )  # fmt: skip
    return blocks


def _measured(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows that have a value in each of the columns; none where one is absent."""
    if not set(columns) <= set(frame.columns):
        return frame[:0]
    rows: pd.DataFrame = frame.dropna(subset=list(columns))
    return rows


def _sections(
    store: Store, plan: Mapping[str, Any], blocks: Sequence[Block] | None
) -> list[Section]:
    frame = store.frame(plan["runs"])
    cost = Section(title="What ran", blocks=_cost(store, plan, frame))
    if frame.empty:
        return [Section(title=plan["title"], intro=plan["claim"], blocks=[]), cost]
    drawn = list(blocks) if blocks is not None else results(frame, plan)
    sections = [Section(title="Results", intro=plan["claim"], blocks=drawn)]
    for heading, intro, made in (
        ("Regime", "How far the search moved the weights.", _regime(store, plan, frame)),
        ("Structure", "What the masks keep.", _structure(store, plan, frame)),
    ):
        if made:
            sections.append(Section(title=heading, intro=intro, blocks=made))
    return [*sections, cost]


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the ticket rows of the first data set and split, one an arm: what pictures show.

    Of several compressions the one next to 8 is shown; a dense network only if it is all there is.
    """
    tickets = _measured(frame, ["kind", DATASET, SPLIT, "config.compression"])
    tickets = tickets[tickets["kind"] == "TicketCell"] if len(tickets) else tickets
    if tickets.empty:
        return tickets
    first = tickets[tickets[DATASET] == tickets[DATASET].iloc[0]]
    first = first[first[SPLIT] == first[SPLIT].min()]
    ratio = first["config.compression"]
    far = np.log2(ratio / 8).abs().where(ratio > 1, np.inf)
    nearest = first.loc[far.sort_values(kind="stable").index].drop_duplicates("arm")
    one: pd.DataFrame = nearest.sort_index()
    return one


def _where(shown: pd.DataFrame) -> str:
    ratios = sorted(set(shown["config.compression"]) - {1.0})
    told = f", r = {ratios[0]:g}" if len(ratios) == 1 else ""
    return f"{shown[DATASET].iloc[0].removeprefix('sklearn:')}, split {shown[SPLIT].iloc[0]}{told}"


def _regime(store: Store, plan: Mapping[str, Any], frame: pd.DataFrame) -> list[Block]:
    """Return movement, overlap, losses and histograms of the searches of one split."""
    shown = _shown(frame)
    searches: dict[str, str] = {}  # by key: arms often share one
    for _, row in shown.iterrows():
        cell = store.cell(row["key"])
        search = cell.search_cell if isinstance(cell, TicketCell) else None
        if search is not None and store.finished(key(search)):
            name = key(search)
            searches[name] = f"{searches[name]}, {row['arm']}" if name in searches else row["arm"]
    if not searches:
        return []
    histories = {arm: store.history(name) for name, arm in searches.items()}
    short = {arm: arm if len(arm) <= 34 else f"{arm[:31]}..." for arm in histories}
    long = pd.concat([h.assign(arm=short[arm]) for arm, h in histories.items()])
    command, where = plan["command"], _where(shown)
    blocks: list[Block] = []
    for column, heading, label, text in (
        ("weight_movement", "Weight movement", "|w - start| / |start|",
         "Relative movement of the encoder's weights from the scaled start: far above 1 is rich."),
        ("start_mask_overlap", "Mask overlap with the start", "IoU at density 1/8",
         "IoU of the mask that the search would give with that of the largest initial weights: 1 "
         "is lazy, .07 is chance."),
        ("loss", "Search loss", "objective", "The objective of the search, by epoch."),
        ("validation_loss", "Validation loss", "cross-entropy", "Cross-entropy of watched rows."),
    ):  # fmt: skip
        if column in long and long[column].notna().any():
            blocks.append(
                Figure(
                    title=heading,
                    svg=figures.curves(long, y=column, by="arm", ylabel=label),
                    alt=f"{heading} over the epochs of the search, a line for each of "
                    f"{len(histories)} searches.",
                    caption=f"{text} {where}.",
                    command=command,
                )
            )
    watched = {
        arm: h.dropna(subset="histogram") for arm, h in histories.items() if "histogram" in h
    }
    epochs = next(iter(watched.values()))["epoch"].tolist() if watched else []
    same = {arm: h for arm, h in watched.items() if h["epoch"].tolist() == epochs}
    if same:
        svg, labels = figures.weight_histograms(
            {short[arm]: np.stack(h["histogram"].tolist()) for arm, h in same.items()},
            np.log10(HISTOGRAM_EDGES),
            epochs,
        )
        blocks.append(
            Scrubber(
                title="Histogram of |w| over the search",
                frames_svg=svg,
                axes=[Axis("epoch", labels)],
                alt="Histograms of the absolute weights, a frame for each epoch and a panel for "
                "each search.",
                caption=f"Figure 3 of the paper: weights that leave the bulk are what magnitude "
                f"pruning keeps. {where}.",
                command=command,
            )
        )
    return blocks


def _structure(store: Store, plan: Mapping[str, Any], frame: pd.DataFrame) -> list[Block]:
    """Return densities of the layers by arm, and the first layer of one ticket."""
    shown = _shown(frame)
    shown = shown[shown["size.density"] < 1] if "size.density" in shown else shown[:0]
    if shown.empty:
        return []
    command, where = plan["command"], _where(shown)
    layers = [name for name in frame.columns if name.startswith("layer_density.")]
    long = shown.melt(id_vars="arm", value_vars=layers, var_name="layer", value_name="density")
    long = long.dropna()
    long["layer"] = long["layer"].str.removeprefix("layer_density.")
    blocks: list[Block] = [
        Figure(
            title="Density by layer",
            svg=figures.layer_density(long, order=_arms(plan)),
            alt=f"Kept share of the weights in each of {len(layers)} layers, by arm.",
            caption=f"{where}.",
            command=command,
        )
    ]
    preferred = [arm for arm in shown["arm"] if "IUNet" in arm] or shown["arm"].tolist()
    chosen_row = shown[shown["arm"] == preferred[0]].iloc[0]
    _, meta = store.tensors(chosen_row["key"])
    if "groups" not in meta:  # of images: there are no columns to draw
        return blocks
    network, kept = trained(store, chosen_row["key"])
    name = "encoder.0.weight"
    by_column = column_norms(network.get_parameter(name), kept[name], meta["groups"])
    order = by_column.sum(1).argsort(descending=True)
    blocks.append(
        Figure(
            title=f"First layer of {chosen_row['arm']}",
            svg=figures.weight_map(
                by_column[order].numpy(),
                row_label="neuron, by size",
                column_label="original column",
                columns=meta["columns"],
            ),
            alt=f"Weights from {by_column.shape[1]} columns to {len(by_column)} neurons; pruned "
            "ones are empty.",
            caption=f"Figure 4 of the paper, as a matrix; the weights of a category's levels are "
            f"taken together. {where}.",
            command=command,
        )
    )
    return blocks


def _cost(store: Store, plan: Mapping[str, Any], frame: pd.DataFrame) -> list[Block]:
    """Return what ran, where, for how long, and what failed."""
    names = list(dict.fromkeys(run["key"] for run in plan["runs"]))
    arm_of = {run["key"]: run["arm"] for run in reversed(plan["runs"])}
    done = set() if frame.empty else set(frame["key"])
    found = [{"key": name} for name in names if name in done]
    searches: dict[str, None] = {}
    tickets = set(frame.loc[frame["kind"] == "TicketCell", "key"]) if "kind" in frame else set()
    for run in found:
        if run["key"] not in tickets:
            continue
        cell = store.cell(run["key"])
        if isinstance(cell, TicketCell) and cell.search_cell is not None:
            searches[key(cell.search_cell)] = None
    whole = store.frame([*found, *({"key": name} for name in searches)])
    errors = {name: store.error(name) for name in names}
    failed = {name: error for name, error in errors.items() if error is not None}
    items = {"cells finished": f"{len(done):,} of {len(names):,}"}
    if failed:
        items["cells failed"] = f"{len(failed):,}"
    if not whole.empty:
        items["searches behind them"] = f"{len(searches):,}"
        if "cpu_seconds" in whole:
            items["core-hours"] = f"{whole['cpu_seconds'].sum() / 3600:.2f}"
        items["training"] = f"{whole['flops'].sum():.2e} FLOPs" if "flops" in whole else "none"
        if "peak_memory" in whole:
            items["most memory"] = f"{whole['peak_memory'].max() / 2**20:,.0f} MiB"
        items["devices"] = _several(whole, "device") or "unknown"
        items["machines"] = _several(whole, "machine") or "unknown"
        items["source"] = _several(whole, "git") or "no checkout"
        for column in (name for name in whole.columns if name.startswith("versions.")):
            items[column.removeprefix("versions.")] = _several(whole, column)
    if plan["command"]:
        items["command"] = plan["command"]
    blocks: list[Block] = [Facts(title="Facts", items=items)]
    if failed:
        rows: list[list[Cell]] = [
            [name, arm_of[name], error.get("error", "")] for name, error in failed.items()
        ]
        blocks.append(Table(title="Failed", columns=["cell", "arm", "error"], rows=rows))
    if not frame.empty:
        blocks.append(_cells(plan, frame))
    return blocks


def _several(frame: pd.DataFrame, column: str) -> str:
    """Return the different values of a column, "" where there are none."""
    return ", ".join(sorted(set(frame[column].dropna()))) if column in frame else ""


def _cells(plan: Mapping[str, Any], frame: pd.DataFrame) -> Table:
    column = f"test.{plan['value']}"
    listed = frame.head(_LISTED)
    r = "config.compression"
    rows: list[list[Cell]] = []
    for row in listed.to_dict("records"):
        has = {name: value for name, value in row.items() if _is_told(value)}
        rows.append(
            [
                row["key"],
                row["arm"],
                str(has[DATASET]).removeprefix("sklearn:") if DATASET in has else None,
                int(has[SPLIT]) if SPLIT in has else None,
                float(has[r]) if r in has else None,
                Value(100 * has[column]) if column in has else None,
                Value(has["seconds"], digits=1) if "seconds" in has else None,
            ]
        )
    rest = len(frame) - len(listed)
    word = plan["value"].replace("_", " ")
    return Table(
        title="Cells",
        columns=["cell", "arm", "data set", "split", "r", f"test {word} %", "seconds"],
        rows=rows,
        note=f"{rest:,} more are not listed." if rest else "",
    )


def _is_told(value: Any) -> bool:
    return not (value is None or (isinstance(value, float) and np.isnan(value)))
