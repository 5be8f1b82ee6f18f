"""The compiled kernels through ctypes: found, checked, and chosen by the processor."""

import ctypes
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime.building import digest
from secateurs.runtime.pack import KINDS, Packed
from secateurs.runtime.precision import PRECISIONS
from secateurs.runtime.program import Floats

__all__ = ["ISAS", "LIBRARY", "Layer", "Native", "isa", "kinds", "linear", "load", "struct"]

ISAS = ("portable", "avx2", "avx512")
LIBRARY = Path(__file__).resolve().parent / "_kernels.so"


class Layer(ctypes.Structure):
    """`struct Layer` of kernels.cpp."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("precision", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("index_bytes", ctypes.c_int32),
        ("n_rows", ctypes.c_int64),
        ("n_cols", ctypes.c_int64),
        ("n_blocks", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("n_per_band", ctypes.c_int64),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Native:
    """The loaded library.

    Args:
        library: what ctypes loaded.
        isa: the instruction set in use, one of `ISAS`; functions end in its name.
    """

    library: ctypes.CDLL
    isa: str

    def function(self, name: str) -> Any:
        """Return the function `name` of the chosen instruction set."""
        return getattr(self.library, f"{name}_{self.isa}")


@functools.cache
def load(*, isa: str | None = None, path: Path = LIBRARY) -> Native | None:
    """Return the library, or None where it was not built, or from other sources than these.

    Args:
        isa: the instruction set; by default the best one, or $SECATEURS_ISA.
        path: of the library.

    Raises:
        InputError: the instruction set is unknown, or not one of this processor.

    >>> native = load()
    >>> native is None or native.isa in ISAS
    True
    """
    if not path.exists():
        return None
    try:
        library = ctypes.CDLL(str(path))
        library.secateurs_sources.restype = ctypes.c_char_p
        sources = library.secateurs_sources().decode()
    except (OSError, AttributeError):
        return None
    if sources != (digest() or sources):  # other structures would be read as if they were these
        return None
    best = int(library.secateurs_best_variant())
    wanted = isa or os.environ.get("SECATEURS_ISA") or ISAS[best]
    if wanted not in ISAS[: best + 1]:
        raise InputError(
            f"the instruction set must be one of {ISAS[: best + 1]} on this processor, "
            f"got {wanted!r}; unset SECATEURS_ISA for the best one"
        )
    native = Native(library=library, isa=wanted)
    call = native.function("secateurs_linear")
    call.restype = ctypes.c_int32
    call.argtypes = (
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_void_p),
    )
    return native


def isa() -> str | None:
    """Return the instruction set in use, one of `ISAS`, or None without the library.

    >>> isa() in (None, *ISAS)
    True
    """
    native = load()
    return native.isa if native else None


def kinds(*, n: int, isa: str | None) -> tuple[str, ...]:
    """Return the kinds of layers that an instruction set runs on tiles of n samples.

    >>> kinds(n=1, isa="avx512")
    ('rows', 'dense1', 'sell')
    >>> kinds(n=32, isa="avx2")
    ('rows', 'dense')
    """
    if n == 1:
        return ("rows", "dense1", "sell") if isa == "avx512" else ("rows", "dense1")
    return ("rows", "dense")


def struct(packed: Packed) -> Layer:
    """Return the C structure of a packed layer, which it keeps alive."""

    def pointer(array: NDArray[Any] | None) -> int | None:
        return None if array is None else array.ctypes.data

    layer = Layer(
        kind=KINDS.index(packed.kind),
        precision=PRECISIONS.index(packed.precision),
        activation=int(packed.activation == "relu"),
        index_bytes=packed.indices.itemsize,
        n_rows=packed.n_rows,
        n_cols=packed.n_cols,
        n_blocks=packed.n_blocks,
        values=pointer(packed.values),
        indices=pointer(packed.indices),
        starts=pointer(packed.starts),
        counts=pointer(packed.counts),
        order=pointer(packed.order),
        bias=pointer(packed.bias),
        scales=pointer(packed.scales),
        n_per_band=packed.n_per_band,
    )
    layer.packed = packed
    return layer


def linear(packed: Packed, x: Floats, *, native: Native) -> Floats:
    """Return the output [rows, n] of one packed layer for a tile x [columns, n].

    Raises:
        InputError: n is neither 1 nor a multiple of 16, or the kind does not run at that n.
    """
    n_cols, n = x.shape
    if n_cols != packed.n_cols or (n != 1 and (n < 16 or n % 16)):
        raise InputError(
            f"a tile must be [{packed.n_cols}, 1 or a multiple of 16], got {x.shape}; pad it"
        )
    x = np.ascontiguousarray(x, dtype=np.float32)
    y = np.empty((packed.n_rows, n), np.float32)
    layer = struct(packed)
    call = native.function("secateurs_linear")
    if call(ctypes.byref(layer), x.ctypes.data, y.ctypes.data, n, None) != 0:
        raise InputError(
            f"kind must be one of {kinds(n=n, isa=native.isa)} at n = {n}, got {packed.kind!r}"
        )
    return y
