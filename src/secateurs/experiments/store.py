"""One folder a cell, whole or absent, for any number of writers.

    DIR/cells/KEY/spec.json            the cell, defaults included
                  result.json          what came out, and of what it came
                  metrics.parquet      one row an epoch
                  ticket.safetensors   weights and masks
                  DONE                 written last: the cell is finished
                  error.json           instead of DONE: the traceback of the last try
                  checkpoint/          of an unfinished cell
                  .lock                held by whoever runs the cell; the system lets go of it
                                       on any death
    DIR/plans/NAME.json                which cells make which table

Nothing here deletes a result but `Store.forget`.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from torch import Tensor

from secateurs import checkpoint
from secateurs.checkpoint import write_atomic
from secateurs.errors import InputError
from secateurs.experiments.spec import Cell, Run, cell_from_json, key
from secateurs.experiments.typed import canonical, describe

try:
    import fcntl
except ImportError:  # Windows: two writers on one store are the user's to keep apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["Outcome", "Plan", "Store"]

_SPEC, _RESULT, _METRICS, _TENSORS = (
    "spec.json",
    "result.json",
    "metrics.parquet",
    "ticket.safetensors",
)
_KEY = re.compile("[0-9a-f]{16}")
_DONE, _ERROR, _CHECKPOINT, _LOCK = "DONE", "error.json", "checkpoint", ".lock"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished cell leaves.

    Args:
        result: JSON-able values, nested by name.
        history: one row an epoch.
        tensors: named tensors, with `meta` beside them; none are written if there are none.
    """

    result: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()
    tensors: Mapping[str, Tensor] | None = None
    meta: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which cells make a table: what a store needs beside its cells to say what they are for.

    Args:
        name: of the file it is kept in.
        title, claim: of its page.
        runs: cells by arm, in the order of the table.
        value: the one endpoint, such as "balanced_accuracy".
        baseline: the arm that the others are compared with; "" is "dense", else the first.
        published: percentages as printed, by (data set, arm).
        command: that reproduces it.
        stamp: a warning across the page, such as "smoke: not evidence".
    """

    name: str
    title: str
    runs: Sequence[Run]
    claim: str = ""
    value: str = "balanced_accuracy"
    baseline: str = ""
    published: Mapping[tuple[str, str], float] = field(default_factory=dict)
    command: str = ""
    stamp: str = ""


def _text(path: Path, content: str) -> None:
    write_atomic(path, lambda temporary: _write_text(temporary, content))


def _write_text(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")


def _flatten(value: Mapping[str, Any], into: dict[str, Any], prefix: str = "") -> None:
    for name, part in value.items():
        if type(part) is dict:
            _flatten(part, into, f"{prefix}{name}.")
        else:
            into[prefix + name] = tuple(part) if isinstance(part, list) else part


class Store:
    """Results in a folder.

    >>> import tempfile
    >>> from secateurs.experiments.spec import PeerCell, Rows
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> cell = PeerCell(rows=Rows(dataset="sklearn:iris"))
    >>> store.write(cell, Outcome(result={"test": {"accuracy": 0.5}}))
    >>> store.frame()["test.accuracy"].tolist()
    [0.5]
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, cell_key: str) -> Path:
        """Return where a cell is kept, whether or not it is there."""
        return self.root / "cells" / cell_key

    def checkpoint(self, cell_key: str) -> Path:
        """Return where an unfinished cell keeps its checkpoints."""
        return self.folder(cell_key) / _CHECKPOINT

    def check_writable(self) -> None:
        """Raise unless the store can be written: before hours are spent on its cells.

        Raises:
            InputError: read-only, full, or no folder.
        """
        _text(self.root / "cells" / ".probe", "")
        (self.root / "cells" / ".probe").unlink(missing_ok=True)

    def keys(self) -> list[str]:
        """Return the keys of all cells, finished or not, in order."""
        try:
            with os.scandir(self.root / "cells") as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def finished(self, cell_key: str) -> bool:
        """Return whether a cell is done."""
        return (self.folder(cell_key) / _DONE).exists()

    @contextmanager
    def claim(self, cell_key: str) -> Iterator[bool]:
        """Hold a cell while it is run; yields False if another process holds it.

        The lock is the system's: it ends with the process that holds it, however that ends.

        Raises:
            InputError: the store cannot be written.
        """
        folder = self.folder(cell_key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / _LOCK).open("a")
        except OSError as err:
            raise InputError(
                f"cannot write {folder}: {err.strerror}; choose a folder that is writable and has "
                "room"
            ) from err
        with file:
            held = True
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held = False
                except OSError:  # a file system without locks
                    pass
            yield held

    def write(self, cell: Cell, outcome: Outcome) -> None:
        """Write a finished cell, `DONE` last, and drop its checkpoints.

        Raises:
            InputError: not writable or disk full; the cell is then unfinished.
        """
        name = key(cell)
        folder = self.folder(name)
        self._write_spec(cell)
        if outcome.history:
            table = pa.Table.from_pylist([dict(row) for row in outcome.history])
            write_atomic(folder / _METRICS, lambda path: pa.parquet.write_table(table, path))
        if outcome.tensors:
            checkpoint.save(folder / _TENSORS, outcome.tensors, outcome.meta or {})
        _text(folder / _RESULT, json.dumps(outcome.result))
        _text(folder / _DONE, "")
        (folder / _ERROR).unlink(missing_ok=True)
        shutil.rmtree(folder / _CHECKPOINT, ignore_errors=True)

    def write_error(self, cell: Cell, error: Mapping[str, str]) -> None:
        """Record why a cell failed; the next run tries it again.

        Raises:
            InputError: not writable or disk full.
        """
        self._write_spec(cell)
        _text(self.folder(key(cell)) / _ERROR, json.dumps(dict(error)))

    def _write_spec(self, cell: Cell) -> None:
        path = self.folder(key(cell)) / _SPEC
        if not path.exists():
            _text(path, canonical(describe(cell)))

    def _json(self, cell_key: str, name: str) -> Any:
        path = self.folder(cell_key) / name
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as err:
            raise InputError(
                f"{path} must be JSON written by secateurs, but it cannot be read "
                f"({getattr(err, 'strerror', None) or 'damaged'}); remove the cell's folder to run "
                "it again"
            ) from err

    def cell(self, cell_key: str) -> Cell:
        """Return the description of a cell."""
        return cell_from_json(self._json(cell_key, _SPEC))

    def result(self, cell_key: str) -> dict[str, Any]:
        """Return what came out of a finished cell."""
        found: dict[str, Any] = self._json(cell_key, _RESULT)
        return found

    def error(self, cell_key: str) -> dict[str, str] | None:
        """Return how the last try of an unfinished cell failed, or None."""
        if self.finished(cell_key) or not (self.folder(cell_key) / _ERROR).exists():
            return None
        found: dict[str, str] = self._json(cell_key, _ERROR)
        return found

    def history(self, cell_key: str) -> pd.DataFrame:
        """Return one row an epoch; empty for a cell that trains nothing."""
        path = self.folder(cell_key) / _METRICS
        if not path.exists():
            return pd.DataFrame()
        with path.open("rb") as file:  # a path is taken for a data set, which is slow
            frame: pd.DataFrame = pa.parquet.ParquetFile(file).read().to_pandas()
        return frame

    def tensors(self, cell_key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors of a cell and what was written beside them.

        Raises:
            InputError: the cell has none, or they are damaged.
        """
        return checkpoint.load(self.folder(cell_key) / _TENSORS)

    def forget(self, cell_key: str) -> None:
        """Delete a cell, finished or not: the only thing that deletes a result."""
        folder = self.folder(cell_key)
        (folder / _DONE).unlink(missing_ok=True)  # first: what is half gone is not finished
        shutil.rmtree(folder, ignore_errors=True)

    # --- plans and frames ------------------------------------------------------------------

    def write_plan(self, plan: Plan) -> None:
        """Write a plan, replacing an older one of its name."""
        whole = {
            **{f.name: getattr(plan, f.name) for f in fields(plan)},
            "runs": [
                {"key": key(run.cell), "arm": run.arm, "tried": run.tried} for run in plan.runs
            ],
            "published": [[*name, told] for name, told in plan.published.items()],
        }
        _text(self.root / "plans" / f"{plan.name}.json", json.dumps(whole, indent=1))

    def plans(self) -> list[dict[str, Any]]:
        """Return the plans as JSON, in order of name; runs as key, arm, tried.

        Raises:
            InputError: a file there that is no plan.
        """
        found = []
        for path in sorted((self.root / "plans").glob("*.json")):
            try:
                plan = json.loads(path.read_bytes())
                plan["published"] = {(d, arm): told for d, arm, told in plan["published"]}
                for run in plan["runs"]:
                    if not _KEY.fullmatch(run["key"]):  # it becomes a path
                        raise ValueError("no key")
                found.append({f.name: plan[f.name] for f in fields(Plan)})
            except (OSError, ValueError, KeyError, TypeError) as err:
                raise InputError(f"{path} must be a plan written by secateurs; remove it") from err
        return found

    def frame(self, runs: Sequence[Mapping[str, Any]] | None = None) -> pd.DataFrame:
        """Return finished cells as a tidy table: one row a cell, one column a value, dotted names.

        Args:
            runs: as in a plan: its cells only, in its order, with columns `arm` and `tried`; a
                cell that stands in two arms has two rows. None is every cell.
        """
        labelled = [{"key": name} for name in self.keys()] if runs is None else runs
        flat: dict[str, dict[str, Any]] = {}
        rows = []
        for run in labelled:
            name = run["key"]
            if name not in flat and self.finished(name):
                flat[name] = {"key": name}
                spec = self._json(name, _SPEC)
                if "rows" not in spec and "ticket" in spec:  # a probe's rows are its ticket's
                    spec["rows"] = spec["ticket"]["rows"]
                _flatten(spec, flat[name])
                _flatten(self.result(name), flat[name])
            if name in flat:
                rows.append({**run, **flat[name]})
        return pd.DataFrame(rows)
