"""A program as one file that is mapped into memory: kept weights, and where they are.

    magic, version, length and SHA-256 of the header, size of the file     64 bytes
    header                                                                 JSON
    arrays, each at a multiple of 64 bytes

Nothing in a file says where an array lies: the order of the operations and their counts do, so that
arrays cannot overlap or reach beyond the end. A weight is stored in the smallest of three forms:

| form | arrays |
| --- | --- |
| dense | values [rows, columns] |
| bits | one bit a weight, row by row; the kept values |
| columns | uint32 kept in each row; uint16 column of each kept value; the kept values |

Values are float32, the upper half of one (bf16), or int8 with a float32 scale for each row.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime.parsing import (
    FORMAT,
    MAGIC,
    PREFIX,
    Bytes,
    DamagedError,
    Stored,
    aligned,
    parsed,
)
from secateurs.runtime.precision import is_kept, to_bf16, to_int8
from secateurs.runtime.program import Floats, Op, check

__all__ = ["Stored", "dump", "mapped", "parse", "read", "write"]


def _form(kept: NDArray[np.bool_], width: int) -> str:
    """Return the form in which a weight [rows, columns] of values of so many bytes is smallest."""
    n, (rows, columns) = int(np.count_nonzero(kept)), kept.shape
    sizes = {"dense": kept.size * width, "bits": -(-kept.size // 8) + n * width}
    if columns <= 2**16:
        sizes["columns"] = 4 * rows + n * (2 + width)
    return min(sizes, key=lambda form: sizes[form])


def _weight_arrays(weight: Floats, precision: str) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what the header says of a weight [rows, columns], and its arrays."""
    scales: list[NDArray[Any]] = []
    values: NDArray[Any] = weight
    if precision == "bf16":
        values = to_bf16(weight)
    elif precision == "int8":
        values, scale = to_int8(weight)
        scales = [scale]
    kept = is_kept(values)
    form = _form(kept, values.itemsize)
    about = {"form": form, "kept": int(np.count_nonzero(kept)), "precision": precision}
    if form == "dense":
        return about, [*scales, values]
    if form == "bits":
        return about, [*scales, np.packbits(kept), values[kept]]
    counts = np.count_nonzero(kept, axis=1).astype(np.uint32)
    return about, [*scales, counts, np.nonzero(kept)[1].astype(np.uint16), values[kept]]


def _described(op: Op, precision: str) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what the header says of an operation, and its arrays."""
    if op.kind == "call":
        raise InputError(
            f"a part that is left to torch cannot be stored, got {op.name or 'one'}; save only "
            "what compiles without unsupported='torch'"
        )
    arrays: list[NDArray[Any]] = []
    about: dict[str, Any] = {
        "kind": op.kind,
        "inputs": list(op.inputs),
        "shape": list(op.shape),
        "weight": None,
        "bias": op.bias is not None,
        "activation": op.activation,
        "stride": list(op.stride),
        "padding": list(op.padding),
        "kernel": list(op.kernel),
        "include_padding": bool(op.include_padding),
        "name": op.name,
    }
    if op.weight is not None:
        matrix = np.ascontiguousarray(op.weight, np.float32).reshape(len(op.weight), -1)
        how = precision if op.kind == "linear" else "fp32"
        told, arrays = _weight_arrays(matrix, how)
        about["weight"] = {"shape": list(op.weight.shape), **told}
    if op.bias is not None:
        arrays.append(np.ascontiguousarray(op.bias, np.float32))
    return about, arrays


def _padded(arrays: list[NDArray[Any]]) -> Iterator[bytes]:
    for array in arrays:
        raw = array.tobytes()
        yield raw + bytes(aligned(len(raw)) - len(raw))


def dump(stored: Stored) -> bytes:
    """Return a file's content.

    Raises:
        InputError: parts that are left to torch, a program that does not fit together, or what
            `about` holds is no JSON.

    >>> from secateurs.runtime.program import Program
    >>> op = Op(kind="linear", inputs=(0,), shape=(2,), weight=np.eye(2, 3, dtype=np.float32))
    >>> blob = dump(Stored(program=Program(input_shape=(3,), ops=(op,))))
    >>> parse(blob).program.ops[0].weight
    array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    check(stored.program)
    described, arrays = [], []
    for op in stored.program.ops:
        about, own = _described(op, stored.precision)
        described.append(about)
        arrays += own
    data = b"".join(_padded(arrays))
    try:
        header = json.dumps(
            {
                "input_shape": list(stored.program.input_shape),
                "ops": described,
                "precision": stored.precision,
                "kinds": {
                    str(n): {str(i): kind for i, kind in by_op.items()}
                    for n, by_op in stored.kinds.items()
                },
                "about": dict(stored.about),
                "sha256": hashlib.sha256(data).hexdigest(),
            },
            allow_nan=False,
            separators=(",", ":"),
        ).encode()
    except (TypeError, ValueError) as err:
        raise InputError(f"what a file says besides its weights must be JSON ({err})") from err
    start = aligned(PREFIX.itemsize + len(header))
    prefix = np.zeros((), PREFIX)
    prefix["magic"], prefix["format"], prefix["header"] = MAGIC, FORMAT, len(header)
    prefix["digest"] = np.void(hashlib.sha256(header).digest())
    prefix["size"] = start + len(data)
    return b"".join((prefix.tobytes(), header, bytes(start - PREFIX.itemsize - len(header)), data))


def write(path: Path, blob: bytes) -> None:
    """Write a file, replacing an older one in one step.

    Raises:
        InputError: a folder, not writable, or the disk is full; an older file is intact.
    """
    path = path.resolve()  # a link is followed, not replaced
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        raise InputError(
            f"cannot write {path}: {err.strerror or err}; choose a file in a folder that is "
            "writable and has room (an older file there is intact)"
        ) from err
    finally:
        temporary.unlink(missing_ok=True)


def parse(blob: bytes | mmap.mmap | Bytes, *, verify: bool = True, name: str = "it") -> Stored:
    """Return what a file's content holds, trusting nothing in it.

    Args:
        blob: the content.
        verify: whether to compare the checksum of the arrays. Everything else is always checked:
            what is returned is in bounds, though its weights may have changed.
        name: of the file, for the error.

    Raises:
        InputError: what is wrong with it.
    """
    whole: Bytes = np.frombuffer(blob, np.uint8) if not isinstance(blob, np.ndarray) else blob
    if whole.ctypes.data % 16:  # views of its arrays are to be aligned
        whole = whole.copy()
    try:
        return parsed(whole, verify=verify)
    except DamagedError as err:
        raise InputError(
            f"{name} must be a file that secateurs.runtime wrote, but {err}; save it again"
        ) from err


def mapped(path: Path) -> Bytes:
    """Return a file's bytes, mapped: processes share its pages.

    Raises:
        InputError: cannot be read, or is empty.
    """
    try:
        if not path.stat().st_size:
            raise InputError(f"{path} must be a file that secateurs.runtime wrote, but it is empty")
        return np.memmap(path, np.uint8, mode="r")
    except OSError as err:
        raise InputError(
            f"cannot read {path}: {err.strerror or err}; pass a file that was saved"
        ) from err


def read(path: Path, *, verify: bool = True) -> Stored:
    """Return what a file holds.

    Args:
        path: of the file.
        verify: as for `parse`.

    Raises:
        InputError: cannot be read, or what is wrong with it.
    """
    return parse(mapped(path), verify=verify, name=str(path))
