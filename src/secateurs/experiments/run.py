"""Running cells: which is next, what is left, and what came of it.

A run may be killed at any moment, as a whole or in part, and started again: what is finished is
never computed twice, a worker that dies is replaced and its cell tried again, a cell that fails
leaves its traceback in the store while the others go on. Any number of runs may share a store.
"""

import heapq
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from secateurs.errors import InputError
from secateurs.experiments.cells import Status
from secateurs.experiments.cost import estimate
from secateurs.experiments.engines import SPARE
from secateurs.experiments.engines import engine as opened
from secateurs.experiments.progress import Standing, duration
from secateurs.experiments.spec import Cell, SearchCell, key, needs, title, with_needs
from secateurs.experiments.store import Store

__all__ = ["Summary", "plan_line", "run"]

_LEAST_SECONDS = 0.02  # that any cell costs, the store included
_POLL_SECONDS = (0.5, 5.0)  # first and longest pause between looks at cells that others run


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did.

    Args:
        done: number of cells that this run finished.
        already: number that were finished before, or by another run meanwhile.
        failed: reason by key of the cells that are not finished, in one line each.
        seconds: wall time.
    """

    done: int
    already: int
    failed: dict[str, str]
    seconds: float


# --- what is to do ---------------------------------------------------------------------------


def _open_cells(cells: Iterable[Cell], store: Store) -> tuple[dict[str, Cell], int]:
    """Return what is to do by key, and how many cells are finished.

    A search that nothing unfinished reads is not to do, even if it is gone from the store.
    """
    asked = list(cells)
    whole = with_needs(asked)
    finished = {name for name in whole if store.finished(name)}
    return with_needs(asked, without=finished), len(finished)


def _cost(cell: Cell) -> float:
    return max(_LEAST_SECONDS, estimate(cell))


def plan_line(cells: Iterable[Cell], store: Store, *, jobs: int = 1) -> str:
    """Return what a run of the cells would do and about how long it would take.

    >>> import tempfile
    >>> from secateurs.experiments.spec import PeerCell, Rows
    >>> cells = [PeerCell(rows=Rows(dataset="sklearn:iris"))]
    >>> plan_line(cells, Store(tempfile.mkdtemp()))
    '1 cell to do, 0 finished; about 0 s on 1 core'
    """
    todo, finished = _open_cells(cells, store)
    if not todo:
        return f"nothing to do, {finished} finished"
    n_searches = sum(isinstance(cell, SearchCell) for cell in todo.values())
    searches = f" ({n_searches} of them searches)" if n_searches else ""
    total = sum(map(_cost, todo.values()))
    hours = f"{total / 3600:.1f} core-hours, " if total > 900 else ""
    return (
        f"{len(todo)} cell{'s'[: len(todo) > 1]} to do{searches}, {finished} finished; about "
        f"{hours}{duration(total / jobs)} on {jobs} core{'s'[: jobs > 1]}"
    )


# --- the run ---------------------------------------------------------------------------------


class _Schedule:
    """Which cell is next, and what is left to do."""

    def __init__(self, todo: dict[str, Cell]) -> None:
        self.todo = todo
        self.cost = {name: _cost(cell) for name, cell in todo.items()}
        self.left = self.total = sum(self.cost.values())
        self.unsettled = set(todo)
        self.failed: dict[str, str] = {}
        self.lacks = {
            name: {needed for needed in map(key, needs(cell)) if needed in todo}
            for name, cell in todo.items()
        }
        self.dependants: dict[str, list[str]] = {name: [] for name in todo}
        for name, lacking in self.lacks.items():
            for needed in lacking:
                self.dependants[needed].append(name)
        # split by split, since tables pair by split: a run that is stopped has whole ones to show;
        # then what others wait for and what takes long, so that no core is idle at the end
        self.rank = {
            name: (
                cell.rows.split,
                -self.cost[name] - sum(self.cost[d] for d in self.dependants[name]),
                i,
            )
            for i, (name, cell) in enumerate(todo.items())
        }
        self.ready: list[tuple[tuple[int, float, int], str]] = []
        for name, lacking in self.lacks.items():
            if not lacking:
                self.push(name)

    def push(self, name: str) -> None:
        heapq.heappush(self.ready, (self.rank[name], name))

    def pop(self) -> str:
        return heapq.heappop(self.ready)[1]

    def settle(self, name: str, failure: str | None = None) -> None:
        """Take a cell as finished or, with a reason, as failed, and with it what needs it."""
        if name not in self.unsettled:
            return
        self.unsettled.remove(name)
        self.left -= self.cost[name]
        if failure is not None:
            self.failed[name] = failure
        for dependant in self.dependants[name]:
            if failure is not None:
                self.settle(dependant, f"needs {name} ({title(self.todo[name])}), which failed")
                continue
            self.lacks[dependant].remove(name)
            if not self.lacks[dependant] and dependant in self.unsettled:
                self.push(dependant)


def run(
    cells: Iterable[Cell],
    store: Store,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    device: str | None = None,
    num_gpus: float = 0,
    progress: Callable[[Standing], None] | None = None,
) -> Summary:
    """Finish the cells, and the searches that they need, as far as they are not finished.

    Results depend neither on where nor on the order in which cells are run. What failed in an
    earlier run is tried again. Cells that another run is at are waited for, and taken over if it
    dies.

    Args:
        cells: what to run.
        store: where results go; on a cluster a folder that all its machines share.
        jobs: cells at once, each on one core: 1 runs them in this process, more in worker
            processes. A cluster that runs already is filled, whatever is said here.
        cluster: None, "local" (Ray on this machine, for the time of this run), "auto" (the Ray
            cluster that runs here) or the HOST:PORT of one. Its machines must know data files by
            the same paths.
        device: "cpu", "cuda", ...; None picks.
        num_gpus: how much of a GPU a cell occupies on a cluster; at 0 it sees none there.
        progress: called whenever a cell starts or ends.

    Raises:
        InputError: the store cannot be written, or there is no such cluster.

    >>> import tempfile
    >>> from secateurs.experiments.spec import PeerCell, Rows
    >>> cells = [PeerCell(rows=Rows(dataset="sklearn:iris", split=i)) for i in range(3)]
    >>> run(cells, Store(tempfile.mkdtemp())).done
    3
    """
    if jobs < 1 or num_gpus < 0:
        raise InputError(
            f"jobs must be at least 1 and num_gpus at least 0, got {jobs} and {num_gpus:g}"
        )
    begin = time.monotonic()
    store.check_writable()
    todo, already = _open_cells(cells, store)
    if not todo:  # no engine is started for nothing
        return Summary(done=0, already=already, failed={}, seconds=time.monotonic() - begin)
    schedule, n_done = _Schedule(todo), 0
    flying: dict[Future[Status], str] = {}
    held: list[str] = []  # by another run
    shortest, longest = _POLL_SECONDS
    pause, look = shortest, begin

    def tell(names: list[str]) -> None:
        if progress is not None:
            computing_now = names[: max(1, room - SPARE)]
            progress(
                Standing(
                    n_cells=len(todo),
                    n_settled=len(todo) - len(schedule.unsettled),
                    n_failed=len(schedule.failed),
                    share=1 - schedule.left / schedule.total if schedule.unsettled else 1.0,
                    seconds=time.monotonic() - begin,
                    running=tuple(title(todo[name]) for name in computing_now),
                )
            )

    root = store.root.resolve()
    with opened(root, device=device, jobs=jobs, cluster=cluster, num_gpus=num_gpus) as engine:
        while schedule.unsettled:
            room = engine.room()
            while schedule.ready and len(flying) < room:
                name = schedule.pop()
                tell([*flying.values(), name])  # first: a serial engine is back when it is done
                flying[engine.submit(todo[name])] = name
            timeout = None
            if held and not schedule.ready:
                timeout = max(0.0, look - time.monotonic())
            if flying:
                wait(flying, timeout, FIRST_COMPLETED)
            elif timeout:
                time.sleep(timeout)
            for future in [one for one in flying if one.done()]:  # in order of submission
                name, status = flying.pop(future), future.result()
                if status == "busy":
                    held.append(name)
                    look = time.monotonic() + pause
                    continue
                n_done += status == "done"
                already += status == "already"
                schedule.settle(name, _reason(store, name) if status == "failed" else None)
                pause = shortest
                tell(list(flying.values()))
            if held and not schedule.ready and time.monotonic() >= look:
                for name in held:
                    schedule.push(name)
                held.clear()
                pause = min(2 * pause, longest)
    return Summary(
        done=n_done,
        already=already,
        failed=schedule.failed,
        seconds=time.monotonic() - begin,
    )


def _reason(store: Store, name: str) -> str:
    """Return the last line of a cell's traceback."""
    return (store.error(name) or {}).get("error", "failed without a word")
