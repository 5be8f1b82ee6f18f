"""OUT.partial: where an unfinished fit keeps its work, for one command at a time.

command.json           whose work it is: version, data, settings
model/, compare-*      checkpoints, and rows of the comparison
ready/, replaced/      the new model and the old one, while they change places
.lock                  held by the command that runs; the system lets go of it on any death
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from secateurs import __version__
from secateurs.checkpoint import write_atomic
from secateurs.command.comparison import (
    COLUMNS,
    Comparison,
    Estimator,
    Rows,
    folder_bytes,
    row_hashes,
)
from secateurs.errors import InputError
from secateurs.image_classifier import ImageTicketClassifier
from secateurs.model_directory import check_replaceable

try:
    import fcntl
except ImportError:  # Windows: two commands on one OUT are the user's to keep apart
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from secateurs.report.page import Table

__all__ = [
    "NOT_IDENTITY",
    "PAGE",
    "check_free",
    "identity",
    "next_command",
    "ship",
    "workspace",
]

NOT_IDENTITY = ("checkpoint_dir", "device", "n_jobs", "verbose")
"""Parameters that an interrupted fit may change when it continues."""

PAGE = "report.html"
"""In a model folder: the page for people. Nothing that predicts reads it."""

_NOTE, _LOCK = "command.json", ".lock"


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse to fill a folder that holds something, unless it may be replaced.

    Raises:
        InputError: it does.

    >>> check_free(Path("no/such/folder"), overwrite=False)
    """
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(
            f"{out} exists; pass --overwrite to replace the model there, or another --out"
        )


def identity(X: Rows, y: NDArray[Any], estimator: Estimator) -> dict[str, Any]:
    """Return what decides the result: a folder with checkpoints belongs to just one.

    >>> import numpy as np
    >>> from secateurs.estimator import TicketRegressor
    >>> found = identity(pd.DataFrame({"a": [1, 2]}), np.array([0.5, 1]), TicketRegressor())
    >>> list(found), found["settings"]["compression"]
    (['version', 'data', 'settings'], 8)
    """
    if isinstance(X, pd.DataFrame):
        columns: list[Any] = [[str(column), str(kind)] for column, kind in X.dtypes.items()]
    else:
        columns = list(X.shape[1:])
    digest = hashlib.sha256(json.dumps(columns).encode())
    digest.update(row_hashes(X).tobytes())
    digest.update(json.dumps([str(y.dtype), y.tolist()], default=str).encode())
    settings = {n: v for n, v in estimator.get_params().items() if n not in NOT_IDENTITY}
    whole = {
        "version": __version__,
        "data": digest.hexdigest(),
        "settings": {"estimator": type(estimator).__name__, **settings},
    }
    read: dict[str, Any] = json.loads(json.dumps(whole, default=str))  # as it will come back
    return read


