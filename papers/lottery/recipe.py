"""What the lottery experiments on MNIST share: presets of three papers, scales, cells."""

from dataclasses import dataclass, replace
from functools import partial

from secateurs.experiments.spec import ImageRows, TicketCell
from secateurs.masks import Scope
from secateurs.optimizers import SGD, AdamW, Optimizer
from secateurs.schedules import geometric, listed
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

VALUE = "accuracy"
"""At the end of the equal steps of every arm; accuracy at early stopping stands beside it."""

ALL = ("*",)
"""The output layer is pruned, too: these papers count all three."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a paper trains and prunes LeNet-300-100."""

    optimizer: Optimizer
    batch_size: int
    scope: Scope
    steps: int | None = None
    epochs: int | None = None
    only: tuple[str, ...] = ALL

    def phase(self, steps: int | None) -> PhaseConfig:
        """Return its training, shortened to so many steps; None is its own length."""
        steps = steps or self.steps
        length = {"epochs": self.epochs} if steps is None else {"steps": steps}
        return PhaseConfig(optimizer=self.optimizer, batch_size=self.batch_size, **length)


PRESETS = {
    # Frankle & Carbin 2019, figure 2: Adam, 20% a round of each layer, 10% of the last
    "lth2019": Preset(
        optimizer=AdamW(lr=1.2e-3, weight_decay=0.0, schedule="constant"),
        batch_size=60,
        scope="halved_last",
        steps=50_000,
    ),
    # OpenLTH's default for mnist_lenet_300_100, but for its Kaiming start; the head stays dense
    "open_lth": Preset(
        optimizer=SGD(lr=0.1, momentum=0.0, nesterov=False),
        batch_size=128,
        scope="global",
        epochs=40,
        only=("encoder.*",),
    ),
    # Zhou et al. 2019: as lth2019, for 55 epochs
    "zhou2019": Preset(
        optimizer=AdamW(lr=1.2e-3, weight_decay=0.0, schedule="constant"),
        batch_size=60,
        scope="halved_last",
        epochs=55,
    ),
}


LEARNING_RATES: dict[tuple[str, int | None], float] = {
    ("mnist", None): 6e-4,
    ("mnist", 1_000): 2.4e-3,
    ("fashion_mnist", 1_000): 1.2e-3,
}
"""By data set and number of training images, for `at_equal_steps.py`: `tune.py` chose them, the
smallest of equal ones; the preset's where none is."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of an experiment is run."""

    seeds: int
    rounds: int
    steps: int | None
    widths: tuple[int, int] = (300, 100)
    n_validation: int = 5_000


SCALES = {
    # bundled digits and a toy network: shows that everything runs, proves nothing
    "smoke": Scale(seeds=2, rounds=3, steps=60, widths=(30, 10), n_validation=120),
    "small": Scale(seeds=3, rounds=15, steps=4_000),
    "paper": Scale(seeds=5, rounds=20, steps=None),
}


def rows(scale: str, dataset: str, seed: int, *, n_train: int | None = None) -> ImageRows:
    """Return 5,000 images that are watched, and all of the rest, or so many, to train on."""
    n_validation = SCALES[scale].n_validation
    if n_train is not None:  # as many watched as trained on: no one with 1,000 labels has 5,000
        n_validation = min(n_validation, n_train)
    return ImageRows(dataset=dataset, split=seed, n_validation=n_validation, n_train=n_train)


def densities(
    scale: str, rounds: int, *, scope: Scope = "halved_last", rate: float = 0.2
) -> tuple[float, ...]:
    """Return the densities after each round of 20%, or of 10% in a last layer that is halved."""
    first, second = SCALES[scale].widths
    n_inputs = 64 if scale == "smoke" else 784
    last = second * 10 if scope == "halved_last" else 0
    share = last / (n_inputs * first + first * second + last)
    target = (1 - share) * (1 - rate) ** rounds + share * (1 - rate / 2) ** rounds
    return geometric(target, rate=rate, last_share=share)


def in_rounds(base: TicketConfig, kept: tuple[float, ...]) -> TicketConfig:
    """Return a ticket whose rounds end at these densities."""
    return replace(base, compression=1 / kept[-1], schedule=partial(listed, densities=kept))


def cell(
    scale: str, dataset: str, seed: int, config: TicketConfig, *, n_train: int | None = None,
    shift: int = 0, corruption_rate: float = 0.0,
) -> TicketCell:  # fmt: skip
    """Return a ticket cell of LeNet-300-100."""
    return TicketCell(
        rows=rows(scale, dataset, seed, n_train=n_train),
        config=config,
        network="lenet_300_100",
        widths=SCALES[scale].widths,
        seed=seed,
        shift=shift,
        corruption_rate=corruption_rate,
    )
