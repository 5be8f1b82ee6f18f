"""How the dense LeNet-300-100 learns features along alpha: every dial of the regime, over time.

512 training images are the probes; measures are at log-spaced steps, from the network's own start.
Rates are those of `alpha_mnist.py`, which differ from alpha to alpha, and one rate (before the
rule) for all.

secateurs paper papers/lottery/alpha_dynamics.py --out runs/regime --scale small
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import alpha_recipe
import numpy as np
import page
import pandas as pd
import recipe
from alpha_recipe import ALPHAS, SCALES
from scipy import stats

from secateurs.experiments.spec import Run, SearchCell
from secateurs.report import figures, paired
from secateurs.report.page import Block, Cell, Figure, Table
from secateurs.report.tables import SPLIT

TITLE = "Features of LeNet-300-100 along alpha"
CLAIM = (
    "Alpha is one dial from rich to lazy: the larger it is, the less the weights, the tangent "
    "kernel, the features and the mask leave the start, and the nearer is the linearised network."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = recipe.VALUE


@dataclass(frozen=True, kw_only=True)
class Dial:
    """A measure of feature learning."""

    column: str
    name: str
    sign: int


DIALS = (
    Dial(column="weight_movement", name="weight movement", sign=-1),
    Dial(column="kernel_distance", name="kernel distance", sign=-1),
    Dial(column="deviation", name="deviation from the linearised network", sign=-1),
    Dial(column="cka", name="CKA with the start", sign=1),
    Dial(column="unchanged_activations", name="unchanged activations", sign=1),
    Dial(column="start_mask_overlap", name="mask overlap with the start's", sign=1),
)
"""Sign: of its change with alpha."""

TOLD = ("kernel_alignment", "kernel target alignment")
N_PROBES = {"smoke": 64, "small": 512, "paper": 512}

EQUAL = 0.03
"""The one rate: what is left of the differences is alpha's."""

SETTINGS = ("rates chosen for accuracy", f"one rate, {EQUAL:g}")


def _arm(alpha: float, setting: str) -> str:
    return f"{alpha_recipe.name(alpha)}; {setting}"


def runs(scale: str) -> list[Run]:
    """Return the dense network of every task with few labels, seed, alpha and setting."""
    found = []
    for seed in range(SCALES[scale].seeds):
        for task in (one for one in SCALES[scale].tasks if one.every_arm):
            for alpha in ALPHAS:
                phases = (
                    alpha_recipe.tuned(scale, task, alpha),
                    alpha_recipe.phase(scale, alpha, EQUAL),
                )
                for setting, trained in zip(SETTINGS, phases, strict=True):
                    cell = alpha_recipe.cell(scale, task, seed, alpha_recipe.dense(trained))
                    probed = SearchCell(
                        rows=cell.rows, search=trained, widths=cell.widths, init_scale=1.0,
                        seed=seed, network=cell.network, n_probes=N_PROBES[scale],
                    )  # fmt: skip
                    found.append(Run(cell=probed, arm=_arm(alpha, setting)))
    return found


# ---- the page --------------------------------------------------------------------------------


def _over_steps(part: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return step and value of every seed and alpha."""
    columns = ["dynamics.step", f"dynamics.{column}"]
    if not set(columns) <= set(part.columns):
        return pd.DataFrame(columns=["step", "value", "alpha"])
    long = part[["alpha", *columns]].explode(columns).set_axis(["alpha", "step", "value"], axis=1)
    return long.astype({"step": float, "value": float}).dropna()


def _ends(part: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return [seeds, alphas] at the last step."""
    long = part.assign(end=[row[-1] for row in part[f"dynamics.{column}"]])
    wide = long.pivot_table(index=SPLIT, columns="alpha", values="end")
    return wide.reindex(columns=[alpha_recipe.name(alpha) for alpha in ALPHAS]).astype(float)


def dials(part: pd.DataFrame, name: str) -> Table:
    """Return every dial at the end by alpha, and whether it is monotone on every seed."""
    rows: list[list[Cell]] = []
    samples = []
    for dial in (*DIALS, Dial(column=TOLD[0], name=TOLD[1], sign=0)):
        ends = _ends(part, dial.column)
        samples.append(ends.iloc[:, 0].dropna())
        values = [paired.contrast(ends[alpha].dropna()) for alpha in ends]
        ranks = [
            dial.sign * stats.spearmanr(np.arange(len(row)), row).statistic
            for row in ends.dropna().to_numpy()
        ]
        monotone = sum(rank > 1 - 1e-9 for rank in ranks)
        told = f"{monotone} of {len(ranks)}" if dial.sign else None
        rows.append([dial.name, *(one and one.value(scale=1.0, digits=3) for one in values), told])
    names = [alpha_recipe.name(alpha) for alpha in ALPHAS]
    return Table(
        title=f"{name}: dials at the end",
        columns=["measure", *names, "monotone on seeds"],
        rows=rows,
        note=f"{paired.over(samples)} "
        f"On {N_PROBES['small']} training images (fewer at scale smoke). "
        "Monotone: the rank correlation with alpha is 1 in the direction of lazier.",
    )


def _split(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield what there is of each task and setting, with the alpha in a column of its own."""
    for name, part in page.tasks(frame):
        told = part["arm"].str.split("; ", n=1, expand=True)
        for setting in SETTINGS:
            one = part[told[1] == setting]
            if len(one):
                yield f"{name}, {setting}", one.assign(alpha=told[0])


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return the dials at the end, and every measure over time by alpha."""
    parts = list(_split(frame))
    blocks: list[Block] = [dials(part, name) for name, part in parts]
    order = [alpha_recipe.name(alpha) for alpha in ALPHAS]
    for name, part in parts:
        for column, told in (*((dial.column, dial.name) for dial in DIALS), TOLD):
            shown = _over_steps(part, column)
            shown = shown[shown["step"] > 0]  # log-spaced steps are drawn by their number
            if shown.empty:
                continue
            at = {step: i for i, step in enumerate(sorted(shown["step"].unique()))}
            steps = sorted(at)
            shown = shown.assign(step=shown["step"].map(at))
            svg = figures.curves(shown, x="step", y="value", by="alpha", ylabel=told, order=order)
            blocks.append(
                Figure(
                    title=f"{name}: {told}",
                    svg=svg,
                    alt=f"{told} over log-spaced steps, a line for each alpha.",
                    caption=f"Mean over seeds. Checkpoints {at[steps[0]]} to {at[steps[-1]]} are "
                    f"log-spaced steps, {steps[0]:.0f} to {steps[-1]:.0f}.",
                )
            )
    return blocks
