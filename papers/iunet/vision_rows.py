"""Every arm on images at r = 8: what IUNet's parts, its mask and its start are worth.

Searches and rates are those that `vision_tune.py` chose on validation images of another seed, with
equal budgets for IUNet and OMP. Ablations change one setting of IUNet's.

secateurs paper papers/iunet/vision_rows.py --out runs/vision --scale small
"""

from collections.abc import Sequence

import pandas as pd
import vision
import vision_page
from vision_page import Claim

from secateurs.experiments.spec import Run
from secateurs.report.page import Table

TITLE = "IUNet on images: every arm at r = 8"
CLAIM = (
    "The paper: IUNet's pruned network beats its dense parent and one-shot magnitude pruning, and "
    "pruning, the invariance objective (ILO) and the small start (PIS) each add to that."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = vision.VALUE
BASELINE = "dense"

ARMS = (
    "dense",
    "IUNet",
    "omp-rich",
    "omp-paper",
    "beta-Lasso",
    "no-ILO",
    "no-PIS",
    "no-PIS, matched lr",
    "no-prune",
    "no rewind",
    "shuffled mask",
    "re-initialised",
    "searched dense",
    "pruned search",
    "untrained ticket",
)

CLAIMS = (
    Claim(words="IUNet beats its dense parent", arm="IUNet", minus="dense", sign=1),
    Claim(words="IUNet beats equally tuned OMP", arm="IUNet", minus="omp-rich", sign=1),
    Claim(words="IUNet beats OMP as printed", arm="IUNet", minus="omp-paper", sign=1),
    Claim(words="IUNet beats beta-Lasso", arm="IUNet", minus="beta-Lasso", sign=1),
    Claim(words="ILO helps", arm="IUNet", minus="no-ILO", sign=1),
    Claim(words="PIS helps", arm="IUNet", minus="no-PIS", sign=1),
    Claim(words="PIS is a learning rate", arm="IUNet", minus="no-PIS, matched lr", sign=0),
    Claim(words="pruning helps", arm="IUNet", minus="no-prune", sign=1),
    Claim(words="without pruning it is worse", arm="no-prune", minus="dense", sign=-1),
    Claim(words="which weights are kept matters", arm="IUNet", minus="shuffled mask", sign=1),
    Claim(words="their initial values matter", arm="IUNet", minus="re-initialised", sign=1),
    Claim(words="rewinding helps", arm="IUNet", minus="no rewind", sign=1),
)


def runs(scale: str) -> list[Run]:
    """Return every arm of every task and seed."""
    return vision.arms(scale, vision.tasks(scale), ARMS)


def table(frame: pd.DataFrame) -> Sequence[Table]:
    """Return a table of arms and one of claims for each task."""
    found = []
    for task in vision_page.each_task(frame):
        told = vision_page.printed(task) or None
        found.append(vision_page.rows_table(frame, task, ARMS, published=told))
        found.append(vision_page.claims_table(frame, task, CLAIMS))
    return found
