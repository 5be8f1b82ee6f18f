"""What `fit` accepts beside the table itself: targets and weights, by scikit-learn's own checks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, column_or_1d
from torch import Tensor

from secateurs.errors import InputError
from secateurs.parameters import plain

__all__ = ["ArrayLike", "images", "kept_rows", "labels", "numbers", "refusing", "relative"]

ArrayLike = Any


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what scikit-learn's validation raises into our own error of one line."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError) as err:
        raise InputError(" ".join(str(err).split())[:300]) from err


def images(X: ArrayLike, name: str) -> NDArray[np.uint8]:
    """Return uint8 images [rows, channels, height, width], 1 to 4 channels.

    Args:
        X: whole numbers in 0..255: [rows, height, width], [rows, channels, height, width] or, where
            the second axis is longer than 4, [rows, height, width, channels].
        name: of X in messages.

    Raises:
        InputError: other numbers, another shape, or no image.

    >>> images(np.zeros((2, 8, 9, 3), dtype=np.uint8), "X").shape
    (2, 3, 8, 9)
    """
    try:
        x: NDArray[Any] = np.asarray(X)
    except ValueError as err:  # a list of arrays of several shapes
        raise InputError(
            f"images in {name} must have one size and channel count ({err}); resize or crop them"
        ) from err
    if x.dtype.kind == "O":
        raise InputError(
            f"images in {name} must be one array of whole numbers in 0..255, got Python objects; "
            "stack them, of one size and channel count, by numpy.stack"
        )
    shapes = "[rows, height, width], [rows, channels, height, width] or [rows, height, width, 3]"
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] > 4:
        x = np.moveaxis(x, 3, 1)
    if x.ndim != 4 or x.shape[1] > 4 or 0 in x.shape[1:]:
        raise InputError(
            f"images in {name} must be {shapes} with 1 to 4 channels, got shape "
            f"{np.shape(X)}; reshape them"
        )
    if not len(x):
        raise InputError(f"{name} needs at least one image, got 0; check how they were read")
    if x.dtype != np.uint8:
        fits = x.dtype.kind in "iu" and x.min() >= 0 and x.max() <= 255
        if not fits:
            told = x.dtype if x.dtype.kind not in "iuf" else f"{x.dtype} in {x.min()}..{x.max()}"
            raise InputError(
                f"images in {name} must be whole numbers in 0..255, got {told}; scale them and "
                "convert them by .astype('uint8')"
            )
    # torch warns of arrays that cannot be written, whether or not it writes into them
    return np.require(x, dtype=np.uint8, requirements=["C", "W"])


def labels(y: ArrayLike, n: int, name: str) -> NDArray[Any]:
    """Return [n] labels without missing values, as NumPy.

    Raises:
        InputError: missing labels, dates, several types, numbers with fractions, another length.

    >>> labels(["yes", "no"], 2, "y")
    array(['yes', 'no'], dtype='<U3')
    """
    if y is None:
        raise InputError(f"a classifier requires {name} to be passed, but the target y is None")
    with refusing():
        values: NDArray[Any] = column_or_1d(np.asarray(y), warn=True)
        if values.dtype.kind == "f":
            assert_all_finite(values, input_name=name)
    if values.dtype.kind in "mM":
        raise InputError(f"labels in {name} are dates or times ({values.dtype}); make them strings")
    missing = int(pd.isna(values).sum())
    if missing:
        raise InputError(f"Input {name} contains NaN: {missing} missing labels; drop those rows")
    if len(values) != n:
        raise InputError(f"X and {name} must have equal length, got {n} and {len(values)}")
    if values.dtype == object:
        types = sorted({type(value).__name__ for value in values})
        if len(types) > 1:
            raise InputError(
                f"labels in {name} must be of one type, got {', '.join(types)}; convert them first"
            )
        values = pd.Series(values, dtype=object).infer_objects().to_numpy()
    with refusing():
        check_classification_targets(values)
    return values


def numbers(y: ArrayLike, n: int, name: str) -> NDArray[np.float64]:
    """Return [n] finite numbers.

    Raises:
        InputError: missing, infinite, not numbers, another length.

    >>> numbers([1, 2], 2, "y")
    array([1., 2.])
    """
    if y is None:
        raise InputError(f"a regressor requires {name} to be passed, but the target y is None")
    with refusing():
        values: NDArray[Any] = column_or_1d(np.asarray(y), warn=True)
    if values.dtype.kind in "mM":
        raise InputError(
            f"a regression target must be numbers, got dates or times ({values.dtype})"
        )
    try:
        values = values.astype(np.float64)
    except (TypeError, ValueError) as err:
        raise InputError(
            f"a regression target must be numbers, got {values.dtype} values such as "
            f"{plain(values[0])!r}"
        ) from err
    with refusing():
        assert_all_finite(values, input_name=name)
    if len(values) != n:
        raise InputError(f"X and {name} must have equal length, got {n} and {len(values)}")
    return values


def kept_rows(
    sample_weight: ArrayLike, X: Any
) -> tuple[NDArray[np.float64] | None, NDArray[np.intp]]:
    """Return the positive weights of a table's rows (None for none), and the rows they belong to.

    Raises:
        InputError: negative, not numbers, another length, or zeros only.

    >>> kept_rows([0.0, 2.0], ["a row", "another"])
    (array([2.]), array([1]))
    """
    n = len(X)
    if sample_weight is None:
        return None, np.arange(n)
    with refusing():
        weight = _check_sample_weight(
            sample_weight, np.empty((n, 1)), dtype=np.float64, ensure_non_negative=True
        )
    rows = np.flatnonzero(weight)
    if not len(rows):
        raise InputError("sample_weight must be positive for some row, got zeros only")
    return weight[rows], rows


def relative(weight: NDArray[np.float64] | None) -> Tensor | None:
    """Return weights of mean 1; equal weights equal none, to the bit.

    >>> relative(np.array([1.0, 3.0])), relative(np.array([2.0, 2.0]))
    (tensor([0.5000, 1.5000]), None)
    """
    if weight is None or (weight == weight[0]).all():
        return None
    weight = weight / weight.max()  # a mean of huge weights would overflow
    return torch.from_numpy(weight / weight.mean()).float()
