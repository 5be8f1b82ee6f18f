"""The verbs run, paper and report as a user meets them: real cells, real files."""

import html
import json
import sys
from xml.etree import ElementTree

import pandas as pd
import pytest

from secateurs.cli import main
from secateurs.command.experiments import load_paper
from secateurs.errors import InputError
from secateurs.experiments.store import Store

TOML = """
widths = [8, 8]
[rows]
dataset = "sklearn:wine"
[config.search]
epochs = 1
[config.finetune]
epochs = 2
[grid]
rows.split = [0, 1]
[arms.dense]
config.compression = 1
[arms.OMP]
config.init_scale = 1.0
"""

PAPER = """
import neighbour
from secateurs.experiments.spec import PeerCell, Rows, Run
from secateurs.report.page import Table, Value

TITLE, CLAIM, PUBLISHED, VALUE = "My table", "My claim", {}, "accuracy"


def runs(scale):
    n = {"smoke": 2, "small": 3, "paper": 4}[scale]
    rows = [Rows(dataset=neighbour.SET, split=i) for i in range(n)]
    return [Run(cell=PeerCell(rows=one), arm="majority") for one in rows]


def table(frame):
    value = Value(100 * frame["test.accuracy"].mean())
    return [Table(title="Mean", columns=["arm", "%"], rows=[["majority", value]])]
"""


