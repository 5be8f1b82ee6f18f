"""The design of the study on tables: its sets, parents, metric, and how a cell is made.

Tuning sets choose, on validation rows and split seeds of their own; reporting sets are tested with
what was chosen. Every method gets the same rows, no class weights, and the same decision rule for
balanced accuracy: the class whose probability exceeds its share of the training rows the most.
"""

from dataclasses import dataclass, replace

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
LARGE = ("bank-marketing", "adult", "connect-4", "walking-activity")
APART = ("kc1", "skin-segmentation")
"""Half of the rows of one and most of the other's occur more than once: shown apart."""

ROWS = {
    "bank-marketing": 45_211,
    "adult": 48_842,
    "connect-4": 67_557,
    "walking-activity": 149_332,
    "skin-segmentation": 245_057,
}
"""Rows of tables that are large enough for the recipe to adapt."""

PARENTS = {
    "default": PRESETS["default"].widths,
    "paper": MLP_TAB,
    # of about as many parameters as a ticket at r = 8, and the small ones that people use
    "2x176": (176,) * 2,
    "9x176": (176,) * 9,
    "3x256": (256,) * 3,
    "2x128": (128,) * 2,
    # of about as many parameters as a ticket at r = 32, which has the bytes of 2x128
    "2x80": (80,) * 2,
}

CONTROLS = ("shuffled mask", "top-|start| mask", "re-initialised")
"""What a mask is compared with at r = 32, where fewer weights are left to make up for it."""

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
    if dataset in ROWS:
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


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the tuning sets chose for a parent.

    Args:
        search: learning rate and epochs of IUNet's search.
        omp: those of omp-rich.
        ticket: learning rate of a ticket's finetuning.
        dense: learning rate and epochs of the dense network.
        l1: of beta-Lasso, searched at its learning rate `LASSO_LR`.
        tried: configurations that a ticket, and a dense network, could choose from.
    """

    search: tuple[float, int]
    omp: tuple[float, int]
    ticket: float
    dense: tuple[float, int]
    l1: float = 1e-6
    tried: int = 8


CHOSEN = {
    "default": Chosen(search=(0.01, 35), omp=(0.3, 35), ticket=1e-3, dense=(2e-3, 105), l1=1e-5),
    "paper": Chosen(search=(0.03, 105), omp=(0.1, 105), ticket=8e-3, dense=(4e-3, 105), tried=4),
}
"""Printed by `tune.py`: reports/2026-11-22-tabular-tuning.md, which tells of one departure."""

LASSO_LR = 0.03
PAPERS_LR = 1e-3
"""Learning rate of the paper's finetuning, which nobody tuned."""

DENSE = (
    "dense",
    "dense, lr 1e-3",
    "dense, equal steps",
    "dense with ILO",
    "dense 2x128",
    "dense 2x176",
    "dense 3x256",
    "dense 9x176",
    "9x512 dense",
)
"""All dense networks: the best of them, on validation rows of the split, is what a ticket meets."""


def of_parent(parent: str, *, smoke: bool = False) -> dict[str, Method]:
    """Return every arm on one parent: what was chosen for it, changed as the arm says."""
    chosen, prefix = CHOSEN[parent], "9x512 " if parent == "paper" else ""

    def ticket(search: tuple[float, int]) -> TicketConfig:
        config = iunet(parent, *search, smoke=smoke)
        return with_finetune(config, lr=chosen.ticket, epochs=config.finetune.epochs)

    def dense(config: TicketConfig) -> TicketConfig:
        lr, epochs = chosen.dense
        return with_finetune(arm("dense", config), lr=lr, epochs=7 if smoke else epochs)

    iunet_, omp = ticket(chosen.search), ticket(chosen.omp)
    configs = {name: arm(name, iunet_) for name in ARMS}
    configs["omp-rich"] = arm("omp-rich", omp)
    configs["dense"] = dense(iunet_)
    plain = with_finetune(configs["dense"], lr=PAPERS_LR, epochs=7 if smoke else 105)
    configs["dense, lr 1e-3"] = plain
    configs["IUNet, lr 1e-3"] = with_finetune(iunet_, lr=PAPERS_LR, epochs=iunet_.finetune.epochs)
    lasso = replace(iunet_, search=replace(iunet_.search, optimizer=SGD(lr=LASSO_LR)))
    configs["beta-Lasso"] = beta_lasso(lasso, l1=chosen.l1)
    return {
        f"{prefix}{name}": Method(parent=parent, config=config, tried=chosen.tried)
        for name, config in configs.items()
    }


def methods(*, smoke: bool = False) -> dict[str, Method]:
    """Return every network of the study by name."""
    found = of_parent("default", smoke=smoke) | of_parent("paper", smoke=smoke)
    plain = replace(found["dense, lr 1e-3"], tried=1)
    small = {f"dense {one}": replace(plain, parent=one) for one in PARENTS if "x" in one}
    found |= small | {
        # as many as weigh no more than one dense network: a ticket has a bit for every weight
        "5 tickets": replace(found["IUNet"], n_tickets=5),
        "6 dense 2x176": replace(small["dense 2x176"], n_tickets=6),
    }
    for r in (2, 4, 16, 32):
        for name in ("IUNet", "omp-rich"):
            config = replace(found[name].config, compression=float(r))
            found[f"{name}, r = {r}"] = replace(found[name], config=config)
    for name in CONTROLS:
        config = replace(found[name].config, compression=32.0)
        found[f"{name}, r = 32"] = replace(found[name], config=config)
    return found
