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
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime.program import Op, Program, check

__all__ = [
    "FORMAT",
    "MAGIC",
    "PRECISIONS",
    "Stored",
    "dump",
    "mapped",
    "parse",
    "read",
    "rounded",
    "write",
]

MAGIC = b"SECATEUR"
FORMAT = 1
PRECISIONS = ("fp32", "bf16", "int8")

_ALIGN = 64
_PREFIX = np.dtype([("magic", "S8"), ("format", "<u4"), ("header", "<u4"), ("digest", "V32"),
                    ("size", "<u8"), ("zero", "<u8")])  # fmt: skip
_KEYS = {"kind", "inputs", "shape", "weight", "bias", "activation", "stride", "padding", "kernel",
         "include_padding", "name"}  # fmt: skip
_WEIGHTED = ("linear", "conv2d", "scale")
_ACTIVATED = (*_WEIGHTED, "activation", "add")
_FORMS = ("dense", "bits", "columns")

# What a file may ask for. A value of 2**24 numbers is an image of 4096 x 4096.
_MOST_HEADER = 2**26
_MOST_OPS = 2**14
_MOST_INPUTS = 2**10
_MOST_VALUE = 2**24
_MOST_VALUES = 2**27
_MOST_PADDING = 2**10
# Weights that are not kept cost a file little, but memory while it is unpacked.
_MOST_EXPANSION = (2**26, 4096)

_Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """What a file holds.

    Args:
        program: its operations, weights unpacked; dense weights and biases are views of the file.
        precision: of the weights of linear layers, one of `PRECISIONS`.
        kinds: tile size -> operation -> kernel that was fastest where the file was written.
        about: what else it says, such as the preparation of a table.
        n_bytes: of the file.
    """

    program: Program
    precision: str = "fp32"
    kinds: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    n_bytes: int = 0


# --- values ------------------------------------------------------------------------------------


def _to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves of floats, rounded to even."""
    whole = np.ascontiguousarray(values).view(np.uint32)
    with np.errstate(over="ignore"):
        upper = (whole + (((whole >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(values), (whole >> 16) | 0x40, upper).astype(np.uint16)


def _from_bf16(upper: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (upper.astype(np.uint32) << 16).view(np.float32)


def _to_int8(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return whole numbers in -127..127 and the scale of each row."""
    most = np.abs(weight).max(axis=1, initial=0)
    scales = (most / np.float32(127)).astype(np.float32)
    whole = np.rint(weight / np.where(scales > 0, scales, np.float32(1))[:, None])
    return np.clip(whole, -127, 127).astype(np.int8), scales


def rounded(program: Program, precision: str) -> Program:
    """Return the program whose linear layers have weights that `precision` can hold, as float32.

    Raises:
        InputError: an unknown precision, or int8 weights that are not finite.

    >>> op = Op(kind="linear", inputs=(0,), shape=(1,), weight=np.array([[127.2, 1]], np.float32))
    >>> rounded(Program(input_shape=(2,), ops=(op,)), "bf16").ops[0].weight
    array([[127.,   1.]], dtype=float32)
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "fp32":
        return program
    ops = []
    for op in program.ops:
        if op.kind != "linear":
            ops.append(op)
            continue
        assert op.weight is not None
        if precision == "bf16":
            weight = _from_bf16(_to_bf16(op.weight))
        else:
            if not np.isfinite(op.weight).all():
                raise InputError(
                    f"int8 weights must be finite, got others in {op.name or 'a linear layer'}; "
                    "use precision='fp32'"
                )
            whole, scales = _to_int8(op.weight)
            weight = whole * scales[:, None]
        ops.append(replace(op, weight=weight))
    return replace(program, ops=tuple(ops))


# --- writing -----------------------------------------------------------------------------------


def _form(kept: NDArray[np.bool_], width: int) -> str:
    """Return the form in which a weight [rows, columns] of values of so many bytes is smallest."""
    n, (rows, columns) = int(np.count_nonzero(kept)), kept.shape
    sizes = {"dense": kept.size * width, "bits": -(-kept.size // 8) + n * width}
    if columns <= 2**16:
        sizes["columns"] = 4 * rows + n * (2 + width)
    return min(sizes, key=lambda form: sizes[form])


def _weight_arrays(
    weight: NDArray[np.float32], precision: str
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what the header says of a weight [rows, columns], and its arrays."""
    scales: list[NDArray[Any]] = []
    values: NDArray[Any] = weight
    if precision == "bf16":
        values = _to_bf16(weight)
    elif precision == "int8":
        values, scale = _to_int8(weight)
        scales = [scale]
    # by its bits: -0.0 is a weight that was pruned, too
    kept = weight != 0 if precision == "fp32" else values.astype(bool)
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


