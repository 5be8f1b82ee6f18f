"""Fit a preparation: what each column of a table is, and the values that turn it into numbers.

Method section 3, preprocessing: all-missing columns are dropped; categorical columns get a
constant category for missing values and are one-hot encoded, unknown categories ignored, not
scaled; numeric columns get the median for missing values and a z-score. Fitted on training rows
only. What comes out is a plain dict that `secateurs.preparation` applies with NumPy alone.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.interchange
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from secateurs.errors import InputError
from secateurs.preparation import (
    FORMAT,
    MISSING,
    Columns,
    Preparation,
    canonical,
    encode,
    input_names,
)

__all__ = [
    "MAX_CATEGORIES",
    "columns_of",
    "encode_frame",
    "fit_preparation",
    "to_frame",
]

MAX_CATEGORIES = 255

# A column is taken for an identifier or free text when its values hardly repeat.
_TEXT_SHARE = 0.5
_TEXT_DISTINCT = 100
_TEXT_ROWS = 20

_Series: TypeAlias = "pd.Series[Any]"


def to_frame(X: object, *, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return any table as a pandas DataFrame with unique string column names.

    Takes pandas frames (of any backing), everything with `__arrow_c_stream__` or `__dataframe__`
    (polars, pyarrow, DuckDB, ...), and 2-d arrays or lists of rows, whose columns are called
    `names` if as many are given, else x0, x1, ...

    Errors: InputError for what is not a table and for duplicate column names.

    >>> to_frame(np.array([[1, 2], [3, 4]])).columns.tolist()
    ['x0', 'x1']
    """
    if isinstance(X, pd.DataFrame):
        frame = X
        if isinstance(frame.columns, pd.MultiIndex):
            raise InputError(
                "column names must be one string each, got a frame with nested column names;"
                " flatten them, e.g. frame.columns = ['_'.join(map(str, c)) for c in frame.columns]"
            )
    elif isinstance(X, pd.Series):
        raise InputError("a table has two dimensions, got a pandas Series; pass series.to_frame()")
    elif hasattr(X, "__arrow_c_stream__") or hasattr(X, "__dataframe__"):
        frame = _from_interchange(X)
    else:
        frame = _from_array(X, names)
    columns = [str(name) for name in frame.columns]
    _refuse_duplicates(columns)
    if columns != list(frame.columns):
        frame = frame.set_axis(columns, axis=1)
    return frame


def _refuse_duplicates(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"column names must be unique, got {name!r} twice; rename one of them")
        seen.add(name)


def _from_interchange(X: object) -> pd.DataFrame:
    try:
        if hasattr(X, "__arrow_c_stream__"):
            table = pa.table(X)
        else:
            table = pa.interchange.from_dataframe(X)
        # pandas would accept duplicates and pyarrow would fail on them in words of its own.
        _refuse_duplicates(table.column_names)
        frame: pd.DataFrame = table.to_pandas()
        return frame
    except InputError:
        raise
    except Exception as err:  # the other library's code runs in there, with errors of its own
        raise InputError(
            f"a table of type {type(X).__name__} could not be read through the dataframe"
            f" interchange ({_one_line(err)}); pass a pandas DataFrame"
        ) from err


