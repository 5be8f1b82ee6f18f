import copy
import json
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import numpy as np
import pandas as pd
import pytest

from secateurs.command import workspace as home
from secateurs.command.comparison import Comparison, Row
from secateurs.command.workspace import (
    NOT_IDENTITY,
    PAGE,
    check_free,
    identity,
    ship,
    workspace,
)
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.loading import load
from secateurs.model_directory import check_replaceable
from secateurs.report.model import model_page

COMMAND = {"version": "1", "data": "a1", "settings": {"compression": 8}}


@contextmanager
def opened(out, command=COMMAND, *, overwrite=False):
    with workspace(out, command, overwrite=overwrite) as found:
        yield found


def work(partial):
    """Leave something to continue from."""
    (partial / "model").mkdir(exist_ok=True)
    (partial / "model" / "search.safetensors").write_text("work")


def interrupted(out, command=COMMAND, do=work):
    """Begin a command and stop it; return what it was told of earlier work."""
    with suppress(KeyboardInterrupt), opened(out, command) as (partial, continues):
        do(partial)
        raise KeyboardInterrupt
    return continues


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- identity --------------------------------------------------------------------------------

X, Y = pd.DataFrame({"a": [1, 2, 3], "b": ["u", None, "v"]}), np.array(["no", "yes", "yes"])


@pytest.mark.parametrize(
    "other",
    [
        (X.assign(a=[1, 2, 4]), Y, {}),
        (X.assign(a=[1.0, 2, 3]), Y, {}),
        (X.rename(columns={"a": "c"}), Y, {}),
        (X.iloc[::-1], Y, {}),
        (X, Y[::-1], {}),
        (X, Y.astype(object), {}),
        (X, Y, {"compression": 4}),
        (X, Y, {"random_state": 1}),
    ],
    ids=["value", "type", "name", "order", "target", "target type", "setting", "seed"],
)
def test_what_decides_the_result_is_in_the_identity(other):
    data, target, settings = other
    found = identity(data, target, TicketClassifier(**settings))
    assert found != identity(X, Y, TicketClassifier())
    assert json.loads(json.dumps(found)) == found


def test_what_does_not_is_not():
    settings = {"checkpoint_dir": "elsewhere", "device": "cpu", "n_jobs": 2, "verbose": 1}
    assert sorted(settings) == sorted(NOT_IDENTITY)
    found = identity(X.copy(), Y.copy(), TicketClassifier(**settings))
    assert found == identity(X, Y, TicketClassifier())


# --- whose work it is ------------------------------------------------------------------------


def test_work_is_kept_and_found_by_the_same_command(tmp_path):
    out = tmp_path / "new" / "m"
    assert not interrupted(out)
    assert (out.parent / "m.partial" / "model" / "search.safetensors").exists()
    assert interrupted(out)
    with opened(out) as (partial, continues):
        assert continues
        assert partial == out.parent / "m.partial"
    assert names(tmp_path) == ["new"]


def test_nothing_is_left_where_there_was_no_work(tmp_path):
    interrupted(tmp_path / "new" / "m", do=lambda partial: (partial / "ready").mkdir())
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"data": "b2"}, "of other data;"),
        ({"settings": {"compression": 4, "widths": [8]}}, r"settings \(compression, widths\);"),
        ({"version": "2"}, r"another version \(1\)"),
        ({"data": "b2", "settings": {}}, r"of other data and other settings \(compression\);"),
    ],
    ids=["data", "settings", "version", "both"],
)
def test_work_of_another_command_is_left_alone(other, told, tmp_path):
    interrupted(tmp_path / "m")
    before = names(tmp_path)
    with pytest.raises(InputError, match=told), opened(tmp_path / "m", {**COMMAND, **other}):
        pass
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("thesis.txt", "years of work", "something else"),
        (".git", "years of work", "something else"),
        ("command.json", "{", "damaged"),
        ("command.json", "[]", "damaged"),
        ("command.json", '{"version": "1", "data": "a1", "settings": []}', "damaged"),
    ],
)
def test_what_is_not_ours_is_left_alone(name, content, told, tmp_path):
    (tmp_path / "m.partial").mkdir()
    (tmp_path / "m.partial" / name).write_text(content)
    with pytest.raises(InputError, match=told), opened(tmp_path / "m"):
        pass
    assert names(tmp_path) == ["m.partial", f"m.partial/{name}"]
    assert (tmp_path / "m.partial" / name).read_text() == content


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_partial_that_is_no_folder_is_left_alone(kind, tmp_path):
    partial = tmp_path / "m.partial"
    partial.symlink_to("nowhere") if kind == "link" else partial.touch()
    with pytest.raises(InputError, match="something else"), opened(tmp_path / "m"):
        pass
    assert partial.is_symlink() or partial.exists()


