"""Pictures and tables of the page of `toy.py`."""

import base64
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from toy_claims import SAME, VERDICT, Claim, effects
from toy_found import (
    CONTROLS,
    DENSE,
    FRESH,
    FULL,
    ORDER,
    OWN,
    SHUFFLED,
    TICKET,
    TOP,
    Found,
    listed,
)

from secateurs.report import figures, heatmaps, paired
from secateurs.report.page import Axis, Block, Cell, Figure, Scrubber, Table, Value
from secateurs.report.tables import DATASET


def _curves(
    rows: pd.DataFrame, x: str, y: str, *, by: str, title: str, ylabel: str, caption: str,
    logy: bool = False, order: Sequence[str] | None = None,
) -> list[Block]:  # fmt: skip
    """Return a picture of y over the decimal logarithm of x; none of nothing."""
    told = f"log10 {x}"
    shown = rows.assign(**{told: np.log10(rows[x].astype(float))})[[told, y, by]].dropna()
    if shown.empty:
        return []
    svg = figures.curves(shown, x=told, y=y, by=by, ylabel=ylabel, logy=logy, order=order)
    names = ", ".join(map(str, shown[by].unique()))
    alt = f"{ylabel} against the logarithm of {x}: {names}."
    n = rows["seed"].nunique()
    caption = f"Mean ± standard error over {n} seed{'s' * (n != 1)}. {caption}"
    return [Figure(title=title, svg=svg, alt=alt, caption=caption)]


def ratios(found: Found, teacher: str) -> Table:
    """Return test errors as ratios to the dense student's, arms by alphas."""
    rows: list[list[Cell]] = []
    for arm in (TICKET, *CONTROLS):
        told = [paired.contrast(found.log_ratio(arm, DENSE, alpha)) for alpha in found.alphas]
        rows.append([arm, *(one and Value(np.exp(one.mean)) for one in told)])
    dense = [paired.contrast(found.seen(DENSE, "test_mse", alpha)) for alpha in found.alphas]
    errors: list[Cell] = [one and one.value(scale=1.0, digits=3) for one in dense]
    return Table(
        title=f"{teacher.capitalize()}: test error as a ratio to the dense student's",
        columns=["arm", *(f"alpha {alpha:g}" for alpha in found.alphas)],
        rows=[*rows, ["dense, mean squared error", *errors]],
        note=f"Geometric means over seeds at density {found.density:.3f}; mean ± standard error of "
        "the dense student's error, where 1 explains nothing.",
    )


def features(found: Found, teacher: str) -> Table:
    """Return how like the dense student's the features are, arms by alphas."""
    rows: list[list[Cell]] = []
    for column, word in (
        ("h_start", "Hcorr at the start"), ("h_end", "Hcorr at the end"),
        ("dh_end", "dHcorr at the end"), ("cka_dense", "CKA at the end"),
        ("overlap", "IoU with top |start|"), ("relevant", "weights on relevant inputs"),
    ):  # fmt: skip
        for arm in (TICKET, *CONTROLS):
            told = [paired.contrast(found.seen(arm, column, alpha)) for alpha in found.alphas]
            rows.append([f"{word}, {arm}", *(one and one.value(scale=1.0) for one in told)])
    return Table(
        title=f"{teacher.capitalize()}: features beside the dense student's",
        columns=["measure", *(f"alpha {alpha:g}" for alpha in found.alphas)],
        rows=rows,
        note=f"At density {found.density:.3f}. Hcorr: correlation of the preactivations of equal "
        "units on 256 test rows, each unit centred, units without inputs left out; dHcorr: of "
        "their changes from m w0, for no rewind too, which starts elsewhere. CKA is debiased.",
    )


def transferred(found: Found, teacher: str) -> list[Block]:
    """Return the matrix of masks found at one alpha and trained at another."""
    if found.transfer.empty:
        return []
    table = found.transfer.pivot_table(index="found", columns="alpha", values="test_mse")
    names = [f"{alpha:g}" for alpha in table.columns]
    svg = heatmaps.matrix(
        table.to_numpy(), rows=names, columns=names, log=True,
        ylabel="alpha that found the mask", xlabel="alpha that trains it, rewound",
    )  # fmt: skip
    shares = 100 * effects(found.transfer).mean()
    caption = (
        f"Mean test error of the ticket at density {found.density:.3f}. Of the variance of its "
        f"logarithm {shares['found']:.0f}% is between rows, {shares['trained']:.0f}% between "
        f"columns, {shares['rest']:.0f}% neither."
    )
    title = f"{teacher.capitalize()}: masks found at one alpha, trained at another"
    alt = "Test error by the alpha that found the mask and the alpha that trained it."
    return [Figure(title=title, svg=svg, alt=alt, caption=caption)]


