"""The target column: whether it means classes or numbers, and what its labels are called."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from secateurs.errors import InputError

__all__ = [
    "MAX_CLASSES",
    "MIN_ROWS_PER_CLASS",
    "as_classes",
    "as_numbers",
    "choose_task",
    "plain",
]

MAX_CLASSES = 20
MIN_ROWS_PER_CLASS = 5
"""Whole numbers are taken for classes up to so many values, each in so many rows on average."""

_Series: TypeAlias = "pd.Series[Any]"


def choose_task(y: _Series) -> tuple[str, str]:
    """Return "classification" or "regression", and why.

    Numbers mean regression, unless they are whole with at most 20 distinct values that occur in
    5 rows each on the average. Everything else means classes.

    >>> choose_task(pd.Series(["yes", "no"], name="paid"))
    ('classification', "because the target 'paid' is no number")
    >>> choose_task(pd.Series([0.5, 1.0], name="dose"))[0]
    'regression'
    """
    name = f"the target {str(y.name)!r}"
    kind = pd.api.types.infer_dtype(y, skipna=True)
    if kind not in ("integer", "floating", "mixed-integer-float", "decimal"):
        return "classification", f"because {name} is no number"
    numbers = np.asarray(y, dtype=np.float64)
    if not (numbers == np.round(numbers)).all():
        return "regression", f"because {name} has numbers with fractions"
    n = len(np.unique(numbers))
    count = f"{n:,} distinct whole number{'s' * (n != 1)} in {len(numbers):,} rows"
    task, other = "classification", "regression"
    if n > MAX_CLASSES or n * MIN_ROWS_PER_CLASS > len(numbers):
        task, other = other, task
    return task, f"because {name} has {count} (--task {other} otherwise)"


def plain(y: _Series) -> NDArray[Any]:
    """Return a target column as NumPy labels or numbers, whatever backed it.

    Raises:
        InputError: dates and times are neither.

    >>> plain(pd.Series([1, 2], dtype="category"))
    array([1, 2])
    """
    kind = pd.api.types.infer_dtype(y, skipna=True)
    if kind.startswith(("date", "time", "period", "interval")):
        raise InputError(
            f"the target must be labels or numbers, got {kind} values in {str(y.name)!r}; turn "
            "them into numbers, such as days"
        )
    cells = np.asarray(y, dtype=np.float64 if kind == "decimal" else None)
    values: NDArray[Any] = pd.Series(cells).infer_objects().to_numpy()
    return values


def as_numbers(y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the target of a regression.

    Raises:
        InputError: some value is no number.

    >>> as_numbers(np.array(["1", "2.5"]))
    array([1. , 2.5])
    """
    try:
        return y.astype(np.float64)
    except (TypeError, ValueError) as err:
        raise InputError(
            f"the target of a regression must be numbers, got values such as {y.tolist()[0]!r}"
        ) from err


def as_classes(labels: Iterable[Any], classes: NDArray[Any], rule: str) -> NDArray[Any]:
    """Return labels as the classes of that name: files keep 1, "1" and 1.0 apart, people do not.

    Args:
        labels: [rows] as they were read.
        classes: what they may be, in any order and as often as one likes.
        rule: what an error says before it lists the classes.

    Raises:
        InputError: a label that is none of the classes.

    >>> as_classes(["1", 2.0], np.array([1, 2]), "the target must be a class of the model")
    array([1, 2])
    """
    distinct = list(dict.fromkeys(classes.tolist()))
    by_name = {str(label): label for label in distinct}
    by_name |= {str(float(label)): label for label in distinct if isinstance(label, int)}
    found = []
    for label in labels:
        if str(label) not in by_name:
            raise InputError(f"{rule} ({', '.join(map(str, distinct[:20]))}), got {label!r}")
        found.append(by_name[str(label)])
    return np.array(found, dtype=classes.dtype)
