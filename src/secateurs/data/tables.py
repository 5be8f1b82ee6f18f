"""Read tables from files, from scikit-learn's bundled sets and from OpenML; write them whole."""

import contextlib
import csv
import difflib
import gzip
import io
import os
import re
import stat
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import sklearn.datasets
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from secateurs.errors import InputError

__all__ = [
    "BUNDLED",
    "SUFFIXES",
    "Table",
    "check_classes",
    "data_root",
    "dump_table",
    "read_table",
    "split_target",
]

SUFFIXES = (".csv", ".csv.gz", ".feather", ".parquet")
BUNDLED: dict[str, Callable[..., Any]] = {
    "breast_cancer": sklearn.datasets.load_breast_cancer,
    "diabetes": sklearn.datasets.load_diabetes,
    "digits": sklearn.datasets.load_digits,
    "iris": sklearn.datasets.load_iris,
    "wine": sklearn.datasets.load_wine,
}

_NAME = re.compile(r"[\w.-]{1,100}")
_SOURCES = f"{', '.join(SUFFIXES)} files, sklearn:NAME and openml:TASK_ID"
# What pandas, pyarrow and the decompressors raise on bytes that are not what the name says.
_UNREADABLE = (pa.ArrowException, OSError, ValueError, EOFError, MemoryError, csv.Error, zlib.error)

