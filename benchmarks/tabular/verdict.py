"""All tiers on one page: the endpoints, accuracy against cost, gain against movement.

secateurs paper benchmarks/tabular/verdict.py --out runs/tabular --scale small
"""

from collections.abc import Sequence

import core
import curve
import design
import ensembles
import pandas as pd
import paper_parent
import study

from secateurs.experiments.spec import Run
from secateurs.report.page import Block
from secateurs.report.scatter import accuracy_against_cost, arm_families, gain_against

TITLE = "Does it work on tables?"
CLAIM = (
    "Two endpoints, named before the reporting sets were read. Paper: IUNet at r = 8 is better "
    "than its dense 9x512 parent. Product: the default ticket at r = 8 is at most half a point "
    "below the best of all dense networks tried, chosen per split on validation rows."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE
BASELINE = "dense"

CONTROLS = ("shuffled mask", "top-|start| mask", "re-initialised", "untrained ticket",
            "pruned search", "searched dense")  # fmt: skip


def runs(scale: str) -> list[Run]:
    """Return the cells of all tiers on the small reporting sets, each once."""
    found = {}
    for tier in (core, paper_parent, ensembles, curve):
        for run in tier.runs(scale):
            found.setdefault((run.arm, run.cell), run)
    return list(found.values())


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return endpoints, arms and regimes."""
    return study.results(frame, BASELINE)


def figure(frame: pd.DataFrame) -> Sequence[Block]:
    """Return what accuracy costs, and whether movement predicts the gain."""
    test = study.tested(frame)
    families = arm_families(test)
    families |= {
        one: "controls" for one in families if one.partition(", r = ")[0].endswith(CONTROLS)
    }
    return [
        *(
            accuracy_against_cost(
                test, VALUE, cost=cost, baseline=BASELINE, families=families, floor=-4.0
            )
            for cost in ("size.bytes", "predict_seconds")
        ),
        gain_against(test, value=VALUE, families=families, logx=True, floor=-6.0),
    ]
