import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from secateurs.command.comparison import Comparison, Row, compare, hold_out, row_hashes, table
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.loading import load

TINY = {"widths": (16, 16), "search_epochs": 2, "finetune_epochs": 7, "random_state": 0}


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    X, y = load_iris(return_X_y=True, as_frame=True)
    X["note"] = pd.Series(np.where(X.index % 3, "plain", None), dtype=object)
    folder = tmp_path_factory.mktemp("iris")
    y = y.to_numpy()
    return X, y, folder, compare(TicketClassifier(**TINY), X, y, folder=folder)


def test_rows_and_order(iris):
    found = iris[-1]
    assert [row.model for row in found.models] == [
        "majority class",
        "logistic regression",
        "dense 2x16",
        "IUNet 2x16, r=8",
    ]
    assert (found.rows_trained, found.rows_held_out) == (120, 30)
    majority = found.models[0]
    assert majority.scores["accuracy"] == pytest.approx(1 / 3)
    assert majority.scores["log_loss"] == pytest.approx(np.log(3))
    assert (majority.parameters_kept, majority.bytes) == (3, 24)


def test_the_papers_network_is_beside_a_parent_that_nobody_chose(tmp_path):
    X, y = load_iris(return_X_y=True, as_frame=True)
    small = TicketClassifier(search_epochs=0, finetune_epochs=1, random_state=0)
    found = compare(small, X, y.to_numpy(), folder=tmp_path)
    assert [row.model for row in found.models][2:] == [
        "dense MLP_TAB 9x512",
        "dense 2x512",
        "IUNet 2x512, r=8",
    ]


def test_models_are_trained_on_one_side_and_measured_on_the_other(iris):
    X, y, folder, found = iris
    train, held = hold_out(y, stratify=True, seed=0)
    ticket = TicketClassifier(**TINY).fit(X.iloc[train], y[train])
    proba = ticket.predict_proba(X.iloc[held])
    row = found.models[-1]
    assert row.scores["accuracy"] == accuracy_score(y[held], proba.argmax(1))
    assert row.scores["log_loss"] == pytest.approx(log_loss(y[held], proba))
    assert row.parameters_kept == ticket.n_parameters_kept_
    saved = folder / "compare-IUNet" / "model"
    assert row.bytes == sum(path.stat().st_size for path in saved.iterdir())
    assert (load(saved).predict_proba(X.iloc[held]) == proba).all()


def test_logistic_regression_is_that_of_scikit_learn(tmp_path):
    X, y = load_iris(return_X_y=True, as_frame=True)
    y = y.to_numpy()
    row = compare(TicketClassifier(**TINY), X, y, folder=tmp_path).models[1]
    train, held = hold_out(y, stratify=True, seed=0)
    twin = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    twin.fit(X.iloc[train], y[train])
    expected = log_loss(y[held], twin.predict_proba(X.iloc[held]))
    assert row.scores["log_loss"] == pytest.approx(expected, rel=1e-3)
    assert row.parameters_kept == 3 * 4 + 3


def test_regression(tmp_path):
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    found = compare(TicketRegressor(**TINY), X, y.to_numpy(), folder=tmp_path)
    names = ["mean", "ridge regression", "dense 2x16", "ticket 2x16, r=8"]
    assert [row.model for row in found.models] == names
    assert found.models[0].scores["r2"] < 0.01
    assert found.models[1].scores["r2"] > 0.2
    assert [column.header for column in table(found).columns][1] == "R²"


def test_an_asked_dense_network_is_trained_once(tmp_path):
    X, y = load_iris(return_X_y=True, as_frame=True)
    found = compare(TicketClassifier(1, **TINY), X, y.to_numpy(), folder=tmp_path)
    assert [row.model for row in found.models][2:] == ["dense 2x16"]


def test_finished_phases_are_not_run_again(iris):
    X, y, folder, found = iris
    before = {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}
    assert compare(TicketClassifier(**TINY), X, y, folder=folder) == found
    assert {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")} == before


def test_held_out_rows_that_were_seen_are_counted(tmp_path):
    X, y = load_iris(return_X_y=True, as_frame=True)
    X, y = pd.concat([X, X], ignore_index=True), np.tile(y.to_numpy(), 2)
    found = compare(TicketClassifier(**TINY), X, y, folder=tmp_path)
    train, held = hold_out(y, stratify=True, seed=0)
    rows = set(map(tuple, X.iloc[train].to_numpy()))
    assert found.rows_seen == sum(tuple(row) in rows for row in X.iloc[held].to_numpy())
    assert found.rows_seen > 30


def test_row_hashes_see_missing_values_and_every_column():
    X = pd.DataFrame({"a": [1.0, None, None, 1.0], "b": ["x", "x", "x", None]})
    a, b, c, d = row_hashes(X)
    assert b == c
    assert len({a, b, d}) == 3


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0] * 50, "one class: 0"),
        ([0] * 50 + [1], "at least 3 of every class, got 1 of class 1"),
        (["a"] * 50 + ["b"] * 2, "got 2 of class 'b'"),
        (list(range(3)) * 3, "9 rows are too few"),
        (["a", 1] * 20, "one type"),
    ],
)
def test_what_cannot_be_held_out_is_refused(y, words):
    y = np.array(y, dtype=object) if isinstance(y[0], str) else np.array(y)
    with pytest.raises(InputError, match=words):
        hold_out(y, stratify=True, seed=0)


@pytest.mark.parametrize("seed", range(20))
def test_both_sides_of_a_small_class(seed):
    y = np.array([0] * 40 + [1] * 3)
    train, held = hold_out(y, stratify=True, seed=seed)
    assert sorted([*train, *held]) == list(range(43))
    assert (y[train] == 1).sum() >= 2


def test_json_and_table():
    row = Row(
        model="ticket 2x1024, r=32",
        scores={"accuracy": 0.5, "balanced_accuracy": 0.5, "log_loss": 0.7},
        parameters_kept=2000,
        bytes=12_345_678,
        seconds=1234.5,
    )
    found = Comparison(rows_trained=80, rows_held_out=20, rows_seen=1, models=[row])
    read = json.loads(found.to_json())
    assert read["models"][0]["scores"]["log_loss"] == 0.7
    assert (read["rows_trained"], read["rows_held_out"], read["rows_seen"]) == (80, 20, 1)
    drawn = table(found)
    headers = ["model", "accuracy", "balanced\naccuracy", "log-loss"]
    headers += ["parameters\nkept", "bytes", "seconds"]
    assert [column.header for column in drawn.columns] == headers
    console = Console(width=200, file=io.StringIO())
    assert console.measure(drawn).maximum <= 80
    assert next(iter(drawn.columns[4].cells)) == "2,000"
