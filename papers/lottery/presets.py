"""The same tickets by the presets of three papers: how far a result is the recipe's.

secateurs paper papers/lottery/presets.py --out runs/lottery --scale small
"""

from collections.abc import Sequence

import lth_figure_1
import page
import pandas as pd
import recipe

from secateurs.experiments.spec import Run
from secateurs.report import paired
from secateurs.report.figures import accuracy_by_compression
from secateurs.report.page import Block, Figure

TOLD = lth_figure_1.TOLD

TITLE = "Tickets of LeNet-300-100 by three presets"
CLAIM = (
    "Frankle & Carbin (2019) train with Adam and prune layer by layer, OpenLTH trains with SGD and "
    "prunes globally, Zhou et al. (2019) train as the first for 55 epochs. At one number of steps "
    "the first and the last are one run."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = recipe.VALUE


def runs(scale: str) -> list[Run]:
    """Return the dense network and the ticket after every round, by preset, on the first set."""
    size = recipe.SCALES[scale]
    dataset = lth_figure_1.SETS[scale][0]
    found = []
    for seed in range(size.seeds):
        for name, preset in recipe.PRESETS.items():
            ticket = lth_figure_1.base(scale, name)
            kept = recipe.densities(scale, size.rounds, scope=preset.scope)
            configs = [lth_figure_1.dense(ticket)]
            configs += [recipe.in_rounds(ticket, kept[:n]) for n in range(1, size.rounds + 1)]
            cells = [recipe.cell(scale, dataset, seed, config) for config in configs]
            found += [Run(cell=cell, arm=name) for cell in cells]
    return found


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return accuracy against compression, a line a preset, and its numbers."""
    drawn = frame.assign(
        compression=frame["config.compression"], value=100 * frame["test.accuracy"]
    )
    svg = accuracy_by_compression(
        drawn, value="value", ylabel="test accuracy, %", order=list(recipe.PRESETS)
    )
    return [
        Figure(
            title="Accuracy against compression",
            svg=svg,
            alt="Test accuracy at the end against compression, a line for each preset.",
            caption=f"Mean ± standard error over {frame['seed'].nunique()} seeds. OpenLTH counts "
            "without the output layer, which it does not prune.",
        ),
        paired.grid(
            "Numbers", list(recipe.PRESETS), [1.0, *(100 / percent for percent in TOLD)],
            lambda arm, r: _seen(frame[frame["arm"] == arm], arm, r),
            note="Test accuracy at the end, in %, by weights left, within half a round.",
        ),
    ]  # fmt: skip


def _seen(part: pd.DataFrame, arm: str, compression: float) -> pd.Series:
    """Return the values of a preset where its own rounds come next to a compression."""
    own = compression if compression == 1 else page.nearest(part, 100 / compression)
    return paired.seen(part, paired.END, arm, own)
