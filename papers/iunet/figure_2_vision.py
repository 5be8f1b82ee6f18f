"""Figure 2 on images (figure_2_vision): accuracy against compression, by objective and small start.

secateurs paper papers/iunet/figure_2_vision.py --out runs/vision --scale small

The small scale has LeNet-300-100 on 10,000 images of Fashion-MNIST: twelve searches of MLP_VIS and
their tickets would take it three core-hours a seed.
"""

from collections.abc import Sequence
from dataclasses import replace

import figure_2
import pandas as pd
import vision
import vision_page

from secateurs.experiments.spec import Run
from secateurs.report.page import Block, Figure, Table

TITLE = "IUNet figure 2: objectives and small starts against compression (images)"
CLAIM = figure_2.CLAIM
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = vision.VALUE
NETWORKS = {"smoke": vision.MLP_VIS, "small": vision.LENET, "paper": vision.MLP_VIS}
SEEDS = {"smoke": 1, "small": 3, "paper": 3}


def runs(scale: str) -> list[Run]:
    """Return twelve lines of five compressions; compression 1 is the dense network in all."""
    found = []
    for seed in range(SEEDS[scale]):
        for task in vision.tasks(scale, NETWORKS[scale]):
            base = vision.config(scale, task, "IUNet")
            for objective in figure_2.OBJECTIVES:
                for kappa in figure_2.KAPPAS:
                    for r in figure_2.COMPRESSIONS:
                        config = figure_2.changed(base, objective, kappa, r)
                        cell = vision.cell(task, seed, config)
                        found.append(Run(cell=cell, arm=figure_2.arm_of(objective, kappa)))
    return found


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return for each task a picture for each objective, and the numbers."""
    blocks: list[Block] = []
    for task in vision_page.each_task(frame):
        for block in figure_2.figure(vision.of_task(frame, task)):
            assert isinstance(block, Figure | Table)
            blocks.append(replace(block, title=f"{block.title}, {task.name}"))
    return blocks
