"""What the experiments on images share: networks, scales, the recipe, its tuned settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from secateurs.device import Precision
from secateurs.experiments.arms import arm, beta_lasso
from secateurs.experiments.spec import ImageRows, NetworkName, Run, TicketCell, ViewName
from secateurs.optimizers import SGD, LrSchedule
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

VALUE = "accuracy"
"""The one endpoint: the classes of these sets are balanced."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A network on a set of images.

    `width` is the paper's alpha for MLP_VIS and the CNN, `n_train` how many images are trained on:
    80% of those that are taken, the other 20% are watched. `schedule` is that of the finetuning's
    rate: at the constant rate that suits the small CNN best, runs of the same network end points
    apart.
    """

    dataset: str
    network: NetworkName
    widths: tuple[int, ...]
    n_train: int = 8_000
    n_validation: int = 2_000
    precision: Precision = "fp32"
    schedule: LrSchedule = "constant"

    @property
    def name(self) -> str:
        """In words, such as "cifar10, mlp_vis"."""
        return f"{self.dataset.removeprefix('sklearn:')}, {self.network}"


_WHOLE = {"cifar10": 40_000, "cifar100": 40_000, "svhn": 58_606}
"""80% of the training images of each set."""

PAPER_SETS = tuple(_WHOLE)
MLP_VIS, CNN, LENET, RESNET = "mlp_vis", "cnn", "lenet_300_100", "resnet18"


def _whole(dataset: str, network: NetworkName, width: int) -> Task:
    n_train = _WHOLE[dataset]
    return Task(
        dataset=dataset, network=network, widths=(width,), n_train=n_train,
        n_validation=round(n_train / 4), precision="bf16",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of an experiment is run."""

    tasks: tuple[Task, ...]
    seeds: int
    epochs: int


