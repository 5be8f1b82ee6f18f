"""Tickets of one table from several seeds: one after another, or side by side in processes."""

import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed, effective_n_jobs
from joblib.externals.loky.process_executor import (
    BrokenProcessPool,
    PicklingError,
    TerminatedWorkerError,
)
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from torch import Tensor

from secateurs import device as devices
from secateurs.data.batches import Data
from secateurs.data.views import View
from secateurs.errors import InputError
from secateurs.progress import PhaseProgress
from secateurs.seeds import derive
from secateurs.tabular import find_tickets, row_errors, smallest_near_best
from secateurs.tickets import Ticket, TicketConfig
from secateurs.workers import end_with

__all__ = ["Members", "find_ensemble"]

_Arrays = tuple[NDArray[Any] | None, ...]
"""The tensors of a `Data`; joblib lets worker processes share arrays, not tensors."""


@dataclass(frozen=True, kw_only=True)
class Members:
    """What the tickets of an ensemble have in common; ticket i has the seed (seed, "ticket", i).

    Args:
        n_outputs: classes, or 1 for numbers.
        widths: hidden layer sizes.
        config: at any compression.
        view: makes the view from the training rows on their device, or None.
        seed: root of every random stream.
        device: "cpu", "cuda", ...; None picks.
        checkpoint_dir: folder of one folder a ticket, or None.
    """

    n_outputs: int
    widths: Sequence[int]
    config: TicketConfig
    view: Callable[[Tensor], View] | None
    seed: int
    device: str | None
    checkpoint_dir: Path | None

    def find(
        self,
        i: int,
        data: Data,
        compressions: Sequence[float],
        *,
        view: View | None,
        time_limit: float | None,
        progress: PhaseProgress | None = None,
    ) -> dict[float, Ticket]:
        """Return ticket i at each compression."""
        return find_tickets(
            data,
            self.n_outputs,
            self.widths,
            self.config,
            compressions,
            seed=derive(self.seed, "ticket", i),
            view=view,
            device=self.device,
            checkpoint_dir=self.checkpoint_dir and self.checkpoint_dir / f"ticket-{i}",
            progress=progress,
            time_limit=time_limit,
        )


def _processes(n_jobs: int | None, n_tickets: int, where: torch.device) -> int:
    """Return how many processes train; 1 is this one.

    Within a parallel search over parameters, say, the cores are taken: its workers start none.
    """
    if where.type != "cpu" or get_active_backend()[0].nesting_level:
        return 1
    return min(int(effective_n_jobs(n_jobs)), n_tickets)


def _share(deadline: float, rounds: int) -> float | None:
    """Return the seconds until the deadline that one of so many rounds may take."""
    left = max(deadline - time.monotonic(), 0.0)
    return None if deadline == math.inf else left / rounds


def find_ensemble(
    members: Members,
    data: Data,
    compressions: Sequence[float],
    *,
    n_tickets: int,
    n_jobs: int | None,
    deadline: float,
    progress: PhaseProgress | None,
) -> tuple[list[Ticket], float, dict[float, float]]:
    """Return the tickets, their compression, and the validation error of each compression tried.

    Among several compressions the first ticket chooses for all. On the CPU several tickets are
    trained by one thread each, so that the result does not depend on `n_jobs`, to the bit.

    Args:
        members: what they have in common.
        data: training rows; validation rows too if there is a compression to choose.
        compressions: one, or several to choose from.
        n_tickets: how many.
        n_jobs: processes, as joblib counts them. A device other than the CPU is used by one.
        deadline: `time.monotonic()` by which training is to end; those that run at the same time
            share what is left as one round.
        progress: shows what is trained, or None.

    Raises:
        InputError: as `find_tickets`; what the processes need cannot be sent to them; one died.
    """
    where = devices.pick(members.device)
    jobs = _processes(n_jobs, n_tickets, where)
    view = None if members.view is None else members.view(data.train[0].to(where))
    chosen, errors = compressions[0], {}
    tickets: list[Ticket] = []

    def next_here(compressions: Sequence[float], rounds: int) -> dict[float, Ticket]:
        i = len(tickets)
        if progress is not None and n_tickets > 1:
            progress.title = f"ticket {i + 1}/{n_tickets}"
        limit = _share(deadline, rounds)
        with devices.one_thread() if where.type == "cpu" and n_tickets > 1 else nullcontext():
            return members.find(
                i, data, compressions, view=view, time_limit=limit, progress=progress
            )

    if len(compressions) > 1:
        found = next_here(compressions, 1 + math.ceil((n_tickets - 1) / jobs))
        rows = {r: row_errors(ticket, data) for r, ticket in found.items()}
        errors = {r: float(e.mean()) for r, e in rows.items()}
        chosen = smallest_near_best(rows)
        tickets.append(found[chosen])
    if min(jobs, n_tickets - len(tickets)) > 1:
        numbers = range(len(tickets), n_tickets)
        tickets += _side_by_side(members, data, chosen, numbers, jobs, deadline, progress)
    while len(tickets) < n_tickets:
        tickets.append(next_here((chosen,), n_tickets - len(tickets))[chosen])
    return tickets, chosen, errors