def _aligned(n: int) -> int:
    return -(-n // _ALIGN) * _ALIGN


def _padded(arrays: list[NDArray[Any]]) -> Iterator[bytes]:
    for array in arrays:
        raw = array.tobytes()
        yield raw + bytes(_aligned(len(raw)) - len(raw))


def dump(stored: Stored) -> bytes:
    """Return a file's content.

    Raises:
        InputError: parts that are left to torch, a program that does not fit together, or what
            `about` holds is no JSON.

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
    start = _aligned(_PREFIX.itemsize + len(header))
    prefix = np.zeros((), _PREFIX)
    prefix["magic"], prefix["format"], prefix["header"] = MAGIC, FORMAT, len(header)
    prefix["digest"] = np.void(hashlib.sha256(header).digest())
    prefix["size"] = start + len(data)
    return b"".join((prefix.tobytes(), header, bytes(start - _PREFIX.itemsize - len(header)), data))


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


# --- reading -----------------------------------------------------------------------------------


class _Damaged(Exception):
    """What is wrong with a file; becomes an InputError that names the file."""


def _must(condition: bool, otherwise: str) -> None:  # noqa: FBT001
    if not condition:
        raise _Damaged(otherwise)


def _whole(value: Any, most: int, *, least: int = 0) -> int:
    _must(type(value) is int and least <= value <= most, f"a number is not in {least}..{most}")
    number: int = value
    return number


def _wholes(value: Any, most: int, *, least: int = 0, n: int | None = None) -> tuple[int, ...]:
    length = n if n is not None else 4
    _must(type(value) is list and 1 <= len(value) <= max(length, 1), "a list has another length")
    _must(n is None or len(value) == n, "a list has another length")
    return tuple(_whole(one, most, least=least) for one in value)


def _text(value: Any, most: int = 1000) -> str:
    _must(type(value) is str and len(value) <= most, "a text is missing or too long")
    text: str = value
    return text


def _object(value: Any, keys: set[str] | None = None) -> dict[str, Any]:
    _must(type(value) is dict and (keys is None or set(value) == keys), "an entry is not ours")
    found: dict[str, Any] = value
    return found


class _Reader:
    """Hands out arrays from the data of a file, one after another."""

    def __init__(self, data: _Bytes, budget: int) -> None:
        self._data = data
        self._at = 0
        self._left = budget

    def take(self, count: int, dtype: Any) -> NDArray[Any]:
        """Return a view of the next array."""
        size = count * np.dtype(dtype).itemsize
        _must(size <= len(self._data) - self._at, "its arrays end too early")
        array: NDArray[Any] = self._data[self._at : self._at + size].view(dtype)
        self._at = min(self._at + _aligned(size), len(self._data))
        return array

    def zeros(self, rows: int, columns: int) -> NDArray[np.float32]:
        """Return a matrix to fill, as long as the file may ask for that much memory."""
        self._left -= 4 * rows * columns
        _must(self._left >= 0, "it asks for far more memory than it has data")
        return np.zeros((rows, columns), np.float32)

    def end(self) -> None:
        """Raise unless all was taken."""
        _must(self._at == len(self._data), "it has more data than its header says")


def _json(raw: bytes) -> Any:
    def refuse(_: str) -> None:
        raise _Damaged("its header holds numbers that JSON does not have")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        _must(len(found) == len(pairs), "its header says something twice")
        return found

    try:
        return json.loads(raw, parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, RecursionError) as err:
        raise _Damaged("its header is no JSON") from err


def _read_values(
    reader: _Reader, count: int, precision: str
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return values as stored, and as float32 before their scales."""
    if precision == "fp32":
        stored = reader.take(count, np.float32)
        return stored, stored
    if precision == "bf16":
        stored = reader.take(count, np.uint16)
        return stored, _from_bf16(stored)
    stored = reader.take(count, np.int8)
    return stored, stored.astype(np.float32)


def _read_weight(reader: _Reader, told: Any, kind: str, precision: str) -> NDArray[np.float32]:
    told = _object(told, {"shape", "form", "kept", "precision"})
    shape = _wholes(told["shape"], 2**31, least=1)
    _must(len(shape) == {"linear": 2, "conv2d": 4, "scale": 1}.get(kind), "a weight is odd")
    rows, columns = shape[0], math.prod(shape[1:])
    _must(rows * columns < 2**40, "a weight is too large")
    kept = _whole(told["kept"], rows * columns)
    form, how = told["form"], told["precision"]
    _must(form in _FORMS, "a weight has no such form")
    _must(how == (precision if kind == "linear" else "fp32"), "a weight has another precision")
    scales = None
    if how == "int8":
        scales = reader.take(rows, np.float32)
        most = np.float32(np.finfo(np.float32).max / 128)
        _must(bool(((scales >= 0) & (scales <= most)).all()), "a scale is not finite")
    if form == "dense":
        stored, values = _read_values(reader, rows * columns, how)
        _must(int(np.count_nonzero(stored if how != "fp32" else values)) == kept,
              "a weight has another count")  # fmt: skip
        weight = values.reshape(rows, columns)
    elif form == "bits":
        packed = reader.take(-(-rows * columns // 8), np.uint8)
        _, values = _read_values(reader, kept, how)
        weight = reader.zeros(rows, columns)
        bits = np.unpackbits(packed)
        _must(not bits[rows * columns :].any(), "bits are set behind the last weight")
        where = bits[: rows * columns].view(bool).reshape(rows, columns)
        _must(int(np.count_nonzero(where)) == kept, "a weight has another count")
        weight[where] = values
    else:
        _must(columns <= 2**16, "a weight has too many columns for its form")
        counts = reader.take(rows, np.uint32).astype(np.int64)
        places = reader.take(kept, np.uint16).astype(np.int64)
        _, values = _read_values(reader, kept, how)
        _must(int(counts.sum()) == kept, "a weight has another count")
        flat = np.repeat(np.arange(rows, dtype=np.int64) * columns, counts) + places
        # increasing, so that no column comes twice, and within its row
        _must(not kept or int(places.max()) < columns, "a column is too large")
        _must(bool((np.diff(flat) > 0).all()), "columns are not in order")
        weight = reader.zeros(rows, columns)
        weight.reshape(-1)[flat] = values
    if scales is not None:
        weight = weight * scales[:, None]
    return weight.reshape(shape)


def _read_op(reader: _Reader, told: Any, precision: str) -> Op:
    told = _object(told, _KEYS)
    kind, shape = _text(told["kind"]), _wholes(told["shape"], _MOST_VALUE, least=1, n=None)
    _must(kind != "call", "it names a part that is left to torch")
    _must(len(shape) in (1, 3) and math.prod(shape) <= _MOST_VALUE, "a value is too large")
    inputs = told["inputs"]
    _must(type(inputs) is list and 1 <= len(inputs) <= _MOST_INPUTS, "an operation reads nothing")
    _must(type(told["bias"]) is bool and type(told["include_padding"]) is bool, "no yes or no")
    weight = None
    if told["weight"] is not None:
        weight = _read_weight(reader, told["weight"], kind, precision)
    plain = kind not in _WEIGHTED
    _must(not plain or (weight is None and not told["bias"]), "a weight is odd")
    _must(kind in _ACTIVATED or not told["activation"], "an activation is odd")
    stride, kernel = (_wholes(told[k], _MOST_VALUE, least=1, n=2) for k in ("stride", "kernel"))
    padding = _wholes(told["padding"], _MOST_PADDING, n=2)
    return Op(
        kind=kind,
        inputs=tuple(_whole(one, _MOST_OPS) for one in inputs),
        shape=shape,
        weight=weight,
        bias=reader.take(shape[0], np.float32) if told["bias"] else None,
        activation=_text(told["activation"]),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        kernel=(kernel[0], kernel[1]),
        include_padding=told["include_padding"],
        name=_text(told["name"]),
    )


def _read_kinds(told: Any, n_ops: int) -> dict[int, dict[int, str]]:
    """Return tile sizes -> operations -> kernels; their names are the kernels' to know."""
    found: dict[int, dict[int, str]] = {}
    for n, by_op in _object(told).items():
        _must(n.isascii() and n.isdigit() and len(n) <= 4, "a tile has no such size")
        kinds = {}
        for i, kind in _object(by_op).items():
            _must(i.isascii() and i.isdigit() and len(i) <= 5, "no such operation")
            _must(int(i) < n_ops, "no such operation")
            kinds[int(i)] = _text(kind, 40)
        found[int(n)] = kinds
    return found


def _parse(whole: _Bytes, *, verify: bool) -> Stored:
    _must(len(whole) >= _PREFIX.itemsize, "it is shorter than a file of ours")
    prefix = whole[: _PREFIX.itemsize].copy().view(_PREFIX)[0]
    _must(bytes(prefix["magic"]) == MAGIC, "it begins with something else")
    version = int(prefix["format"])
    _must(version == FORMAT, f"its format is {version} and this version reads {FORMAT}")
    length = int(prefix["header"])
    start = _aligned(_PREFIX.itemsize + length)
    _must(int(prefix["size"]) == len(whole) and start <= len(whole), "it is truncated")
    _must(not int(prefix["zero"]) and length <= _MOST_HEADER, "its first bytes are damaged")
    raw = whole[_PREFIX.itemsize : _PREFIX.itemsize + length].tobytes()
    _must(hashlib.sha256(raw).digest() == prefix["digest"].tobytes(), "its header is damaged")
    header = _object(_json(raw), {"input_shape", "ops", "precision", "kinds", "about", "sha256"})
    data = whole[start:]
    digest = _text(header["sha256"])
    if verify:
        _must(
            hashlib.sha256(data.data).hexdigest() == digest,
            "its data do not match their checksum",
        )
    precision, listed = _text(header["precision"]), header["ops"]
    _must(precision in PRECISIONS, "no such precision")
    _must(type(listed) is list and 1 <= len(listed) <= _MOST_OPS, "no operations")
    input_shape = _wholes(header["input_shape"], _MOST_VALUE, least=1)
    _must(len(input_shape) in (1, 3) and math.prod(input_shape) <= _MOST_VALUE, "no input")
    slack, times = _MOST_EXPANSION
    reader = _Reader(data, slack + times * len(whole))
    ops = tuple(_read_op(reader, told, precision) for told in listed)
    reader.end()
    _must(sum(math.prod(op.shape) for op in ops) <= _MOST_VALUES, "its values are too large")
    program = Program(input_shape=input_shape, ops=ops)
    try:
        check(program)
    except InputError as err:
        raise _Damaged(f"its operations do not fit: {err}") from err
    return Stored(
        program=program,
        precision=precision,
        kinds=_read_kinds(header["kinds"], len(ops)),
        about=_object(header["about"]),
        n_bytes=len(whole),
    )


def parse(blob: bytes | mmap.mmap | _Bytes, *, verify: bool = True, name: str = "it") -> Stored:
    """Return what a file's content holds, trusting nothing in it.

    Args:
        blob: the content.
        verify: whether to compare the checksum of the arrays. Everything else is always checked:
            what is returned is in bounds, though its weights may have changed.
        name: of the file, for the error.

    Raises:
        InputError: what is wrong with it.
    """
    whole: _Bytes = np.frombuffer(blob, np.uint8) if not isinstance(blob, np.ndarray) else blob
    if whole.ctypes.data % 16:  # views of its arrays are to be aligned
        whole = whole.copy()
    try:
        return _parse(whole, verify=verify)
    except _Damaged as err:
        raise InputError(
            f"{name} must be a file that secateurs.runtime wrote, but {err}; save it again"
        ) from err


def mapped(path: Path) -> _Bytes:
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
