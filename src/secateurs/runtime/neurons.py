"""Neurons and channels that a program can do without, exactly.

One whose weights are all pruned makes the same number for every input: that number goes into the
biases of what reads it. One that nothing reads goes. What stands side by side (the values of a
residual sum, the pixels of a channel, the input) is kept or goes together.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateurs.runtime.activations import activate
from secateurs.runtime.program import Op, Program

__all__ = ["fold_constants", "remove_unread"]

_Array: TypeAlias = NDArray[Any]
_Bools: TypeAlias = NDArray[np.bool_]


def _parts(program: Program, op: Op) -> list[slice]:
    """Return where the channels of each input of a concat are."""
    ends = np.cumsum([program.shape(value)[0] for value in op.inputs]).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _constants(program: Program, op: Op, known: Sequence[_Array]) -> _Array:
    """Return [channels] the number that each channel of an operation always is, or else NaN."""
    sources = [known[value] for value in op.inputs]
    source = sources[0]
    made = np.full(op.shape[0], np.nan)
    if op.kind in ("linear", "conv2d"):
        assert op.weight is not None
        empty = ~op.weight.reshape(len(op.weight), -1).any(axis=1)
        made[empty] = 0
    elif op.kind == "scale":
        assert op.weight is not None
        made = np.where(op.weight == 0, 0, source * op.weight)
    elif op.kind == "concat":
        made = np.concatenate(sources)
    elif op.kind in ("add", "mean"):
        made = np.sum(sources, axis=0) / (len(sources) if op.kind == "mean" else 1)
    elif op.kind == "flatten":
        made = np.repeat(source, math.prod(program.shape(op.inputs[0])[1:]))
    elif op.kind == "avg_pool":
        exact = not any(op.padding) or not op.include_padding
        made = source if exact else np.where(source == 0, source, np.nan)
    elif op.kind in ("activation", "max_pool"):
        made = source
    if op.bias is not None:
        made = made + op.bias
    if op.activation == "softmax":
        return np.full(op.shape[0], np.nan)
    made = activate(np.asarray(made, np.float64), op.activation)
    return np.where(np.isfinite(made), made, np.nan)


def _without_constants(op: Op, known: _Array) -> Op:
    """Return a linear or conv2d with the constant channels that it reads in its bias."""
    assert op.weight is not None
    weight = op.weight.reshape(len(op.weight), len(known), -1)
    foldable = ~np.isnan(known) & weight.any(axis=(0, 2))
    if any(op.padding):  # beside the image, the channel is 0 and not its constant
        foldable &= known == 0
    if not foldable.any():
        return op
    moved = weight[:, foldable].sum(axis=2) @ known[foldable]
    weight = weight.copy()
    weight[:, foldable] = 0
    bias = moved if op.bias is None else op.bias + moved
    return replace(op, weight=weight.reshape(op.weight.shape), bias=bias)


def fold_constants(program: Program) -> Program:
    """Return the program with constant neurons in the biases of what reads them.

    Their weights are zero then. A sum with a constant becomes a scale. A convolution with padding
    sees a constant channel end at the edge, so that only zero ones are folded there.

    Args:
        program: of float64 arrays. It is returned itself where nothing changes.

    >>> layers = (np.zeros((1, 2)), np.ones((1, 1)))
    >>> ops = [Op(kind="linear", inputs=(i,), shape=(1,), weight=w) for i, w in enumerate(layers)]
    >>> ops[0] = replace(ops[0], bias=np.array([2.0]))
    >>> fold_constants(Program(input_shape=(2,), ops=tuple(ops))).ops[1].bias
    array([2.])
    """
    known = [np.full(program.input_shape[0], np.nan)]
    ops: list[Op] = []
    for old in program.ops:
        op = old
        if op.kind in ("linear", "conv2d"):
            op = _without_constants(op, known[op.inputs[0]])
        elif op.kind == "add":
            for one, other in (op.inputs, op.inputs[::-1]):
                if not np.isnan(known[other]).any():
                    weight: _Array = np.ones(op.shape[0])
                    bias = known[other]
                    op = replace(op, kind="scale", inputs=(one,), weight=weight, bias=bias)
                    break
        ops.append(op)
        known.append(_constants(program, op, known))
    same = all(op is old for op, old in zip(ops, program.ops, strict=True))
    return program if same else replace(program, ops=tuple(ops))


def _all_rows(op: Op) -> bool:
    """Return whether each channel of what an operation makes depends on all others' presence."""
    return op.kind == "call" or op.activation == "softmax"


