"""Table 1: MLP_VIS and ResNet-18 dense, by OMP, beta-Lasso and IUNet, on three sets of images.

secateurs paper papers/iunet/table_1.py --out runs/vision --scale small

The small scale has MLP_VIS of alpha = 2 on 10,000 images of CIFAR-10; its cells are those of
`vision_rows.py`.
"""

from collections.abc import Sequence

import pandas as pd
import vision
import vision_page

from secateurs.experiments.spec import Run
from secateurs.report.page import Table

TITLE = "IUNet table 1: pruned networks of images against their dense parents"
CLAIM = (
    "The paper: on CIFAR-10, CIFAR-100 and SVHN IUNet beats the dense network, OMP and beta-Lasso, "
    "for MLP_VIS and for ResNet-18."
)
VALUE = vision.VALUE
BASELINE = "dense"
NETWORKS = (vision.MLP_VIS, vision.RESNET)
ARMS = ("dense", "omp-paper", "omp-rich", "beta-Lasso", "IUNet")
PUBLISHED = {
    (task.dataset, arm): percent
    for task in vision.tasks("paper", vision.MLP_VIS)
    for arm, (percent, _) in vision_page.printed(task).items()
}
"""Those of MLP_VIS; the tables have ResNet-18's, too."""


def runs(scale: str) -> list[Run]:
    """Return five arms of both networks: at "paper" on three sets, with three seeds."""
    return vision.arms(scale, vision.tasks(scale, *NETWORKS), ARMS)


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return the arms of each network and set, beside what was published."""
    return [
        vision_page.rows_table(frame, task, ARMS, published=vision_page.printed(task))
        for task in vision_page.each_task(frame, *NETWORKS)
    ]
