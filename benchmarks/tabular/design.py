"""The design of the study on tables: its sets, parents, metric, and how a cell is made.

Tuning sets choose, on validation rows and split seeds of their own; reporting sets are tested with
what was chosen. Every method gets the same rows, no class weights, and the same decision rule for
balanced accuracy: the class whose probability exceeds its share of the training rows the most.
"""

from dataclasses import dataclass, replace
from typing import Any

from secateurs.experiments.arms import ARMS, arm, beta_lasso
from secateurs.experiments.spec import Rows, TicketCell
from secateurs.networks.dense import MLP_TAB
from secateurs.optimizers import SGD, AdamW
from secateurs.recipes import PRESETS, resolve
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

VALUE = "corrected_balanced_accuracy"
"""The primary metric."""

SMOKE = ("sklearn:wine", "sklearn:breast_cancer")
TUNING = ("credit-g", "vehicle", "cnae-9", "arrhythmia")
TUNING_SPLITS = (100, 101, 102)
REPORTING = ("australian", "kr-vs-kp", "mfeat-factors", "sylvine")
ROWS = {
    "bank-marketing": 45_211,
    "adult": 48_842,
    "connect-4": 67_557,
    "walking-activity": 149_332,
}
LARGE = tuple(ROWS)
DUPLICATED = ("kc1", "skin-segmentation")
"""Most of their rows occur more than once: shown apart."""

PARENTS = {
    "default": PRESETS["default"].widths,
    "paper": MLP_TAB,
    # of about as many parameters as a ticket at r = 8, and the small ones that people use
    "2x176": (176,) * 2,
    "9x176": (176,) * 9,
    "3x256": (256,) * 3,
    "2x128": (128,) * 2,
}

SMOKE_EPOCHS = 2


def iunet(parent: str, lr: float, epochs: int = 105, *, smoke: bool = False) -> TicketConfig:
    """Return IUNet on a parent, with the paper's finetuning; its three snapshots on its parent."""
    return TicketConfig(
        search=PhaseConfig(
            epochs=SMOKE_EPOCHS if smoke else epochs, optimizer=SGD(lr=lr), contrastive_weight=1.0
        ),
        finetune=PhaseConfig(
            epochs=7 if smoke else 105,
            optimizer=AdamW(),
            snapshots=3 if parent == "paper" else 1,
        ),
        compression=8.0,
        init_scale=0.25,
    )


def with_finetune(config: TicketConfig, *, lr: float, epochs: int) -> TicketConfig:
    """Return the settings with another finetuning."""
    optimizer = replace(config.finetune.optimizer, lr=lr)
    return replace(config, finetune=replace(config.finetune, epochs=epochs, optimizer=optimizer))


def cell(
    parent: str,
    dataset: str,
    split: int,
    config: TicketConfig,
    *,
    validation: bool = False,
    n_tickets: int = 1,
    smoke: bool = False,
) -> TicketCell:
    """Return a cell that trains on 80% of the rows, or on 60% with 20% to choose on.

    Large tables get the epochs and batches of the default recipe, which depend on the rows.
    """
    if dataset in LARGE:
        recipe = resolve(int(0.8 * ROWS[dataset]), preset=None, regime=None, given={})
        config = replace(
            config,
            search=replace(
                config.search,
                epochs=min(config.search.epochs, recipe.search_epochs),
                batch_size=recipe.batch_size,
            ),
            finetune=replace(
                config.finetune, epochs=recipe.finetune_epochs, batch_size=recipe.batch_size
            ),
        )
    return TicketCell(
        rows=Rows(dataset=dataset, split=split, validation_folds=4 if validation else 0),
        config=config,
        widths=(32, 32) if smoke else PARENTS[parent],
        seed=split,
        n_tickets=n_tickets,
    )


# --- methods ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Method:
    """A line of the tables.

    Args:
        parent: one of `PARENTS`.
        config: its settings.
        n_tickets: members of an ensemble.
        tried: configurations among which the tuning sets chose.
    """

    parent: str
    config: TicketConfig
    n_tickets: int = 1
    tried: int = 1


