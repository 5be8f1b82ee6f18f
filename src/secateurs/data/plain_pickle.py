"""Read a dictionary of plain data out of pickle bytes, without unpickling: nothing is called."""

import codecs
import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError

__all__ = ["plain_dict"]

# The names of the two functions by which NumPy's arrays are pickled: since 2.0, and before.
_CORES = ("numpy._core", "numpy.core")
_NAMES = {
    **{f"{core}.multiarray._reconstruct": "reconstruct" for core in _CORES},
    **{f"{core}.numeric._frombuffer": "frombuffer" for core in _CORES},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "__builtin__.bytes": "bytes",
}
_MAX_DIMENSIONS = 32

# Opcodes with a value after them, as (format of the value or of its length, what is pushed).
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H"}
_SIZED: dict[bytes, tuple[str, Callable[[bytes], Any]]] = {
    b"U": ("<B", bytes),
    b"T": ("<i", bytes),
    b"C": ("<B", bytes),
    b"B": ("<I", bytes),
    b"\x8e": ("<Q", bytes),
    b"\x96": ("<Q", bytes),
    b"\x8c": ("<B", lambda text: text.decode("utf-8", "surrogatepass")),
    b"X": ("<I", lambda text: text.decode("utf-8", "surrogatepass")),
    b"\x8d": ("<Q", lambda text: text.decode("utf-8", "surrogatepass")),
    b"\x8a": ("<B", lambda number: int.from_bytes(number, "little", signed=True)),
}
_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    b"N": lambda: None,
    b"\x88": lambda: True,
    b"\x89": lambda: False,
    b"}": dict,
    b"]": list,
    b")": tuple,
}
_LINES = {b"I", b"L", b"S", b"V"}
_PUT = {b"q": "<B", b"r": "<I"}
_GET = {b"h": "<B", b"j": "<I"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
# What Python 2 writes into a quoted string; other escapes would be warned of when decoded.
_QUOTED = re.compile(rb"(?:[^\\]++|\\[\\'\"nrt]|\\x[0-9a-f]{2})*+")


class _Refused(ValueError):
    """A pickle of something other than plain data."""


class _Mark:
    """Where the members of a list, tuple or dictionary begin on the stack."""


class _Name:
    """A name in place of what it would be called by; `called` is one of `_NAMES`."""

    def __init__(self, called: str) -> None:
        self.called = called


class _Type:
    """NumPy's data type uint8: no other is read."""


class _Array:
    """An array that is rebuilt in two steps; memory of the first one sees the second."""

    value: NDArray[np.uint8] | None = None


def plain_dict(content: bytes, *, where: str) -> dict[str, Any]:
    """Return the dictionary that a pickle of protocol 0 to 5 holds, if it is of plain data.

    Plain are None, booleans, whole numbers, text, bytes, lists, tuples, dictionaries and NumPy
    arrays of uint8, which are values of the dictionary itself. The bytes are interpreted by rules
    of ours: nothing named in them is imported or called. Text of Python 2 comes as bytes, keys as
    str.

    Args:
        content: the pickle.
        where: names the file in errors.

    Raises:
        InputError: other opcodes, other names, other types of arrays; bytes that are no pickle.

    >>> plain_dict(b"(dS'labels'\\n(lI3\\naI1\\nas.", where="batch")
    {'labels': [3, 1]}
    """
    try:
        found = _Reader(content).read()
        if not isinstance(found, dict):
            raise ValueError(f"it holds no dictionary but {_kind(found)}")
        return {_text(key): _finished(value) for key, value in found.items()}
    except _Refused as err:
        raise InputError(
            f"a pickle of images may hold only numbers, text, lists, dictionaries and uint8 arrays,"
            f" and {where!r} has {err}; nothing of it was run: fetch the published file"
        ) from err
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as err:
        reason = " ".join(str(err).split())[:120] or type(err).__name__
        raise InputError(
            f"{where!r} cannot be read as a pickle ({reason}); it is damaged or is something else:"
            " fetch it again"
        ) from err


def _kind(value: object) -> str:
    return type(value).__name__.strip("_").lower()


def _text(value: object) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError(f"{_kind(value)} in the place of a name")
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _finished(value: object) -> object:
    if isinstance(value, _Array):
        value = value.value
    if isinstance(value, _Mark | _Name | _Type):
        raise ValueError(f"{_kind(value)} in the place of a value")
    return value


class _Reader:
    """A position in a pickle, its stack and its memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    # Bytes

    def take(self, n: int) -> bytes:
        if n < 0 or n > len(self.content) - self.at:
            raise ValueError("it ends too early")
        self.at += n
        return self.content[self.at - n : self.at]

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def line(self) -> bytes:
        end = self.content.find(b"\n", self.at)
        line = self.take(end - self.at)  # negative if there is none
        self.at = end + 1
        return line

    # Stack

    def pop(self) -> Any:
        if not self.stack or isinstance(self.stack[-1], _Mark):
            raise ValueError("values are lacking")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {kind.__name__} is lacking")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[place], _Mark):
                members = self.stack[place + 1 :]
                del self.stack[place:]
                return members
        raise ValueError("a mark is lacking")

    def read(self) -> object:
        while (code := self.take(1)) != b".":
            self.step(code)
        return self.pop()

    def step(self, code: bytes) -> None:
        if code in _NUMBERS:
            self.stack.append(self.number(_NUMBERS[code]))
        elif code in _SIZED:
            form, made = _SIZED[code]
            self.stack.append(made(self.take(self.number(form))))
        elif code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code]())
        elif code in _PUT:
            self.memory[self.number(_PUT[code])] = self.stack[-1]
        elif code in _GET:
            self.stack.append(self.memory[self.number(_GET[code])])
        elif code in _TUPLES:
            members = [self.pop() for _ in range(_TUPLES[code])]
            self.stack.append(tuple(reversed(members)))
        elif code in _LINES:
            self.stack.append(_of_line(code, self.line()))
        elif code in _STEPS:
            _STEPS[code](self)
        else:
            raise _Refused(f"the opcode {code!r} at byte {self.at - 1}")

    # Opcodes that do more than push

    def protocol(self) -> None:
        if (version := self.number("<B")) > 5:
            raise ValueError(f"protocol {version}")

    def frame(self) -> None:
        self.take(8)  # its length: all bytes are here

    def extend(self) -> None:
        members = self.since_mark()
        self.top(list).extend(members)

    def append(self) -> None:
        member = self.pop()
        self.top(list).append(member)

    def set_items(self) -> None:
        members = self.since_mark()
        self.top(dict).update(_pairs(members))

    def set_item(self) -> None:
        value = self.pop()
        key = self.pop()
        self.top(dict).update(_pairs([key, value]))

    def name(self, module: object, name: object) -> None:
        called = f"{_text(module)}.{_text(name)}"
        if called not in _NAMES:
            raise _Refused(f"the name {called[:100]!r} at byte {self.at - 1}")
        self.stack.append(_Name(_NAMES[called]))

    def stack_name(self) -> None:
        name = self.pop()
        self.name(self.pop(), name)

    def reduce(self) -> None:
        arguments = self.pop()
        function = self.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError(f"a call of {_kind(function)}")
        self.stack.append(_reduced(function.called, arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, _Type):
            return  # byte order and fields, which uint8 does not have
        if not isinstance(target, _Array) or not isinstance(state, tuple) or len(state) != 5:
            raise _Refused(f"a state for {_kind(target)} at byte {self.at - 1}")
        _, shape, of_type, is_fortran, values = state
        target.value = _array(values, of_type, shape, order="F" if is_fortran else "C")


def _pairs(members: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(members) % 2 or not all(isinstance(key, str | bytes) for key in members[::2]):
        raise ValueError("a key that is no text")
    return zip(members[::2], members[1::2], strict=True)


def _of_line(code: bytes, line: bytes) -> object:
    if code == b"V":
        return line.decode("raw-unicode-escape")
    if code == b"S":
        quoted = line[1:-1]
        if line[:1] not in (b"'", b'"') or line != line[:1] + quoted + line[:1]:
            raise ValueError("a string that is not quoted")
        if not _QUOTED.fullmatch(quoted):
            raise ValueError("an escape that Python 2 does not write")
        return codecs.escape_decode(quoted)[0]
    if code == b"I" and line in (b"00", b"01"):
        return line == b"01"
    return int(line.removesuffix(b"L") if code == b"L" else line)


def _reduced(called: str, arguments: tuple[Any, ...]) -> object:
    """Return what a call would have made, for the calls that rebuild bytes and arrays."""
    if called == "encode":
        text, encoding = arguments
        if not isinstance(text, str) or encoding != "latin1":
            raise _Refused("text in another encoding than latin1")
        return text.encode("latin-1")
    if called == "bytes" and not arguments:
        return b""
    if called == "dtype":
        if arguments[0] not in ("u1", b"u1"):
            raise _Refused(f"an array of the type {_text(arguments[0])[:20]!r}")
        return _Type()
    if called == "reconstruct":
        if not isinstance(arguments[0], _Name) or arguments[0].called != "ndarray":
            raise _Refused("an array that is no plain one")
        return _Array()
    if called == "frombuffer":
        values, of_type, shape, order = arguments
        if order not in ("C", "F"):
            raise ValueError("an array of unknown order")
        array = _Array()
        array.value = _array(values, of_type, shape, order=order)
        return array
    raise _Refused(f"a call of {called}")


def _array(values: object, of_type: object, shape: object, *, order: Any) -> NDArray[np.uint8]:
    if not isinstance(of_type, _Type) or not isinstance(values, bytes):
        raise ValueError(f"an array out of {_kind(values)}")
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("an array without a shape")
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} values for another shape")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape, order=order)


_STEPS: dict[bytes, Callable[[_Reader], None]] = {
    b"\x80": _Reader.protocol,
    b"\x95": _Reader.frame,
    b"(": lambda reader: reader.stack.append(_Mark()),
    b"t": lambda reader: reader.stack.append(tuple(reader.since_mark())),
    b"l": lambda reader: reader.stack.append(reader.since_mark()),
    b"d": lambda reader: reader.stack.append(dict(_pairs(reader.since_mark()))),
    b"e": _Reader.extend,
    b"a": _Reader.append,
    b"u": _Reader.set_items,
    b"s": _Reader.set_item,
    b"p": lambda reader: reader.memory.update({int(reader.line()): reader.stack[-1]}),
    b"g": lambda reader: reader.stack.append(reader.memory[int(reader.line())]),
    b"\x94": lambda reader: reader.memory.update({len(reader.memory): reader.stack[-1]}),
    b"c": lambda reader: reader.name(reader.line(), reader.line()),
    b"\x93": _Reader.stack_name,
    b"R": _Reader.reduce,
    b"b": _Reader.build,
}