# --- in processes ----------------------------------------------------------------------------


def _to_arrays(data: Data) -> _Arrays:
    tensors = (*data.train, *(data.validation or (None, None)), data.weight)
    return tuple(None if tensor is None else tensor.numpy() for tensor in tensors)


def _to_data(arrays: _Arrays) -> Data:
    x, y, x_val, y_val, weight = (None if a is None else torch.from_numpy(a) for a in arrays)
    validation = None if x_val is None or y_val is None else (x_val, y_val)
    assert x is not None
    assert y is not None
    return Data(train=(x, y), validation=validation, weight=weight)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a worker sends back."""

    number: int
    ticket: Ticket
    warned: list[tuple[type[Warning], str, str, int]]


def _find(
    members: Members,
    arrays: _Arrays,
    number: int,
    compression: float,
    deadline: float,
    rounds: int,
    parent: int,
) -> _Found:
    """Find one ticket in a worker process, in its share of the time: all have the same clock."""
    end_with(parent)
    data = _to_data(arrays)
    with warnings.catch_warnings(record=True) as caught, devices.one_thread():
        warnings.simplefilter("always")  # the parent's filters are to decide
        view = None if members.view is None else members.view(data.train[0])
        limit = _share(deadline, rounds)
        found = members.find(number, data, (compression,), view=view, time_limit=limit)
    warned = [(one.category, str(one.message), one.filename, one.lineno) for one in caught]
    return _Found(number=number, ticket=found[compression], warned=list(dict.fromkeys(warned)))


@contextmanager
def _in_one_line(jobs: int) -> Iterator[None]:
    """Say what may keep tickets from being trained in processes, and what to do."""
    remedy = "leave n_jobs=1"
    try:
        yield
    except TerminatedWorkerError as err:
        raise InputError(
            f"one of {jobs} processes that train tickets died, killed from outside or out of "
            f"memory; use a lower n_jobs than {jobs} (a checkpoint_dir keeps what is trained)"
        ) from err
    except (BrokenProcessPool, PicklingError) as err:
        raise InputError(
            "n_jobs needs views and a criterion that can be sent to other processes, and these "
            f"cannot be pickled; define them in a module that can be imported, or {remedy}"
        ) from err


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let Ctrl-C wait; processes that start here leave it to their parent, which ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ended_quietly() -> Iterator[None]:
    """Leave out what joblib tells of tasks that an error or Ctrl-C ended."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to kill subprocesses")  # where there is no pgrep
        warnings.filterwarnings("ignore", ".*tasks (which were|have been)")
        yield


def _side_by_side(
    members: Members,
    data: Data,
    compression: float,
    numbers: range,
    jobs: int,
    deadline: float,
    progress: PhaseProgress | None,
) -> list[Ticket]:
    """Return the tickets of these numbers, each found in a process of its own thread."""
    arrays = _to_arrays(data)  # the same objects for every task: memory-mapped once, for all

    def tasks() -> Iterator[Any]:
        for started, number in enumerate(numbers):  # asked for when a process is free
            rounds = math.ceil((len(numbers) - started) / jobs)
            yield delayed(_find)(
                members, arrays, number, compression, deadline, rounds, os.getpid()
            )

    if progress is not None:
        progress.side_by_side(numbers.stop, done=numbers.start)
    parallel = Parallel(
        n_jobs=jobs,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        pre_dispatch=jobs,
        mmap_mode="c",  # torch warns of arrays that cannot be written; nothing is written
    )
    found: dict[int, _Found] = {}
    with _in_one_line(jobs), _ended_quietly():
        with _interrupts_blocked():
            results = parallel(tasks())
        with closing(results):
            for one in results:
                found[one.number] = one
                if progress is not None:
                    name = f"ticket {one.number + 1}/{numbers.stop}"
                    progress.ended(name, history=one.ticket.history)
    registry: dict[Any, Any] = {}
    for number in numbers:
        for category, text, filename, line in found[number].warned:
            warnings.warn_explicit(text, category, filename, line, registry=registry)
    return [found[number].ticket for number in numbers]
