"""Students and teachers: what lazy and rich training do to tickets, where the answer is known.

A student of one hidden layer learns four ReLU neurons that look at few inputs or at all of them;
alpha sets its regime. Tickets and controls of eight rounds at five alphas; masks that one alpha
found, trained at another; widths under the mean-field readout.

secateurs paper papers/lottery/toy.py --out runs/regime --scale small
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import toy_claims
import toy_page
from toy_found import FULL, TEACHERS, study

from secateurs.experiments.spec import Run, StudentArm, StudentTeacherCell, TaskRows
from secateurs.report.page import Block

TITLE = "Students and teachers, lazy to rich"
CLAIM = (
    "Rich training finds masks and lazy training cannot: what alpha does to tickets, controls and "
    "features, with what was claimed of it and what was measured."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = "explained"

FEW: tuple[StudentArm, ...] = ("ticket", "shuffled", "top start")
"""Arms of the study of widths."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run: rounds and the followed one, of the study of arms; widths of the other."""

    seeds: int
    steps: int = 2_000
    width: int = 64
    widths: tuple[int, ...] = (64, 256, 1024)
    rounds: int = 8
    follow: int = 6
    n_train: int = 384
    n_test: int = 512
    n_heatmap_rows: int = 32


SCALES = {
    # shows that everything runs, proves nothing
    "smoke": Scale(
        seeds=2, steps=30, width=8, widths=(8, 16), rounds=3, follow=2, n_train=48, n_test=64,
        n_heatmap_rows=6,
    ),
    "small": Scale(seeds=5),
    "paper": Scale(seeds=10),
}  # fmt: skip


def runs(scale: str) -> list[Run]:
    """Return the study of arms and the one of widths, a cell for each teacher and seed."""
    found = []
    size = SCALES[scale]
    for seed, teacher in itertools.product(range(size.seeds), TEACHERS):
        rows = TaskRows(
            dataset=teacher, split=seed, n_train=size.n_train, n_test=size.n_test
        )  # fmt: skip
        shown = size.n_heatmap_rows if (seed, teacher) == (0, TEACHERS[0]) else 0
        whole = StudentTeacherCell(
            rows=rows, width=size.width, steps=size.steps, rounds=size.rounds, follow=size.follow,
            n_heatmap_rows=shown,
        )  # fmt: skip
        found.append(Run(cell=whole, arm=FULL))
        for width in size.widths:
            cell = StudentTeacherCell(
                rows=rows, width=width, readout="mean_field", steps=size.steps, arms=FEW, rounds=3,
                kept=0.5, follow=0,
            )  # fmt: skip
            found.append(Run(cell=cell, arm=f"mean field, width {width}"))
    return found


# ---- the page ----------------------------------------------------------------------------------


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return claims with verdicts, uniformity, numbers, and pictures of both teachers."""
    found = {teacher: study(frame, teacher) for teacher in TEACHERS}
    studies = {teacher: one for teacher, one in found.items() if one is not None}
    blocks: list[Block] = [toy_claims.verdicts(one, teacher) for teacher, one in studies.items()]
    if studies:
        blocks += [toy_claims.uniformity(studies), *toy_page.dial(studies)]
    for teacher, one in studies.items():
        blocks += [toy_page.ratios(one, teacher), toy_page.features(one, teacher)]
        blocks += toy_page.pictures(one, teacher)
    blocks += toy_page.preactivations(frame)
    for teacher in TEACHERS:
        blocks += toy_page.widths(frame, teacher)
    return blocks
