"""Lottery tickets of LeNet-300-100: accuracy and early stopping against density, with controls.

Frankle & Carbin (2019), figures 1, 3 and 4, and late rewinding (Frankle et al. 2020).

secateurs paper papers/lottery/lth_figure_1.py --out runs/lottery --scale small
"""

from dataclasses import replace

import recipe

from secateurs.experiments.spec import Run
from secateurs.tickets import TicketConfig

TITLE = "Lottery tickets of LeNet-300-100"
CLAIM = (
    "Frankle & Carbin (2019): the ticket at 21.1% learns faster (its validation loss is lowest 38% "
    "earlier) and, fresh or shuffled, clearly slower and worse; it is above the dense network at "
    "13.5% and back at it at 3.6%."
)
PUBLISHED: dict[tuple[str, str], float] = {}
VALUE = recipe.VALUE
BASELINE = "dense"
PRESET = "lth2019"

SETS = {
    "smoke": ("sklearn:digits",),
    "small": ("mnist", "fashion_mnist"),
    "paper": ("mnist", "fashion_mnist"),
}
REWIND_SHARE = 0.025
"""Of the steps, after which the late rewind keeps the weights: 100 of 4,000."""

CONTROLS = {
    "ticket": {},
    "re-initialised": {"rewind": "random"},
    "shuffled mask": {"control": "shuffled"},
}
ARMS = ("dense", *CONTROLS, "rewound to step K", "no rewind")
FEWER = {"fashion_mnist": (*CONTROLS, "dense")}
"""Sets on which fewer arms are run at scale "small"."""


def _base(scale: str, preset: str) -> TicketConfig:
    chosen = recipe.PRESETS[preset]
    phase = chosen.phase(recipe.SCALES[scale].steps)
    return TicketConfig(
        search=phase,
        finetune=phase,
        scope=chosen.scope,
        init_scale=1.0,
        only=recipe.ALL,
    )


def _changes(arm: str, steps: int) -> dict[str, str]:
    if arm == "rewound to step K":
        return {"rewind": f"step:{max(1, int(REWIND_SHARE * steps))}"}
    return {"rewind": "none"} if arm == "no rewind" else CONTROLS[arm]


def runs(scale: str, preset: str = PRESET) -> list[Run]:
    """Return every arm at every density of every seed; the dense network is the search itself."""
    base = _base(scale, preset)
    size = recipe.SCALES[scale]
    kept = recipe.densities(scale, size.rounds)
    untrained = replace(base.finetune, epochs=0, steps=None)
    dense = replace(base, compression=1.0, rewind="none", finetune=untrained)
    found = []
    for seed in range(size.seeds):
        for dataset in SETS[scale]:
            arms = FEWER.get(dataset, ARMS) if scale == "small" else ARMS
            found.append(Run(cell=recipe.cell(scale, dataset, seed, dense), arm="dense"))
            for n in range(1, size.rounds + 1):
                config = recipe.in_rounds(base, kept[:n])
                for arm in (name for name in arms if name != "dense"):
                    asked = replace(
                        config, **_changes(arm, size.steps or base.search.n_steps(55_000))
                    )
                    found.append(Run(cell=recipe.cell(scale, dataset, seed, asked), arm=arm))
    return found
