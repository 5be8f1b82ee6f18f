"""Models of other kinds: what each is given, and that it leaves nothing behind."""

import importlib.util
import logging
import random
import re
import sys
import time
from functools import cache
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier

from secateurs.data.prepare import encode_frame, fit_preparation
from secateurs.errors import InputError
from secateurs.experiments import peers
from secateurs.experiments.run import run
from secateurs.experiments.spec import PeerCell, Rows, key
from secateurs.experiments.store import Store
from secateurs.preparation import MISSING

LIBRARIES = {
    "xgboost": ("xgboost", "tabular"),
    "catboost": ("catboost", "peers"),
    "realmlp": ("pytabkit", "peers"),
    "tabnet": ("pytorch_tabnet.tab_model", "peers"),
}


def needs(model):
    module, extra = LIBRARIES.get(model, ("sklearn", ""))
    absent = importlib.util.find_spec(module.partition(".")[0]) is None
    return pytest.mark.skipif(absent, reason=f"{model} needs secateurs[{extra}]")


def each(models):
    return pytest.mark.parametrize("model", [pytest.param(m, marks=needs(m)) for m in models])


def table(n_rows, *, seed=0):
    """Return every kind of column, values missing in most, and codes of 3 classes to learn."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "size": rng.normal(size=n_rows),
            "count": rng.integers(0, 9, n_rows).astype(np.int8),
            "colour": pd.Categorical(rng.choice(["red", "green", "blue"], n_rows)),
            "word": rng.choice(["yes", "no", "perhaps"], n_rows),
            "flag": rng.random(n_rows) < 0.5,
            "always": 1.0,
            "never": np.nan,
        }
    )
    codes = (X["size"] > 0).to_numpy().astype(np.int64) + (X["colour"] == "red").to_numpy()
    X.loc[rng.random(n_rows) < 0.1, ["size", "colour", "word"]] = None
    return X, codes


def given_to(model, X, train):
    return X if model in peers.RAW else encode_frame(fit_preparation(train), X)


@cache
def fitted(model, n_rows, seed=0):
    X, codes = table(n_rows)
    return peers.fit(model, given_to(model, X, X), codes, seed=seed)


def proba(model, X, *, n_rows=97, seed=0):
    train, _ = table(n_rows)
    return fitted(model, n_rows, seed).predict_proba(given_to(model, X, train))


def test_a_spec_may_name_every_peer():
    assert set(get_args(get_type_hints(PeerCell)["model"])) == set(peers.PEERS)
    assert set(peers.PEERS) > peers.RAW


@each(peers.PEERS)
def test_probabilities_of_every_class_for_every_row(model):
    X, codes = table(40, seed=1)
    found = proba(model, X)
    assert found.shape == (40, 3)
    assert np.allclose(found.sum(1), 1, atol=1e-5)
    assert np.allclose(proba(model, X.head(1)), found[:1], atol=1e-5)
    if model not in ("majority", "tabnet"):  # TabNet's one batch an epoch is too little for 97 rows
        assert (found.argmax(1) == codes).mean() > 0.75
    assert fitted(model, 97).n_bytes > 100
    assert fitted(model, 97).seconds > 0
    library = fitted(model, 97).library
    assert re.fullmatch(r"[a-z-]+ [\d.]+", library) if model in LIBRARIES else library is None


@each(["random_forest", *LIBRARIES])
def test_a_seed_decides_and_nothing_else(model):
    X, codes = table(97)
    other, _ = table(40, seed=1)
    first = proba(model, other)
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    again = peers.fit(model, given_to(model, X, X), codes, seed=0)
    assert np.array_equal(again.predict_proba(given_to(model, other, X)), first)
    if model != "xgboost":  # which draws nothing by default
        assert not np.array_equal(proba(model, other, seed=1), first)


def global_state():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        logging.root.manager.disable,
    )


@each(peers.PEERS)
def test_a_fit_leaves_no_trace(model, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(2)
    try:
        before = global_state()
        X, codes = table(40)
        rows = given_to(model, X, X)
        peers.fit(model, rows, codes, seed=3).predict_proba(rows)
        assert global_state() == before
    finally:
        torch.set_num_threads(1)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@each(peers.PEERS)
def test_few_rows_are_enough(model):
    X, _ = table(6)
    codes = np.array([0, 1, 2, 0, 1, 2])
    rows = given_to(model, X, X)
    assert peers.fit(model, rows, codes, seed=0).predict_proba(rows).shape == (6, 3)


@each(sorted(peers.RAW))
def test_tables_of_one_kind_of_column(model):
    X, codes = table(60)
    for columns in (["colour", "word"], ["size"]):
        part = X[columns]
        found = peers.fit(model, part, codes, seed=0).predict_proba(part)
        assert (found.argmax(1) == codes).mean() > 0.5


@each(sorted(peers.RAW))
def test_the_order_and_type_of_columns_may_differ_between_training_and_test(model):
    X, _ = table(40, seed=1)
    as_text = X.astype({"colour": object, "count": np.float64})[X.columns[::-1]]
    assert np.array_equal(proba(model, as_text), proba(model, X))


# --- categories and missing values, library by library -------------------------------------------


def with_values(**values):
    X, _ = table(40, seed=1)
    return X.astype({"colour": object}).assign(**values)


@needs("xgboost")
def test_xgboost_takes_a_new_category_for_a_missing_one():
    new = proba("xgboost", with_values(colour="violet", word="maybe"))
    assert np.array_equal(new, proba("xgboost", with_values(colour=None, word=None)))


@needs("catboost")
def test_catboost_sees_a_missing_category_as_a_category():
    missing = proba("catboost", with_values(colour=None))
    assert np.array_equal(missing, proba("catboost", with_values(colour=MISSING)))
    assert not np.array_equal(missing, proba("catboost", with_values(colour="red")))
    assert np.isfinite(proba("catboost", with_values(size=np.nan, colour="violet"))).all()


@needs("realmlp")
def test_realmlp_gets_the_median_of_training_rows_for_a_missing_number():
    train, _ = table(97)
    median = train["size"].median()
    missing = proba("realmlp", with_values(size=np.nan))
    assert np.array_equal(missing, proba("realmlp", with_values(size=median)))
    assert not np.array_equal(missing, proba("realmlp", with_values(size=median + 1)))
    assert np.isfinite(proba("realmlp", with_values(colour="violet", word=None))).all()


@each(["realmlp", "tabnet"])
def test_bytes_are_those_of_the_model_not_of_its_training_rows(model):
    assert fitted(model, 300).n_bytes == pytest.approx(fitted(model, 97).n_bytes, rel=0.02)


# --- TabNet's own validation ---------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 9))
def test_a_fifth_of_each_class_is_watched_and_the_last_row_never(codes, seed):
    codes = np.array(codes)
    held = peers._held_out(codes, seed=seed)
    assert np.array_equal(held, peers._held_out(codes, seed=seed))
    for code in np.unique(codes):
        n, n_held = (codes == code).sum(), held[codes == code].sum()
        assert n_held < n
        assert abs(n_held - n / 5) <= 0.5 or (n_held == 1 and n < 5) or n == 1


@needs("tabnet")
def test_tabnet_trains_on_fewer_rows_than_its_default_batch():
    X, codes = table(200)
    model = peers.PEERS["tabnet"](0)
    with peers._undisturbed():
        model.fit(given_to("tabnet", X, X), codes)
    losses = model.model.history["loss"]
    assert min(losses) < losses[0]  # all are 0 if every batch is dropped


@needs("tabnet")
def test_tabnet_meets_no_batch_of_one_row():
    X, codes = table(1280)[0], np.arange(1280) % 3
    rows = given_to("tabnet", X, X)
    assert (~peers._held_out(codes, seed=0)).sum() == 1025
    assert peers.fit("tabnet", rows, codes, seed=0).predict_proba(rows[:1]).shape == (1, 3)


# --- time, and libraries that are not there ------------------------------------------------------


def test_the_import_of_a_library_is_no_time_of_its_fit(monkeypatch):
    def slow(_):
        begin = time.process_time()
        while time.process_time() - begin < 0.1:
            pass
        return DummyClassifier()

    monkeypatch.setitem(peers.PEERS, "majority", slow)
    assert peers.fit("majority", np.zeros((4, 1)), np.array([0, 0, 1, 1]), seed=0).seconds < 0.1


@pytest.mark.parametrize("model", LIBRARIES)
def test_a_library_that_is_not_there_is_named_with_the_remedy(model, monkeypatch):
    module, extra = LIBRARIES[model]
    monkeypatch.setitem(sys.modules, module, None)
    X, codes = table(40)
    message = rf"'{model}' needs {module} .*pip install secateurs\[{extra}\]"
    with pytest.raises(InputError, match=message):
        peers.fit(model, given_to(model, X, X), codes, seed=0)


def test_a_run_without_a_library_does_the_rest_and_one_with_it_fills_in(tmp_path, monkeypatch):
    names = ("majority", "catboost")
    cells = [PeerCell(rows=Rows(dataset="sklearn:wine"), model=name) for name in names]
    store = Store(tmp_path)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "catboost", None)
        summary = run(cells, store)
    assert (summary.done, summary.already) == (1, 0)
    assert "pip install secateurs[peers]" in summary.failed[key(cells[1])]
    there = importlib.util.find_spec("catboost") is not None
    summary = run(cells, store)
    assert (summary.done, summary.already, len(summary.failed)) == (there, 1, not there)