def test_leavings_of_a_kill_are_no_hindrance(tmp_path):
    (tmp_path / "m.partial").mkdir()
    for name in (".lock", ".command.json.123.tmp"):
        (tmp_path / "m.partial" / name).touch()
    with opened(tmp_path / "m") as (_, continues):
        assert not continues
    assert names(tmp_path) == []


def test_full_folders_are_free_only_to_be_overwritten(tmp_path):
    check_free(tmp_path, overwrite=False)
    (tmp_path / "file").touch()
    check_free(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="pass --overwrite"):
        check_free(tmp_path, overwrite=False)


# --- one command at a time -------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from secateurs.command.workspace import workspace

command = {"version": "1", "data": "a1", "settings": {"compression": 8}}
with workspace(Path(sys.argv[1]), command, overwrite=False) as (partial, continues):
    (partial / "compare-dense.json").write_text("work")
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(out):
    """Let another process hold the workspace until it reads a line or dies."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_has_died(tmp_path):
    out = tmp_path / "m"
    with holder(out) as process:
        before = names(tmp_path)
        for command in (COMMAND, {**COMMAND, "data": "b2"}):
            with pytest.raises(InputError, match=r"m\.partial is in use"), opened(out, command):
                pass
            assert names(tmp_path) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
    with opened(out) as (partial, continues):
        assert continues
        assert (partial / "compare-dense.json").read_text() == "work"
    assert names(tmp_path) == []


def test_the_lock_counts_in_one_process_too(tmp_path):
    out = tmp_path / "m"
    with (
        opened(out) as (partial, _),
        pytest.raises(InputError, match="in use"),
        opened(out),
    ):
        pass
    assert not partial.exists()
    with opened(tmp_path / "a"), opened(tmp_path / "b"):
        pass


def test_a_lock_whose_folder_is_gone_is_not_the_lock(tmp_path, monkeypatch):
    """The first command ends between the second's opening of the file and its locking it."""
    flock, out = home.fcntl.flock, tmp_path / "m"

    def late(file, how):
        (tmp_path / "m.partial" / ".lock").unlink()
        flock(file, how)

    monkeypatch.setattr(home.fcntl, "flock", late)
    with pytest.raises(InputError, match="in use"), opened(out):
        pass


