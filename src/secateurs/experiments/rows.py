"""The rows of a cell: a table split by groups of identical rows and encoded, or images."""

import hashlib
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from secateurs.data.batches import Data
from secateurs.data.images import choose, for_testing, normalised, read_images, statistics
from secateurs.data.prepare import encode_frame, fit_preparation
from secateurs.data.tables import read_table, split_target
from secateurs.errors import InputError
from secateurs.experiments.spec import ImageRows, Rows
from secateurs.preparation import Preparation

__all__ = ["Prepared", "prepare", "split"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The encoded rows of a cell.

    Args:
        data: training rows, and validation rows if there are any; y are class codes.
        test: rows that nothing was chosen on.
        classes: labels in the order of the codes, of the whole table.
        preparation: fitted on the training rows; None for images.
        raw: the training, validation and test rows as they were read, for peers; None for images.
        seen: share of the test rows whose features also occur in training.
        digest: of the table or images as they were read: equal for equal ones.
        background: the value of an empty pixel, once normalised; 0 for tables.
        pixels: means and deviations of the channels of raw images, for the network to normalise
            them; None for other rows.
    """

    data: Data
    test: tuple[Tensor, Tensor]
    classes: NDArray[Any]
    preparation: Preparation | None
    raw: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame] | None
    seen: float
    digest: str
    background: float = 0.0
    pixels: tuple[list[float], list[float]] | None = None


def split(
    X: pd.DataFrame, y: NDArray[Any], rows: Rows
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return training, validation and test positions, each in order.

    Stratified by class; rows with identical features are one group and stay on one side.

    Args:
        X: [rows, columns] features.
        y: [rows] labels.
        rows: the folds and their seed.

    >>> X, y = pd.DataFrame({"a": range(20)}), np.arange(20) % 2
    >>> train, validation, test = split(X, y, Rows(dataset="", validation_folds=4))
    >>> len(train), len(validation), len(test)
    (12, 4, 4)
    """
    try:
        same = pd.util.hash_pandas_object(X, index=False).to_numpy()
    except TypeError:  # cells such as lists: refused later on, with a better message
        same = np.arange(len(X))
    _, first, group = np.unique(same, return_index=True, return_inverse=True)
    labels = y[first]
    left = np.arange(len(first))

    def fold(among: NDArray[np.intp], n_folds: int) -> NDArray[np.intp]:
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=rows.split)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class may be smaller than the folds
            try:
                chosen: NDArray[np.intp] = next(iter(folds.split(among, labels[among])))[1]
            except ValueError as err:
                raise InputError(
                    f"{rows.dataset} cannot be split into {n_folds} stratified folds "
                    f"({' '.join(str(err).split())}); ask for fewer"
                ) from err
        return among[chosen]

    test = fold(left, rows.test_folds)
    left = np.setdiff1d(left, test)
    held = fold(left, rows.validation_folds) if rows.validation_folds else left[:0]
    side = np.zeros(len(first), dtype=np.int8)
    side[test], side[held] = 2, 1
    of_row = side[group]
    train, validation, tested = (np.flatnonzero(of_row == i) for i in range(3))
    return train, validation, tested


@lru_cache(maxsize=2)  # cells of one split tend to come one after another
def prepare(rows: Rows | ImageRows) -> Prepared:
    """Read, split and encode the rows of a cell; the preparation is fitted on training rows only.

    Raises:
        InputError: the table, its target or the images cannot be used.
    """
    return _images(rows) if isinstance(rows, ImageRows) else _table(rows)


def _seen(train: Tensor, test: Tensor) -> float:
    """Return the share of the test rows that also occur in training."""
    known = {x.tobytes() for x in train.numpy()}
    return float(np.mean([x.tobytes() in known for x in test.numpy()]))


def _images(rows: ImageRows) -> Prepared:
    images = read_images(rows.dataset)
    x_test, y_test = for_testing(images)
    train, held = choose(
        images.y_train, n_validation=rows.n_validation, n_train=rows.n_train, seed=rows.split
    )
    mean, std = statistics(images.x_train[train])
    classes = np.unique(np.concatenate([images.y_train, images.y_test]))

    def pair(x: NDArray[np.uint8], y: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        told = torch.tensor(x) if rows.raw else torch.from_numpy(normalised(x, mean, std))
        return told, torch.from_numpy(np.searchsorted(classes, y))

    fitted = pair(images.x_train[train], images.y_train[train])
    watched = pair(images.x_train[held], images.y_train[held]) if len(held) else None
    test = pair(x_test, y_test)
    return Prepared(
        data=Data(train=fitted, validation=watched),
        test=test,
        classes=classes,
        preparation=None,
        raw=None,
        seen=_seen(fitted[0], test[0]),
        digest=images.digest,
        background=float((-mean / std).mean()),
        pixels=(mean.tolist(), std.tolist()) if rows.raw else None,
    )


def _table(rows: Rows) -> Prepared:
    table = read_table(rows.dataset)
    X, series = split_target(table, rows.target or table.target or "target")
    if pd.api.types.is_float_dtype(series) and not (series == series.round()).all():
        raise InputError(
            f"experiments are about classes, but the target of {rows.dataset} has fractions; "
            "name a target of classes"
        )
    y = series.to_numpy()
    y = y if y.dtype.kind in "biuf" else y.astype(str)
    classes, codes = np.unique(y, return_inverse=True)
    train, held, test = split(X, codes, rows)
    preparation = fit_preparation(X.iloc[train])

    def tensors(at: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(encode_frame(preparation, X.iloc[at]))
        return x, torch.from_numpy(codes[at].astype(np.int64))

    x_test, y_test = tensors(test)
    return Prepared(
        data=Data(train=tensors(train), validation=tensors(held) if len(held) else None),
        test=(x_test, y_test),
        classes=classes,
        preparation=preparation,
        raw=(X.iloc[train], X.iloc[held], X.iloc[test]),
        seen=_seen(tensors(train)[0], x_test),
        digest=hashlib.sha256(
            pd.util.hash_pandas_object(table.frame, index=False).to_numpy().tobytes()
        ).hexdigest()[:16],
    )