def _used(program: Program) -> list[_Bools]:
    """Return, for each value, which channels the output depends on."""
    used = [np.zeros(program.shape(value)[0], bool) for value in range(len(program.ops) + 1)]
    used[-1][:] = True
    for value in range(len(program.ops), 0, -1):
        op, read = program.ops[value - 1], used[value]
        if not read.any():
            continue
        if _all_rows(op):
            read[:] = True
        source = used[op.inputs[0]]
        if op.kind in ("linear", "conv2d"):
            assert op.weight is not None
            rows = op.weight if read.all() else op.weight[read]
            source |= rows.reshape(len(rows), len(source), -1).any(axis=(0, 2))
        elif op.kind == "scale":
            source |= read & (op.weight != 0)
        elif op.kind == "flatten":
            source |= read.reshape(len(source), -1).any(axis=1)
        elif op.kind == "call":
            source[:] = True
        elif op.kind == "concat":
            for i, part in zip(op.inputs, _parts(program, op), strict=True):
                used[i] |= read[part]
        else:
            for i in op.inputs:
                used[i] |= read
    return used


def _bound(program: Program, op: Op, keep: list[_Bools], made: _Bools) -> None:
    """Have what an operation reads and what it makes keep the same channels."""
    if op.kind == "flatten":
        source = keep[op.inputs[0]]
        source |= made.reshape(len(source), -1).any(axis=1)
        made |= np.repeat(source, len(made) // len(source))
    elif op.kind == "concat":
        for value, part in zip(op.inputs, _parts(program, op), strict=True):
            keep[value] |= made[part]
            made[part] |= keep[value]
    elif op.kind not in ("linear", "conv2d", "call"):
        for value in op.inputs:
            made |= keep[value]
        for value in op.inputs:
            keep[value] |= made


def _kept(program: Program, used: Sequence[_Bools]) -> list[_Bools]:
    """Return, for each value, which channels stay: those used, and those bound to them."""
    keep = [read.copy() for read in used]
    keep[0][:] = True
    for op, made in zip(program.ops, keep[1:], strict=True):
        if op.kind == "call":
            keep[op.inputs[0]][:] = True
        if _all_rows(op):
            made[:] = True
    count = -1
    while count != (count := sum(int(read.sum()) for read in keep)):
        for op, made in zip(program.ops, keep[1:], strict=True):
            made[0] |= not made.any()  # no value is empty
            _bound(program, op, keep, made)
    return keep


def _cut(op: Op, sources: Sequence[_Bools], used: _Bools, keep: _Bools) -> Op:
    """Return an operation that makes the kept channels only, of the kept ones that it reads."""
    weight, bias = op.weight, op.bias
    if op.kind in ("linear", "conv2d"):
        assert weight is not None
        idle = keep & ~used
        if weight[idle].any() or (bias is not None and bias[idle].any()):
            weight = np.where(idle.reshape(-1, *(1,) * (weight.ndim - 1)), 0, weight)
            bias = None if bias is None else np.where(idle, 0, bias)
        if not sources[0].all():
            weight = weight[:, sources[0]]
    if not keep.all():
        weight = None if weight is None else weight[keep]
        bias = None if bias is None else bias[keep]
    if weight is op.weight and bias is op.bias and keep.all():
        return op
    return replace(op, weight=weight, bias=bias, shape=(int(keep.sum()), *op.shape[1:]))


def remove_unread(program: Program) -> Program:
    """Return the program without the neurons and channels on which its output does not depend.

    A value keeps at least one channel.

    Args:
        program: of float64 arrays. It is returned itself where nothing changes.

    >>> layers = (np.ones((3, 2)), np.array([[0.0, 1.0, 0.0]]))
    >>> first = Op(kind="linear", inputs=(0,), shape=(3,), weight=layers[0])
    >>> ops = [first, replace(first, inputs=(1,), shape=(1,), weight=layers[1])]
    >>> [op.weight.shape for op in remove_unread(Program(input_shape=(2,), ops=tuple(ops))).ops]
    [(1, 2), (1, 1)]
    """
    used = _used(program)
    keep = _kept(program, used)
    ops = []
    for i, op in enumerate(program.ops):
        ops.append(_cut(op, [keep[value] for value in op.inputs], used[i + 1], keep[i + 1]))
    same = all(op is old for op, old in zip(ops, program.ops, strict=True))
    return program if same else replace(program, ops=tuple(ops))