def test_what_was_shipped_while_waiting_is_not_replaced(tmp_path):
    out = tmp_path / "m"
    check_free(out, overwrite=False)
    TicketRegressor(**TINY).fit(*ROWS).save(out)
    with pytest.raises(InputError, match="--overwrite"), opened(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("lack", ["module", "support"])
def test_where_there_are_no_locks_the_work_goes_on(lack, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(95, "Operation not supported")

    if lack == "module":
        monkeypatch.setattr(home, "fcntl", None)
    else:
        monkeypatch.setattr(home.fcntl, "flock", fail)
    assert not interrupted(tmp_path / "m")
    assert interrupted(tmp_path / "m")


# --- shipping --------------------------------------------------------------------------------

TINY = {"widths": (4,), "search_epochs": 1, "finetune_epochs": 1, "random_state": 0}
ROWS = np.arange(20.0).reshape(10, 2), np.arange(10.0)


@pytest.fixture(scope="module")
def model():
    return TicketRegressor(**TINY).fit(*ROWS)


def compared(rows_seen=0):
    scores = {"r2": 0.125, "rmse": 2.5}
    row = Row(model="mean <&>", scores=scores, parameters_kept=1, bytes=8, seconds=0.25)
    return Comparison(rows_trained=8, rows_held_out=2, rows_seen=rows_seen, models=[row])


def test_a_model_is_shipped_with_its_comparison(model, tmp_path):
    out = tmp_path / "m"
    with opened(out) as (partial, _):
        size = ship(model, out, partial, compared())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert json.loads((out / "comparison.json").read_text())["rows_trained"] == 8
    (out / "comparison.json").unlink()
    (out / PAGE).unlink()
    assert size == sum(path.stat().st_size for path in out.iterdir())
    assert (load(out).predict(ROWS[0]) == model.predict(ROWS[0])).all()


def test_a_model_is_shipped_with_its_page(model, tmp_path):
    out = tmp_path / "my model"
    with opened(out) as (partial, _):
        size = ship(model, out, partial, None)
    page = (out / PAGE).read_text(encoding="utf-8")
    command = "secateurs predict 'my model' NEW_ROWS.csv --out predictions.csv"
    assert page == model_page(model, command=command, size=size)
    assert str(tmp_path) not in page
    assert f"{size:,}" in page
    moved = tmp_path / "elsewhere"
    out.rename(moved)
    assert model_page(load(moved), command=command, size=size) == page


def test_the_page_has_the_comparison(model, tmp_path):
    for out, seen in ((tmp_path / "a", 0), (tmp_path / "b", 1)):
        with opened(out) as (partial, _):
            ship(model, out, partial, compared(seen))
        page = (out / PAGE).read_text(encoding="utf-8")
        for word in ("mean &lt;&amp;&gt;", ">R²<", ">0.125<", ">2.500<", "2 held-out rows, 8"):
            assert word in page
        assert ("also occur in training" in page) == bool(seen)


def test_an_older_page_goes_with_its_model(model, tmp_path):
    out = tmp_path / "m"
    with opened(out) as (partial, _):
        ship(model, out, partial, compared())
    check_replaceable(out)
    model.save(out)
    assert not (out / PAGE).exists()
    with opened(out, overwrite=True) as (partial, _):
        ship(model, out, partial, None)
    assert "mean &lt;&amp;&gt;" not in (out / PAGE).read_text(encoding="utf-8")


def test_a_model_whose_page_cannot_be_drawn_is_shipped_without(model, tmp_path):
    broken = copy.deepcopy(model)
    broken.history_ = broken.history_.drop(columns="epoch")
    with (
        opened(tmp_path / "m") as (partial, _),
        pytest.warns(UserWarning, match=r"complete, but its page could not be drawn \(KeyError"),
    ):
        ship(broken, tmp_path / "m", partial, None)
    assert not (tmp_path / "m" / PAGE).exists()
    assert (load(tmp_path / "m").predict(ROWS[0]) == model.predict(ROWS[0])).all()


def test_an_older_model_comes_back_if_the_new_one_cannot(model, tmp_path, monkeypatch):
    out = tmp_path / "m"
    model.save(out)
    before = (out / "model.json").read_bytes()
    rename = home.Path.rename

    def fail(path, target):
        if path.name == "ready":
            raise KeyboardInterrupt
        return rename(path, target)

    with opened(out, overwrite=True) as (partial, _):
        monkeypatch.setattr(home.Path, "rename", fail)
        with pytest.raises(KeyboardInterrupt):
            ship(model, out, partial, None)
        monkeypatch.undo()
        assert (out / "model.json").read_bytes() == before
        ship(TicketRegressor(2, **TINY).fit(*ROWS), out, partial, None)
    assert load(out).compression_ == 2
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
