"""Weights in fewer bits: the upper half of a float, or whole numbers with a scale for each row."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime.program import Floats, Program

__all__ = ["PRECISIONS", "from_bf16", "is_kept", "rounded", "to_bf16", "to_int8"]

PRECISIONS = ("fp32", "bf16", "int8")


def to_bf16(values: Floats) -> NDArray[np.uint16]:
    """Return the upper halves of floats, rounded to even."""
    whole = np.ascontiguousarray(values).view(np.uint32)
    with np.errstate(over="ignore"):
        upper = (whole + (((whole >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(values), (whole >> 16) | 0x40, upper).astype(np.uint16)


def from_bf16(upper: NDArray[np.uint16]) -> Floats:
    """Return the floats of which these are the upper halves.

    >>> from_bf16(to_bf16(np.array([1, 127.2], np.float32)))
    array([  1., 127.], dtype=float32)
    """
    return (upper.astype(np.uint32) << 16).view(np.float32)


def is_kept(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which stored values are weights that were not pruned; -0.0 was.

    Args:
        values: float32, upper halves of floats as uint16, or int8.

    >>> is_kept(to_bf16(np.array([-0.0, 1.0], np.float32)))
    array([False,  True])
    """
    kept: NDArray[np.bool_] = (values & 0x7FFF if values.dtype == np.uint16 else values) != 0
    return kept


def to_int8(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return whole numbers in -127..127 and the scale of each row."""
    most = np.abs(weight).max(axis=1, initial=0)
    # a row of denormals has no scale of its own: it would be a rounded one
    tiny = np.finfo(np.float32).tiny
    scales = np.where(most > 0, np.maximum(most / np.float32(127), tiny), 0).astype(np.float32)
    whole = np.rint(weight / np.where(scales > 0, scales, np.float32(1))[:, None])
    return np.clip(whole, -127, 127).astype(np.int8), scales


def rounded(program: Program, precision: str) -> Program:
    """Return the program whose linear layers have weights that `precision` can hold, as float32.

    Raises:
        InputError: an unknown precision, or int8 weights that are not finite.

    >>> from secateurs.runtime.program import Op
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
            weight = from_bf16(to_bf16(op.weight))
        else:
            if not np.isfinite(op.weight).all():
                raise InputError(
                    f"int8 weights must be finite, got others in {op.name or 'a linear layer'}; "
                    "use precision='fp32'"
                )
            whole, scales = to_int8(op.weight)
            weight = whole * scales[:, None]
        ops.append(replace(op, weight=weight))
    return replace(program, ops=tuple(ops))
