"""Runs described in a TOML file: one cell, a grid of its values, arms that change it."""

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.experiments.spec import Run, cell_from_json

__all__ = ["read_toml"]


def _set(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        inside = document.setdefault(name, {})
        if not isinstance(inside, dict):
            raise InputError(f"{dotted} cannot be set: {name} is {inside!r}, not a table of names")
        document = inside
    document[last] = value


def _leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        dotted = f"{path}.{name}" if path else name
        if isinstance(value, dict) and "name" not in value:
            yield from _leaves(value, dotted)
        else:
            yield dotted, value


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def read_toml(path: Path, settings: Mapping[str, Any] | None = None) -> list[Run]:
    """Return the runs that a file asks for.

    At the top stand the fields of one cell, a `TicketCell` unless `kind` says otherwise. The table
    `grid` gives lists by dotted name; every combination of their values is a cell. Each table
    under `arms` changes fields once more, and names a line of the result:

        [rows]
        dataset = "sklearn:digits"
        [grid]
        rows.split = [0, 1, 2]
        config.compression = [2, 8, 32]
        [arms.IUNet]
        config.search.contrastive_weight = 1.0
        [arms.OMP]
        config.init_scale = 1.0

    Args:
        path: the file.
        settings: dotted names and values that replace those of the file.

    Raises:
        InputError: not TOML, unknown names, wrong types, or no cell at all.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"{path} cannot be read ({err.strerror}); name a TOML file") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise InputError(f"{path} must be TOML: {err}") from err
    for dotted, value in (settings or {}).items():
        _set(document, dotted, value)
    grid = dict(_leaves(document.pop("grid", {})))
    arms = document.pop("arms", {}) or {"": {}}
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"grid.{name} must be a list of at least one value, got {values!r}")
    runs = []
    for arm, changes in arms.items():
        if not isinstance(changes, dict):
            raise InputError(f"arms.{arm} must be a table of names, got {changes!r}")
        for point in itertools.product(*grid.values()):
            whole = _copy(document)
            for dotted, value in (*zip(grid, point, strict=True), *_leaves(changes)):
                _set(whole, dotted, value)
            runs.append(Run(cell=cell_from_json(whole), arm=arm or path.stem))
    return runs