SCALES = {
    # bundled digits and toy networks: shows that everything runs, proves nothing
    "smoke": Scale(
        tasks=(
            Task(dataset="sklearn:digits", network=MLP_VIS, widths=(1,), n_train=160,
                 n_validation=130),
            Task(dataset="sklearn:digits", network=CNN, widths=(1,), n_train=160,
                 n_validation=130),
        ),
        seeds=2, epochs=2,
    ),
    # one phase of MLP_VIS takes two core-minutes; bf16 is as good there, and 1.5 times faster
    "small": Scale(
        tasks=(
            Task(dataset="cifar10", network=MLP_VIS, widths=(2,), precision="bf16"),
            Task(dataset="cifar10", network=CNN, widths=(2,), schedule="cosine"),
            Task(dataset="fashion_mnist", network=LENET, widths=(300, 100)),
        ),
        seeds=3, epochs=30,
    ),
    "paper": Scale(
        tasks=tuple(
            _whole(dataset, network, width)
            for network, width in ((MLP_VIS, 8), (CNN, 8), (RESNET, 64))
            for dataset in PAPER_SETS
        ),
        seeds=3, epochs=100,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What `vision_tune.py` chose for a network by validation images of another seed.

    `lr` is that of every finetuning, chosen for the dense network. IUNet's and OMP's searches were
    chosen among as many settings.
    """

    lr: float
    search_lr: float
    search_epochs: int
    init_scale: float
    omp_lr: float
    omp_epochs: int
    l1: float


PUBLISHED_SETTINGS = Tuned(
    lr=1e-3, search_lr=1e-3, search_epochs=0, init_scale=0.25, omp_lr=1e-3, omp_epochs=0, l1=1e-5
)
"""The paper's, where nothing was tuned; 0 epochs of search are as many as of the finetuning, since
it does not say."""

CHOSEN: dict[tuple[str, str], Tuned] = {
    ("cifar10", MLP_VIS): Tuned(
        lr=1e-1, search_lr=1e-2, search_epochs=30, init_scale=0.25, omp_lr=3e-2, omp_epochs=30,
        l1=1e-6,
    ),
    ("cifar10", CNN): Tuned(
        lr=3e-1, search_lr=1e-2, search_epochs=30, init_scale=0.25, omp_lr=3e-1, omp_epochs=30,
        l1=2e-5,
    ),
    ("fashion_mnist", LENET): Tuned(
        lr=3e-2, search_lr=3e-2, search_epochs=60, init_scale=0.25, omp_lr=3e-2, omp_epochs=30,
        l1=1e-6,
    ),
}  # fmt: skip
"""Of equal ones the smallest rate."""


def tuned(scale: str, task: Task) -> Tuned:
    """Return the settings of a task; the paper's at scale "paper", and where none were chosen."""
    found = CHOSEN.get((task.dataset, task.network)) if scale == "small" else None
    return found or PUBLISHED_SETTINGS


# ---- settings --------------------------------------------------------------------------------


def iunet(scale: str, task: Task, settings: Tuned) -> TicketConfig:
    """Return IUNet's settings for images (method, section 2)."""
    epochs = SCALES[scale].epochs
    return TicketConfig(
        search=PhaseConfig(
            epochs=settings.search_epochs or epochs, optimizer=SGD(lr=settings.search_lr),
            contrastive_weight=1.0, precision=task.precision,
        ),
        finetune=PhaseConfig(
            epochs=epochs, optimizer=SGD(lr=settings.lr, schedule=task.schedule),
            precision=task.precision,
        ),
        compression=8.0,
        init_scale=settings.init_scale,
    )  # fmt: skip


def omp(scale: str, task: Task, settings: Tuned) -> TicketConfig:
    """Return one-shot magnitude pruning, its search tuned as IUNet's was."""
    own = replace(
        settings, search_lr=settings.omp_lr, search_epochs=settings.omp_epochs, init_scale=1.0
    )
    return arm("omp-rich", iunet(scale, task, own))


def lasso(scale: str, task: Task, settings: Tuned, *, l1: float) -> TicketConfig:
    """Return beta-Lasso with the search of the tuned OMP, of as many epochs as the finetuning."""
    return beta_lasso(omp(scale, task, replace(settings, omp_epochs=0)), l1=l1)


def config(scale: str, task: Task, name: str) -> TicketConfig:
    """Return the tuned settings of an arm: "omp-rich", "beta-Lasso", or one of IUNet's `ARMS`."""
    settings = tuned(scale, task)
    if name == "omp-rich":
        return omp(scale, task, settings)
    if name == "beta-Lasso":
        return lasso(scale, task, settings, l1=settings.l1)
    if name == "IUNet, paper's search":
        return iunet(scale, task, replace(PUBLISHED_SETTINGS, lr=settings.lr))
    return arm(name, iunet(scale, task, settings))


def cell(task: Task, seed: int, settings: TicketConfig, *, view: ViewName = "simclr") -> TicketCell:
    """Return a ticket cell of a task on raw images."""
    return TicketCell(
        rows=ImageRows(
            dataset=task.dataset, split=seed, n_validation=task.n_validation,
            n_train=task.n_train, raw=True,
        ),
        config=settings,
        network=task.network,
        widths=task.widths,
        view=view,
        seed=seed,
    )  # fmt: skip


BATCHNORM_ONLY = "no-PIS, matched lr"
"""A rate can stand for a small start only where BatchNorm follows every layer; LeNet diverges."""


def arms(scale: str, tasks: Sequence[Task], names: Sequence[str]) -> list[Run]:
    """Return every arm of every task and seed."""
    return [
        Run(cell=cell(task, seed, config(scale, task, name)), arm=name)
        for seed in range(SCALES[scale].seeds)
        for task in tasks
        for name in names
        if not (name == BATCHNORM_ONLY and task.network == LENET)
    ]


def tasks(scale: str, *networks: str) -> list[Task]:
    """Return the tasks of a scale with these networks; all without any."""
    return [task for task in SCALES[scale].tasks if not networks or task.network in networks]


def tasks_of(frame: pd.DataFrame) -> list[Task]:
    """Return the tasks that a frame has rows of, in the order of the scales."""
    found = {(task.dataset, task.network): task for scale in SCALES for task in SCALES[scale].tasks}
    return [task for task in found.values() if len(of_task(frame, task))]


def of_task(frame: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return the rows of a frame that are of a task."""
    same = (frame["rows.dataset"] == task.dataset) & (frame["network"] == task.network)
    return frame[same]