@contextmanager
def workspace(
    out: Path, command: Mapping[str, Any], *, overwrite: bool
) -> Iterator[tuple[Path, bool]]:
    """Hold OUT.partial; yield it and whether it has earlier work of the same command.

    It is removed at the end, and after an error unless there is something to continue from.

    Args:
        out: the model folder to be.
        command: what decides the result; see `identity`.
        overwrite: whether a model at `out` may be replaced.

    Raises:
        InputError: `out` cannot be written or replaced, or OUT.partial is another command's, in
            use by one that runs, or something else.

    >>> import tempfile
    >>> command = {"version": "1", "data": "a1", "settings": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with workspace(Path(folder) / "m", command, overwrite=False) as (partial, continues):
    ...         print(partial.name, continues)
    ...     partial.exists()
    m.partial False
    False
    """
    partial = out.with_name(f"{out.name}.partial")
    absent = [parent for parent in out.parents if not parent.exists()]
    try:
        check_replaceable(out)
        with _alone(partial):
            check_free(out, overwrite=overwrite)  # another command may just have filled it
            continues = _claim(partial, command)
            try:
                yield partial, continues
            except BaseException:
                if not any(any(partial.rglob(p)) for p in ("*.safetensors", "compare-*.json")):
                    _empty(partial)
                raise
            _empty(partial)
    finally:
        for folder in (partial, *absent):
            with contextlib.suppress(OSError):  # not made, or in use by now
                folder.rmdir()


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Make the folder and keep other commands out of it."""
    try:
        partial.mkdir(exist_ok=True)
    except FileExistsError as err:
        raise _foreign(partial) from err
    with _locked(partial / _LOCK) if fcntl else nullcontext():
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system takes back when this process ends, however it ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise _busy(path.parent) from err
        except OSError:  # a file system without locks
            pass
        # The name goes before the lock does. Without it, this was the lock of a command that has
        # ended since the file was opened, and the next one may have the folder already.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise _busy(path.parent)
        try:
            yield
        finally:
            path.unlink()


def _busy(partial: Path) -> InputError:
    return InputError(
        f"{partial} is in use by a fit that is running; wait for its end, or choose another --out"
    )


def _foreign(partial: Path) -> InputError:
    return InputError(
        f"{partial} is where unfinished work goes, but it exists and is something else; "
        "move it away or choose another --out"
    )


def _claim(partial: Path, command: Mapping[str, Any]) -> bool:
    """Make the folder this command's; return whether it was that before.

    Raises:
        InputError: it is another command's, or something else.
    """
    note = partial / _NOTE
    if not note.is_file():
        if any(not path.name.startswith((_LOCK, f".{_NOTE}.")) for path in partial.iterdir()):
            raise _foreign(partial)
        _write(note, json.dumps(command, indent=1))
        return False
    try:
        left = json.loads(note.read_bytes())
        old, new = left["settings"], command["settings"]
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        differs = {
            "other data": left["data"] != command["data"],
            f"other settings ({', '.join(names)})": bool(names),
            f"another version ({left['version']})": left["version"] != command["version"],
        }
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(f"{note} is damaged; remove {partial}") from err
    if any(differs.values()):
        raise InputError(
            f"{partial} holds an unfinished fit of "
            f"{' and '.join(what for what, is_so in differs.items() if is_so)}; finish it by its "
            "own command, remove that folder, or choose another --out"
        )
    return True


def _empty(partial: Path) -> None:
    """Remove everything but the lock."""
    for path in partial.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)


def _write(path: Path, content: str) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text(content, encoding="utf-8")

    write_atomic(path, write)


def ship(estimator: Estimator, out: Path, partial: Path, compared: Comparison | None) -> int:
    """Put the whole model folder, with its comparison and its page, in its place in one step.

    Args:
        estimator: fitted.
        out: the model folder; an older one is kept until the new one is in its place.
        partial: where it is put together; on the same disk.
        compared: stored beside the model, as comparison.json.

    Returns:
        The bytes of the model itself: what predicts, without the comparison and the page.

    Raises:
        InputError: the disk is full; an older model is intact.
    """
    ready, replaced = partial / "ready", partial / "replaced"
    estimator.save(ready)
    size = folder_bytes(ready)
    if compared is not None:
        _write(ready / "comparison.json", compared.to_json())
    page = _page(estimator, out.name, compared, size)
    if page is not None:
        _write(ready / PAGE, page)
    if out.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        out.rename(replaced)
    try:
        ready.rename(out)
    except BaseException:
        if replaced.exists():
            replaced.rename(out)
        raise
    return size


def next_command(estimator: Estimator, model: str) -> str:
    """Return the command that predicts with a model folder.

    >>> from secateurs.estimator import TicketRegressor
    >>> next_command(TicketRegressor(), "m")
    'secateurs predict m NEW_ROWS.csv --out predictions.csv'
    """
    new = "NEW_IMAGES" if isinstance(estimator, ImageTicketClassifier) else "NEW_ROWS.csv"
    return f"secateurs predict {model} {new} --out predictions.csv"


def _page(estimator: Estimator, name: str, compared: Comparison | None, size: int) -> str | None:
    """Return the model's page; None, with a warning, if it cannot be drawn."""
    command = next_command(estimator, shlex.quote(name))
    try:
        # these bring matplotlib, which only pages need
        from secateurs.report.image_model import image_model_page
        from secateurs.report.model import model_page

        table = None if compared is None else _comparison_table(compared)
        if isinstance(estimator, ImageTicketClassifier):
            return image_model_page(estimator, comparison=table, command=command, size=size)
        return model_page(estimator, comparison=table, command=command, size=size)
    except Exception as err:  # hours of training must not be lost to a picture
        warnings.warn(
            f"the model is complete, but its page could not be drawn ({type(err).__name__}: {err})",
            stacklevel=3,
        )
        return None


def _comparison_table(compared: Comparison) -> "Table":
    from secateurs.report.page import Table, Value

    scores = [name for row in compared.models[:1] for name in COLUMNS if name in row.scores]
    note = f"{compared.rows_held_out:,} held-out rows, {compared.rows_trained:,} training rows."
    if compared.rows_seen:
        note += (
            f" {compared.rows_seen:,} of the held-out rows also occur in training with the same "
            "features: scores on them measure memory, too."
        )
    return Table(
        title="Models on the held-out rows",
        columns=[
            "model",
            *(COLUMNS[name].replace("\n", " ") for name in scores),
            "parameters kept",
            "bytes",
            "seconds",
        ],
        rows=[
            [
                row.model,
                *(Value(row.scores[name], digits=3) for name in scores),
                row.parameters_kept,
                row.bytes,
                Value(row.seconds, digits=1),
            ]
            for row in compared.models
        ],
        note=note,
    )
