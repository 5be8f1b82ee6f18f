"""Settings of the small experiments on images: chosen on validation images of one other seed.

The rate of finetuning is the best of seven for the dense network. Then the searches of IUNet and of
OMP take their best of four rates each, by the validation accuracy of the finetuned ticket at r = 8;
of the two smaller networks also the best rate for twice the epochs. LeNet-300-100 diverges at rates
above 0.1, which are left out: one of OMP's four, two of the seven. beta-Lasso takes the best of
three strengths with OMP's search. Test images take no part. What is chosen is frozen in
`vision.CHOSEN`; of equal ones the smallest.

secateurs paper papers/iunet/vision_tune.py --out runs/vision --scale small
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
import vision
from vision import Task

from secateurs.experiments.arms import arm
from secateurs.experiments.spec import Run
from secateurs.report.page import Cell, Table, Value
from secateurs.tickets import TicketConfig

TITLE = "Settings of the experiments on images"
CLAIM = "IUNet and OMP are tuned with equal budgets, on validation images only."
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = vision.VALUE
SEED = 100
"""Another draw of images, and another start, than those that are reported."""

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
WITHOUT_NORM = 0.1
"""Higher rates make LeNet-300-100 diverge, which has no BatchNorm."""
L1 = (1e-6, 5e-6, 2e-5)
SEARCHES = {"IUNet": (1e-3, 3e-3, 1e-2, 3e-2), "omp-rich": (1e-2, 3e-2, 1e-1, 3e-1)}
"""With BatchNorm kappa = 1/4 is 16 times the encoder's rate, so IUNet's are the lower ones."""
REGIME = ("regime.weight_movement", "regime.start_mask_overlap")
DENSE_LR: dict[tuple[str, str], float] = {
    ("cifar10", "mlp_vis"): 1e-1,
    ("cifar10", "cnn"): 3e-1,
    ("fashion_mnist", "lenet_300_100"): 3e-2,
}
"""Stage one, which stage two builds on: the dense network's rate by set and network."""
BEST_RATE: dict[tuple[str, str], dict[str, float]] = {
    ("cifar10", "mlp_vis"): {"IUNet": 1e-2, "omp-rich": 3e-2},
    ("cifar10", "cnn"): {"IUNet": 1e-2, "omp-rich": 3e-1},
    ("fashion_mnist", "lenet_300_100"): {"IUNet": 3e-2, "omp-rich": 3e-2},
}
"""Stage two, which stage three builds on: the best rate of each search."""
LONGER = ("cnn", "lenet_300_100")
"""Networks whose searches are also tried for twice the epochs."""


def _up_to(task: Task, rates: Sequence[float]) -> list[float]:
    return [r for r in rates if task.network != vision.LENET or r <= WITHOUT_NORM]


def _dense(scale: str, task: Task) -> Iterator[tuple[str, TicketConfig]]:
    for lr in _up_to(task, RATES):
        settings = replace(vision.PUBLISHED_SETTINGS, lr=lr)
        yield f"dense, lr {lr:g}", arm("dense", vision.iunet(scale, task, settings))


def _searches(scale: str, task: Task) -> Iterator[tuple[str, TicketConfig]]:
    lr = DENSE_LR.get((task.dataset, task.network))
    if lr is None:
        return
    base = replace(vision.PUBLISHED_SETTINGS, lr=lr)
    twice = 2 * vision.SCALES[scale].epochs
    best = BEST_RATE.get((task.dataset, task.network), {})
    for rate in _up_to(task, SEARCHES["IUNet"]):
        yield f"IUNet, lr {rate:g}", vision.iunet(scale, task, replace(base, search_lr=rate))
    for rate in _up_to(task, SEARCHES["omp-rich"]):
        yield f"omp-rich, lr {rate:g}", vision.omp(scale, task, replace(base, omp_lr=rate))
    if not best:
        return
    for l1 in L1:
        settings = replace(base, omp_lr=best["omp-rich"])
        yield f"beta-Lasso, l1 {l1:g}", vision.lasso(scale, task, settings, l1=l1)
    if task.network in LONGER:
        rate = best["IUNet"]
        longer = replace(base, search_lr=rate, search_epochs=twice)
        yield f"IUNet, lr {rate:g}, {twice} epochs", vision.iunet(scale, task, longer)
        rate = best["omp-rich"]
        longer = replace(base, omp_lr=rate, omp_epochs=twice)
        yield f"omp-rich, lr {rate:g}, {twice} epochs", vision.omp(scale, task, longer)


def runs(scale: str) -> list[Run]:
    """Return what is tried for every task of the scale."""
    return [
        Run(cell=vision.cell(task, SEED, config), arm=name)
        for task in vision.tasks(scale)
        for name, config in [*_dense(scale, task), *_searches(scale, task)]
    ]


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return validation accuracy by task and setting."""
    told = frame.reindex(columns=[*frame.columns, *(c for c in REGIME if c not in frame)])
    rows: list[list[Cell]] = []
    for task in vision.tasks_of(frame):
        for _, one in vision.of_task(told, task).iterrows():
            regime = [None if pd.isna(one[c]) else Value(one[c]) for c in REGIME]
            rows.append(
                [task.name, one["arm"], Value(100 * one[f"validation.{VALUE}"], digits=2), *regime]
            )
    return [
        Table(
            title="Validation accuracy in %, by setting",
            columns=["task", "setting", "validation", "movement", "overlap"],
            rows=rows,
            note=f"One run each, of seed {SEED}, which is not reported on.",
        )
    ]
