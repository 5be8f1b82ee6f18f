"""Figure 4: where the weights of the pruned networks are: maps of the logits, of units, locality.

A logit's map is the weight on all paths from each pixel to it: the product of the layers' |W|. The
paper sees local patches in them. Beyond the paper: the share of kept weights inside the receptive
fields of the CNN that MLP_VIS contains, against chance, and how far apart the pixels lie that a
first-layer unit reads. Units of an MLP may be renumbered at will, so fields are also matched to the
units, and chance is then a mask that was redrawn and matched as well.

secateurs paper papers/iunet/figure_4.py --out runs/vision --scale small

Its cells are among those of `table_3.py`, and those of LeNet-300-100.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import table_3
import vision
import vision_page

from secateurs.data.class_names import CLASS_NAMES
from secateurs.experiments.image_structure import LEVELS, TOP_UNITS
from secateurs.experiments.spec import ProbeCell, Run
from secateurs.report.image_maps import locality_bars, logit_map_grid
from secateurs.report.page import Block, Cell, Figure, Table
from secateurs.report.paired import contrast, over, told

TITLE = "IUNet figure 4: what the kept weights look at"
CLAIM = (
    "The paper: the weights that IUNet keeps of MLP_VIS lie in local patches, as a CNN's do; those "
    "of the dense network and of OMP do so less."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = vision.VALUE
BASELINE = "dense"
ARMS = table_3.ARMS
NETWORKS = (vision.MLP_VIS, vision.LENET)
SPLIT = "ticket.rows.split"


def runs(scale: str) -> list[Run]:
    """Return a probe of four arms' tickets of the fully connected networks."""
    return [
        Run(cell=ProbeCell(ticket=run.cell), arm=run.arm)
        for run in vision.arms(scale, vision.tasks(scale, *NETWORKS), ARMS)
    ]


def _tasks(frame: pd.DataFrame) -> list[tuple[vision.Task, pd.DataFrame]]:
    known = {(t.dataset, t.network): t for s in vision.SCALES for t in vision.tasks(s, *NETWORKS)}
    found = [(task, table_3.of_task(frame, task)) for task in known.values()]
    return [(task, part) for task, part in found if len(part)]


def _maps(part: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """Return the maps of the first seed by arm, the largest value of each arm 1."""
    first = part[part[SPLIT] == part[SPLIT].min()]
    rows = first[first[column].notna()] if column in first else first[:0]
    return {
        arm: np.array(rows.loc[rows["arm"] == arm, column].iloc[0], dtype=np.float64) / LEVELS
        for arm in ARMS
        if (rows["arm"] == arm).any()
    }


def _names(task: vision.Task, n: int) -> list[str]:
    known = CLASS_NAMES.get(task.dataset, ())
    return list(known) if len(known) == n else [str(i) for i in range(n)]


def _by_layer(part: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return one row a layer and run, with its share inside the fields and the share by chance."""
    layers = [
        c.removeprefix(f"{kind}.").removesuffix(".share")
        for c in part
        if str(c).startswith(f"{kind}.") and str(c).endswith(".share")
    ]
    found = [
        pd.DataFrame(
            {
                "arm": part["arm"],
                "layer": layer,
                "share": pd.to_numeric(part[f"{kind}.{layer}.share"]),
                "chance": pd.to_numeric(part[f"{kind}.{layer}.chance"]),
            }
        )
        for layer in layers
        if layer != "total"
    ]
    return pd.concat(found).dropna() if found else pd.DataFrame()


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return the maps of the first seed, and locality by layer."""
    blocks: list[Block] = []
    for task, part in _tasks(frame):
        logits, units = _maps(part, "maps.logits"), _maps(part, "maps.units")
        if logits:
            n = len(next(iter(logits.values())))
            blocks.append(
                Figure(
                    title=f"Weight on the paths to each logit, {task.name}",
                    svg=logit_map_grid(logits, _names(task, n)),
                    alt="For each arm one image a class: how much weight lies on all paths from "
                    "each pixel to the class's logit.",
                    caption="Trained networks of the first seed; of each arm the largest is 1.",
                )
            )
        if units:
            n = len(next(iter(units.values())))
            names = [str(i + 1) for i in range(n)]
            blocks.append(
                Figure(
                    title=f"First-layer units with most weights, {task.name}",
                    svg=logit_map_grid(units, names, quantity="|w|"),
                    alt=f"For each arm the absolute weights of {n} units of the first layer as "
                    "images.",
                    caption=f"The {TOP_UNITS} units that keep most weights, of the first seed.",
                )
            )
        for kind, words in (
            ("locality", "units where the CNN has them"),
            ("matched_locality", "units matched to the CNN's fields"),
        ):
            by_layer = _by_layer(part, kind)
            if len(by_layer):
                blocks.append(
                    Figure(
                        title=f"Kept weights inside the CNN's fields, {words}, {task.name}",
                        svg=locality_bars(by_layer, order=ARMS),
                        alt="By layer and arm the share of kept weights inside the receptive "
                        "fields, against chance.",
                        caption="Mean over seeds, with one standard error to both sides.",
                    )
                )
    return blocks


def _radius(task: vision.Task, part: pd.DataFrame) -> Table:
    rows: list[list[Cell]] = []
    samples = []
    names = ("count.radius", "count.pooled", "magnitude.radius", "magnitude.pooled")
    for arm in ARMS:
        found = [vision_page.of_arm(part, f"radius.{n}", arm, split=SPLIT) for n in names]
        if found[0].empty:
            continue
        samples.append(found[0])
        ratios = [(found[i] / found[i + 1]).dropna() for i in (0, 2)]
        cells = [*found[:2], ratios[0], *found[2:], ratios[1]]
        rows.append([arm, *(told(contrast(one), scale=1.0, digits=3) for one in cells)])
    return Table(
        title=f"How far apart the pixels of a first-layer unit lie, {task.name}",
        columns=["arm", "radius", "by chance", "ratio", "by |w|: radius", "by chance", "ratio"],
        rows=rows,
        note=f"{over(samples)} In pixels: the root mean square distance from the unit's centroid. "
        "By chance: of units that draw their pixels from what all units read together. Each kept "
        "weight counts as one, or by its size.",
    )


def _shares(task: vision.Task, part: pd.DataFrame, kind: str, words: str) -> Table | None:
    rows: list[list[Cell]] = []
    samples = []
    layers = [f"{kind}.encoder.1.weight", f"{kind}.encoder.4.weight", f"{kind}.total"]
    for arm in ARMS:
        cells: list[Cell] = [arm]
        for layer in layers:
            for name, scale in (("share", 100.0), ("chance", 100.0), ("lift", 1.0)):
                values = vision_page.of_arm(part, f"{layer}.{name}", arm, split=SPLIT)
                samples.append(values)
                cells.append(told(contrast(values), scale=scale))
        if any(cell is not None for cell in cells[1:]):
            rows.append(cells)
    if not rows:
        return None
    names = ("first layer", "second", "all")
    return Table(
        title=f"Kept weights inside the CNN's fields, {words}, {task.name}",
        columns=["arm", *(f"{n}: {c}" for n in names for c in ("share %", "chance %", "lift"))],
        rows=rows,
        note=f"{over(samples)} Lift: share over chance; 1 is not local at all.",
    )


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return locality of each task in numbers."""
    found: list[Table | None] = []
    for task, part in _tasks(frame):
        found.append(_shares(task, part, "locality", "units where the CNN has them"))
        found.append(_shares(task, part, "matched_locality", "units matched to them"))
        found.append(_radius(task, part))
    return [one for one in found if one is not None]