def pictures(found: Found, teacher: str) -> list[Block]:
    """Return errors and features of one teacher."""
    name, records = teacher.capitalize(), found.records
    rich, lazy = found.alphas[0], found.alphas[-1]
    at = records[records["level"].isin([0, found.level])]
    where = f"Density {found.density:.3f}."
    blocks: list[Block] = _curves(
        at, "alpha", "test_mse", by="arm", title=f"{name}: error", logy=True, order=ORDER,
        ylabel="test error", caption=where,
    )  # fmt: skip
    blocks += _curves(
        at[at["arm"].isin([TICKET, OWN, SHUFFLED])], "alpha", "overlap", by="arm", order=ORDER,
        title=f"{name}: masks and the start", ylabel="IoU with top |start|", caption=where,
    )  # fmt: skip
    for alpha in (rich, lazy):
        rows = records[records["alpha"] == alpha]
        svg = figures.accuracy_by_compression(
            rows.assign(error=np.log10(rows["test_mse"]), compression=1 / rows["density"]),
            value="error", ylabel="log10 test error", order=ORDER, percent_left=True,
        )  # fmt: skip
        blocks.append(
            Figure(
                title=f"{name}: error by density, alpha {alpha:g}",
                svg=svg,
                alt=f"Test error against the share of weights left at alpha {alpha:g}, by arm.",
            )
        )
    if len(found.followed):
        later = found.followed[found.followed["step"] > 0]
        for alpha, column, word in (
            (rich, "h", "Hcorr"), (rich, "dh", "dHcorr"), (lazy, "h", "Hcorr"),
            (lazy, "dh", "dHcorr"),
        ):  # fmt: skip
            part = later[(later["alpha"] == alpha) & (later["arm"] != DENSE)]
            blocks += _curves(
                part, "step", column, by="arm", ylabel=f"{word} with the dense student",
                title=f"{name}: {word} in time, alpha {alpha:g}", order=ORDER, caption=where,
            )  # fmt: skip
    return [*blocks, *transferred(found, teacher)]


def preactivations(frame: pd.DataFrame) -> list[Block]:
    """Return heatmaps of one seed, with sliders over alpha and time."""
    if "heatmaps.scale" not in frame:
        return []
    row = frame[frame["heatmaps.scale"].notna()].iloc[0]
    shape = tuple(int(n) for n in row["heatmaps.shape"])

    def told(arm: str) -> NDArray[np.float64]:
        whole = np.frombuffer(base64.b64decode(row[f"heatmaps.arms.{arm}"]), dtype=np.int8)
        values = whole.reshape(shape).astype(float)
        return np.where(values == -128, np.nan, values * row["heatmaps.scale"] / 127)

    names = [a for a in ORDER if a != TOP and isinstance(row.get(f"heatmaps.arms.{a}"), str)]
    titles = {FRESH: "re-init, matched"}
    svg = heatmaps.heatmaps(
        {titles.get(arm, arm): told(arm) for arm in names}, limit=row["heatmaps.scale"],
        ylabel="probe, by y", xlabel="hidden unit, by the dense student's clusters",
    )  # fmt: skip
    axes = (
        Axis("alpha", [f"{alpha:g}" for alpha in row["alphas"]]),
        Axis("step", [f"{step:,}" for step in row["heatmaps.steps"]]),
    )
    return [
        Scrubber(
            title=f"Preactivations, {row[DATASET]}",
            frames_svg=svg,
            axes=axes,
            alt="Preactivations of the dense student, its ticket and controls, probes by units.",
            caption=f"Seed {row['rows.split']}, {shape[2]} test rows by {shape[3]} units at the "
            "followed density. Units are in the order of a clustering of the dense student's at "
            "the end, at each alpha; those of re-init are matched to them by |correlation|. Grey: "
            "all inputs are pruned.",
        )
    ]