CHOOSING = """
from secateurs.experiments.spec import PeerCell, Rows, Run
from secateurs.report.tables import arms_by_dataset

TITLE, CLAIM, PUBLISHED, VALUE = "Chosen", "The better one", {}, "accuracy"
MODELS = ("majority", "logistic_regression")


def runs(scale):
    n = {"smoke": 1, "small": 2}[scale]
    rows = [Rows(dataset="sklearn:iris", split=i, validation_folds=4) for i in range(n)]
    return [Run(cell=PeerCell(rows=one, model=m), arm=m) for one in rows for m in MODELS]


def then(frame, scale):
    assert len(frame) == len(runs(scale))
    best = frame.loc[frame.groupby("rows.split")["validation.accuracy"].idxmax()]
    return [
        Run(
            cell=PeerCell(rows=Rows(dataset="sklearn:iris", split=one["rows.split"]),
                          model=one["arm"]),
            arm="chosen",
            tried=2,
        )
        for one in best.to_dict("records")
    ]


def table(frame):
    return [arms_by_dataset(frame, VALUE, arms=[*MODELS, "chosen"], title="Arms")]
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(TOML)
    return path


@pytest.fixture
def paper(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "neighbour.py").write_text('SET = "sklearn:iris"')
    path = folder / "table_0.py"
    path.write_text(PAPER)
    return path


def test_run_fills_a_store_prints_tables_and_writes_the_page(spec, tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(["run", str(spec), "--out", str(out), "--jobs", "1"]) == 0
    printed = capsys.readouterr()
    assert "6 cells to do (2 of them searches), 0 finished" in printed.out
    assert "minus dense" in printed.out
    assert "6 cells done, 0 before, 0 failed" in printed.out
    page = html.unescape((out / "small.html").read_text())
    assert f"secateurs run {spec} --out {out}" in page
    assert len(Store(out).frame()) == 6

    assert main(["run", str(spec), "--out", str(out), "--jobs", "1"]) == 0
    assert "0 cells done, 6 before" in capsys.readouterr().out
    assert main(["report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    assert "Arms over all data sets" in (tmp_path / "page.html").read_text()
    for name, read in (("cells.csv", pd.read_csv), ("cells.parquet", pd.read_parquet)):
        assert main(["report", str(out), "--out", str(tmp_path / name)]) == 0
        cells = read(tmp_path / name)
        assert len(cells) == len(Store(out).frame(Store(out).plans()[0]["runs"]))
        assert set(cells["plan"]) == {"small"}
        assert {"arm", "rows.dataset", "test.balanced_accuracy"} <= set(cells)
        assert json.loads(cells["widths"].dropna().iloc[0])
    capsys.readouterr()
    assert main(["list", "runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{out}  small: 6 of 6 cells begun are finished\n"


def test_settings_are_typed_and_told_on_the_page(spec, tmp_path, capsys):
    out = tmp_path / "runs"
    command = ["run", str(spec), "--out", str(out), "--jobs", "1"]
    changes = ["--set", "grid.rows.split=[4]", "--set", "config.compression=2"]
    assert main([*command, *changes]) == 0
    page = html.unescape((out / "small.html").read_text())
    assert "--set 'grid.rows.split=[4]' --set config.compression=2" in page
    capsys.readouterr()
    assert main([*command, "--set", "config.compresion=2"]) == 2
    assert "unknown name 'compresion'; did you mean 'compression'" in capsys.readouterr().err
    assert main([*command, "--set", "config.compression=fast"]) == 2
    assert "config.compression must be a number, got 'fast'" in capsys.readouterr().err


def test_a_dry_run_says_what_is_to_do_and_does_nothing(spec, tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(["run", str(spec), "--out", str(out), "--dry-run", "--jobs", "3"]) == 0
    assert "on 3 cores" in capsys.readouterr().out
    assert not out.exists()


def test_failed_cells_do_not_stop_the_others_and_are_told(spec, tmp_path, capsys):
    out = tmp_path / "runs"
    change = ["--set", 'grid.rows.dataset=["sklearn:wine", "sklearn:nothing"]']
    assert main(["run", str(spec), "--out", str(out), "--jobs", "1", "--quiet", *change]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("secateurs: failed: ") == 6
    assert len(printed.err.splitlines()) == 6  # no progress
    assert "bundled sets are" in printed.err
    assert "needs" in printed.err
    assert len(Store(out).frame()) == 6
    assert "Failed" in (out / "small.html").read_text()


@pytest.mark.parametrize("out", ["/proc/nowhere", "file"])
def test_a_store_that_cannot_be_written_is_one_line(spec, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["run", str(spec), "--out", out, "--jobs", "1"]) == 2
    err = capsys.readouterr().err
    assert "secateurs: error: cannot write" in err
    assert len(err.strip().splitlines()) == 1


def test_a_paper_runs_at_its_scale_and_smoke_is_stamped(paper, tmp_path, capsys):
    out = tmp_path / "runs"
    before = set(sys.modules)
    assert main(["paper", str(paper), "--out", str(out), "--scale", "smoke", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "smoke: not evidence" in printed
    assert "majority" in printed
    page = (out / "table_0-smoke.html").read_text()
    assert "smoke: not evidence" in page
    assert "My claim" in page
    assert "neighbour" not in set(sys.modules) - before
    assert main(["paper", str(paper), "--out", str(out), "--scale", "small", "--jobs", "1"]) == 0
    assert "1 cells done, 2 before" in capsys.readouterr().out
    assert "not evidence" not in (out / "table_0-small.html").read_text()
    (plan,) = (one for one in Store(out).plans() if one["name"] == "table_0-small")
    assert plan["value"] == "accuracy"


def test_figures_become_files(paper, tmp_path, capsys):
    paper.write_text(
        paper.read_text()
        + """

def figure(frame):
    from secateurs.report.figures import pair_matrix
    from secateurs.report.page import Figure

    svg = pair_matrix(["a", "b"], [[0.0, 1.0], [1.0, 0.0]])
    return [Figure(title="Two: a & b", svg=svg, alt="Two."), Figure(title="Two a b", svg=svg,
        alt="Two.")]
