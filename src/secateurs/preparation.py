"""Apply a fitted preparation to columns of a table, with NumPy only.

A *preparation* is a plain dict that survives JSON: what every column of the training table turned
out to be, and the values fitted on it::

    {"format": 1, "columns": [
        {"name": "age", "kind": "numeric", "median": 37.0, "mean": 38.6, "scale": 13.7},
        {"name": "job", "kind": "categorical", "categories": ["clerk", "missing_value"]},
        {"name": "fax", "kind": "dropped"}]}

A *columns* object is a dict from column names to arrays of equal length: numeric columns are
float64 with NaN for missing, categorical columns are object arrays of str with None for missing.
The encoding is that of method section 3: categorical columns get a constant category for missing
values and are one-hot encoded, unknown categories ignored; numeric columns get the median for
missing values and are z-scored. `secateurs.data.prepare` fits what is applied here; this module
also serves deployments that carry neither pandas nor scikit-learn.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError

__all__ = [
    "FORMAT",
    "MISSING",
    "Z_LIMIT",
    "Columns",
    "Preparation",
    "canonical",
    "check",
    "decode",
    "encode",
    "feature_names",
    "groups",
    "input_names",
    "width",
]

Preparation: TypeAlias = dict[str, Any]
Columns: TypeAlias = dict[str, NDArray[Any]]

FORMAT = 1
MISSING = "missing_value"
# No training value can lie further out than sqrt(rows - 1) standard deviations, so this bound
# touches only wild values at prediction, which would otherwise overflow float32 in the network.
Z_LIMIT = 1e6

_BLOCK = 1 << 16  # rows per block of numeric work: bounds the float64 scratch memory
_EXACT = 2.0**53  # integral floats below this are exact integers
_KEYS = {
    "numeric": {"name", "kind", "median", "mean", "scale"},
    "categorical": {"name", "kind", "categories"},
    "dropped": {"name", "kind"},
}


def canonical(value: object) -> str | None:
    """Return the category that a raw value stands for, or None where it is missing.

    Booleans become "True" and "False", integral numbers lose their fraction (1.0 is "1"), other
    numbers and strings become `str(value)`. None and NaN (of any type) are missing.

    >>> [canonical(v) for v in (True, 1.0, 2.5, "red", None, float("nan"))]
    ['True', '1', '2.5', 'red', None, None]
    """
    if isinstance(value, str):
        return str(value)
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, Decimal):
        if value.is_nan():
            return None
        whole = value.is_finite() and abs(value) < _EXACT and value == value.to_integral_value()
        return str(int(value)) if whole else str(value.normalize())
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return None
        return str(int(number)) if abs(number) < _EXACT and number.is_integer() else str(value)
    # pandas.NA and NaT are unlike themselves and must be known without importing pandas.
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    return str(value)


def _kept(preparation: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [column for column in preparation["columns"] if column["kind"] != "dropped"]


def groups(preparation: Preparation) -> list[tuple[int, int]]:
    """Return the (start, stop) span in the encoded matrix of each kept column, in order.

    A SCARF view replaces such a span as a whole (method section 2, views).

    >>> groups({"format": 1, "columns": [
    ...     {"name": "age", "kind": "numeric", "median": 3.0, "mean": 3.0, "scale": 1.0},
    ...     {"name": "job", "kind": "categorical", "categories": ["a", "b"]}]})
    [(0, 1), (1, 3)]
    """
    spans = []
    start = 0
    for column in _kept(preparation):
        stop = start + (1 if column["kind"] == "numeric" else len(column["categories"]))
        spans.append((start, stop))
        start = stop
    return spans


def width(preparation: Preparation) -> int:
    """Return the number of columns of the encoded matrix.

    >>> width({"format": 1, "columns": [
    ...     {"name": "job", "kind": "categorical", "categories": ["a", "b"]}]})
    2
    """
    spans = groups(preparation)
    return spans[-1][1] if spans else 0


def feature_names(preparation: Preparation) -> list[str]:
    """Return the names of the original columns that are kept, in order: one for each group.

    >>> feature_names({"format": 1, "columns": [
    ...     {"name": "job", "kind": "categorical", "categories": ["a", "b"]},
    ...     {"name": "fax", "kind": "dropped"}]})
    ['job']
    """
    return [column["name"] for column in _kept(preparation)]


def input_names(preparation: Preparation) -> list[str]:
    """Return the names of all columns expected at prediction, the dropped ones among them.

    >>> input_names({"format": 1, "columns": [
    ...     {"name": "job", "kind": "categorical", "categories": ["a", "b"]},
    ...     {"name": "fax", "kind": "dropped"}]})
    ['job', 'fax']
    """
    return [column["name"] for column in preparation["columns"]]


def encode(preparation: Preparation, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the network's input, float32 [rows, width], in the order of the original columns.

    Every value is computed from its own cell alone, so a row's encoding never depends on the rows
    around it. Values further than `Z_LIMIT` standard deviations from the mean are clipped there.
    Categorical cells may also be raw values: `canonical` is applied to what is not recognised.

    Errors: InputError for an absent column, columns of different length, a numeric column that
    does not hold numbers, and infinities.

    >>> preparation = {"format": 1, "columns": [
    ...     {"name": "age", "kind": "numeric", "median": 30.0, "mean": 40.0, "scale": 10.0},
    ...     {"name": "job", "kind": "categorical", "categories": ["clerk", "missing_value"]}]}
    >>> encode(preparation, {"age": np.array([50.0, np.nan, 40.0]),
    ...                      "job": np.array(["clerk", None, "miner"], dtype=object)})
    array([[ 1.,  1.,  0.],
           [-1.,  0.,  1.],
           [ 0.,  0.,  0.]], dtype=float32)
    """
    kept = _kept(preparation)
    rows = _row_count(kept, columns)
    spans = groups(preparation)
    matrix = np.zeros((rows, spans[-1][1] if spans else 0), dtype=np.float32)
    numeric = []
    for column, (start, _) in zip(kept, spans, strict=True):
        if column["kind"] == "numeric":
            numeric.append((column, start))
        else:
            codes = _codes(column["categories"], columns[column["name"]])
            known = np.flatnonzero(codes >= 0)
            matrix[known, start + codes[known]] = 1.0
    if numeric:
        _encode_numeric(numeric, columns, matrix)
    return matrix


