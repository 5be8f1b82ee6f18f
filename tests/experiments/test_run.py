"""Engines: what is asked for is done once, whoever is killed, and comes out the same everywhere."""

import contextlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from joblib.externals.loky import get_reusable_executor

from secateurs.errors import InputError
from secateurs.experiments.engines import RETRIES
from secateurs.experiments.run import plan_line, run
from secateurs.experiments.spec import PeerCell, Rows, TicketCell, key, needs, title, with_needs
from secateurs.experiments.store import Store
from secateurs.experiments.typed import describe
from secateurs.optimizers import SGD, AdamW
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def peer(split=0, dataset="sklearn:iris"):
    return PeerCell(rows=Rows(dataset=dataset, split=split))


def ticket(split=0, compression=4.0, dataset="sklearn:wine", epochs=1, widths=(8, 8), **config):
    return TicketCell(
        rows=Rows(dataset=dataset, split=split),
        config=TicketConfig(
            search=PhaseConfig(epochs=epochs, optimizer=SGD(lr=0.01)),
            finetune=PhaseConfig(epochs=epochs, optimizer=AdamW()),
            compression=compression,
            **config,
        ),
        widths=widths,
    )


FAILS = peer(dataset="sklearn:nothing")
REASON = "InputError: bundled sets are "


def long_cells(n_splits=2, epochs=40):
    """Return tickets of which each phase takes about a second."""
    return [
        ticket(split, compression, "sklearn:digits", epochs, (64, 64))
        for split in range(n_splits)
        for compression in (2.0, 8.0)
    ]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


CLOCKS = {"seconds", "cpu_seconds", "fit_seconds", "peak_memory", "pid"}


def assert_equal(store, other, cells):
    """All cells are finished in both stores, with the same results bit for bit."""
    for name, cell in with_needs(cells).items():
        assert store.finished(name), title(cell)
        assert other.finished(name), title(cell)
        results = [s.result(name) for s in (store, other)]
        assert all(result.keys() >= CLOCKS for result in results)
        clocks = {*CLOCKS, "predict_seconds"}  # a search predicts nothing
        one, two = ({k: v for k, v in r.items() if k not in clocks} for r in results)
        assert one == two
        histories = [s.history(name).to_dict("list") for s in (store, other)]
        for history in histories:
            history.pop("seconds", None)
        assert repr(histories[0]) == repr(histories[1])
        if isinstance(cell, PeerCell):
            continue
        for (left, left_meta), (right, right_meta) in [(store.tensors(name), other.tensors(name))]:
            assert left_meta == right_meta
            assert left.keys() == right.keys()
            assert all(torch.equal(left[k], right[k]) for k in left)


# --- one process -----------------------------------------------------------------------------


def test_everything_is_done_once_and_the_second_time_nothing(store):
    cells = [peer(0), peer(1), ticket(compression=2.0), ticket(compression=4.0), peer(0)]
    first = run(cells, store)
    assert (first.done, first.already, first.failed) == (5, 0, {})  # four, and their search
    assert set(store.keys()) == set(with_needs(cells))
    before = {name: store.result(name) for name in store.keys()}  # noqa: SIM118 - not a dict
    second = run(cells, store)
    assert (second.done, second.already, second.failed) == (0, 5, {})
    assert before == {name: store.result(name) for name in store.keys()}  # noqa: SIM118


def test_searches_come_before_what_needs_them_and_the_longest_first(store):
    many = [ticket(0, r) for r in (2.0, 4.0, 8.0)]
    one = [ticket(0, 2.0, widths=(4, 4))]
    long = [ticket(0, 2.0, epochs=200, widths=(16, 16))]
    started = []
    run([peer(), *one, *many, *long], store, progress=lambda now: started.extend(now.running))
    order = list(dict.fromkeys(started))
    searches = [title(needs(cells[0])[0]) for cells in (long, many, one)]
    assert [name for name in order if name in searches] == searches
    for cells, search in zip((long, many, one), searches, strict=True):
        assert all(order.index(search) < order.index(title(cell)) for cell in cells)
    assert order.index(title(peer())) > order.index(searches[-1])


