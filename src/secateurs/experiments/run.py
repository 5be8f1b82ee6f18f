"""Engines that run cells: this process, worker processes, or a Ray cluster.

A run may be killed at any moment, as a whole or in part, and started again: what is finished is
never computed twice, a worker that dies is replaced and its cell tried again, a cell that fails
leaves its traceback in the store while the others go on. Any number of runs may share a store.
"""

import heapq
import importlib
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import LifoQueue
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from secateurs.errors import InputError
from secateurs.experiments import cells as computing
from secateurs.experiments.cells import Status
from secateurs.experiments.cost import estimate
from secateurs.experiments.progress import Standing, duration
from secateurs.experiments.spec import Cell, SearchCell, key, needs, title, with_needs
from secateurs.experiments.store import Store

__all__ = ["RETRIES", "Summary", "plan_line", "run"]

RETRIES = 3
"""How often a cell is tried again after its worker died."""

_SPARE = 2  # submitted beyond what can run at once, so that no worker waits for the next cell
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


# --- engines ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Engine:
    """Takes cells; `room` tells how many may be under way at once."""

    submit: Callable[[Cell], Future[Status]]
    room: Callable[[], int]


@contextmanager
def _serial(root: Path, device: str | None) -> Iterator[_Engine]:
    def submit(cell: Cell) -> Future[Status]:
        future: Future[Status] = Future()
        try:
            future.set_result(computing.execute(cell, root, device=device))
        except Exception as err:
            future.set_exception(err)
        return future

    yield _Engine(submit, lambda: 1)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # the locks that it held are the system's to open


def _begin_worker(parent: int) -> None:
    """Let a worker live exactly as long as its parent; Ctrl-C is the parent's to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _block_interrupts() -> None:
    # Inherited by the workers that this thread starts, so that Ctrl-C while one is still importing
    # prints no traceback of it.
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _start_worker() -> Any:
    return ProcessPoolExecutor(
        max_workers=1,
        initializer=_begin_worker,
        initargs=(os.getpid(),),
        # More threads than cores collapse, and would add up sums in another order.
        env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
    )


def _record_death(store: Store, cell: Cell, how: str) -> Status:
    error = f"its worker died {RETRIES + 1} times ({how})"
    store.write_error(cell, {"error": error, "traceback": f"{error}\n"})
    return "failed"


@contextmanager
def _processes(root: Path, device: str | None, jobs: int) -> Iterator[_Engine]:
    """One thread and one executor of one worker a slot: a death breaks its own cell only."""
    store = Store(root)
    free: LifoQueue[int] = LifoQueue()  # a worker that is warm goes first
    for slot in range(jobs):
        free.put(slot)
    workers: dict[int, Any] = {}
    lock, closing = threading.Lock(), threading.Event()

    def worker(slot: int) -> Any:
        with lock:
            if closing.is_set():
                raise CancelledError
            if slot not in workers:
                workers[slot] = _start_worker()
            return workers[slot]

    def attempt(cell: Cell) -> Status:
        slot = free.get()  # there are as many slots as threads
        try:
            for _ in range(RETRIES + 1):
                try:
                    future = worker(slot).submit(computing.execute, cell, root, device=device)
                    status: Status = future.result()
                    return status
                except BrokenExecutor:
                    with lock:
                        del workers[slot]
            return _record_death(store, cell, "killed from outside, or out of memory")
        finally:
            free.put(slot)

    threads = ThreadPoolExecutor(jobs, initializer=_block_interrupts)
    with warnings.catch_warnings():
        # where there is no pgrep, loky cannot look for children of a worker; it has none
        warnings.filterwarnings("ignore", "Failed to kill subprocesses")
        try:
            yield _Engine(lambda cell: threads.submit(attempt, cell), lambda: jobs + _SPARE)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            with lock:
                closing.set()
            for executor in workers.values():  # killed: an idle one takes a second to say goodbye
                executor.shutdown(wait=True, kill_workers=True)
            threads.shutdown(wait=True)


@contextmanager
def _as_before() -> Iterator[Callable[[], None]]:
    """Undo what Ray changes in the process that drives it.

    Yields what undoes it for SIGTERM at once: a caller's own handler goes before Ray's.
    """
    main = threading.current_thread() is threading.main_thread()
    handler, hook = signal.getsignal(signal.SIGTERM), os.environ.get("PYTHONBREAKPOINT")

    def restore_handler() -> None:
        if main and callable(handler):
            signal.signal(signal.SIGTERM, handler)

    try:
        yield restore_handler
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
        os.environ.pop("PYTHONBREAKPOINT", None)
        if hook is not None:
            os.environ["PYTHONBREAKPOINT"] = hook


def _check_reachable(address: str) -> None:
    """Raise unless something listens there: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as err:
        raise InputError(
            f"cluster must be 'auto', 'local' or the HOST:PORT of a running Ray cluster, got "
            f"{address!r} ({err}); start one with `ray start --head`"
        ) from err