_Series: TypeAlias = "pd.Series[Any]"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it was read: the frame, its name, and the target column if the source names one.

    >>> Table(frame=pd.DataFrame({"a": [1]}), name="toy", target=None).name
    'toy'
    """

    frame: pd.DataFrame
    name: str
    target: str | None


def data_root() -> Path:
    """Return where data are looked for: SECATEURS_DATA, else the user's cache folder.

    >>> isinstance(data_root(), Path)
    True
    """
    told = os.environ.get("SECATEURS_DATA")
    if told:
        return Path(told)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "secateurs"


def read_table(source: str | Path) -> Table:
    """Read a table from a file, `sklearn:NAME`, `openml:TASK_ID`, or by name from the data root.

    Files are .csv, .csv.gz (commas, or semicolons or tabs if the header has no comma), .feather
    and .parquet, in upper or lower case. OpenML tasks come through the optional `openml` client
    and its cache; row identifiers and columns that OpenML says to ignore are left out. A bare
    NAME is `tabular/NAME.parquet` under `data_root()`, if it is there.

    Errors: InputError, one line, for every source that does not give a table with at least one
    row and one column and unique column names.

    >>> table = read_table("sklearn:iris")
    >>> table.frame.shape, table.target
    ((150, 5), 'target')
    """
    text = os.fspath(source)
    scheme, _, rest = text.partition(":")
    if scheme == "sklearn" and isinstance(source, str):
        table = _read_bundled(rest)
    elif scheme == "openml" and isinstance(source, str):
        table = _read_openml(rest)
    else:
        named = data_root() / "tabular" / f"{text}.parquet"
        is_name = _NAME.fullmatch(text) and not Path(text).exists()
        if is_name and "." not in text and not named.is_file():
            raise InputError(
                f"{text!r} must be a table of the data root or a file, and there is no "
                f"{_shown(named)}; set SECATEURS_DATA to the folder that has tabular/, or name a "
                f"source: tables are {_SOURCES}"
            )
        table = _read_file(named if is_name and named.is_file() else Path(source))
    rows, columns = table.frame.shape
    if not rows or not columns:
        raise InputError(
            f"a table needs at least one row and one column, got {rows} rows and {columns} columns"
            f" in {_shown(text)}; check what wrote it"
        )
    return table


def _suffix(path: Path) -> str:
    name = path.name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return suffix
    raise InputError(
        f"tables are {_SOURCES}, got {_shown(path)}; convert the file or give it the right suffix"
    )


def _read_file(path: Path) -> Table:
    suffix = _suffix(path)
    with contextlib.suppress(RuntimeError):  # no home directory to expand to
        path = path.expanduser()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as err:
        raise InputError(f"no such file: {_shown(path)}; check the path") from err
    except (OSError, ValueError) as err:
        raise InputError(f"{_shown(path)} cannot be read ({_reason(err)}); check the path") from err
    if stat.S_ISDIR(mode):
        raise InputError(f"a table is one file, got the directory {_shown(path)}; name one in it")
    try:
        if suffix in {".csv", ".csv.gz"}:
            frame = _read_csv(path, compressed=suffix == ".csv.gz")
        else:
            frame = _read_arrow(path, suffix)
    except InputError:
        raise
    except _UNREADABLE as err:
        if isinstance(err, PermissionError):
            raise InputError(f"{_shown(path)} may not be read; ask for the right to") from err
        raise InputError(
            f"{_shown(path)} cannot be read as {suffix} ({_reason(err)}); it is damaged or is"
            " something else: write it again"
        ) from err
    return Table(frame=frame, name=path.name[: -len(suffix)], target=None)


def _read_arrow(path: Path, suffix: str) -> pd.DataFrame:
    with path.open("rb") as file:
        if suffix == ".parquet":
            table = pyarrow.parquet.ParquetFile(file).read()
        else:
            table = pyarrow.feather.read_table(file)
        table.validate(full=True)  # a flipped byte may otherwise crash the interpreter later on
        _refuse_duplicates(table.column_names, path)
        frame: pd.DataFrame = table.to_pandas()
    return frame.rename(columns=str).reset_index(drop=True)


def _read_csv(path: Path, *, compressed: bool) -> pd.DataFrame:
    content = path.read_bytes()
    if compressed:
        content = gzip.decompress(content)
    if b"\0" in content:
        raise ValueError("it holds null bytes, so it is not text")
    separator = ","
    header = _header(content, separator)
    if len(header) == 1:
        for other in (";", "\t"):
            if other in header[0]:
                separator, header = other, _header(content, other)
                break
    if not header:
        raise InputError(
            f"a table needs at least one row and one column, got the empty file {_shown(path)};"
            " check what wrote it"
        )
    for place, name in enumerate(header, start=1):
        if not name.strip():
            raise InputError(
                f"every column needs a name, got none for column {place} of {_shown(path)};"
                " name it, or if it numbers the rows leave it out (to_csv(index=False))"
            )
    # pandas would rename the second "a" to "a.1" without a word.
    _refuse_duplicates(header, path)
    with warnings.catch_warnings():
        # Rows longer than the header lose data with a warning only.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                io.BytesIO(content),
                sep=separator,
                encoding="utf-8-sig",
                index_col=False,
                low_memory=False,  # one type per column, not one per chunk of rows
            )
        except pd.errors.ParserWarning as err:
            raise ValueError("its rows have more values than the header has names") from err


def _header(content: bytes, separator: str) -> list[str]:
    """Return the names in the first line that is not blank, as pandas would see them."""
    with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="") as text:
        for row in csv.reader(text, delimiter=separator):
            if len(row) > 1 or (row and row[0].strip()):
                return row
    return []


def _refuse_duplicates(names: list[str], path: Path) -> None:
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            raise InputError(
                f"column names must be unique, got {name!r} twice in {_shown(path)};"
                " rename one of them"
            )
        seen.add(name)


def _read_bundled(name: str) -> Table:
    if name not in BUNDLED:
        raise InputError(f"bundled sets are {', '.join(BUNDLED)}, got {name!r}; pick one of them")
    frame: pd.DataFrame = BUNDLED[name](as_frame=True).frame
    return Table(frame=frame, name=name, target="target")


def _read_openml(text: str) -> Table:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise InputError(
            f"an OpenML task is named by a positive number, got 'openml:{text}';"
            " take the id from the task's page, as in openml:31"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own affairs
        try:
            import openml
        except ImportError as err:
            raise InputError(
                f"reading openml:{text} needs the openml client;"
                " install it with: pip install secateurs[tabular]"
            ) from err
        retries = openml.config.connection_n_retries
        # Its default of five tries keeps a user without a connection waiting for a quarter minute.
        openml.config.connection_n_retries = min(retries, 2)
        try:
            return _openml_table(openml, int(text))
        except InputError:
            raise
        except ImportError as err:
            raise InputError(f"the openml client does not work ({_reason(err)})") from err
        except Exception as err:
            # Whatever the client meets, from no connection to a damaged cache, it raises as it is.
            raise InputError(
                f"OpenML task {text} is neither complete in the cache"
                f" {str(openml.config.get_cache_directory())!r} nor could it be fetched"
                f" ({type(err).__name__}: {_reason(err)}); connect to the network and try again"
            ) from err
        finally:
            openml.config.connection_n_retries = retries


def _openml_table(openml: Any, task_id: int) -> Table:
    # The client's data cache is a pickle by default, which ties it to one pandas version.
    task = openml.tasks.get_task(
        task_id, download_data=True, download_qualities=False, cache_format="feather"
    )
    dataset = openml.datasets.get_dataset(
        task.dataset_id, download_data=True, download_qualities=False, cache_format="feather"
    )
    frame, _, _, _ = dataset.get_data(dataset_format="dataframe")
    target = getattr(task, "target_name", None) or dataset.default_target_attribute
    nominal = {
        feature.name for feature in dataset.features.values() if feature.data_type == "nominal"
    }
    # Parquet copies of integer-coded nominal columns may have lost what the description says.
    numbers = [name for name in frame.columns if name in nominal and _is_number(frame[name])]
    frame = frame.astype(dict.fromkeys(numbers, "category")).rename(columns=str)
    return Table(frame=frame, name=str(dataset.name), target=target)


def _is_number(series: _Series) -> bool:
    return pd.api.types.is_numeric_dtype(series.dtype)


def split_target(
    table: Table | pd.DataFrame, target: str | None = None
) -> tuple[pd.DataFrame, _Series]:
    """Return the feature columns and the target column of a table.

    Without `target`, the one that the table's source names is taken.

    Errors: InputError if the target is not named, absent, partly missing, or the only column.

    >>> X, y = split_target(pd.DataFrame({"a": [1, 2], "y": ["no", "yes"]}), "y")
    >>> X.columns.tolist(), y.tolist()
    (['a'], ['no', 'yes'])
    """
    if isinstance(table, Table):
        frame = table.frame
        target = table.target if target is None else target
    else:
        frame = table
    names = [str(name) for name in frame.columns]
    if target is None:
        raise InputError(f"a target column must be named; columns are {_listing(names)}")
    if target not in names:
        raise InputError(f"the target must be a column, got {target!r}; {_near(target, names)}")
    if names.count(target) > 1:
        raise InputError(f"column names must be unique, got {target!r} twice; rename one of them")
    place = names.index(target)
    y = frame.iloc[:, place]
    missing = int(y.isna().sum())
    if missing:
        raise InputError(
            f"the target must be known in every row, got {missing} of {len(y)} values missing in"
            f" {target!r}; drop those rows"
        )
    X = frame.iloc[:, [i for i in range(len(names)) if i != place]]
    if not X.shape[1]:
        raise InputError(f"a table needs features beside the target {target!r}, got none; add some")
    return X, y


def _near(target: str, names: list[str]) -> str:
    folded = {name.casefold().strip(): name for name in names}
    close = difflib.get_close_matches(target.casefold().strip(), list(folded), n=3)
    if close:
        return f"near names are {', '.join(repr(folded[name]) for name in close)}"
    return f"columns are {_listing(names)}"


def _listing(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def check_classes(y: "_Series | NDArray[Any]") -> None:
    """Refuse numbers with fractions, and classes of one row: nothing can be learnt about those.

    Errors: InputError that names the first such class, or what was found instead of classes.

    >>> check_classes(pd.Series(["a", "a", "b", "b"]))
    >>> check_classes(pd.Series(["a", "a", "b"]))
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: every class needs at least 2 rows, got 1 of class 'b'; merge it ...
    """
    y = pd.Series(y)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # many classes may be meant
            check_classification_targets(y.to_numpy())
    except (TypeError, ValueError) as err:
        raise InputError(" ".join(str(err).split())) from err
    counts = y.value_counts(sort=False)
    for label in counts.index[counts == 1]:
        shown = label.item() if isinstance(label, np.generic) else label
        raise InputError(
            f"every class needs at least 2 rows, got 1 of class {shown!r};"
            " merge it with another class or drop it"
        )


def dump_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table by the suffix of its path, whole or not at all.

    The index is left out. The file takes its name only once it is complete, so that an older one
    survives any failure.

    Errors: InputError for an unknown suffix, a folder that is absent or not writable, a full
    disk, duplicate column names, and columns that the format cannot hold.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dump_table(pd.DataFrame({"a": [1, 2]}), Path(folder) / "a.csv")
    ...     (Path(folder) / "a.csv").read_text()
    'a\\n1\\n2\\n'
    """
    path = Path(path)
    suffix = _suffix(path)
    _refuse_duplicates(list(frame.columns), path)
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.partial")
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a directory")
        try:
            with partial.open("wb") as file:
                _write(frame.rename(columns=str), file, suffix)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ValueError, TypeError, pa.ArrowException) as err:
        raise InputError(
            f"{_shown(path)} cannot be written ({_reason(err)}); choose another place or format"
        ) from err


def _write(frame: pd.DataFrame, file: IO[bytes], suffix: str) -> None:
    if suffix == ".parquet":
        frame.to_parquet(file, index=False)
    elif suffix == ".feather":
        frame.reset_index(drop=True).to_feather(file)
    elif suffix == ".csv.gz":
        # Without a name and a time stamp in it, the same table gives the same bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            frame.to_csv(packed, index=False, lineterminator="\n")
    else:
        frame.to_csv(file, index=False, mode="wb", lineterminator="\n")


def _shown(path: str | Path) -> str:
    text = str(path)
    return repr(text if len(text) <= 200 else f"{text[:97]}...{text[-100:]}")


def _reason(err: BaseException) -> str:
    text = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return " ".join(text.split())[:120] or type(err).__name__