def test_splits_come_one_after_another_whatever_they_cost(store):
    cells = [ticket(2, 2.0, epochs=200), peer(1), ticket(1, 2.0), peer(0)]
    started = []
    run(cells, store, progress=lambda now: started.extend(now.running))
    splits = [name.split(" split ")[1][0] for name in started]
    assert splits == sorted(splits)
    assert set(splits) == {"0", "1", "2"}


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(store):
    for _ in range(2):
        summary = run([FAILS, peer(0), peer(1)], store)
        assert list(summary.failed) == [key(FAILS)]
        assert summary.failed[key(FAILS)].startswith(REASON)
        assert summary.done + summary.already == 2
        assert "Traceback" in store.error(key(FAILS))["traceback"]
    assert summary.already == 2


def test_a_failed_cell_that_can_be_run_now_is_run(store, tmp_path):
    cell = peer(dataset=str(tmp_path / "table.csv"))
    assert list(run([cell], store).failed) == [key(cell)]
    rows = [f"{i},{i % 2}" for i in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["a,target", *rows]))
    assert run([cell], store).done == 1
    assert store.error(key(cell)) is None


def test_what_needs_a_failed_search_is_not_run_and_says_so(store):
    lost = [ticket(0, r, dataset="sklearn:nothing") for r in (2.0, 4.0)]
    (search,) = needs(lost[0])
    summary = run([*lost, ticket()], store)
    assert summary.done == 2
    assert summary.failed.pop(key(search)).startswith(REASON)
    assert set(summary.failed) == {key(cell) for cell in lost}
    because = f"needs {key(search)} ({title(search)}), which failed"
    assert set(summary.failed.values()) == {because}
    assert not any(store.folder(key(cell)).exists() for cell in lost)


def test_a_search_that_nothing_unfinished_needs_is_not_run_again(store):
    cells = [ticket()]
    run(cells, store)
    (search,) = needs(cells[0])
    store.forget(key(search))
    assert run(cells, store).done == 0
    assert run([*cells, ticket(compression=2.0)], store).done == 2
    store.forget(key(search))
    assert run([search], store).done == 1


