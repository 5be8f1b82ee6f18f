"""What a cell will take, told before hours are spent: steps, and the time of a step tried out."""

from collections.abc import Callable
from functools import lru_cache
from math import ceil

import torch

from secateurs import device as devices
from secateurs import training
from secateurs.data.batches import Data
from secateurs.data.images import read_images
from secateurs.data.tables import Table, read_table
from secateurs.errors import InputError
from secateurs.experiments import probes, student_teacher
from secateurs.experiments.spec import (
    Cell,
    ImageRows,
    NetworkName,
    PeerCell,
    ProbeCell,
    Rows,
    SearchCell,
    StudentTeacherCell,
    TicketCell,
)
from secateurs.experiments.trained import blank
from secateurs.networks.init import initialise_
from secateurs.networks.pixels import Normalise
from secateurs.training import PhaseConfig

__all__ = ["estimate"]

_STEP = 128

_PEER_SECONDS: dict[str, Callable[[int, int, int], float]] = {
    "majority": lambda rows, columns, outputs: 1e-7 * rows,
    "logistic_regression": lambda rows, columns, outputs: 1e-7 * rows * columns * outputs,
    "random_forest": lambda rows, columns, outputs: 3e-5 * rows * columns**0.5,
    "xgboost": lambda rows, columns, outputs: outputs * (0.02 + 5e-7 * rows * columns),
    "catboost": lambda rows, columns, outputs: 1 + columns * (0.06 * outputs + 2e-5 * rows),
    "realmlp": lambda rows, columns, outputs: ceil(rows / 320) * (2 + 0.01 * columns),
    "tabnet": lambda rows, columns, outputs: 1e-3 * rows * (1 + columns / 200),
}
"""Core-seconds by training rows, columns and outputs (one for two classes), within a factor of
about three of what was measured on one core of a server, at 700 to 20,000 rows."""


@lru_cache(maxsize=256)
def _step_seconds(
    name: NetworkName, inputs: tuple[int, ...], widths: tuple[int, ...], phase: PhaseConfig
) -> float:
    """Return the time of one training step on this machine, tried out on made rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3 * phase.batch_size, *inputs, generator=generator)
    y = torch.randint(2, (len(x),), generator=generator)
    network = blank(name, inputs, 2, widths=widths).to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, Normalise):  # what is in no memory may be anything
            module.load_state_dict(Normalise([0.0] * inputs[0], [1.0] * inputs[0]).state_dict())
    initialise_(network, generator=generator)
    with devices.one_thread():
        done = training.train(network, Data(train=(x, y)), phase, name="estimate", seed=0)
    return float(done.history[-1]["seconds"]) / 3


@lru_cache(maxsize=1024)
def _shape(rows: Rows | ImageRows) -> tuple[int, tuple[int, ...]]:
    """Return training rows and the shape of one, roughly: categories are not counted."""
    if isinstance(rows, ImageRows):
        x = read_images(rows.dataset).x_train
        return rows.n_train or len(x) - rows.n_validation, x.shape[1:]
    frame = _table(rows.dataset).frame
    share = (1 - 1 / rows.test_folds) * (
        1 - 1 / rows.validation_folds if rows.validation_folds else 1
    )
    return max(2, int(len(frame) * share)), (max(1, frame.shape[1] - 1),)


@lru_cache(maxsize=1024)
def _n_outputs(rows: Rows) -> int:
    """Return 1 for two classes, else their number; 1 also where the target cannot be told."""
    table = _table(rows.dataset)
    target = rows.target or table.target or "target"
    try:
        n_classes = int(table.frame[target].nunique())
    except (KeyError, TypeError):  # no such column, or of lists: the cell will say so
        return 1
    return 1 if n_classes <= 2 else n_classes


@lru_cache(maxsize=64)
def _table(dataset: str) -> Table:
    return read_table(dataset)


def _probe_steps(cell: ProbeCell) -> float:
    """Return to how many training steps a probe comes: three passes each."""
    n_rows, _ = _shape(cell.rows)
    n_tested = float(n_rows)
    if isinstance(cell.rows, Rows):
        n_tested /= cell.rows.test_folds - 1
    networks = probes.FRESH + 4
    passes = networks * (1 + probes.VIEWS) * min(probes.VIEW_ROWS, n_tested)
    passes += networks * min(probes.STATISTICS_ROWS, n_rows)
    # of each of some 500 weights, most rows are done after a layer or two
    passes += 3 * 500 * 0.2 * min(probes.COUPLING_ROWS, n_rows)
    return passes / (3 * _STEP)


def estimate(cell: Cell) -> float:
    """Return about how many core-seconds a cell takes on this machine.

    From the number of training steps, and the time of a step that is tried out; for models of
    other kinds from what they took elsewhere.

    A cell whose table cannot be read costs nothing: it will say so itself.
    """
    if isinstance(cell, StudentTeacherCell):
        return student_teacher.n_steps(cell) * student_teacher.step_seconds(cell.rows, cell.width)
    try:
        n_rows, inputs = _shape(cell.rows)
    except InputError:
        return 0.0
    if isinstance(cell, TicketCell) and cell.n_tickets > 1:
        return 1.0
    if isinstance(cell, ProbeCell):
        ticket, phase = cell.ticket, PhaseConfig(epochs=2, batch_size=_STEP)
        return _probe_steps(cell) * _step_seconds(ticket.network, inputs, ticket.widths, phase)
    if isinstance(cell, PeerCell):
        return _PEER_SECONDS[cell.model](n_rows, inputs[0], _n_outputs(cell.rows))
    phase = cell.search if isinstance(cell, SearchCell) else cell.config.finetune
    passes = 2 if phase.contrastive_weight else 1
    steps = phase.n_steps(n_rows) * passes
    if not steps:
        return 0.1
    tried = PhaseConfig(epochs=2, batch_size=phase.batch_size, precision=phase.precision)
    return steps * _step_seconds(cell.network, inputs, cell.widths, tried)
