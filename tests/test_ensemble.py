"""Tickets side by side: the same bits as one after another, whatever happens to the processes."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
import types
import warnings

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.model_selection import GridSearchCV

from secateurs import checkpoint, ensemble
from secateurs.errors import InputError, RegimeWarning, TimeLimitWarning
from secateurs.estimator import TicketClassifier, TicketRegressor

FAST = {"widths": (16, 16), "search_epochs": 2, "finetune_epochs": 7, "random_state": 0}
CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore::secateurs.errors.CollapseWarning")


@pytest.fixture(autouse=True, scope="module")
def _workers_end():
    """Leave no process to the tests of other modules; within this one they are kept warm."""
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def numbers(rows=60, columns=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, columns))
    return X, (X[:, 0] + 0.3 * rng.normal(size=rows) > 0).astype(int)


def classifier(**parameters):
    return TicketClassifier(**{**FAST, **parameters})


def assert_same(one, other, X):
    """Assert that two fitted estimators are one, to the bit."""
    for a, b in zip(one._outputs(X), other._outputs(X), strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(one.masks_, other.masks_, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert one.history_.drop(columns="seconds").equals(other.history_.drop(columns="seconds"))
    assert {**one.summary_, "seconds": 0} == {**other.summary_, "seconds": 0}


def refused(message, call, *args):
    with pytest.raises(InputError, match=message) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The same result


@pytest.mark.parametrize(
    "given",
    [
        {"snapshots": 3, "n_tickets": 3},
        {"compression": "auto", "n_tickets": 3, "val_fraction": 0.3},
        {"views": {"x0": lambda values, rng: rng.permutation(values)}, "class_weight": "balanced"},
    ],
    ids=["snapshots", "auto", "views"],
)
def test_the_number_of_processes_changes_no_bit(given):
    X, y = numbers()
    one, two = (classifier(**{"n_tickets": 2, **given, "n_jobs": n}).fit(X, y) for n in (1, 2))
    assert_same(one, two, X)
    assert getattr(one, "validation_errors_", 0) == getattr(two, "validation_errors_", 0)


def test_regression_side_by_side():
    X, _ = numbers()
    one, two = (TicketRegressor(**FAST, n_tickets=2, n_jobs=n).fit(X, X[:, 0]) for n in (1, 2))
    assert_same(one, two, X)


def test_large_tables_come_memory_mapped_to_the_same_result():
    X, y = numbers(rows=30_000, columns=12)
    given = {"widths": (8,), "search_epochs": 1, "finetune_epochs": 1, "n_tickets": 2}
    assert X.astype(np.float32).nbytes > 2**20  # what joblib maps
    one, two = (classifier(**given, n_jobs=n).fit(X, y) for n in (1, 2))
    assert_same(one, two, X)


def test_an_ensemble_has_one_thread_a_ticket_and_leaves_the_threads_as_they_were():
    X, y = numbers()
    threads = []

    def view(values, _rng):
        threads.append(torch.get_num_threads())
        return values

    before = torch.get_num_threads()
    try:
        for n_tickets, expected in ((1, 2), (2, 1)):
            torch.set_num_threads(2)
            threads.clear()
            classifier(views={"x0": view}, n_tickets=n_tickets).fit(X, y)
            assert set(threads) == {expected}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# How many processes


def test_as_many_processes_as_there_are_tickets_and_jobs():
    assert ensemble._processes(None, 4, CPU) == 1
    assert ensemble._processes(2, 4, CPU) == 2
    assert ensemble._processes(8, 4, CPU) == 4
    assert ensemble._processes(-1, 10**6, CPU) == joblib.cpu_count()
    assert ensemble._processes(2, 1, CPU) == 1
    assert ensemble._processes(2, 4, torch.device("cuda")) == 1
    with joblib.parallel_config(n_jobs=3):  # scikit-learn's way to set it for all
        assert ensemble._processes(None, 4, CPU) == 3


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_of_a_parallel_search_start_no_processes(backend):
    tasks = (joblib.delayed(ensemble._processes)(2, 4, CPU) for _ in range(2))
    assert joblib.Parallel(n_jobs=2, backend=backend)(tasks) == [1, 1]


def test_grid_search_in_processes_of_ensembles_in_processes():
    X, y = numbers()
    grid = {"compression": [2, 4]}
    found = [
        GridSearchCV(classifier(n_tickets=2, n_jobs=n), grid, cv=2, n_jobs=n).fit(X, y)
        for n in (1, 2)
    ]
    scores = [search.cv_results_["mean_test_score"] for search in found]
    assert np.array_equal(*scores)
    assert_same(*(search.best_estimator_ for search in found), X)


# Time


def test_what_is_left_is_shared_by_rounds():
    now = time.monotonic()
    assert ensemble._share(math.inf, 3) is None
    assert ensemble._share(now - 1, 3) == 0
    assert ensemble._share(now + 900, 3) == pytest.approx(300, abs=5)


def test_a_time_limit_ends_all():
    X, y = numbers()
    with pytest.warns(TimeLimitWarning, match="1 search and 1 finetuning epochs"):
        clf = classifier(n_tickets=3, n_jobs=2, time_limit=1e-9).fit(X, y)
    assert clf.history_.groupby(["ticket", "phase"]).size().tolist() == [1] * 6
    assert clf.summary_["complete"] is False


# What workers have to say


def test_progress_tells_the_end_of_each_ticket(capfd):
    X, y = numbers()
    classifier(n_tickets=3, n_jobs=2, verbose=1).fit(X, y)
    out, err = capfd.readouterr()
    assert out == ""
    told = [line.partition(", loss")[0] for line in err.splitlines()]
    assert sorted(told) == [f"ticket {i}/3: 2 search and 7 finetune epochs" for i in (1, 2, 3)]


def test_the_ticket_that_chooses_for_all_is_told_by_its_phases(capfd):
    X, y = numbers(100)
    classifier(compression="auto", n_tickets=3, n_jobs=2, verbose=1).fit(X, y)
    told = [line.partition(",")[0] for line in capfd.readouterr().err.splitlines()]
    assert told[:2] == ["ticket 1/3 search: 2 epochs", "ticket 1/3 finetune: 7 epochs"]
    ends = [f"ticket {i}/3: 2 search and 7 finetune epochs" for i in (2, 3)]
    assert sorted(told[-2:]) == ends


def test_warnings_come_from_where_they_were_raised():
    X, y = numbers()

    def careful(values, _rng):
        warnings.warn("be careful", UserWarning, stacklevel=1)
        return values

    with pytest.warns(UserWarning, match="be careful") as caught:
        classifier(n_tickets=2, n_jobs=2, views={"x0": careful}).fit(X, y)
    told = [one for one in caught if one.category is not RegimeWarning]  # it searches two epochs
    assert {(one.category, one.filename) for one in told} == {(UserWarning, __file__)}
    assert len(told) == 2  # one a ticket, not one a batch


def test_errors_are_those_of_one_process():
    X, y = numbers()
    given = {"n_tickets": 2, "search_lr": 1e30}
    messages = [refused("diverged", classifier(**given, n_jobs=n).fit, X, y) for n in (1, 2)]
    assert messages[0] == messages[1]


def test_views_that_cannot_be_pickled():
    X, y = numbers()
    lock = threading.Lock()

    def locked(values, _rng):
        with lock:
            return values

    clf = classifier(n_tickets=2, views={"x0": locked})
    message = refused("cannot be pickled", clf.set_params(n_jobs=2).fit, X, y)
    assert "or leave n_jobs=1" in message
    assert len(clf.set_params(n_jobs=1).fit(X, y).members_) == 2


@pytest.mark.slow  # its workers are killed, and others have to start
def test_views_that_other_processes_cannot_import(monkeypatch):
    module = types.ModuleType("only_here")  # a function of a module is sent by its name
    exec("def view(values, _rng):\n    return values", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    X, y = numbers()
    clf = classifier(n_tickets=2, n_jobs=2, views={"x0": module.view})
    refused("define them in a module that can be imported", clf.fit, X, y)


# Death


def test_a_killed_fit_resumes_to_the_bit(tmp_path):
    X, y = numbers()
    armed, folder = tmp_path / "armed", tmp_path / "checkpoints"
    armed.touch()

    def view(values, rng):
        if armed.exists() and any(folder.glob("ticket-*/density-*")):  # one ticket is complete
            os.kill(os.getpid(), signal.SIGKILL)
        return rng.permutation(values)

    given = {"n_tickets": 4, "views": {"x0": view}}
    clf = classifier(**given, n_jobs=2, checkpoint_dir=folder)
    message = refused("died, killed from outside or out of memory", clf.fit, X, y)
    assert "lower n_jobs than 2" in message
    done = [path for path in folder.glob("ticket-*/*") if checkpoint.load(path)[1]["done"]]
    left = {path: path.stat().st_mtime_ns for path in done}
    assert any("density" in path.name for path in left)
    armed.unlink()
    clf.fit(X, y)
    assert_same(clf, classifier(**given).fit(X, y), X)
    # what was complete was read, not trained again
    assert {path: path.stat().st_mtime_ns for path in left} == left
    assert_same(clf.set_params(n_jobs=1).fit(X, y), clf, X)  # and by another number of processes


LONG = """
import numpy as np
from secateurs.estimator import TicketClassifier
X = np.random.default_rng(0).normal(size=(500, 5))
print("fit", flush=True)
TicketClassifier(n_tickets=2, n_jobs=2, random_state=0, search_epochs=10**6).fit(X, X[:, 0] > 0)
"""


def workers_of(parent):
    """Return the ids of a process's live loky workers."""
    asked = ["ps", "-ww", "-o", "pid=,stat=,args=", "--ppid", str(parent)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    lines = [line.split(None, 2) for line in done.stdout.splitlines()]
    return [int(p) for p, stat, args in lines if "LokyProcess" in args and stat[0] != "Z"]


def is_alive(pid):
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(done.stdout.strip()) and done.stdout.strip()[0] != "Z"


def until(condition):
    end = time.monotonic() + 300  # other work may take the cores
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
@pytest.mark.parametrize("seconds", [0.0, 5.0], ids=["at the start", "in training"])
def test_no_worker_outlives_the_fit(how, seconds):
    with subprocess.Popen(
        [sys.executable, "-c", LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            process.stdout.readline()
            until(lambda: len(workers_of(process.pid)) == 2)
            time.sleep(seconds)
            workers = workers_of(process.pid)
            if how == signal.SIGINT:
                os.killpg(process.pid, how)  # as a terminal does: the workers get it, too
            else:
                process.kill()
            _, err = process.communicate()
        finally:
            process.kill()
    until(lambda: not any(map(is_alive, workers)))
    if how == signal.SIGINT:
        assert err.count("Traceback") == 1, err
        assert err.strip().endswith("KeyboardInterrupt")