# ---- widths ------------------------------------------------------------------------------------

DIALS = {
    "movement": "weight movement", "kernel_distance": "kernel distance",
    "deviation": "deviation from linear", "overlap": "IoU of the ticket with top |start|",
    "ratio": "ticket / dense test error",
}  # fmt: skip


def by_width(records: pd.DataFrame) -> pd.DataFrame:
    """Return measures of the dense student and the last ticket by width, alpha and seed."""
    keys = ["width", "alpha", "seed"]
    dense = records[records["level"] == 0].set_index(keys)
    last = records["level"] == records["level"].max()
    ticket = records[last & (records["arm"] == TICKET)].set_index(keys)
    whole = dense[["movement", "kernel_distance", "deviation"]].astype(float)
    return whole.assign(
        overlap=ticket["overlap"].astype(float), ratio=ticket["test_mse"] / dense["test_mse"]
    ).reset_index()


def shares_of_width(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return shares of the variance of a measure's logarithm, by seed."""
    long = table.rename(columns={"width": "found"}).assign(test_mse=table[column])
    found = effects(long[["found", "alpha", "seed", "test_mse"]])
    return found.rename(columns={"found": "width", "trained": "alpha"})


def widest_to_narrowest(table: pd.DataFrame, column: str) -> pd.Series:
    """Return the log ratio of a measure, widest to narrowest, mean over alphas, by seed."""
    logs = np.log(table[column]).groupby([table["seed"], table["width"]]).mean().unstack()
    return logs[logs.columns.max()] - logs[logs.columns.min()]


def widths(frame: pd.DataFrame, teacher: str) -> list[Block]:
    """Return whether one alpha means the same at all widths with the mean-field readout."""
    part = frame[(frame["arm"] != FULL) & (frame[DATASET] == teacher)]
    records = listed(part, "records")
    if records.empty:
        return []
    table = by_width(records)
    complete = table.groupby("seed")["width"].nunique() == table["width"].nunique()
    table = table[table["seed"].isin(complete.index[complete])]
    if table.empty or table["width"].nunique() < 2:
        return []
    rows: list[list[Cell]] = []
    name = teacher.capitalize()
    blocks: list[Block] = []
    for column, told in DIALS.items():
        shares = shares_of_width(table, column)
        claim = Claim(
            told=told, values=widest_to_narrowest(table, column), null=1.0, within=SAME, ratio=True
        )
        both = [paired.contrast(shares[name]) for name in ("width", "alpha")]
        by = [np.exp(np.log(part[column]).mean()) for _, part in table.groupby("width")]
        parts = [share and share.value(scale=1.0) for share in both]
        rows.append([*claim.row(), *parts, *map(float, by)])
        blocks += _curves(
            table.assign(width=[f"width {w}" for w in table["width"]]), "alpha", column,
            by="width", title=f"{name}: {told} by width", ylabel=told, logy=column != "overlap",
            caption="Mean-field readout, 50% a round, density .125 of tickets.",
        )  # fmt: skip
    return [
        Table(
            title=f"{name}: one dial for all widths, mean-field readout",
            columns=["the same at all widths", "widest / narrowest", "95% interval", "seeds",
                     "verdict", "width's share", "alpha's share",
                     *(f"mean, {w}" for w in sorted(table["width"].unique()))],
            rows=rows,
            note=f"{VERDICT} Claimed: as near as a factor of {SAME:g}, mean over alphas. Shares of "
            "the variance of the measure's logarithm over widths and alphas, by seed; the rest is "
            "their interaction. Geometric means over alphas.",
        ),
        *blocks,
    ]  # fmt: skip


def dial(studies: dict[str, Found]) -> list[Block]:
    """Return the measures of the dense student against alpha."""
    blocks: list[Block] = []
    whole = pd.concat([f.records[f.records["arm"] == DENSE] for f in studies.values()])
    for column, told in {**DIALS, "cka_start": "CKA of features, start and end"}.items():
        if column in whole and column != "overlap":
            blocks += _curves(
                whole, "alpha", column, by="teacher", title=f"The dial: {told}", ylabel=told,
                logy=column != "cka_start", caption="Dense students.",
            )  # fmt: skip
    return blocks
