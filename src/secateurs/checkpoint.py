"""Named tensors in one file that is whole or absent: safetensors with JSON beside them.

Nothing here unpickles. Every write goes to a temporary name in the same folder and is renamed.
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from secateurs.errors import InputError

__all__ = ["load", "nest", "save", "unnest", "write_atomic"]

_KEY = "secateurs"


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Raises:
        InputError: the folder cannot be written or the disk is full; an older `path` is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as err:
        raise InputError(
            f"cannot write {path}: {getattr(err, 'strerror', None) or err}; "
            "choose a folder that is writable and has room"
        ) from err
    finally:
        with contextlib.suppress(OSError):  # such as a parent that is a file
            temporary.unlink()


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata to `path`, atomically.

    Raises:
        InputError: not writable or disk full; an older file is intact.
    """
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = {_KEY: json.dumps(metadata)}
    write_atomic(path, lambda temporary: save_file(whole, temporary, metadata=text))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and metadata of a file that `save` wrote.

    Raises:
        InputError: missing, damaged, truncated, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as err:
        raise InputError(
            f"{path} must be a tensor file written by secateurs, but it cannot be read "
            f"({type(err).__name__}); it is damaged, truncated or foreign"
        ) from err
    if not isinstance(metadata, dict):
        raise InputError(f"{path} must carry secateurs metadata, got {type(metadata).__name__}")
    return tensors, metadata


def nest(**groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return one flat dict with names "group/name".

    >>> import torch
    >>> list(nest(a={"x": torch.zeros(1)}, b={"x": torch.zeros(1)}))
    ['a/x', 'b/x']
    """
    return {f"{g}/{name}": t for g, tensors in groups.items() for name, t in tensors.items()}


def unnest(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    """Return the tensors of one group of `nest`, by their own names.

    >>> import torch
    >>> list(unnest({"a/x": torch.zeros(1), "b/y": torch.zeros(1)}, "b"))
    ['y']
    """
    start = f"{group}/"
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
