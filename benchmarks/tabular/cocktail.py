"""A stand-in for MLP+C: thirty draws of the classic regularisers, and IUNet on the one chosen.

    secateurs paper benchmarks/tabular/cocktail.py --out runs/tabular --scale small

Kadra et al. 2021 tune a cocktail of regularisers for each data set. Here weight decay, dropout,
skip connections and mixup are drawn at random; each draw is trained on 60% of the rows, the one
that is best on 20% of validation rows of that very split is trained again on the 80%, and its
regularisers are put on IUNet. The first of the thirty is the dense network as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import design
import numpy as np
import pandas as pd
import study

from secateurs.experiments.spec import Run, TicketCell
from secateurs.optimizers import AdamW
from secateurs.report.page import Block, Cell, Table, Value
from secateurs.report.tables import DATASET, SPLIT, EndpointSpec, endpoints

TITLE = "Tables: the classic regularisers, tuned for each set, and IUNet on top"
CLAIM = (
    "A ticket of the default parent needs no regularisers tuned for its data set; with them it "
    "keeps what they give a dense network."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = design.VALUE

DENSE, TICKET = "dense", "IUNet"
"""What both start from: settings that the tuning sets chose."""

COCKTAIL, ON_TOP = "dense, cocktail", "IUNet, cocktail"
BASELINE = DENSE

N_CONFIGURATIONS, SEED = 30, 2021
SPLITS = {"smoke": 1, "small": 1, "paper": study.SPLITS["paper"]}

ENDPOINTS = (
    EndpointSpec(name="regularisers", arm=COCKTAIL, baseline=DENSE),
    EndpointSpec(name="pruned, with them", arm=ON_TOP, baseline=COCKTAIL, margin=0.005),
    EndpointSpec(name="IUNet, with them", arm=ON_TOP, baseline=TICKET),
    EndpointSpec(name="IUNet, without them", arm=TICKET, baseline=COCKTAIL, margin=0.005),
)


@dataclass(frozen=True, kw_only=True)
class Cocktail:
    """One draw of the regularisers; the defaults are those of the dense network as it is."""

    weight_decay: float = AdamW().weight_decay
    dropout: float = 0.0
    skip: bool = False
    mixup: float = 0.0

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return (
            f"weight decay {self.weight_decay:.3g}, dropout {self.dropout:g}, "
            f"{'skip' if self.skip else 'no skip'}, mixup {self.mixup:g}"
        )

    def on(self, cell: TicketCell) -> TicketCell:
        """Return a cell with these regularisers.

        Dropout and skips are the network's. Weight decay and mixup are those of the finetuning,
        which is all that a dense network has: IUNet's search keeps its own objective.
        """
        finetune = cell.config.finetune
        optimizer = replace(finetune.optimizer, weight_decay=self.weight_decay)
        finetune = replace(finetune, optimizer=optimizer, mixup=self.mixup)
        return replace(
            cell,
            config=replace(cell.config, finetune=finetune),
            dropout=self.dropout,
            skip=self.skip,
        )


def cocktails(n: int = N_CONFIGURATIONS) -> list[Cocktail]:
    """Return so many configurations, the same ones for every data set and split."""
    rng = np.random.default_rng(SEED)
    drawn = [
        Cocktail(
            weight_decay=float(10 ** rng.uniform(-5, -1)),
            dropout=float(rng.choice([0.0, 0.1, 0.2, 0.4, 0.6])),
            skip=bool(rng.integers(2)),
            mixup=float(rng.choice([0.0, 0.1, 0.2, 0.4, 1.0])),
        )
        for _ in range(N_CONFIGURATIONS - 1)
    ]
    return [Cocktail(), *drawn][:n]


def _of_scale(scale: str) -> list[Cocktail]:
    return cocktails(3 if scale == "smoke" else N_CONFIGURATIONS)


def _cell(method: str, dataset: str, split: int, scale: str, **options: Any) -> TicketCell:
    smoke = scale == "smoke"
    known = design.methods(smoke=smoke)[method]
    return design.cell(known.parent, dataset, split, known.config, smoke=smoke, **options)


def runs(scale: str) -> list[Run]:
    """Return what both start from, and every configuration on 60% of the rows of each split."""
    return [
        *study.networks(scale, (DENSE, TICKET), splits=SPLITS[scale]),
        *(
            Run(
                cell=one.on(_cell(DENSE, dataset, split, scale, validation=True)),
                arm=f"{study.CHOOSING}{one.name}",
            )
            for split in range(SPLITS[scale])
            for dataset in study.sets(scale)
            for one in _of_scale(scale)
        ),
    ]


def winners(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each data set and split the row of the configuration that validation chose.

    Of equal ones it is the first, so that the dense network as it is wins its ties.
    """
    watched = frame[frame["arm"].str.startswith(study.CHOOSING)].reset_index(drop=True)
    best = watched.groupby([DATASET, SPLIT], sort=False)[f"validation.{VALUE}"].idxmax()
    found: pd.DataFrame = watched.loc[best]
    return found.assign(arm=found["arm"].str.removeprefix(study.CHOOSING))


def then(frame: pd.DataFrame, scale: str) -> list[Run]:
    """Return each winner on 80% of the rows, and IUNet with its regularisers."""
    known = {one.name: one for one in _of_scale(scale)}
    return [
        Run(
            cell=known[won["arm"]].on(_cell(method, won[DATASET], int(won[SPLIT]), scale)),
            arm=name,
            tried=len(known),
        )
        for won in winners(frame).to_dict("records")
        for name, method in ((COCKTAIL, DENSE), (ON_TOP, TICKET))
    ]


def _chosen(frame: pd.DataFrame) -> Table:
    known = {one.name: one for one in cocktails()}
    score = f"validation.{VALUE}"
    plain = frame[frame["arm"] == f"{study.CHOOSING}{Cocktail().name}"]
    plain = plain.set_index([DATASET, SPLIT])[score]
    rows: list[list[Cell]] = []
    for won in winners(frame).to_dict("records"):
        one, place = known[won["arm"]], (won[DATASET], won[SPLIT])
        rows.append(
            [
                won[DATASET],
                str(won[SPLIT]),
                one.weight_decay,
                one.dropout,
                "yes" if one.skip else "no",
                one.mixup,
                Value(100 * won[score]),
                Value(100 * plain[place]) if place in plain.index else None,
            ]
        )
    return Table(
        title="What validation rows chose",
        columns=[
            "data set",
            "split",
            "weight decay",
            "dropout",
            "skip",
            "mixup",
            "validation %",
            "as it is %",
        ],
        rows=rows,
        note="The best of the configurations on the validation rows of each split, which flatter "
        "it, and the dense network as it is on the same rows.",
    )


def table(frame: pd.DataFrame) -> Sequence[Block]:
    """Return what the regularisers give, with and without pruning, and which were chosen."""
    blocks: list[Block] = []
    test = study.tested(frame)
    present = set(test["arm"])
    asked = [one for one in ENDPOINTS if {one.arm, one.baseline} <= present]
    if asked:
        blocks.append(endpoints(test, VALUE, asked, title="Regularisers and pruning", holm=True))
    if not test.empty:
        blocks += study.results(frame, BASELINE)
    if len(test) < len(frame):
        blocks.append(_chosen(frame))
    return blocks
