"""Engines take cells: this process, worker processes, or a Ray cluster."""

import importlib
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import LifoQueue
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from secateurs.errors import InputError
from secateurs.experiments import cells as computing
from secateurs.experiments.cells import Status
from secateurs.experiments.spec import Cell
from secateurs.experiments.store import Store
from secateurs.workers import end_with

__all__ = ["RETRIES", "SPARE", "Engine", "engine"]

RETRIES = 3
"""How often a cell is tried again after its worker died."""

SPARE = 2
"""Cells submitted beyond what can run at once, so that no worker waits for the next."""


@dataclass(frozen=True)
class Engine:
    """Takes cells; `room` tells how many may be under way at once."""

    submit: Callable[[Cell], Future[Status]]
    room: Callable[[], int]


@contextmanager
def _serial(root: Path, device: str | None) -> Iterator[Engine]:
    def submit(cell: Cell) -> Future[Status]:
        future: Future[Status] = Future()
        try:
            future.set_result(computing.execute(cell, root, device=device))
        except Exception as err:
            future.set_exception(err)
        return future

    yield Engine(submit, lambda: 1)


def _begin_worker(parent: int) -> None:
    """Let a worker live exactly as long as its parent; Ctrl-C is the parent's to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)


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
def _processes(root: Path, device: str | None, jobs: int) -> Iterator[Engine]:
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
            yield Engine(lambda cell: threads.submit(attempt, cell), lambda: jobs + SPARE)
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
) -> Iterator[Engine]:
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
        return int(most) + SPARE

    with _as_before() as restore_handler:
        try:
            if ours:
                _connect(ray, cluster, jobs)
                restore_handler()
            if num_gpus and not ray.cluster_resources().get("GPU", 0):
                raise InputError(f"num_gpus must be 0 on a cluster without a GPU, got {num_gpus:g}")
            options = {"max_retries": RETRIES, "num_cpus": 1, "num_gpus": num_gpus}
            remote = ray.remote(**options)(computing.execute)
            yield Engine(submit, room)
        finally:
            for reference in list(pending.values()):
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()


def engine(
    root: Path, *, device: str | None, jobs: int, cluster: str | None, num_gpus: float
) -> AbstractContextManager[Engine]:
    """Return the engine of a store; arguments and errors as for `run`.

    >>> import tempfile
    >>> from secateurs.experiments.spec import PeerCell, Rows
    >>> settings = {"device": "cpu", "jobs": 1, "cluster": None, "num_gpus": 0.0}
    >>> with engine(Path(tempfile.mkdtemp()), **settings) as found:
    ...     found.submit(PeerCell(rows=Rows(dataset="sklearn:iris"))).result()
    'done'
    """
    if cluster is not None:
        return _ray(root, device, jobs, cluster, num_gpus)
    return _serial(root, device) if jobs == 1 else _processes(root, device, jobs)
