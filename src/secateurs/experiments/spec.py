"""Cells: frozen descriptions of one run each, and the key under which its result is kept.

A searched network is a cell of its own; its masks at every compression, its controls and its
training-free rows are ticket cells that read it. What cannot matter is put back to its default, so
that equal runs have equal keys: the dense network is one cell, whatever search it is shown beside.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal

from secateurs import schedules
from secateurs.descriptions import LATER
from secateurs.errors import InputError
from secateurs.experiments.typed import build, canonical, describe, kind_of
from secateurs.optimizers import BetaLasso
from secateurs.recipes import PRESETS
from secateurs.tickets import TicketConfig, keep_step, searches
from secateurs.training import PhaseConfig

__all__ = [
    "FORMAT",
    "MEMBER_SEED",
    "Cell",
    "ImageRows",
    "NetworkName",
    "PeerCell",
    "ProbeCell",
    "Rows",
    "Run",
    "SearchCell",
    "StudentArm",
    "StudentTeacherCell",
    "TaskRows",
    "TicketCell",
    "ViewName",
    "cell_from_json",
    "key",
    "needs",
    "title",
    "with_needs",
]

MEMBER_SEED = 1_000
"""Distance of the seeds of an ensemble's members: far beyond the seeds that splits are given."""

FORMAT = 1
"""Part of every key: another one makes every result that was kept unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Which rows of which table are trained on, watched and tested.

    Args:
        dataset: a table under the data root by its name ("credit-g"), a file, sklearn:NAME or
            openml:TASK_ID.
        target: column; None is the one that the source names, else "target".
        split: seed of the split, paired over arms.
        test_folds: one of so many stratified folds is tested: 5 is 20% of the rows.
        validation_folds: one of so many folds of the rest is watched, never trained on: 4 is 20%
            of all rows; 0 leaves none. Identical rows stay on one side (method, section 3).
    """

    dataset: str
    target: str | None = None
    split: int = 0
    test_folds: int = 5
    validation_folds: int = 0

    def __post_init__(self) -> None:
        if self.test_folds < 2 or (self.validation_folds and self.validation_folds < 2):
            raise InputError(
                "test_folds must be at least 2 and validation_folds at least 2 or 0, got "
                f"{self.test_folds} and {self.validation_folds}"
            )
        if self.split < 0:
            raise InputError(f"split must be at least 0, got {self.split}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRows:
    """Which images of which set are trained on and watched; the set's own test images are tested.

    Args:
        dataset: "mnist", "cifar10", sklearn:digits, a file, ...; see `data.images`.
        split: seed of the draw of validation and training images, paired over arms.
        n_validation: training images that are watched and never trained on, stratified.
        n_train: how many of the rest are trained on, stratified; None is all of them.
        raw: they stay uint8 and the network normalises them, so that views see colours; without,
            they are normalised once.
    """

    dataset: str
    split: int = 0
    n_validation: int = 5_000
    n_train: int | None = None
    raw: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        few = self.n_train is not None and self.n_train < 2
        if self.split < 0 or self.n_validation < 0 or few:
            raise InputError(
                "split and n_validation must be at least 0 and n_train at least 2 or null, got "
                f"{self.split}, {self.n_validation} and {self.n_train}"
            )


NetworkName = Literal["mlp", "lenet_300_100", "mlp_vis", "cnn", "resnet18", "resnet18_cifar"]
ViewName = Literal["simclr", "crop", "flip", "colour", "grayscale"]


def _selects(phase: PhaseConfig) -> bool:
    """Return whether a phase treats the prunable weights unlike all others."""
    optimizer = phase.optimizer
    return isinstance(optimizer, BetaLasso) or getattr(optimizer, "encoder_lr", None) is not None


def _drop_views(cell: "SearchCell | TicketCell", *, contrasts: bool) -> None:
    """Put the settings of views back where no view is drawn, or where another one is named."""
    if not contrasts or cell.view is not None:
        object.__setattr__(cell, "corruption_rate", 0.0)
        object.__setattr__(cell, "shift", 0)
    if not contrasts:
        object.__setattr__(cell, "view", None)


def _check_network(cell: "TicketCell") -> None:
    images = isinstance(cell.rows, ImageRows)
    raw = isinstance(cell.rows, ImageRows) and cell.rows.raw
    if images and cell.network == "mlp":
        raise InputError(
            f"images need a network of images, got {cell.network!r} for {cell.rows.dataset}; "
            "set network to 'lenet_300_100' and widths to two sizes, or to 'cnn' and widths to one"
        )
    if cell.network not in ("mlp", "lenet_300_100") and not (raw and len(cell.widths) == 1):
        raise InputError(
            f"{cell.network} takes images as they are and one width, got {cell.widths} for "
            f"{cell.rows.dataset}; set rows.raw to true and widths to (alpha,)"
        )
    if cell.shift < 0 or (cell.shift and (not images or raw)):
        raise InputError(
            "shift is of normalised images, by 0 or more pixels, got "
            f"{cell.shift} for {cell.rows.dataset}; set it to 0, or name a view of raw images"
        )
    contrasts = cell.config.search.contrastive_weight or cell.config.finetune.contrastive_weight
    if contrasts and raw != (cell.view is not None):
        raise InputError(
            "a contrastive weight needs a named view of raw images, and no other rows have one, "
            f"got view={cell.view!r} for {cell.rows.dataset}; set view, such as 'simclr', and "
            "rows.raw to true, or neither"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchCell:
    """The search of one supernetwork. Arguments as for `TicketCell` and `TicketConfig`.

    Args:
        n_probes: training rows, drawn once, on which feature learning is followed at log-spaced
            steps; see `measures.dynamics`. With 0 it is not; a ticket's search never is.
    """

    rows: Rows | ImageRows
    search: PhaseConfig
    widths: tuple[int, ...] = PRESETS["default"].widths
    init_scale: float = 0.25
    keep_step: int | None = None
    corruption_rate: float = 0.6
    class_weight: Literal["balanced"] | None = None
    seed: int = 0
    dropout: float = field(default=0.0, metadata=LATER)
    skip: bool = field(default=False, metadata=LATER)
    network: NetworkName = field(default="mlp", metadata=LATER)
    shift: int = field(default=0, metadata=LATER)
    only: tuple[str, ...] | None = field(default=None, metadata=LATER)
    n_probes: int = field(default=0, metadata=LATER)
    movement: float | None = field(default=None, metadata=LATER)
    view: ViewName | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        _drop_views(self, contrasts=bool(self.search.contrastive_weight))
        if not _selects(self.search):
            object.__setattr__(self, "only", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class TicketCell:
    """One ticket, trained and measured; with `finetune.epochs=0` measured untrained.

    With `n_tickets` above 1 it is an ensemble: the mean of the probabilities of so many tickets,
    each a cell of its own, the first of them the one of the seed itself.

    Args:
        rows: the data.
        config: how the ticket is found.
        widths: hidden layer sizes of the network.
        corruption_rate: c of the views, of columns or pixels; counts only where a contrastive
            weight does.
        class_weight: "balanced" weights the cross-entropy by n / (C * n_c).
        seed: of the start, the order of the data, views and controls.
        n_tickets: members of the ensemble; member i has the seed `seed + i * MEMBER_SEED`.
        dropout, skip: of the MLP, in the search and in the finetuning.
        network: "mlp" (BatchNorm) or "lenet_300_100" (biases, no BatchNorm, Glorot start); of raw
            images also "mlp_vis" and "cnn", whose one width is the paper's alpha, and "resnet18"
            (with "_cifar" for small images), whose one width is that of its first stage.
        shift: pixels by which views of normalised images are moved at most; counts as
            corruption_rate does.
        view: of raw images, by its name in `data.image_views.IMAGE_VIEWS`; counts likewise.
    """

    rows: Rows | ImageRows
    config: TicketConfig = field(default_factory=TicketConfig)
    widths: tuple[int, ...] = PRESETS["default"].widths
    corruption_rate: float = 0.6
    class_weight: Literal["balanced"] | None = None
    seed: int = 0
    n_tickets: int = field(default=1, metadata=LATER)
    dropout: float = field(default=0.0, metadata=LATER)
    skip: bool = field(default=False, metadata=LATER)
    network: NetworkName = field(default="mlp", metadata=LATER)
    shift: int = field(default=0, metadata=LATER)
    view: ViewName | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if self.n_tickets < 1:
            raise InputError(f"n_tickets must be at least 1, got {self.n_tickets}")
        if self.network != "mlp" and (self.dropout or self.skip):
            raise InputError(
                f"dropout and skip are the MLP's, got {self.dropout:g} and {self.skip} for "
                f"{self.network}; leave them at their defaults"
            )
        _check_network(self)
        config = self.config
        if config.compression == 1:
            selects = _selects(config.search) or _selects(config.finetune)
            plain = TicketConfig(
                search=config.search,
                finetune=config.finetune,
                rewind=config.rewind,
                init_scale=config.init_scale,
                only=config.only if selects else None,
                movement=config.movement,
            )
            config = replace(plain, compression=1.0)
        if not searches(config):
            kept = config.init_scale if config.rewind == "scaled_start" else 1.0
            config = replace(config, search=PhaseConfig(epochs=0), init_scale=kept)
        if not config.search.epochs:
            config = replace(config, movement=None)
        object.__setattr__(self, "config", config)
        contrasts = config.search.contrastive_weight or config.finetune.contrastive_weight
        _drop_views(self, contrasts=bool(contrasts))

    @property
    def members(self) -> tuple["TicketCell", ...]:
        """The tickets of an ensemble; empty for a single ticket."""
        if self.n_tickets == 1:
            return ()
        seeds = (self.seed + i * MEMBER_SEED for i in range(self.n_tickets))
        return tuple(replace(self, n_tickets=1, seed=seed) for seed in seeds)

    @property
    def round_before(self) -> "TicketCell | None":
        """The ticket whose trained weights are pruned further; None in a first or only round.

        It ends as every round but the last does: trained by the search, without a control.
        """
        config = self.config
        if config.compression == 1 or not config.search.epochs or self.n_tickets > 1:
            return None
        if config.compression_of == "model":  # what it keeps of the encoder is not known here
            return None
        rounds = config.schedule(1 / config.compression)
        if len(rounds) == 1:
            return None
        shorter = replace(
            config,
            compression=1 / rounds[-2],
            schedule=partial(schedules.listed, densities=rounds[:-1]),
            finetune=config.search,
            rewind="start" if config.rewind == "random" else config.rewind,
            control="reversed" if config.control == "reversed" else "none",
        )
        return replace(self, config=shorter)

    @property
    def search_cell(self) -> SearchCell | None:
        """The search that the ticket is pruned from; None where there is nothing to train."""
        if not self.config.search.epochs or self.n_tickets > 1:
            return None
        return SearchCell(
            rows=self.rows,
            search=self.config.search,
            widths=self.widths,
            init_scale=self.config.init_scale,
            keep_step=keep_step(self.config.rewind),
            corruption_rate=self.corruption_rate,
            class_weight=self.class_weight,
            seed=self.seed,
            dropout=self.dropout,
            skip=self.skip,
            network=self.network,
            shift=self.shift,
            view=self.view,
            only=self.config.only,
            movement=self.config.movement,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerCell:
    """A model of another kind on the same rows, with its library's defaults."""

    rows: Rows
    model: Literal[
        "majority",
        "logistic_regression",
        "random_forest",
        "xgboost",
        "catboost",
        "realmlp",
        "tabnet",
    ] = "majority"
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeCell:
    """What a finished ticket shows beside its accuracy; see `secateurs.experiments.probes`."""

    ticket: TicketCell

    @property
    def rows(self) -> Rows | ImageRows:
        """The ticket's."""
        return self.ticket.rows


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRows:
    """Rows that a teacher made, drawn from N(0, I); see `networks.teacher.draw_task`.

    Args:
        dataset: the teacher's four neurons look at 4 inputs each, or at all.
        split: seed of the teacher and of the rows.
        n_inputs: inputs.
        n_train: rows that are trained on.
        n_test: rows that are tested.
    """

    dataset: Literal["sparse teacher", "dense teacher"]
    split: int = 0
    n_inputs: int = 24
    n_train: int = 384
    n_test: int = 512


StudentArm = Literal["ticket", "no rewind", "re-init", "shuffled", "top start"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentTeacherCell:
    """Students of one teacher at several alphas, dense and pruned in rounds; see `student_teacher`.

    Args:
        rows: the task.
        n_seeds: tasks and starts of the seeds from `rows.split` on, in one stack.
        width: hidden units.
        readout: "ntk" or "mean_field"; see `networks.teacher.readout_scale`.
        alphas: of the objective, each a line of its own.
        arms: what is trained at each density, the ticket among them.
        rounds: prunings.
        kept: share that each leaves of the hidden weights.
        steps: of each training.
        follow: the round whose features are followed, and whose masks are trained at every other
            alpha; 0 is none.
        n_heatmap_rows: rows whose preactivations are kept at the followed round; 0 is none.
    """

    rows: TaskRows
    n_seeds: int = 1
    width: int = 64
    readout: Literal["ntk", "mean_field"] = "ntk"
    alphas: tuple[float, ...] = (0.05, 0.2, 1.0, 5.0, 25.0)
    arms: tuple[StudentArm, ...] = ("ticket", "no rewind", "re-init", "shuffled", "top start")
    rounds: int = 8
    kept: float = 0.7
    steps: int = 2_000
    follow: int = 6
    n_heatmap_rows: int = 0

    def __post_init__(self) -> None:
        if "ticket" not in self.arms or len(set(self.arms)) < len(self.arms):
            raise InputError(f"arms must be distinct, 'ticket' among them, got {self.arms}")
        if not self.alphas or min(self.alphas) <= 0 or len(set(self.alphas)) < len(self.alphas):
            raise InputError(f"alphas must be distinct positive numbers, got {self.alphas}")
        if not 0 < self.kept < 1 or not 0 <= self.follow <= self.rounds:
            raise InputError(
                "kept must be in (0, 1) and follow from 0 to rounds, got "
                f"{self.kept:g} and {self.follow} of {self.rounds}"
            )
        if min(self.n_seeds, self.width, self.steps) < 1:
            raise InputError(
                "n_seeds, width and steps must be at least 1, got "
                f"{self.n_seeds}, {self.width} and {self.steps}"
            )


Cell = SearchCell | TicketCell | PeerCell | ProbeCell | StudentTeacherCell
_KINDS: dict[str, type[Any]] = {
    kind_of(cls): cls for cls in (SearchCell, TicketCell, PeerCell, ProbeCell, StudentTeacherCell)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A cell in its place in a table.

    Args:
        cell: what is run.
        arm: the row or line it belongs to.
        tried: number of configurations among which the arm's was chosen, itself included: what
            was spent on tuning it.
    """

    cell: Cell
    arm: str
    tried: int = 1


@lru_cache(maxsize=2**17)
def key(cell: Cell) -> str:
    """Return the name of a cell's folder: a hash of its canonical JSON.

    >>> key(PeerCell(rows=Rows(dataset="sklearn:iris")))
    '24e80443aed5ca09'
    """
    text = canonical({"format": FORMAT, "cell": describe(cell)})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cell_from_json(value: Any, *, path: str = "") -> Cell:
    """Return a cell from `describe`'s JSON, or from the part of it that differs from defaults.

    Raises:
        InputError: unknown kinds and names, wrong types, values that cannot work.

    >>> cell_from_json({"rows": {"dataset": "credit-g"}, "config": {"compression": 4}}).rows.split
    0
    """
    kind = value.get("kind", kind_of(TicketCell)) if isinstance(value, dict) else None
    if kind not in _KINDS:
        raise InputError(f"a cell's kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    found: Cell = build(_KINDS[kind], value, path=path)
    return found


def title(cell: Cell) -> str:
    """Return a few words that tell a person which cell this is.

    >>> title(PeerCell(rows=Rows(dataset="sklearn:iris", split=2)))
    'sklearn:iris split 2: majority'
    """
    where = f"{cell.rows.dataset} split {cell.rows.split}"
    if isinstance(cell, PeerCell):
        return f"{where}: {cell.model}"
    if isinstance(cell, ProbeCell):
        return f"{title(cell.ticket)}, probed"
    if isinstance(cell, StudentTeacherCell):
        return f"{where}: students of {cell.width}, {cell.readout}"
    sizes = "-".join(map(str, cell.widths))
    if len(cell.widths) > 2 and len(set(cell.widths)) == 1:
        sizes = f"{len(cell.widths)}x{cell.widths[0]}"
    if len(cell.widths) == 1 and cell.network != "mlp":  # a width alone tells no two apart
        sizes = f"{cell.network} {sizes}"
    if isinstance(cell, SearchCell):
        return f"{where}: search {sizes}, kappa {cell.init_scale:g}"
    several = f"{cell.n_tickets} tickets" if cell.n_tickets > 1 else "ticket"
    return f"{where}: {several} {sizes}, r {cell.config.compression:g}"


def needs(cell: Cell) -> tuple[Cell, ...]:
    """Return the cells that must be finished before this one can start."""
    if isinstance(cell, ProbeCell):
        return (cell.ticket, *needs(cell.ticket))
    if not isinstance(cell, TicketCell):
        return ()
    if cell.members:
        return cell.members
    before, search = cell.round_before, cell.search_cell
    return tuple(one for one in (search, before) if one is not None)


def with_needs(cells: Iterable[Cell], *, without: Collection[str] = ()) -> dict[str, Cell]:
    """Return the cells and all that they need by key, each once, needs first.

    Args:
        cells: what is asked for.
        without: keys that are left out, with whatever only they need.
    """
    found: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        name = key(cell)
        if name in found or name in without:
            return
        for needed in needs(cell):
            add(needed)
        found[name] = cell

    for cell in cells:
        add(cell)
    return found
