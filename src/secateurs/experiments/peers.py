"""Models of other kinds, with their libraries' defaults, behind one face.

Each gets its table in the form that its library asks users for, one thread and a seed. A library
that watches rows of its own while it trains (RealMLP, TabNet) carves them from the rows that it is
given. What the libraries would leave behind, such as seeds, threads, files and messages, is undone.
"""

import importlib
import io
import logging
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from secateurs.data.prepare import columns_of, fit_preparation
from secateurs.errors import InputError
from secateurs.preparation import MISSING, Preparation

__all__ = ["PEERS", "RAW", "Fitted", "fit"]

RAW = frozenset({"xgboost", "catboost", "realmlp"})
"""Those that take categories and missing values as they are; the others get encoded rows."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted model.

    Args:
        predict_proba: from rows as they were given to `fit`, to [rows, classes] probabilities.
        n_bytes: what the model takes when it is saved.
        seconds: CPU time of the fit, the import of the library not counted.
        library: what it is made by and the version; None for scikit-learn, which every result
            tells.
    """

    predict_proba: Callable[[Any], NDArray[np.floating]]
    n_bytes: int
    seconds: float
    library: str | None


# --- what libraries leave behind -------------------------------------------------------------


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Run on one thread, quietly; put back the global random states and threads."""
    threads, disabled = torch.get_num_threads(), logging.root.manager.disable
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - to be put back
    n_devices = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    logging.disable()
    torch.set_num_threads(1)
    try:
        with (
            torch.random.fork_rng(devices=range(n_devices)),
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_num_threads(threads)


def _library(name: str, model: str, *, extra: str = "peers") -> Any:
    try:
        with _undisturbed():
            return importlib.import_module(name)
    except ImportError as err:
        raise InputError(
            f"the model {model!r} needs {name} ({err}); install it with: "
            f"pip install secateurs[{extra}]"
        ) from err


# --- tables ----------------------------------------------------------------------------------


def _table(X: pd.DataFrame, preparation: Preparation) -> pd.DataFrame:
    """Return numbers as float64 and categories as categorical, NaN where a value is missing."""
    columns = columns_of(X, preparation)
    return pd.DataFrame(
        {
            name: values if values.dtype.kind == "f" else pd.Categorical(values)
            for name, values in columns.items()
        }
    )


def _names(preparation: Preparation, kind: str) -> list[str]:
    return [column["name"] for column in preparation["columns"] if column["kind"] == kind]


class _XGBoost:
    """Takes categorical columns; a category that training did not show is missing."""

    def __init__(self, seed: int) -> None:
        xgboost = _library("xgboost", "xgboost", extra="tabular")
        self.library = f"xgboost {xgboost.__version__}"
        self.model = xgboost.XGBClassifier(enable_categorical=True, n_jobs=1, random_state=seed)

    def fit(self, X: pd.DataFrame, codes: NDArray[np.integer]) -> None:
        self.preparation = fit_preparation(X)
        table = _table(X, self.preparation)
        named = _names(self.preparation, "categorical")
        self.levels = {name: table[name].cat.categories for name in named}
        self.model.fit(table, codes)

    def predict_proba(self, X: pd.DataFrame) -> NDArray[np.floating]:
        table = _table(X, self.preparation)
        for name, levels in self.levels.items():
            table[name] = table[name].cat.set_categories(levels)
        proba: NDArray[np.floating] = self.model.predict_proba(table)
        return proba


class _CatBoost:
    """Takes missing numbers; categories are named to it, and are strings, a missing one too."""

    def __init__(self, seed: int) -> None:
        catboost = _library("catboost", "catboost")
        self.library = f"catboost {catboost.__version__}"
        self.model = catboost.CatBoostClassifier(
            thread_count=1, random_seed=seed, allow_writing_files=False, logging_level="Silent"
        )

    def _table(self, X: pd.DataFrame) -> pd.DataFrame:
        table = _table(X, self.preparation)
        for name in _names(self.preparation, "categorical"):
            table[name] = table[name].astype(object).fillna(MISSING)
        return table

    def fit(self, X: pd.DataFrame, codes: NDArray[np.integer]) -> None:
        self.preparation = fit_preparation(X)
        named = _names(self.preparation, "categorical")
        self.model.fit(self._table(X), codes, cat_features=named)

    def predict_proba(self, X: pd.DataFrame) -> NDArray[np.floating]:
        # by default it predicts on every core, whatever it was fitted on
        proba: NDArray[np.floating] = self.model.predict_proba(self._table(X), thread_count=1)
        return proba


class _RealMLP:
    """Takes categorical columns with missing values, but no missing numbers: the median of
    training rows stands for them. It watches a random fifth of its rows for the best epoch.
    """

    def __init__(self, seed: int) -> None:
        pytabkit = _library("pytabkit", "realmlp")
        self.library = f"pytabkit {version('pytabkit')}"
        self.model = pytabkit.RealMLP_TD_Classifier(device="cpu", n_threads=1, random_state=seed)

    def _table(self, X: pd.DataFrame) -> pd.DataFrame:
        table = _table(X, self.preparation)
        for column in self.preparation["columns"]:
            if column["kind"] == "numeric":
                table[column["name"]] = table[column["name"]].fillna(column["median"])
        return table

    def fit(self, X: pd.DataFrame, codes: NDArray[np.integer]) -> None:
        self.preparation = fit_preparation(X)
        self.model.fit(self._table(X), codes)

    def predict_proba(self, X: pd.DataFrame) -> NDArray[np.floating]:
        with _undisturbed():
            proba: NDArray[np.floating] = self.model.predict_proba(self._table(X))
        return proba


# --- encoded rows ----------------------------------------------------------------------------


def _held_out(codes: NDArray[np.integer], *, seed: int) -> NDArray[np.bool_]:
    """Return which rows are watched: a fifth of each class, at least one row, never the last."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        at = generator.permutation(np.flatnonzero(codes == code))
        held[at[: min(len(at) - 1, max(1, round(len(at) / 5)))]] = True
    return held


