"""The design of the study on tables: its sets, parents, metric, and how a cell is made.

Tuning sets choose, on validation rows and split seeds of their own; reporting sets are tested with
what was chosen. Every method gets the same rows, no class weights, and the same decision rule for
balanced accuracy: the class whose probability exceeds its share of the training rows the most.
"""

from dataclasses import replace

from secateurs.experiments.spec import Rows, TicketCell
from secateurs.networks.dense import MLP_TAB
from secateurs.optimizers import SGD, AdamW
from secateurs.recipes import PRESETS
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

VALUE = "corrected_balanced_accuracy"
"""The primary metric."""

SMOKE = ("sklearn:wine", "sklearn:breast_cancer")
TUNING = ("credit-g", "vehicle", "cnae-9", "arrhythmia")
TUNING_SPLITS = (100, 101, 102)
REPORTING = ("australian", "kr-vs-kp", "mfeat-factors", "sylvine")
LARGE = ("bank-marketing", "adult", "connect-4", "walking-activity")
DUPLICATED = ("kc1", "skin-segmentation")
"""Most of their rows occur more than once: shown apart."""

PARENTS = {
    "default": PRESETS["default"].widths,
    "paper": MLP_TAB,
    "wide": (1024, 1024),
    # of about as many parameters as a ticket at r = 8, and the small ones that people use
    "2x176": (176,) * 2,
    "9x176": (176,) * 9,
    "3x256": (256,) * 3,
    "2x128": (128,) * 2,
}

SMOKE_EPOCHS = 2


def iunet(parent: str, lr: float, epochs: int = 105, *, smoke: bool = False) -> TicketConfig:
    """Return IUNet on a parent: the paper's finetuning, with the paper's snapshots on its parent."""
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
    """Return a cell that trains on 80% of the rows, or on 60% with 20% to choose on."""
    return TicketCell(
        rows=Rows(dataset=dataset, split=split, validation_folds=4 if validation else 0),
        config=config,
        widths=(32, 32) if smoke else PARENTS[parent],
        seed=split,
        n_tickets=n_tickets,
    )