CHOSEN: dict[str, Any] = {
    "IUNet": {"lr": 0.01, "epochs": 105},
    "omp-rich": {"lr": 0.1, "epochs": 105},
    "dense": {"lr": 1e-3, "epochs": 105},
    "beta-Lasso": {"lr": 0.01, "l1": 1e-6},
    "9x512 IUNet": {"lr": 0.01, "epochs": 105},
    "9x512 omp-rich": {"lr": 0.1, "epochs": 105},
    "9x512 dense": {"lr": 1e-3, "epochs": 105},
}
"""What `tune.py` chose: reports/2026-11-22-tabular-tuning.md."""

TRIED = {"IUNet": 8, "omp-rich": 8, "dense": 8, "beta-Lasso": 8}
TRIED |= {f"9x512 {name}": 4 for name in ("IUNet", "omp-rich", "dense")}

DENSE = ("dense", "dense, tuned", "dense, equal steps", "dense with ILO",
         "dense 2x128", "dense 2x176", "dense 3x256", "dense 9x176", "9x512 dense")  # fmt: skip
"""All dense networks: the best of them, on validation rows of the split, is what a ticket meets."""


def of_parent(parent: str, *, smoke: bool = False) -> dict[str, Method]:
    """Return every arm on one parent: IUNet's settings as chosen for it, changed."""
    prefix = "9x512 " if parent == "paper" else ""
    iunet_ = iunet(parent, **CHOSEN[f"{prefix}IUNet"], smoke=smoke)
    omp = iunet(parent, **CHOSEN[f"{prefix}omp-rich"], smoke=smoke)
    found = {
        f"{prefix}{name}": Method(
            parent=parent,
            config=arm(name, omp if name == "omp-rich" else iunet_),
            tried=TRIED[f"{prefix}{'omp-rich' if name == 'omp-rich' else 'IUNet'}"],
        )
        for name in ARMS
    }
    found[f"{prefix}dense"] = replace(found[f"{prefix}dense"], tried=1)
    return found


def methods(*, smoke: bool = False) -> dict[str, Method]:
    """Return every network of the study by name, the most important first."""
    default, paper = of_parent("default", smoke=smoke), of_parent("paper", smoke=smoke)
    ticket, dense = default["IUNet"], default["dense"]
    tuned = with_finetune(dense.config, **({"lr": 1e-3, "epochs": 7} if smoke else CHOSEN["dense"]))
    lasso = beta_lasso(
        replace(ticket.config, search=replace(ticket.config.search, optimizer=SGD(
            lr=CHOSEN["beta-Lasso"]["lr"]))), l1=CHOSEN["beta-Lasso"]["l1"])  # fmt: skip
    found = {
        "IUNet": ticket,
        "dense": dense,
        **{f"dense {one}": replace(dense, parent=one) for one in PARENTS if "x" in one},
        "9x512 dense": paper["9x512 dense"],
        "9x512 IUNet": paper["9x512 IUNet"],
        "omp-rich": default["omp-rich"],
        "dense, tuned": replace(dense, config=tuned, tried=TRIED["dense"]),
        **default,
        "beta-Lasso": Method(parent="default", config=lasso, tried=TRIED["beta-Lasso"]),
        "8 tickets": replace(ticket, n_tickets=8),
        "8 tickets, omp-rich": replace(default["omp-rich"], n_tickets=8),
        "8 dense 2x176": replace(dense, parent="2x176", n_tickets=8),
        **{
            name: paper[name]
            for name in ("9x512 omp-rich", "9x512 shuffled mask", "9x512 omp-paper")
        },
    }
    for r in (2, 4, 16, 32):
        for name in ("IUNet", "omp-rich"):
            config = replace(found[name].config, compression=float(r))
            found[f"{name}, r = {r}"] = replace(found[name], config=config)
    return found
