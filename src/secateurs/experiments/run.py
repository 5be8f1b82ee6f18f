"""Engines that run cells: this process, worker processes, or a Ray cluster.

A run may be killed at any moment, as a whole or in part, and started again: what is finished is
never computed twice, a worker that dies is replaced and its cell tried again, a cell that fails
leaves its traceback in the store while the others go on. Any number of runs may share a store.
"""

import heapq
import os
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from queue import SimpleQueue
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from secateurs.errors import InputError
from secateurs.experiments import cells as computing
from secateurs.experiments.cells import Status
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
    """Takes cells; `slots` tells how many it can run at once."""

    submit: Callable[[Cell], Future[Status]]
    slots: Callable[[], int]


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
    free: SimpleQueue[int] = SimpleQueue()
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
    finished = False
    try:
        yield _Engine(lambda cell: threads.submit(attempt, cell), lambda: jobs)
        finished = True
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        with lock:
            closing.set()
        for executor in workers.values():
            executor.shutdown(wait=True, kill_workers=not finished)
        threads.shutdown(wait=True)


@contextmanager
def _as_before() -> Iterator[None]:
    """Undo what Ray changes in the process that drives it."""
    main = threading.current_thread() is threading.main_thread()
    handler, hook = signal.getsignal(signal.SIGTERM), os.environ.get("PYTHONBREAKPOINT")
    try:
        yield
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
        import ray  # noqa: PLC0415 - an extra
        from ray.exceptions import RayTaskError, WorkerCrashedError
    except ImportError as err:
        raise InputError(
            "a cluster needs Ray; install it with: pip install secateurs[cluster]"
        ) from err
    store, pending = Store(root), {}
    ours = not ray.is_initialized()
    with _as_before():
        before = signal.getsignal(signal.SIGTERM)