def _row_count(kept: list[dict[str, Any]], columns: Mapping[str, NDArray[Any]]) -> int:
    absent = [column["name"] for column in kept if column["name"] not in columns]
    if absent:
        raise InputError(
            f"every column of the training table is needed, got none named {absent[0]!r}"
            f" ({len(absent)} absent); pass the same columns as in training"
        )
    lengths = {column["name"]: np.shape(columns[column["name"]]) for column in kept}
    first = next(iter(lengths.values()), (0,))
    for name, shape in lengths.items():
        if len(shape) != 1 or shape != first:
            raise InputError(
                f"columns must be arrays of one length, got shape {shape} for {name!r}"
                f" beside {first}; pass one value per row"
            )
    return int(first[0])


def _codes(categories: list[str], values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the index of each value's category, -1 where it is unknown."""
    index: dict[str | None, int] = {name: code for code, name in enumerate(categories)}
    if MISSING in index:
        index[None] = index[MISSING]
    raw = values.tolist() if values.dtype != object else values
    codes = np.fromiter(map(index.get, raw, repeat(-1)), dtype=np.intp, count=len(values))
    for row in np.flatnonzero(codes < 0):
        codes[row] = index.get(canonical(values[row]), -1)
    return codes


def _encode_numeric(
    numeric: list[tuple[dict[str, Any], int]],
    columns: Mapping[str, NDArray[Any]],
    matrix: NDArray[np.float32],
) -> None:
    values = [_numbers(column["name"], columns[column["name"]]) for column, _ in numeric]
    median, mean, scale = (
        np.array([column[key] for column, _ in numeric], dtype=np.float64)[:, None]
        for key in ("median", "mean", "scale")
    )
    places = [place for _, place in numeric]
    for start in range(0, len(matrix), _BLOCK):
        block = np.stack([value[start : start + _BLOCK] for value in values])
        np.copyto(block, median, where=np.isnan(block))
        with np.errstate(over="ignore"):  # an overflow is clipped on the next line
            block -= mean
            block /= scale
        np.clip(block, -Z_LIMIT, Z_LIMIT, out=block)
        matrix[start : start + _BLOCK, places] = block.T


def _numbers(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise InputError(
            f"column {name!r} was numeric in training, got values that are not numbers;"
            " convert them to floats, with NaN for missing"
        ) from err
    if np.isinf(numbers).any():
        raise InputError(
            f"column {name!r} holds infinite values; replace them by NaN or by a finite bound"
        )
    return numbers


def decode(preparation: Preparation, matrix: NDArray[Any]) -> Columns:
    """Return the columns that an encoded matrix [rows, width] stands for: `encode` undone.

    Numeric columns come back in their original units, missing ones as the median. A one-hot group
    becomes its largest entry's category, and None where that is the missing one. A group of zeros
    (an unknown category) becomes None as well, or, where None has a category of its own, a name
    that no category bears; so `encode(p, decode(p, m))` equals m up to rounding in any case.

    Errors: InputError if the matrix does not have the preparation's width.

    >>> preparation = {"format": 1, "columns": [
    ...     {"name": "age", "kind": "numeric", "median": 30.0, "mean": 40.0, "scale": 10.0},
    ...     {"name": "job", "kind": "categorical", "categories": ["clerk", "miner"]}]}
    >>> decoded = decode(preparation, np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    >>> decoded["age"], decoded["job"]
    (array([50., 40.]), array(['miner', None], dtype=object))
    """
    matrix = np.asarray(matrix)
    wanted = width(preparation)
    if matrix.ndim != 2 or matrix.shape[1] != wanted:
        raise InputError(
            f"an encoded matrix must have shape (rows, {wanted}), got {matrix.shape};"
            " pass what encode returned"
        )
    columns: Columns = {}
    for column, (start, stop) in zip(_kept(preparation), groups(preparation), strict=True):
        part = matrix[:, start:stop]
        if column["kind"] == "numeric":
            values = part[:, 0].astype(np.float64)
            columns[column["name"]] = values * column["scale"] + column["mean"]
            continue
        categories = column["categories"]
        unknown = None
        if MISSING in categories:
            unknown = "unknown_value"
            while unknown in categories:
                unknown += "_"
        names = [None if name == MISSING else name for name in categories]
        table = np.array([*names, unknown], dtype=object)
        codes = np.where((part == 0).all(axis=1), len(categories), part.argmax(axis=1))
        columns[column["name"]] = table[codes]
    return columns


def check(preparation: object) -> Preparation:
    """Return the preparation if it is one, else raise an InputError that says what is wrong.

    For what was read from a file that anyone may have written: types, finite numbers, the format
    version, duplicate names and categories, at least one kept column.

    >>> preparation = {"format": 1, "columns": [
    ...     {"name": "job", "kind": "categorical", "categories": ["a", "b"]}]}
    >>> check(preparation) is preparation
    True
    """
    if not isinstance(preparation, dict):
        raise _damaged(f"a preparation is a JSON object, got {type(preparation).__name__}")
    version = preparation.get("format")
    if isinstance(version, bool) or not isinstance(version, int):
        raise _damaged(f"a preparation has an integer format version, got {version!r}")
    if version != FORMAT:
        raise InputError(
            f"this version reads preparation format {FORMAT}, got {version};"
            " install the version of secateurs that wrote it, or fit again"
        )
    columns = preparation.get("columns")
    if not isinstance(columns, list) or not columns:
        raise _damaged(f"a preparation has a list of columns, got {_short(columns)}")
    seen: set[str] = set()
    for column in columns:
        name = _check_column(column)
        if name in seen:
            raise _damaged(f"a preparation's column names are unique, got {name!r} twice")
        seen.add(name)
    if not _kept(preparation):
        raise _damaged("a preparation keeps at least one column, got only dropped ones")
    return preparation


def _check_column(column: object) -> str:
    if not isinstance(column, dict):
        raise _damaged(f"a preparation's columns are JSON objects, got {_short(column)}")
    name = column.get("name")
    if not isinstance(name, str):
        raise _damaged(f"a preparation's column names are strings, got {_short(name)}")
    kind = column.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise _damaged(
            f"a preparation's kinds are {', '.join(_KEYS)}, got {_short(kind)} for column {name!r}"
        )
    if set(column) != _KEYS[kind]:
        raise _damaged(
            f"a {kind} column has the keys {', '.join(sorted(_KEYS[kind]))},"
            f" got {_short(sorted(map(str, column)))} for column {name!r}"
        )
    if kind == "numeric":
        for key in ("median", "mean", "scale"):
            value = column[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
                raise _damaged(f"column {name!r} has a finite {key}, got {_short(value)}")
        if column["scale"] <= 0:
            raise _damaged(f"column {name!r} has a positive scale, got {column['scale']!r}")
    if kind == "categorical":
        categories = column["categories"]
        if (
            not isinstance(categories, list)
            or not categories
            or not all(isinstance(category, str) for category in categories)
        ):
            raise _damaged(f"column {name!r} has a list of categories, got {_short(categories)}")
        if len(set(categories)) != len(categories):
            raise _damaged(f"column {name!r} has distinct categories, got one twice")
    return name


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a JSON integer of 400 digits
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _damaged(fact: str) -> InputError:
    return InputError(f"{fact}; the file is damaged")