class _TabNet:
    """Stops early on rows that its user sets aside: a fifth of each class.

    By default it drops every batch below 1,024 rows: fewer training rows than that would never be
    trained on. Then a batch is all of them.
    """

    def __init__(self, seed: int) -> None:
        tab_model = _library("pytorch_tabnet.tab_model", "tabnet")
        self.library = f"pytorch-tabnet {version('pytorch-tabnet')}"
        with _undisturbed():  # it seeds torch as soon as it is made
            self.model = tab_model.TabNetClassifier(seed=seed, verbose=0, device_name="cpu")

    def fit(self, X: NDArray[np.float32], codes: NDArray[np.integer]) -> None:
        held = _held_out(codes, seed=self.model.seed)
        watched = [(X[held], codes[held])] if held.any() else None
        size = min(1024, int((~held).sum()))
        self.model.fit(X[~held], codes[~held], eval_set=watched, batch_size=size)

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.floating]:
        with _undisturbed():
            proba: NDArray[np.floating] = self.model.predict_proba(X)
        return proba

    def n_bytes(self) -> int:
        """Return the size of its own file: a pickle would hold its optimizer too."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.model.save_model(f"{folder}/model")).stat().st_size


# --- all of them -----------------------------------------------------------------------------


PEERS: dict[str, Callable[[int], Any]] = {
    "majority": lambda _: DummyClassifier(strategy="prior"),
    "logistic_regression": lambda _: LogisticRegression(max_iter=5000),
    "random_forest": lambda seed: RandomForestClassifier(n_jobs=1, random_state=seed),
    "xgboost": _XGBoost,
    "catboost": _CatBoost,
    "realmlp": _RealMLP,
    "tabnet": _TabNet,
}
"""Models by name, made from a seed, each on one thread."""


def _dumped(model: Any) -> int:
    """Return the size of a model as joblib saves it; nothing reads it again."""
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return buffer.tell()


def fit(name: str, X: Any, codes: NDArray[np.integer], *, seed: int) -> Fitted:
    """Return a fitted model.

    Args:
        name: one of `PEERS`.
        X: [rows, columns] a frame of raw rows for `RAW` ones, else encoded rows in float32.
        codes: [rows] class codes from 0, every one present.
        seed: of the model and of the rows that it watches.

    Raises:
        InputError: the library is not installed.

    >>> X, codes = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32), np.array([0, 0, 1, 1])
    >>> fitted = fit("logistic_regression", X, codes, seed=0)
    >>> fitted.predict_proba(X).argmax(1)
    array([0, 0, 1, 1])
    """
    model = PEERS[name](seed)
    with _undisturbed():
        begin = time.process_time()
        model.fit(X, codes)
        seconds = time.process_time() - begin
        own = getattr(model, "n_bytes", None)
        saved = own() if own else _dumped(getattr(model, "model", model))
    return Fitted(
        predict_proba=model.predict_proba,
        n_bytes=saved,
        seconds=seconds,
        library=getattr(model, "library", None),
    )
