"""Boosted trees beside tickets: XGBoost and CatBoost, each at several numbers of trees.

Categories are codes of those that the training rows show; a missing or unknown one is missing.
Both libraries predict with one thread, from arrays that are ready.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from runtime_engines import AbsentError, _imported, _session

from secateurs.data.prepare import columns_of

XGBOOST = (10, 30, 100, 300)
CATBOOST = (30, 100, 1000)


class Codes:
    """Numbers as they are, and categories as codes, by what training rows show."""

    def __init__(self, preparation, X) -> None:
        self.preparation = preparation
        columns = columns_of(X, preparation)
        self.levels = {
            name: {level: i for i, level in enumerate(sorted({v for v in values if v is not None}))}
            for name, values in columns.items()
            if values.dtype.kind != "f"
        }
        self.named = [int(name in self.levels) for name in columns]

    def __call__(self, X) -> np.ndarray:
        """Return [rows, columns] float32; NaN is missing."""
        made = []
        for name, values in columns_of(X, self.preparation).items():
            if name in self.levels:
                levels = self.levels[name]
                made.append(np.array([levels.get(v, np.nan) for v in values], np.float32))
            else:
                made.append(values.astype(np.float32))
        return np.column_stack(made)


def xgboost(x, y, codes: Codes, *, seed: int) -> dict[str, dict]:
    """Return models by name: one fit, cut after so many rounds, which is what fewer rounds fit."""
    xgb = _imported("xgboost")
    kinds = ["c" if named else "q" for named in codes.named]
    n_classes = int(y.max()) + 1
    options = {"nthread": 1, "seed": seed, "objective": "binary:logistic"}
    if n_classes > 2:
        options |= {"objective": "multi:softprob", "num_class": n_classes}
    data = xgb.DMatrix(x, y, feature_types=kinds, enable_categorical=True, nthread=1)
    found = {}
    booster = xgb.train(options, data, num_boost_round=max(XGBOOST))
    for n in XGBOOST:
        cut = booster[:n]
        cut.set_param({"nthread": 1})
        blob = bytes(cut.save_raw("ubj"))
        found[f"xgboost, {n} rounds"] = {
            "blob": blob,
            "run": _xgboost_call(cut),
        }
    return found


def _xgboost_call(booster) -> Callable:
    def run(x: np.ndarray) -> np.ndarray:
        y = booster.inplace_predict(x, validate_features=False)
        return np.stack([1 - y, y], 1) if y.ndim == 1 else y

    return run


def read_xgboost(blob: bytes) -> Callable:
    """Return the call of a stored model."""
    xgb = _imported("xgboost")
    booster = xgb.Booster({"nthread": 1})
    booster.load_model(bytearray(blob))
    return _xgboost_call(booster)


def xgboost_onnx(blob: bytes, named: list[int]) -> Callable:
    """Return a stored model in ONNX Runtime, which takes numbers only.

    Raises:
        AbsentError: there are categories, or no converter.
    """
    if any(named):
        raise AbsentError("there is no ONNX of an XGBoost model with categories")
    _imported("onnxmltools")
    from onnxmltools.convert import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = _imported("xgboost").Booster()
    booster.load_model(bytearray(blob))
    booster.feature_names = booster.feature_types = None  # the converter takes f0, f1, ... only
    kind = FloatTensorType([None, len(named)])
    run = _session(convert_xgboost(booster, initial_types=[("x", kind)]).SerializeToString(), 1)
    return lambda x: run(["probabilities"], {"x": x})[0]


def catboost(x, y, codes: Codes, *, seed: int) -> dict[str, dict]:
    """Return models by name, one fit each: the learning rate goes with the number of trees."""
    cb = _imported("catboost")
    found = {}
    for n in CATBOOST:
        model = cb.CatBoostClassifier(
            iterations=n,
            thread_count=1,
            random_seed=seed,
            allow_writing_files=False,
            logging_level="Silent",
        )
        model.fit(_features(cb, x, codes.named), y)
        blob = _saved(model, "cbm")
        found[f"catboost, {n} trees"] = {
            "blob": blob,
            "run": _catboost_call(model, codes.named),
        }
    return found


def _saved(model, form: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.save_model(str(path), format=form)
        return path.read_bytes()


def _features(cb, x: np.ndarray, named: list[int]):
    """Return what CatBoost reads fastest: numbers, and the names of categories."""
    if not any(named):
        return x
    is_named = np.array(named, bool)
    words = np.where(np.isnan(x[:, is_named]), -1, x[:, is_named]).astype(int)
    words = words.astype(str).astype(object)
    words = np.array([[w.encode() for w in row] for row in words], object)
    return cb.FeaturesData(
        num_feature_data=np.ascontiguousarray(x[:, ~is_named]), cat_feature_data=words
    )


def _catboost_call(model, named: list[int]) -> Callable:
    cb = _imported("catboost")
    ready: dict[int, object] = {}

    def run(x: np.ndarray) -> np.ndarray:
        # rows that come again are ready: making them is no part of predicting
        if id(x) not in ready:
            ready.clear()
            ready[id(x)] = _features(cb, x, named)
        return model.predict_proba(ready[id(x)], thread_count=1)

    return run


def read_catboost(blob: bytes, named: list[int]) -> Callable:
    """Return the call of a stored model."""
    cb = _imported("catboost")
    model = cb.CatBoostClassifier()
    model.load_model(blob=blob)
    return _catboost_call(model, named)


def catboost_onnx(blob: bytes, named: list[int]) -> Callable:
    """Return a stored model in ONNX Runtime, which takes numbers only.

    Raises:
        AbsentError: there are categories.
    """
    if any(named):
        raise AbsentError("CatBoost writes no ONNX of a model with categories")
    cb = _imported("catboost")
    model = cb.CatBoostClassifier()
    model.load_model(blob=blob)
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        run = _session(_saved(model, "onnx"), 1)
    return lambda x: run(["label"], {"features": x})[0]
