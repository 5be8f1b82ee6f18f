import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris

from secateurs import cli, criteria
from secateurs.cli import main
from secateurs.command import settings, workspace
from secateurs.data.tables import read_table
from secateurs.loading import load

TINY = ["--set", "widths=[16,16]", "--set", "search_epochs=2", "--set", "finetune_epochs=7"]


def run(*words):
    return main([str(word) for word in words])


def fit(data, out, *words):
    return run("fit", data, "--out", out, "--quiet", *TINY, *words)


def files(folder):
    """Return the content of everything below a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


def assert_one_error(capsys, *words):
    err = capsys.readouterr().err
    assert err.startswith("secateurs: error: "), err
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


def mixed(n=60, seed=0):
    """Return a table with numbers, strings, booleans and holes, and a target of words."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n)
    colour = rng.choice(["red", "green, blue", "black"], n).astype(object)
    colour[::7] = None
    y = np.where(size + (colour == "red") > 0, "yes", "no")
    size[::5] = np.nan
    flag = rng.random(n) > 0.5
    columns = {"size": size, "colour": colour, "flag": flag, "empty": np.full(n, np.nan), "y": y}
    return pd.DataFrame(columns)


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".feather":
        frame.to_feather(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """A model of sklearn:iris."""
    out = tmp_path_factory.mktemp("iris") / "m"
    assert fit("sklearn:iris", out) == 0
    return out


# --- round trips -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".feather", ".parquet"])
def test_fit_predict_evaluate_on_files(suffix, tmp_path, capsys):
    data = write(mixed(), tmp_path / f"train{suffix}")
    out, told = tmp_path / "m", tmp_path / f"told{suffix}"
    assert fit(data, out, "--target", "y") == 0, capsys.readouterr().err
    new = write(mixed(seed=1), tmp_path / f"new{suffix}")
    assert run("predict", out, new, "--out", told) == 0
    frame = read_table(told).frame
    assert frame.columns.tolist() == ["prediction", "proba_no", "proba_yes"]
    direct = load(out).predict_proba(mixed(seed=1).drop(columns="y"))
    np.testing.assert_array_equal(frame.iloc[:, 1:].to_numpy(), direct)
    y = mixed(seed=1)["y"]
    capsys.readouterr()
    assert run("evaluate", out, new, "--target", "y", "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["rows"] == 60
    assert scores["accuracy"] == (frame["prediction"] == y).mean()
    assert scores["majority_accuracy"] == y.value_counts(normalize=True).max()
    assert {"balanced_accuracy", "log_loss"} <= set(scores)


def test_iris_by_name(iris, tmp_path, capsys):
    X, y = load_iris(return_X_y=True, as_frame=True)
    assert run("predict", iris, "sklearn:iris", "--out", tmp_path / "p.csv") == 0
    told = pd.read_csv(tmp_path / "p.csv")
    assert told.columns.tolist() == ["prediction", "proba_0", "proba_1", "proba_2"]
    assert (told["prediction"] == load(iris).predict(X)).all()
    capsys.readouterr()
    assert run("evaluate", iris, "sklearn:iris") == 0
    lines = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert float(lines["accuracy"]) == pytest.approx((told["prediction"] == y).mean(), abs=1e-4)
    assert (lines["rows"], lines["majority accuracy"]) == ("150", "0.3333")


def test_regression(tmp_path, capsys):
    out = tmp_path / "m"
    assert fit("sklearn:diabetes", out) == 0
    assert run("predict", out, "sklearn:diabetes", "--out", tmp_path / "p.parquet") == 0
    assert pd.read_parquet(tmp_path / "p.parquet").columns.tolist() == ["prediction"]
    capsys.readouterr()
    assert run("evaluate", out, "sklearn:diabetes", "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert sorted(scores) == ["mae", "r2", "rmse", "rows"]


def test_reordered_columns_and_the_target_are_accepted(iris, tmp_path):
    frame = read_table("sklearn:iris").frame
    plain, other = tmp_path / "plain.csv", tmp_path / "other.csv"
    write(frame.drop(columns="target"), plain)
    write(frame[frame.columns[::-1]], other)
    for path in (plain, other):
        assert run("predict", iris, path, "--out", f"{path}.told.csv") == 0
    told = [(tmp_path / f"{p.name}.told.csv").read_bytes() for p in (plain, other)]
    assert told[0] == told[1]


def test_evaluate_takes_labels_as_people_do(iris, tmp_path, capsys):
    frame = read_table("sklearn:iris").frame
    scores = []
    for i, labels in enumerate([frame["target"], frame["target"].astype(float)]):
        path = write(frame.assign(target=labels), tmp_path / f"{i}.parquet")
        assert run("evaluate", iris, path, "--json") == 0
        scores.append(capsys.readouterr().out)
    path = write(frame.assign(target=frame["target"].astype(str)), tmp_path / "words.parquet")
    assert run("evaluate", iris, path, "--json") == 0
    assert {*scores, capsys.readouterr().out} == {scores[0]}


def test_the_same_command_gives_the_same_model(iris, tmp_path):
    assert fit("sklearn:iris", tmp_path / "m") == 0
    weights = "weights.safetensors"
    assert (tmp_path / "m" / weights).read_bytes() == (iris / weights).read_bytes()


def test_nothing_of_the_machine_is_in_the_model(iris):
    text = (iris / "model.json").read_text()
    assert str(iris.parent) not in text
    assert json.loads(text)["summary"]["target"] == "target"
    assert [path.name for path in iris.parent.iterdir()] == ["m"]


# --- what is said ----------------------------------------------------------------------------


def test_what_fit_says(tmp_path, capsys):
    out = tmp_path / "m"
    assert run("fit", "sklearn:iris", "--out", out, *TINY) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("task: classification, because the target 'target' has 3 distinct")
    names = [line.split()[0] for line in lines[1:]]
    assert names == ["model", "kept", "bytes", "regime", "seconds", "page", "next"]
    page = out / "report.html"
    assert lines[6] == f"page     {page}"
    assert "secateurs predict m NEW_ROWS.csv" in page.read_text(encoding="utf-8")
    size = sum(path.stat().st_size for path in out.iterdir() if path != page)
    assert f"{size:,}" in lines[3]
    assert "155 of 435 parameters" in lines[2]
    assert [line.partition(":")[0] for line in said.err.splitlines()] == ["search", "finetune"]


def test_quiet(tmp_path, capsys):
    assert fit("sklearn:iris", tmp_path / "m") == 0
    assert capsys.readouterr() == ("", "")


def test_warnings_are_one_line(tmp_path, capsys):
    frame = pd.DataFrame({"x": [1.0] * 40, "y": ["a"] * 39 + ["b"]})  # nothing tells them apart
    frame.loc[20, "y"] = "b"
    data = write(frame, tmp_path / "t.csv")
    assert fit(data, tmp_path / "collapsed", "--target", "y") == 0
    assert fit("sklearn:iris", tmp_path / "short", "--set", "time_limit=1e-9") == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("secateurs: warning: ") for line in lines)
    assert "every training row is predicted as" in lines[0]
    assert "time limit" in lines[1]


def test_asked_task_wins(tmp_path):
    words = ["--task", "regression"]
    assert fit("sklearn:iris", tmp_path / "m", *words) == 0
    assert json.loads((tmp_path / "m" / "model.json").read_text())["estimator"] == "TicketRegressor"


def test_list(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    (tmp_path / "tabular").mkdir()
    write(mixed(), tmp_path / "tabular" / "toy.parquet")
    (tmp_path / "tabular" / "README.md").touch()
    assert run("list") == 0
    out = capsys.readouterr().out
    for name in ("mlp_tab", "magnitude", "nce", "weight_movement", "sklearn:iris", "toy.parquet"):
        assert name in out
    assert "README" not in out
    assert run("list", "criteria") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == list(criteria.CRITERIA)


@pytest.mark.parametrize("word", ["False", "false", "0"])
def test_a_flag_takes_no_word_that_would_silently_be_true(tmp_path, capsys, word):
    out = tmp_path / "m"
    assert run("fit", "sklearn:iris", "--out", out, "--overwrite", word) == 2
    assert f"unrecognized arguments: {word}" in capsys.readouterr().err
    assert not out.exists()


# --- compare ---------------------------------------------------------------------------------


def test_compare(tmp_path, capsys):
    out = tmp_path / "m"
    assert fit("sklearn:iris", out, "--compare") == 0
    said = capsys.readouterr()
    for word in ("majority class", "logistic regression", "dense 2x16", "IUNet 2x16, r=8"):
        assert word in said.out
    written = json.loads((out / "comparison.json").read_text())
    assert [len(written["models"]), written["rows_held_out"]] == [4, 30]
    assert load(out).summary_["rows"] == 150
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_compare_tells_of_leaks(tmp_path, capsys):
    frame = pd.concat([mixed()] * 2)
    data = write(frame, tmp_path / "twice.csv")
    assert fit(data, tmp_path / "m", "--target", "y", "--compare") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("secateurs: note: ")
    assert "also occur in training" in line


# --- bad input -------------------------------------------------------------------------------


def _frame(**columns):
    return lambda path: write(mixed(20).assign(**columns), path)


def _bytes(content):
    return lambda path: path.write_bytes(content)


BAD_TABLES = {
    "missing file": ("t.csv", lambda path: None, "no such file"),
    "unknown format": ("t.xlsx", _bytes(b"x"), "tables are .csv"),
    "junk csv": ("t.csv", _bytes(b"\x00\xff\xfe"), "cannot be read"),
    "junk parquet": ("t.parquet", _bytes(b"PAR1 and junk"), "cannot be read"),
    "junk feather": ("t.feather", _bytes(b"junk"), "cannot be read"),
    "empty file": ("t.csv", _bytes(b""), "empty file"),
    "no rows": ("t.csv", _bytes(b"a,y\n"), "at least one row"),
    "absent target": ("t.csv", lambda path: write(mixed(20)[["size"]], path), "'y'"),
    "holes in the target": ("t.csv", _frame(y=["a", None] * 10), "10 of 20 values missing"),
    "one class": ("t.csv", _frame(y="a"), "one class: 'a'"),
    "a class of one row": ("t.csv", _frame(y=["a"] * 19 + ["b"]), "got 1 of class 'b'"),
    "no features": ("t.csv", lambda path: write(mixed(20)[["y"]], path), "needs features"),
    "constant numbers": ("t.csv", _frame(y=1.5), "must vary"),
    "infinities": ("t.csv", _frame(size=[1.0, np.inf] * 10), "inf"),
    "infinities in the target": ("t.csv", _frame(y=[0.5, np.inf] * 10), "infinity"),
    "twice the same name": ("t.csv", _bytes(b"a,a,y\n1,2,3\n"), "unique"),
    "dates": ("t.parquet", _frame(size=pd.Timestamp("2020-01-01")), "'size'"),
    "dates as the target": ("t.parquet", _frame(y=pd.Timestamp("2020-01-01")), "labels or numbers"),
}


@pytest.mark.parametrize("compare", [(), ("--compare",)], ids=["", "compare"])
@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables(case, compare, tmp_path, capsys):
    name, make, words = BAD_TABLES[case]
    make(tmp_path / name)
    before = files(tmp_path)
    out = tmp_path / "new" / "folder" / "m"
    assert fit(tmp_path / name, out, "--target", "y", *compare) == 2
    assert_one_error(capsys, words)
    assert files(tmp_path) == before


BAD_SETTINGS = {
    "compression=0.5": "at least 1",
    "compression=-3": "at least 1",
    "compression=1e6": "compression must leave",
    "compression=NaN": "at least 1",
    "compression=many": "compression must be a number of at least 1",
    "compression=true": "compression must be a number of at least 1",
    "compresion=3": "'compresion'; did you mean 'compression'?",
    "widths=5": "widths must be",
    "widths=[0]": "widths must be",
    "widths=[]": "widths must be",
    'widths="16"': "widths must be",
    "widths=[16.5]": "widths must be",
    "search_lr=-1": "positive",
    "search_epochs=-1": "at least 0",
    "batch_size=1": "at least 2",
    "finetune_epochs=7.5": "an integer",
    "init_scale=0": "positive",
    "contrastive_weight=-1": "at least 0",
    "corruption_rate=2": "corruption_rate",
    "temperature=0": "positive",
    "criterion=gut": "magnitude, normalised_magnitude, ",
    "rewind=back": "'start', 'scaled_start'",
    "snapshots=9": "snapshots",
    "n_tickets=0": "n_tickets",
    "views=1": "views must be",
    "regime=wild": "rich, lazy",
    "preset=mine": "default, paper",
    "class_weight=heavy": "class_weight",
    'class_weight={"setosa": 2}': "classes of the target (0, 1, 2), got 'setosa'",
    'class_weight={"0": "much"}': "class_weight must",
    "val_fraction=1": "val_fraction",
    "precision=fp8": "'fp32' or 'bf16'",
    "device=abacus": "device",
    "time_limit=0": "time_limit",
    "random_state=null": "random_state",
    "weight_decay=-1": "weight_decay",
    "finetune_lr=0": "positive",
    "compression": "NAME=JSON",
    "=3": "NAME=JSON",
}


@pytest.mark.parametrize("setting", BAD_SETTINGS)
def test_bad_settings(setting, tmp_path, capsys):
    name = setting.partition("=")[0]
    tiny = {"widths": "[16,16]", "search_epochs": "2", "finetune_epochs": "7"}
    settings = [setting, *(f"{k}={v}" for k, v in tiny.items() if k != name)]
    words = [part for one in settings for part in ("--set", one)]
    out = tmp_path / "new" / "m"
    assert run("fit", "sklearn:iris", "--out", out, "--quiet", "--compare", *words) == 2
    assert_one_error(capsys, BAD_SETTINGS[setting])
    assert files(tmp_path) == {}


def test_numbers_with_fractions_are_no_classes(tmp_path, capsys):
    data = write(mixed().assign(y=np.linspace(0, 1, 60)), tmp_path / "t.csv")
    assert fit(data, tmp_path / "m", "--target", "y", "--task", "classification") == 2
    assert_one_error(capsys, "continuous")


def test_a_parameter_of_classes_is_unknown_to_regression(tmp_path, capsys):
    words = ["--set", "class_weight=balanced"]
    assert fit("sklearn:diabetes", tmp_path / "m", *words) == 2
    assert_one_error(capsys, "unknown parameter 'class_weight'; TicketRegressor takes batch_size")
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "VERB"),
        (["prune"], "invalid choice: 'prune'"),
        (["fit"], "DATA"),
        (["fit", "sklearn:iris"], "--out"),
        (["fit", "sklearn:iris", "--out", "m", "--targ", "y"], "unrecognized arguments: --targ"),
        (["fit", "sklearn:iris", "--out", "m", "--task", "guess"], "invalid choice: 'guess'"),
        (["fit", "sklearn:iris", "--out", "m", *TINY, "--set", "widths=[8]"], "'widths' twice"),
        (["fit", "sklearn:iris", "--out", "m", "--target", "species"], "'species'"),
        (["fit", "sklearn:lilies", "--out", "m"], "bundled sets are"),
        (["fit", "openml:", "--out", "m"], "OpenML"),
        (["fit", "openml:iris", "--out", "m"], "OpenML"),
        (["fit", "openml:-3", "--out", "m"], "OpenML"),
        (["fit", "train.csv", "--out", "m"], "a target column must be named"),
        (["fit", "sklearn:iris", "--out", "."], "exists"),
        (["fit", "sklearn:iris", "--out", ".", "--overwrite"], "not a model folder"),
        (["fit", "sklearn:iris", "--out", "train.csv"], "not a model folder"),
        (["fit", "sklearn:iris", "--out", "train.csv/m"], "cannot write"),
        (["fit", "sklearn:iris", "--out", "/proc/m"], "cannot write"),
        (["predict", "nowhere", "sklearn:iris", "--out", "p.csv"], "model folder"),
        (["predict", ".", "sklearn:iris", "--out", "p.csv"], "model folder"),
        (["predict", "train.csv", "sklearn:iris", "--out", "p.csv"], "model folder"),
        (["predict", "MODEL", "sklearn:iris", "--out", "p.txt"], "tables are"),
        (["predict", "MODEL", "sklearn:iris", "--out", "/proc/p.csv"], "cannot be written"),
        (["predict", "MODEL", "sklearn:iris", "--out", "gone/p.csv"], "cannot be written"),
        (["predict", "MODEL", "train.csv", "--out", "p.csv"], "'petal"),
        (["predict", "MODEL", "iris.csv", "--out", "iris.csv"], "must not be the table"),
        (["evaluate", "MODEL", "train.csv"], "lacks the target"),
        (["evaluate", "MODEL", "train.csv", "--target", "y"], "'"),
        (["evaluate", "MODEL", "iris.csv", "--target", "nose"], "'nose'"),
        (["evaluate", "MODEL", "words.csv", "--target", "target"], "got 'rose'"),
        (["list", "birds"], "invalid choice: 'birds'"),
    ],
)
def test_bad_words(words, told, iris, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(mixed(), tmp_path / "train.csv")
    frame = read_table("sklearn:iris").frame
    write(frame, tmp_path / "iris.csv")
    write(frame.assign(target="rose"), tmp_path / "words.csv")
    before = files(tmp_path)
    assert run(*[iris if word == "MODEL" else word for word in words]) == 2
    assert_one_error(capsys, told)
    assert files(tmp_path) == before


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_predict_with_other_columns(change, iris, tmp_path, capsys):
    frame = read_table("sklearn:iris").frame
    frame = frame.iloc[:, 1:] if change == "missing" else frame.assign(colour="red")
    data = write(frame, tmp_path / "t.csv")
    assert run("predict", iris, data, "--out", tmp_path / "p.csv") == 2
    assert_one_error(capsys, "sepal length (cm)" if change == "missing" else "colour")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_damaged_model(iris, tmp_path, capsys):
    broken = tmp_path / "m"
    broken.mkdir()
    for path in iris.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[:-9])
    assert run("predict", broken, "sklearn:iris", "--out", tmp_path / "p.csv") == 2
    assert_one_error(capsys, "model folder")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_process_gives_the_code_and_no_traceback(tmp_path):
    words = ["fit", "gone.csv", "--out", "m", "--target", "y"]
    done = subprocess.run(
        [sys.executable, "-m", "secateurs", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("secateurs: error: ")
    assert done.stderr.count("\n") == 1


def test_a_bug_is_not_dressed_up(monkeypatch, tmp_path):
    def fail(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(settings, "parse", fail)
    with pytest.raises(TypeError, match="a bug"):
        fit("sklearn:iris", tmp_path / "m")


# --- what stands at OUT ----------------------------------------------------------------------


def test_existing_models_are_replaced_only_when_asked(tmp_path, capsys):
    out = tmp_path / "m"
    assert fit("sklearn:iris", out) == 0
    before = files(tmp_path)
    assert fit("sklearn:iris", out, "--set", "compression=4") == 2
    assert_one_error(capsys, "--overwrite")
    assert files(tmp_path) == before
    assert fit("sklearn:iris", out, "--set", "compression=4", "--overwrite") == 0
    assert load(out).compression_ == 4
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_only_models_are_ever_replaced(tmp_path, capsys):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("years of work")
    before = files(tmp_path)
    for words in ([], ["--overwrite"]):
        assert fit("sklearn:iris", out, *words) == 2
        assert_one_error(capsys, "thesis")
    assert files(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "m").mkdir()
    assert fit("sklearn:iris", tmp_path / "m") == 0
    assert load(tmp_path / "m").summary_["rows"] == 150


@contextmanager
def file_size_limit(n):
    """Make files fail to grow beyond n bytes, as on a full disk; root is no exception."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n", [0, 100, 3000])
def test_full_disk_while_fitting(n, tmp_path, capsys):
    out = tmp_path / "m"
    assert fit("sklearn:iris", out) == 0
    before = files(tmp_path)
    with file_size_limit(n):
        assert fit("sklearn:iris", out, "--overwrite", "--set", "compression=4") == 2
    assert_one_error(capsys, "cannot write")
    assert files(tmp_path) == before


@pytest.mark.parametrize("n", [1000, 20_000], ids=["model", "page"])
def test_full_disk_while_shipping(n, tmp_path, capsys, monkeypatch):
    out = tmp_path / "m"
    assert fit("sklearn:iris", out) == 0
    before = files(out)
    ship = workspace.ship

    def on_a_full_disk(*args):
        with file_size_limit(n):
            return ship(*args)

    words = ["--overwrite", "--set", "compression=4"]
    monkeypatch.setattr(workspace, "ship", on_a_full_disk)
    assert fit("sklearn:iris", out, *words) == 2
    assert_one_error(capsys, "cannot write")
    assert files(out) == before
    # The work is not lost: with room again, the same command goes on from the finished training.
    assert not [p for p in (tmp_path / "m.partial").rglob("*") if "tmp" in p.name]
    monkeypatch.setattr(workspace, "ship", ship)
    assert fit("sklearn:iris", out, *words) == 0
    assert load(out).compression_ == 4
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_full_disk_while_predicting(iris, tmp_path, capsys):
    told = tmp_path / "p.csv"
    told.write_text("older")
    with file_size_limit(1000):
        assert run("predict", iris, "sklearn:iris", "--out", told) == 2
    assert_one_error(capsys, "cannot be written")
    assert files(tmp_path) == {"p.csv": b"older"}


# --- interrupted -----------------------------------------------------------------------------

LONG = ["--set", "widths=[32,32]", "--set", "search_epochs=2", "--set", "finetune_epochs=21"]


def fit_long(out, *words):
    return ["fit", "sklearn:digits", "--out", str(out), *LONG, *words]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Predictions of the long fit."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(*fit_long(folder / "m"), "--quiet") == 0
    assert run("predict", folder / "m", "sklearn:digits", "--out", folder / "p.csv") == 0
    return (folder / "p.csv").read_bytes()


def interrupt(words, sign, number, meanwhile=lambda: None):
    """Run a command in a process of its own and send it a signal once a file exists."""
    process = subprocess.Popen(
        [sys.executable, "-m", "secateurs", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        # Where the tests run in the background, SIGINT may be ignored from birth.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    with process:
        end = time.monotonic() + 100
        while not sign.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        meanwhile()
        process.send_signal(number)
        _, err = process.communicate()
    return process.returncode, err


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),  # see the comparison below
    ],
)
def test_an_interrupted_fit_continues(number, uninterrupted, tmp_path, capsys):
    out, partial = tmp_path / "m", tmp_path / "m.partial"
    sign = partial / "model" / "ticket-0" / "search.safetensors"
    code, err = interrupt(fit_long(out), sign, number)
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 130
        *progress, last = err.splitlines()
        assert last == "secateurs: interrupted; run the same command to continue"
        assert all(line.startswith("search:") for line in progress)
    assert sign.exists()
    assert not out.exists()

    for other, told in (
        (["--set", "compression=4"], "other settings (compression)"),
        (["--set", "weight_decay=0.1", "--set", "random_state=1"], "weight_decay"),
    ):
        assert run(*fit_long(out), *other) == 2
        assert_one_error(capsys, str(partial), told, "--out")
    words = fit_long(out)
    words[1] = "sklearn:wine"
    assert run(*words) == 2
    assert_one_error(capsys, "other data")

    assert run(*fit_long(out)) == 0
    said = capsys.readouterr()
    assert f"continuing from {partial}" in said.out
    assert "search:" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert run("predict", out, "sklearn:digits", "--out", tmp_path / "p.csv") == 0
    assert (tmp_path / "p.csv").read_bytes() == uninterrupted


def test_a_killed_comparison_continues(uninterrupted, tmp_path, capsys):
    out, partial = tmp_path / "m", tmp_path / "m.partial"
    words = fit_long(out, "--compare")

    def twice():  # while the first command runs, it keeps its folder to itself
        assert run(*words) == 2
        assert_one_error(capsys, f"{partial} is in use")

    code, _ = interrupt(words, partial / "compare-ticket.json", signal.SIGKILL, twice)
    assert code == -signal.SIGKILL
    row = json.loads((partial / "compare-ticket.json").read_text())
    assert run(*words, "--quiet") == 0
    written = json.loads((out / "comparison.json").read_text())
    assert written["models"][-1] == row
    assert [model["model"] for model in written["models"]][2:] == [
        "dense 2x32",
        "IUNet 2x32, r=8",
    ]
    assert run("predict", out, "sklearn:digits", "--out", tmp_path / "p.csv") == 0
    assert (tmp_path / "p.csv").read_bytes() == uninterrupted
    capsys.readouterr()


def test_an_interrupt_before_there_is_work_leaves_nothing(tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_compare", stop)
    assert fit("sklearn:iris", tmp_path / "new" / "m", "--compare") == 130
    assert capsys.readouterr().err.startswith("secateurs: interrupted; run the same")
    assert files(tmp_path) == {}


@pytest.mark.parametrize("name", ["thesis.txt", "command.json"])
def test_a_foreign_partial_folder_is_left_alone(name, tmp_path, capsys):
    partial = tmp_path / "m.partial"
    partial.mkdir()
    (partial / name).write_text("years of work")
    before = files(tmp_path)
    assert fit("sklearn:iris", tmp_path / "m") == 2
    assert_one_error(capsys, "m.partial")
    assert files(tmp_path) == before