def _connect(ray: Any, cluster: str, jobs: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster == "local":
        # The smallest object store there is: cells pass nothing through it.
        ray.init(
            "local", num_cpus=jobs, include_dashboard=False, object_store_memory=2**27, **quiet
        )
        return
    if cluster != "auto":
        _check_reachable(cluster.removeprefix("ray://"))
    try:
        ray.init(cluster, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as err:
        if cluster == "auto":
            raise InputError(
                "cluster='auto' needs a Ray cluster that runs here, and there is none; start one "
                "with `ray start --head`, name its HOST:PORT, or use 'local'"
            ) from err
        raise InputError(
            f"cannot join the Ray cluster at {cluster} ({str(err).splitlines()[0]}); check its "
            "address and that it has the same Ray version"
        ) from err


@contextmanager
def _ray(
    root: Path, device: str | None, jobs: int, cluster: str, num_gpus: float
) -> Iterator[_Engine]:
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as err:
        raise InputError(
            "a cluster needs Ray; install it with: pip install secateurs[cluster]"
        ) from err
    store, ours = Store(root), not ray.is_initialized()
    pending: dict[Future[Status], Any] = {}

    def submit(cell: Cell) -> Future[Status]:
        future: Future[Status] = Future()
        pending[future] = reference = remote.remote(cell, root, device=device)

        def settle(answered: Future[Any]) -> None:
            del pending[future]
            try:
                future.set_result(answered.result())
            except (
                ray.exceptions.RayTaskError
            ) as err:  # what was raised there, without the text of its traceback
                future.set_exception(err.cause)
            except ray.exceptions.RayError as err:
                try:
                    how = f"{type(err).__name__}: {str(err).splitlines()[0]}"
                    future.set_result(_record_death(store, cell, how))
                except InputError as refused:
                    future.set_exception(refused)
            except BaseException as err:
                future.set_exception(err)

        reference.future().add_done_callback(settle)
        return future

    def room() -> int:  # asked each time: machines come and go
        resources = ray.cluster_resources()
        most = resources.get("CPU", 1)
        if num_gpus:
            most = min(most, resources.get("GPU", 0) / num_gpus)
        return int(most) + _SPARE

    with _as_before() as restore_handler:
        try:
            if ours:
                _connect(ray, cluster, jobs)
                restore_handler()
            if num_gpus and not ray.cluster_resources().get("GPU", 0):
                raise InputError(f"num_gpus must be 0 on a cluster without a GPU, got {num_gpus:g}")
            options = {"max_retries": RETRIES, "num_cpus": 1, "num_gpus": num_gpus}
            remote = ray.remote(**options)(computing.execute)
            yield _Engine(submit, room)
        finally:
            for reference in list(pending.values()):
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()


def _engine(
    root: Path, *, device: str | None, jobs: int, cluster: str | None, num_gpus: float
) -> AbstractContextManager[_Engine]:
    if cluster is not None:
        return _ray(root, device, jobs, cluster, num_gpus)
    return _serial(root, device) if jobs == 1 else _processes(root, device, jobs)


# --- what is to do ---------------------------------------------------------------------------


def _open_cells(cells: Iterable[Cell], store: Store) -> tuple[dict[str, Cell], int]:
    """Return what is to do by key, and how many cells are finished.

    A search that nothing unfinished reads is not to do, even if it is gone from the store.
    """
    asked = list(cells)
    whole = with_needs(asked)
    finished = {name for name in whole if store.finished(name)}
    wanted = with_needs(cell for cell in asked if key(cell) not in finished)
    return {k: cell for k, cell in wanted.items() if k not in finished}, len(finished)


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
        # what others wait for and what takes long goes first, so that no core is idle at the end
        self.rank = {
            name: (-self.cost[name] - sum(self.cost[d] for d in self.dependants[name]), i)
            for i, name in enumerate(todo)
        }
        self.ready: list[tuple[tuple[float, int], str]] = []
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
            computing_now = names[: max(1, room - _SPARE)]
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
    with _engine(root, device=device, jobs=jobs, cluster=cluster, num_gpus=num_gpus) as engine:
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
