"""A cell is whole or absent; frames are tidy; nothing is deleted but on request."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from secateurs.errors import InputError
from secateurs.experiments.spec import PeerCell, ProbeCell, Rows, Run, TicketCell, key
from secateurs.experiments.store import Outcome, Plan, Store

CELL = PeerCell(rows=Rows(dataset="sklearn:iris"))
TICKET = TicketCell(rows=Rows(dataset="sklearn:iris"))
OUTCOME = Outcome(
    result={"test": {"accuracy": 0.5}, "seconds": 1.0},
    history=[{"epoch": 1, "loss": 2.0, "histogram": [1, 2]}, {"epoch": 2, "loss": 1.0}],
    tensors={"w": torch.arange(3.0)},
    meta={"columns": ["a"]},
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def test_a_probe_has_the_rows_of_its_ticket_in_a_frame(tmp_path):
    store = Store(tmp_path)
    ticket = TicketCell(rows=Rows(dataset="sklearn:iris", split=3))
    store.write(ProbeCell(ticket=ticket), Outcome(result={"rare": {"accuracy": 0.5}}))
    (row,) = store.frame().to_dict("records")
    assert (row["rows.dataset"], row["rows.split"]) == ("sklearn:iris", 3)
    assert row["rare.accuracy"] == 0.5


def test_what_is_written_is_read(store):
    store.write(CELL, OUTCOME)
    name = key(CELL)
    assert store.keys() == [name]
    assert store.finished(name)
    assert store.cell(name) == CELL
    assert store.result(name) == OUTCOME.result
    assert store.history(name)["loss"].tolist() == [2.0, 1.0]
    assert store.history(name)["histogram"][0].tolist() == [1, 2]
    tensors, meta = store.tensors(name)
    assert torch.equal(tensors["w"], torch.arange(3.0))
    assert meta == {"columns": ["a"]}
    assert sorted(path.name for path in store.folder(name).iterdir()) == [
        "DONE",
        "metrics.parquet",
        "result.json",
        "spec.json",
        "ticket.safetensors",
    ]


def test_done_is_written_last(store, monkeypatch):
    written = []
    plain = Path.replace

    def spy(path, target):
        written.append(Path(target).name)
        return plain(path, target)

    monkeypatch.setattr(Path, "replace", spy)
    store.write(CELL, OUTCOME)
    assert written[0] == "spec.json"
    assert written[-1] == "DONE"


@pytest.mark.parametrize("missing", ["result.json", "metrics.parquet", "ticket.safetensors"])
def test_a_cell_without_done_is_not_finished_whatever_it_has(store, missing):
    store.write(CELL, OUTCOME)
    (store.folder(key(CELL)) / "DONE").unlink()
    (store.folder(key(CELL)) / missing).unlink()
    assert not store.finished(key(CELL))
    assert store.frame().empty
    store.write(CELL, OUTCOME)
    assert store.result(key(CELL)) == OUTCOME.result


def test_finishing_drops_the_checkpoint_and_the_error(store):
    store.write_error(CELL, {"error": "ValueError: no", "traceback": "..."})
    folder = store.checkpoint(key(CELL))
    folder.mkdir()
    (folder / "search.safetensors").write_text("x")
    assert store.error(key(CELL))["error"] == "ValueError: no"
    assert not store.finished(key(CELL))
    store.write(CELL, OUTCOME)
    assert store.error(key(CELL)) is None
    assert not folder.exists()


def test_a_claim_keeps_others_out_and_ends_with_its_process(store):
    name = key(CELL)
    script = (
        "import sys, time\nfrom secateurs.experiments.store import Store\n"
        f"with Store({str(store.root)!r}).claim({name!r}) as held:\n"
        "    print(held, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline().strip() == b"True"
        with store.claim(name) as held:
            assert not held
        other.kill()
        other.wait()
        with store.claim(name) as held:
            assert held


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", "/proc/nowhere"):
        store = Store(root)
        with pytest.raises(InputError, match="cannot write"):
            store.check_writable()
        with pytest.raises(InputError, match="cannot write"), store.claim(key(CELL)):
            pass
        assert store.keys() == []


def test_a_full_disk_leaves_the_cell_unfinished_and_says_so(store):
    script = (
        "import resource, signal\n"
        "from secateurs.experiments.store import *\nfrom secateurs.experiments.spec import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "cell = PeerCell(rows=Rows(dataset='sklearn:iris'))\n"
        f"Store({str(store.root)!r}).write(cell, Outcome(result={{'a': list(range(1000))}}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode
    assert "InputError: cannot write" in done.stderr
    assert "has room" in done.stderr
    assert not store.finished(key(CELL))
    store.write(CELL, OUTCOME)
    assert store.finished(key(CELL))


def test_a_damaged_file_names_itself(store):
    store.write(CELL, OUTCOME)
    path = store.folder(key(CELL)) / "result.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"result.json must be JSON .* remove the cell's folder"):
        store.frame()


def test_only_forget_deletes(store):
    store.write(CELL, OUTCOME)
    store.write_error(CELL, {"error": "a later failure"})
    assert store.result(key(CELL)) == OUTCOME.result
    store.forget(key(CELL))
    assert store.keys() == []


def test_a_frame_is_tidy_and_in_the_order_of_the_plan(store):
    store.write(CELL, OUTCOME)
    store.write(TICKET, Outcome(result={"test": {"accuracy": 0.7}}))
    unfinished = PeerCell(rows=Rows(dataset="sklearn:iris", split=9))
    runs = [Run(cell=TICKET, arm="b"), Run(cell=CELL, arm="a"), Run(cell=TICKET, arm="c", tried=5)]
    store.write_plan(
        Plan(
            name="p",
            title="t",
            runs=[*runs, Run(cell=unfinished, arm="a")],
            published={("d", "a"): 1},
        )
    )
    (plan,) = store.plans()
    assert plan["published"] == {("d", "a"): 1}
    frame = store.frame(plan["runs"])
    assert frame["arm"].tolist() == ["b", "a", "c"]
    assert frame["tried"].tolist() == [1, 1, 5]
    assert frame["test.accuracy"].tolist() == [0.7, 0.5, 0.7]
    assert frame["config.search.optimizer.lr"].isna().tolist() == [False, True, False]
    assert frame["rows.dataset"].unique().tolist() == ["sklearn:iris"]
    assert isinstance(frame, pd.DataFrame)


def test_a_plan_that_is_none_is_refused(store):
    store.write_plan(Plan(name="p", title="t", runs=[]))
    path = store.root / "plans" / "p.json"
    assert json.loads(path.read_text())["runs"] == []
    hostile = {**json.loads(path.read_text()), "runs": [{"key": "../../x", "arm": "a", "tried": 1}]}
    for text in ("[]", "{", "{}", json.dumps(hostile)):
        path.write_text(text)
        with pytest.raises(InputError, match="must be a plan written by secateurs"):
            store.plans()