"""
    )
    out, folder = tmp_path / "runs", tmp_path / "figures"
    command = ["paper", str(paper), "--out", str(out), "--scale", "smoke", "--jobs", "1"]
    assert main([*command, "--figures", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["two-a-b-2.svg", "two-a-b.svg"]
    for path in folder.iterdir():
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert f"figure: {folder / 'two-a-b.svg'}" in capsys.readouterr().out


@pytest.fixture
def choosing(tmp_path):
    path = tmp_path / "chosen.py"
    path.write_text(CHOOSING)
    return path


def test_finished_runs_choose_what_runs_next(choosing, tmp_path, capsys):
    out = tmp_path / "runs"
    command = ["paper", str(choosing), "--out", str(out), "--scale", "small", "--jobs", "1"]
    assert main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "4 cells to do, 0 finished" in printed
    assert "these choose further runs, once all of them are finished" in printed
    assert not out.exists()

    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 cells to do, 4 finished" in printed
    assert "6 cells done, 0 before, 0 failed" in printed
    (plan,) = Store(out).plans()
    frame = Store(out).frame(plan["runs"])
    assert frame["arm"].tolist()[4:] == ["chosen"] * 2
    assert frame["model"].tolist()[4:] == ["logistic_regression"] * 2
    assert frame["tried"].tolist() == [1, 1, 1, 1, 2, 2]
    assert "chosen" in (out / "chosen-small.html").read_text()

    assert main([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 2
    assert main(command) == 0
    assert "0 cells done, 6 before, 0 failed" in capsys.readouterr().out
    Store(out).forget(plan["runs"][5]["key"])
    assert main(command) == 0
    assert "1 cells done, 5 before, 0 failed" in capsys.readouterr().out
    assert Store(out).plans() == [plan]


def test_only_the_first_splits_of_each_data_set(choosing, tmp_path, capsys):
    out = tmp_path / "runs"
    whole = "    assert len(frame) == len(runs(scale))\n"
    choosing.write_text(CHOOSING.replace("split=i", "split=100 + i").replace(whole, ""))
    command = ["paper", str(choosing), "--out", str(out), "--scale", "small", "--jobs", "1"]
    assert main([*command, "--splits", "1"]) == 0
    assert "3 cells done, 0 before, 0 failed" in capsys.readouterr().out
    (plan,) = Store(out).plans()
    assert plan["command"].endswith("--scale small --splits 1")
    assert set(Store(out).frame(plan["runs"])["rows.split"]) == {100}
    assert main([*command, "--finished"]) == 0
    printed = capsys.readouterr().out
    assert "0 cells done, 2 before, 0 failed" in printed  # the third was chosen by one split
    assert "\nArms\n" in printed
    assert main([*command, "--splits", "2"]) == 0
    assert "3 cells done, 3 before, 0 failed" in capsys.readouterr().out
    assert main([*command, "--splits", "0"]) == 2
    assert "--splits must be at least 1, got 0" in capsys.readouterr().err


def test_runs_of_which_some_failed_choose_nothing(choosing, tmp_path, capsys):
    out = tmp_path / "runs"
    choosing.write_text(CHOOSING.replace('dataset="sklearn:iris", split=i', (
        'dataset=("sklearn:iris", "sklearn:nothing")[i], split=i')))  # fmt: skip
    command = ["paper", str(choosing), "--out", str(out), "--scale", "small", "--jobs", "1"]
    assert main(command) == 3
    printed = capsys.readouterr()
    assert "once all of them are finished" in printed.out
    assert "2 cells done, 0 before, 2 failed" in printed.out
    (plan,) = Store(out).plans()
    assert len(plan["runs"]) == 4


def test_what_is_no_paper_is_refused(tmp_path):
    with pytest.raises(InputError, match="a paper is a Python file"):
        load_paper(tmp_path / "none.py")
    (tmp_path / "half.py").write_text("TITLE = 'a'\ndef runs(scale): return []\n")
    with pytest.raises(InputError, match="it lacks CLAIM, PUBLISHED, table or figure"):
        load_paper(tmp_path / "half.py")


def test_a_report_of_nothing_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 2
    assert "it has no plan" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "a.csv")]) == 2
    assert "no cell of a plan is finished" in capsys.readouterr().err


def test_jobs_must_be_positive(spec, tmp_path, capsys):
    assert main(["run", str(spec), "--out", str(tmp_path / "r"), "--jobs", "0"]) == 2
    assert "--jobs must be at least 1, got 0; leave it out" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused_before_anything_runs(spec, tmp_path, capsys):
    out = tmp_path / "r"
    assert main(["run", str(spec), "--out", str(out), "--device", "tpu9"]) == 2
    assert "device must be one that this machine has" in capsys.readouterr().err
    assert not out.exists()


def test_the_plan_is_plain_json(spec, tmp_path):
    out = tmp_path / "runs"
    main(["run", str(spec), "--out", str(out), "--jobs", "1", "--quiet"])
    plan = json.loads((out / "plans" / "small.json").read_text())
    assert {run["arm"] for run in plan["runs"]} == {"dense", "OMP"}
