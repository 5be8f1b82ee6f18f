"""What a file of the runtime holds, read without trust; `storage` says how one is laid out."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime.precision import PRECISIONS, from_bf16, is_kept
from secateurs.runtime.program import Floats, Op, Program, check

__all__ = [
    "ALIGN",
    "FORMAT",
    "MAGIC",
    "PREFIX",
    "Bytes",
    "DamagedError",
    "Stored",
    "aligned",
    "parsed",
]

MAGIC = b"SECATEUR"
FORMAT = 1

ALIGN = 64
PREFIX = np.dtype([("magic", "S8"), ("format", "<u4"), ("header", "<u4"), ("digest", "V32"),
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

Bytes = NDArray[np.uint8]


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


def aligned(n: int) -> int:
    """Return where what follows so many bytes begins.

    >>> aligned(0), aligned(1), aligned(64)
    (0, 64, 64)
    """
    return -(-n // ALIGN) * ALIGN


class DamagedError(Exception):
    """What is wrong with a file; becomes an InputError that names the file."""


def _must(condition: bool, otherwise: str) -> None:  # noqa: FBT001
    if not condition:
        raise DamagedError(otherwise)


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

    def __init__(self, data: Bytes, budget: int) -> None:
        self._data = data
        self._at = 0
        self._left = budget

    def take(self, count: int, dtype: Any) -> NDArray[Any]:
        """Return a view of the next array."""
        size = count * np.dtype(dtype).itemsize
        _must(size <= len(self._data) - self._at, "its arrays end too early")
        array: NDArray[Any] = self._data[self._at : self._at + size].view(dtype)
        self._at = min(self._at + aligned(size), len(self._data))
        return array

    def zeros(self, rows: int, columns: int) -> Floats:
        """Return a matrix to fill, as long as the file may ask for that much memory."""
        self._left -= 4 * rows * columns
        _must(self._left >= 0, "it asks for far more memory than it has data")
        return np.zeros((rows, columns), np.float32)

    def end(self) -> None:
        """Raise unless all was taken."""
        _must(self._at == len(self._data), "it has more data than its header says")


def _json(raw: bytes) -> Any:
    def refuse(_: str) -> None:
        raise DamagedError("its header holds numbers that JSON does not have")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        _must(len(found) == len(pairs), "its header says something twice")
        return found

    try:
        return json.loads(raw, parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, RecursionError) as err:
        raise DamagedError("its header is no JSON") from err


def _read_values(reader: _Reader, count: int, precision: str) -> tuple[NDArray[Any], Floats]:
    """Return values as stored, and as float32 before their scales."""
    if precision == "fp32":
        stored = reader.take(count, np.float32)
        return stored, stored
    if precision == "bf16":
        stored = reader.take(count, np.uint16)
        return stored, from_bf16(stored)
    stored = reader.take(count, np.int8)
    return stored, stored.astype(np.float32)


def _read_weight(reader: _Reader, told: Any, kind: str, precision: str) -> Floats:
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
        _must(int(np.count_nonzero(is_kept(stored))) == kept, "a weight has another count")
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


def parsed(whole: Bytes, *, verify: bool) -> Stored:
    """Return what a file's content holds, trusting nothing in it.

    Args:
        whole: the content, aligned.
        verify: whether to compare the checksum of the arrays.

    Raises:
        DamagedError: what is wrong with it.
    """
    _must(len(whole) >= PREFIX.itemsize, "it is shorter than a file of ours")
    prefix = whole[: PREFIX.itemsize].copy().view(PREFIX)[0]
    _must(bytes(prefix["magic"]) == MAGIC, "it begins with something else")
    version = int(prefix["format"])
    _must(version == FORMAT, f"its format is {version} and this version reads {FORMAT}")
    length = int(prefix["header"])
    start = aligned(PREFIX.itemsize + length)
    _must(int(prefix["size"]) == len(whole) and start <= len(whole), "it is truncated")
    _must(not int(prefix["zero"]) and length <= _MOST_HEADER, "its first bytes are damaged")
    raw = whole[PREFIX.itemsize : PREFIX.itemsize + length].tobytes()
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
        raise DamagedError(f"its operations do not fit: {err}") from err
    return Stored(
        program=program,
        precision=precision,
        kinds=_read_kinds(header["kinds"], len(ops)),
        about=_object(header["about"]),
        n_bytes=len(whole),
    )