def test_progress_counts_up_to_everything(store):
    told = []
    run([FAILS, *(peer(i) for i in range(4))], store, progress=told.append)
    assert [now.n_cells for now in told] == [5] * 10  # once at each start and end
    assert [now.n_settled for now in told][1::2] == [1, 2, 3, 4, 5]
    shares = [now.share for now in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert told[-1].n_failed == 1
    assert {len(now.running) for now in told} == {0, 1}


def test_the_plan_says_what_is_to_do(store):
    cells = [ticket(compression=r) for r in (2.0, 4.0)]
    assert plan_line(cells, store, jobs=2) == (
        "3 cells to do (1 of them searches), 0 finished; about 0 s on 2 cores"
    )
    run(cells, store)
    assert plan_line(cells, store) == "nothing to do, 3 finished"
    long = [ticket(compression=r, epochs=10**7) for r in (2.0, 4.0)]
    assert " core-hours, " in plan_line(long, store)


def test_a_cell_that_another_run_is_at_is_waited_for_and_taken_over(store):
    taken, free, began = peer(0), peer(1), time.monotonic()
    held, released = threading.Event(), []

    def hold():
        with store.claim(key(taken)) as mine:
            assert mine
            held.set()
            time.sleep(1.2)
            released.append(time.monotonic())

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    ended = {}
    summary = run(
        [taken, free],
        store,
        progress=lambda now: ended.setdefault(now.n_settled, time.monotonic()),
    )
    holder.join()
    assert (summary.done, summary.failed) == (2, {})
    assert ended[1] < released[0] < ended[2] < began + 10  # the other one was not held up


def test_what_another_run_finishes_meanwhile_is_not_done_again(store):
    cell, held = peer(), threading.Event()
    elsewhere = Store(store.root.with_name("elsewhere"))
    run([cell], elsewhere)

    def other_run():
        with store.claim(key(cell)):
            held.set()
            time.sleep(0.7)
            for file in elsewhere.folder(key(cell)).iterdir():
                (store.folder(key(cell)) / file.name).write_bytes(file.read_bytes())

    other = threading.Thread(target=other_run)
    other.start()
    held.wait()
    summary = run([cell], store)
    other.join()
    assert (summary.done, summary.already) == (0, 1)


@pytest.mark.parametrize("where", ["/proc/secateurs", "file/store"])
def test_a_store_that_cannot_be_written_is_refused_at_once(where, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        run([peer()], Store(tmp_path / where))


@contextlib.contextmanager
def file_size_limit(n):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_run_and_the_next_one_continues(jobs, store):
    cells = [peer(i) for i in range(6 if jobs == 1 else 3)]  # a worker takes seconds to start
    run(cells[:2], store)
    with file_size_limit(100), pytest.raises(InputError, match="cannot write"):
        run(cells, store, jobs=jobs)
    assert [store.finished(key(cell)) for cell in cells] == [True] * 2 + [False] * len(cells[2:])
    assert workers_of(os.getpid()) == []
    assert run(cells, store).done == len(cells[2:])


@pytest.mark.parametrize("options", [{"jobs": 0}, {"jobs": 1, "num_gpus": -1}])
def test_numbers_that_cannot_be_are_refused(options, store):
    with pytest.raises(InputError, match="jobs must be at least 1 and num_gpus at least 0"):
        run([peer()], store, **options)


@pytest.mark.parametrize(
    "cluster", ["127.0.0.1:1", "nonsense", "host:99999999", "ray://localhost:1"]
)
def test_a_cluster_that_is_not_there_is_refused(cluster, store):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=r"cluster must be 'auto', 'local' or the HOST:PORT"):
        run([peer()], store, cluster=cluster)
    assert not store.keys()


def test_without_ray_the_remedy_is_told(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install secateurs\[cluster\]"):
        run([peer()], store, cluster="local")


def test_nothing_to_do_starts_no_engine(store):
    run([peer()], store)
    assert run([peer()], store, cluster="127.0.0.1:1").already == 1


# --- worker processes ------------------------------------------------------------------------


def family(parent, *, generations=math.inf):
    """Return the command lines of a process's children, of their children, ... by id."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(after_name[1])
            names[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
    found, added = {}, {parent}
    while added and generations > 0:
        added = {pid for pid, above in parents.items() if above in added}
        found |= {pid: names.get(pid, "") for pid in added}
        generations -= 1
    return found


def workers_of(parent):
    """Return the ids of a process's live worker processes.

    Children only: what a worker starts has its name, too, until it becomes another program.
    """
    children = family(parent, generations=1)
    return [pid for pid, name in children.items() if "popen_loky_posix" in name]


@pytest.fixture(autouse=True)
def no_workers_of_other_tests():
    """End joblib's idle workers, which wait in this process for whoever needs them next."""
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
    return found


def begun(store):
    """Return the keys of cells that have a checkpoint and no result."""
    return [
        name
        for name in store.keys()  # noqa: SIM118
        if store.checkpoint(name).exists() and not store.finished(name)
    ]


def caught(process, store):
    """Stop the process if it is at a cell, and return that cell's key."""
    if not begun(store):
        return []
    process.send_signal(signal.SIGSTOP)
    until(
        lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    )
    if not (names := begun(store)):  # it finished the cell before the signal came
        process.send_signal(signal.SIGCONT)
    return names


RUNS = """
import json, os, sys
from secateurs.experiments.run import run
from secateurs.experiments.spec import cell_from_json
from secateurs.experiments.store import Store

root, cells, options = sys.argv[1:]
cells = [cell_from_json(cell) for cell in json.loads(cells)]
summary = run(cells, Store(root), **json.loads(options))
print(json.dumps([summary.done, summary.already, summary.failed]))
"""


@contextlib.contextmanager
def another_run(store, cells, **options):
    arguments = [store.root, json.dumps([describe(cell) for cell in cells]), json.dumps(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUNS, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # a Ctrl-C that is sent to it is its own
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the long cells and a store in which one process finished them in peace."""
    store, cells = Store(tmp_path_factory.mktemp("undisturbed")), long_cells()
    assert not run(cells, store).failed
    return cells, store


@pytest.fixture
def one_split(undisturbed):
    """Return a search's tickets, and the store with their results: one worker to begin with."""
    cells, store = undisturbed
    return cells[:2], store


@pytest.mark.slow
@needs_proc
def test_a_killed_worker_is_replaced_and_nothing_is_lost(store, one_split):
    cells, expected = one_split
    killed, running = [], []

    def kill():
        until(lambda: begun(store))
        killed.extend(workers_of(os.getpid()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = run([*cells, FAILS], store, jobs=2, progress=lambda now: running.append(now.running))
    killer.join()
    # 1 already, if it died between finishing its cell and saying so
    assert summary.done + summary.already == 3
    assert summary.done >= 2
    assert list(summary.failed) == [key(FAILS)]
    assert max(map(len, running)) == 2
    assert workers_of(os.getpid()) == []
    pids = {store.result(name)["pid"] for name in with_needs(cells)}
    assert pids - {*killed, os.getpid()}  # the replacement
    assert_equal(store, expected, cells)


@pytest.mark.slow
@needs_proc
def test_a_cell_whose_workers_all_die_fails_and_the_next_run_does_it(store):
    deaths, ended = set(), threading.Event()

    def kill():
        while not ended.is_set():
            for pid in workers_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)
                deaths.add(pid)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        summary = run([peer()], store, jobs=2)
    finally:
        ended.set()
        killer.join()
    assert summary.done == 0
    assert summary.failed[key(peer())].startswith(f"its worker died {RETRIES + 1} times")
    assert len(deaths) == RETRIES + 1
    assert store.error(key(peer()))["error"] == summary.failed[key(peer())]
    assert run([peer()], store).done == 1


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_no_worker_and_the_next_one_continues(sign, store, one_split):
    cells, expected = one_split
    with another_run(store, cells, jobs=2) as process:
        until(lambda: begun(store))
        workers = until(lambda: workers_of(process.pid))
        os.killpg(process.pid, sign) if sign == signal.SIGINT else process.send_signal(sign)
        assert process.wait(timeout=20) != 0
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=5)
        said = process.stderr.read()
    if sign == signal.SIGINT:
        assert said.count("Traceback") == 1, said  # the run's own
    n_before = sum(map(store.finished, with_needs(cells)))
    summary = run(cells, store)
    assert summary.done == 3 - n_before > 0
    assert_equal(store, expected, cells)


@pytest.mark.slow
@needs_proc
def test_two_runs_on_one_store_share_the_work(store, undisturbed):
    cells, expected = undisturbed
    with another_run(store, cells) as process:
        until(store.keys)
        summary = run(cells, store)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    done, already, failed = json.loads(out)
    assert failed == summary.failed == {}
    assert done + already == summary.done + summary.already == 6
    assert done + summary.done == 6
    assert done
    assert summary.done
    pids = [store.result(name)["pid"] for name in with_needs(cells)]
    assert pids.count(process.pid) == done
    assert_equal(store, expected, cells)


@pytest.mark.slow
@needs_proc
def test_the_cells_of_a_run_that_dies_are_taken_over(store, one_split):
    cells, expected = one_split
    with another_run(store, cells) as process:
        (taken,) = until(lambda: caught(process, store))  # alive, and it will never finish
        killer = threading.Timer(3, process.kill)
        killer.start()
        summary = run(cells, store)
        killer.join()
    assert summary.failed == {}
    assert summary.done == 3 - summary.already
    assert store.result(taken)["pid"] == os.getpid()
    assert_equal(store, expected, cells)


# --- Ray -------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_proc
def test_on_ray_a_killed_worker_is_replaced_and_results_are_the_same(store, one_split):
    pytest.importorskip("ray")
    cells, expected = one_split
    with another_run(store, [*cells, FAILS], jobs=2, cluster="local") as process:
        started, busy = {}, []

        def at_work():  # between two cells a worker has another name
            started.update(family(process.pid))
            busy[:] = [pid for pid, name in started.items() if "ray::execute" in name]
            return begun(store) and busy

        until(at_work)
        os.kill(busy[0], signal.SIGKILL)
        out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    done, already, failed = json.loads(out.splitlines()[-1])
    assert done + already == 3  # 1 already, if it died between finishing its cell and saying so
    assert done >= 2
    assert failed[key(FAILS)].startswith(REASON)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), seconds=10)
    assert_equal(store, expected, cells)