def _from_array(X: object, names: Sequence[str] | None) -> pd.DataFrame:
    if isinstance(X, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(X)
        X = X.data.astype(object)
        X[masked] = None
    if hasattr(X, "tocsr"):
        raise InputError("a table must be dense, got a sparse matrix; pass X.toarray()")
    try:
        # Lists may mix numbers and strings, which NumPy would turn into strings throughout.
        array = np.array(X, dtype=object) if isinstance(X, list | tuple) else np.asarray(X)
    except ValueError as err:
        raise InputError("a list of rows must have rows of one length, got a ragged one") from err
    if array.ndim != 2 or array.dtype.names is not None:
        raise InputError(
            f"a table has two dimensions (rows, columns), got {type(X).__name__} of shape"
            f" {array.shape}; pass a DataFrame or a 2-d array"
        )
    if names is None or len(names) != array.shape[1]:
        names = [f"x{i}" for i in range(array.shape[1])]
    return pd.DataFrame(array, columns=list(names))


def fit_preparation(X: object) -> Preparation:
    """Return the preparation fitted on a table's feature columns (method section 3).

    Numbers are numeric, also as Python objects; strings, categories and mixtures are categorical.
    Booleans are numeric 0/1, one column instead of two that mirror each other, unless some are
    missing: then they are categorical, so that "missing" becomes a level of its own rather than a
    median that stands for true or false. Columns without any value are recorded as dropped.
    A categorical column keeps every level it shows up to `MAX_CATEGORIES`; beyond that only levels
    seen at least twice, the most frequent first; the others are encoded like unknown ones, as
    zeros. Columns that hardly repeat a value (identifiers, free text) are refused.

    Errors: InputError for a column that cannot be used (dates, infinities, lists, bytes, complex
    numbers, identifiers and text), no rows, and no columns left.

    >>> fit_preparation(pd.DataFrame({"age": [30, 40, 50], "job": ["a", "b", None]}))["columns"][1]
    {'name': 'job', 'kind': 'categorical', 'categories': ['a', 'b', 'missing_value']}
    """
    frame = to_frame(X)
    if not len(frame):
        raise InputError("a table needs at least one row, got none")
    columns: list[dict[str, Any]] = []
    numeric: list[tuple[dict[str, Any], NDArray[np.float64]]] = []
    for name in frame.columns:
        series = frame[name]
        kind = _kind(name, series)
        column: dict[str, Any] = {"name": name, "kind": kind}
        columns.append(column)
        if kind == "numeric":
            numeric.append((column, _numeric_values(name, series)))
        elif kind == "categorical":
            column["categories"] = _fit_categories(name, _category_values(name, series))
    if all(column["kind"] == "dropped" for column in columns):
        raise InputError(
            f"a table needs at least one feature column with a value, got {len(columns)} columns"
            " and none with any; add features"
        )
    if numeric:
        _fit_numeric(numeric)
    return {"format": FORMAT, "columns": columns}


def _fit_numeric(numeric: list[tuple[dict[str, Any], NDArray[np.float64]]]) -> None:
    # Blocks bound the memory. Sums of squares must not overflow, so every column is first brought
    # below 1 by a power of two, which is exact and undone exactly.
    for start in range(0, len(numeric), 64):
        part = numeric[start : start + 64]
        block = np.stack([values for _, values in part], axis=1)
        exponent = np.frexp(np.nanmax(np.abs(block), axis=0))[1]
        block = np.ldexp(block, -exponent)
        imputer = SimpleImputer(strategy="median")
        scaler = StandardScaler().fit(imputer.fit_transform(block))
        for i, (column, _) in enumerate(part):
            power = int(exponent[i])
            column["median"] = math.ldexp(imputer.statistics_[i], power)
            column["mean"] = math.ldexp(scaler.mean_[i], power)
            # Values below 1 have a deviation below 1: a scale of 1 is how constants are marked.
            scale = 1.0 if scaler.scale_[i] == 1.0 else math.ldexp(scaler.scale_[i], power)
            column["scale"] = scale or 1.0  # denormal deviations may vanish


def _fit_categories(name: str, values: NDArray[np.object_]) -> list[str]:
    # Counting through pandas' hash table is several times faster than sorting strings.
    counts = pd.Series(values, dtype=object).value_counts(dropna=True, sort=False)
    present = int(counts.sum())
    distinct = len(counts)
    if (distinct > _TEXT_DISTINCT and distinct > _TEXT_SHARE * present) or (
        distinct == present >= _TEXT_ROWS
    ):
        raise InputError(_text_message(name, distinct, present, counts.index))
    levels = {str(level): int(count) for level, count in counts.items()}
    if distinct > MAX_CATEGORIES:
        often = [level for level, count in levels.items() if count > 1]
        chosen = sorted(often, key=lambda level: (-levels[level], level))[:MAX_CATEGORIES]
    else:
        chosen = list(levels)
    # Text that happens to read "missing_value" shares the level, as with a constant imputation.
    if present < len(values) and MISSING not in chosen:
        chosen.append(MISSING)
    return sorted(chosen)


def _text_message(name: str, distinct: int, present: int, levels: "pd.Index[Any]") -> str:
    numbers = pd.to_numeric(pd.Series(levels, dtype=object), errors="coerce")
    odd = numbers.isna().to_numpy()
    if odd.mean() < 0.5:  # a numeric column spoilt by a few words, or by quotes
        example = f" ({str(levels[int(odd.argmax())])[:40]!r} is none)" if odd.any() else ""
        remedy = (
            f"most of them look like numbers{example}; convert the column, e.g. with"
            " pandas.to_numeric(column, errors='coerce')"
        )
    else:
        remedy = (
            "if it is an identifier, drop it; if it is text, pass features made from it instead"
            " (its length, keywords, an embedding)"
        )
    return (
        f"column {name!r} has {distinct} distinct values in {present} rows,"
        f" too many to be categories; {remedy}"
    )


def columns_of(frame: pd.DataFrame, preparation: Preparation) -> Columns:
    """Return a frame's columns as `encode` takes them, in the preparation's order.

    Each column is coerced to the kind it had in training; the frame's own order does not matter.
    Numbers may arrive as strings that all parse.

    Errors: InputError for missing and extra columns, and for values that do not fit the kind.

    >>> preparation = fit_preparation(pd.DataFrame({"age": [30, 40], "job": ["a", "b"]}))
    >>> columns_of(pd.DataFrame({"job": ["b", None], "age": ["35", "36"]}), preparation)
    {'age': array([35., 36.]), 'job': array(['b', None], dtype=object)}
    """
    expected = input_names(preparation)
    got = [str(name) for name in frame.columns]
    _refuse_duplicates(got)
    missing = sorted(set(expected) - set(got), key=expected.index)
    extra = sorted(set(got) - set(expected), key=got.index)
    if missing or extra:
        parts = [f"lacks {_listing(missing)}"] * bool(missing)
        parts += [f"has {_listing(extra)} besides"] * bool(extra)
        raise InputError(
            f"a table must have the {len(expected)} columns of the training table;"
            f" this one {' and '.join(parts)}"
        )
    place = {name: i for i, name in enumerate(got)}
    columns: Columns = {}
    for column in preparation["columns"]:
        name = column["name"]
        if column["kind"] == "dropped":
            continue
        series = frame.iloc[:, place[name]]
        convert = _numeric_values if column["kind"] == "numeric" else _category_values
        columns[name] = convert(name, series)
    return columns


def encode_frame(preparation: Preparation, X: object) -> NDArray[np.float32]:
    """Return any table as the network's input, float32 [rows, width].

    Errors: InputError as from `to_frame`, `columns_of` and `encode`.

    >>> preparation = fit_preparation(pd.DataFrame({"age": [30, 40], "job": ["a", "b"]}))
    >>> encode_frame(preparation, pd.DataFrame({"age": [40.0, None], "job": ["b", "c"]}))
    array([[1., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    """
    return encode(preparation, columns_of(to_frame(X, names=input_names(preparation)), preparation))


def _kind(name: str, series: _Series) -> str:
    """Return what a training column is: numeric, categorical or dropped."""
    content = _content(name, series)
    if content == "empty" or series.isna().all():
        return "dropped"
    if content == "boolean":
        return "categorical" if series.isna().any() else "numeric"
    return "numeric" if content == "number" else "categorical"


def _content(name: str, series: _Series) -> str:
    """Return what a column holds: number, boolean, category or empty; refuse anything else."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if isinstance(dtype, pd.ArrowDtype):
        return _arrow_content(name, dtype.pyarrow_dtype)
    if isinstance(dtype, pd.SparseDtype):
        return _content(name, pd.Series(np.asarray(series)))
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_complex_dtype(dtype):
        raise _unusable(name, "complex numbers", "split them into real and imaginary parts")
    if pd.api.types.is_numeric_dtype(dtype):
        return "number"
    if pd.api.types.is_object_dtype(dtype):
        return _object_content(name, series)
    if pd.api.types.is_string_dtype(dtype):
        return "category"
    if dtype.kind in "mM" or isinstance(dtype, pd.PeriodDtype):
        raise _dates(name, str(dtype))
    raise _unusable(name, f"values of type {dtype}", "convert them to numbers or strings")


def _arrow_content(name: str, dtype: pa.DataType) -> str:
    kinds = pa.types
    if kinds.is_null(dtype):
        return "empty"
    if kinds.is_boolean(dtype):
        return "boolean"
    if kinds.is_integer(dtype) or kinds.is_floating(dtype) or kinds.is_decimal(dtype):
        return "number"
    if kinds.is_string(dtype) or kinds.is_large_string(dtype) or kinds.is_string_view(dtype):
        return "category"
    if kinds.is_dictionary(dtype):
        return "category" if _arrow_content(name, dtype.value_type) != "empty" else "empty"
    if kinds.is_temporal(dtype):
        raise _dates(name, str(dtype))
    raise _unusable(name, f"values of type {dtype}", "convert them to numbers or strings")


def _object_content(name: str, series: _Series) -> str:
    content = pd.api.types.infer_dtype(series, skipna=True)
    if content in {"string", "boolean", "empty"}:
        return {"string": "category"}.get(content, content)
    if content in {"integer", "floating", "mixed-integer-float", "decimal"}:
        return "number"
    if content.startswith(("date", "time")) or content == "period":
        raise _dates(name, content)
    numbers = True
    for value in series.array[~series.isna().to_numpy()]:
        if isinstance(value, bool | np.bool_ | str):
            numbers = False
        elif not _is_number(value):
            raise _unusable(
                name, f"a cell of type {type(value).__name__}", "convert it to numbers or strings"
            )
    return "number" if numbers else "category"


def _is_number(value: object) -> bool:
    return isinstance(value, Real | Decimal)


def _numeric_values(name: str, series: _Series) -> NDArray[np.float64]:
    """Return a numeric column as float64 with NaN for missing."""
    content = _content(name, series)
    if content == "empty":
        return np.full(len(series), np.nan)
    if content == "category":
        values = _parse(name, series)
    elif series.dtype == object:
        values = np.array([_number(name, value) for value in series], dtype=np.float64)
    else:
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise InputError(
            f"column {name!r} holds infinite values; replace them by NaN or by a finite bound,"
            " e.g. frame.replace([np.inf, -np.inf], np.nan)"
        )
    return values


def _number(name: str, value: Any) -> float:
    try:
        return float("nan") if pd.isna(value) else float(value)
    except OverflowError:
        return float("inf")


def _parse(name: str, series: _Series) -> NDArray[np.float64]:
    words = _category_values(name, series)
    values = np.array(
        pd.to_numeric(pd.Series(words, dtype=object), errors="coerce"), dtype=np.float64
    )
    for row in np.flatnonzero(np.isnan(values)):
        if words[row] is not None:
            raise InputError(
                f"column {name!r} was numeric in training, got {words[row][:40]!r};"
                " convert it to numbers, with missing values left empty"
            )
    return values


def _category_values(name: str, series: _Series) -> NDArray[np.object_]:
    """Return a categorical column as canonical strings with None for missing."""
    content = _content(name, series)
    if content == "empty":
        return np.full(len(series), None, dtype=object)
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes = series.cat.codes.to_numpy()
        levels: list[object] = list(series.cat.categories)
    elif series.dtype == object and pd.api.types.infer_dtype(series, skipna=True) != "string":
        # Not through a hash table, where 1, 1.0 and True would be the same.
        return _objects([_category(name, value) for value in series])
    else:
        codes, uniques = pd.factorize(series)
        levels = list(uniques)
    table = _objects([*(_category(name, level) for level in levels), None])
    return table[codes]  # a missing value has code -1, the last entry


def _category(name: str, value: object) -> str | None:
    if isinstance(value, bytes | bytearray):
        raise _unusable(name, "bytes", "decode them, e.g. frame[column].str.decode('utf-8')")
    return canonical(value)


def _objects(values: list[str | None]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _dates(name: str, what: str) -> InputError:
    return _unusable(
        name,
        f"dates or times ({what})",
        "convert them to numbers (days since a date) or parts (year, month, weekday)",
    )


def _unusable(name: str, what: str, remedy: str) -> InputError:
    return InputError(
        f"a feature column holds numbers, booleans, strings or categories, but {name!r} holds"
        f" {what}; {remedy}, or drop it"
    )


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split())[:200]
