"""A smaller program that computes the same: what is folded, fused and removed is exact.

Arithmetic on weights is float64, so that only the last rounding to float32 shows.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateurs.runtime.neurons import fold_constants, remove_unread
from secateurs.runtime.program import Op, Program

__all__ = ["compact", "live", "size"]

_Array: TypeAlias = NDArray[Any]

_FUSED = ("linear", "conv2d", "scale", "add")  # what may end in an activation


def live(program: Program) -> Program:
    """Return the program without operations that nothing reads; itself if there are none.

    >>> ops = [Op(kind="activation", inputs=(0,), shape=(2,), activation="relu")] * 2
    >>> len(live(Program(input_shape=(2,), ops=tuple(ops))).ops)
    1
    """
    needed = {len(program.ops)}
    for value in range(len(program.ops), 0, -1):
        if value in needed:
            needed.update(program.ops[value - 1].inputs)
    order = sorted(needed - {0})
    if len(order) == len(program.ops):
        return program
    places = {0: 0} | {value: place + 1 for place, value in enumerate(order)}
    ops = (program.ops[value - 1] for value in order)
    return replace(
        program, ops=tuple(replace(op, inputs=tuple(places[i] for i in op.inputs)) for op in ops)
    )


def _idle(program: Program, op: Op, before: Op | None) -> bool:
    """Return whether an operation hands on what it reads."""
    if op.kind == "flatten":
        return len(program.shape(op.inputs[0])) == 1
    if op.kind in ("max_pool", "avg_pool"):
        return op.kernel == op.stride == (1, 1) and not any(op.padding)
    if op.kind == "scale":
        return not op.activation and _is_identity(op)
    if op.kind != "activation":
        return False
    positive = before is not None and before.activation in ("relu", "sigmoid", "softmax")
    return not op.activation or (op.activation == "relu" and positive)


def _is_identity(op: Op) -> bool:
    assert op.weight is not None
    return bool((op.weight == 1).all()) and (op.bias is None or not op.bias.any())


def _finite(*arrays: _Array | None) -> bool:
    """Return whether float32 can hold these."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(a is None or bool(np.isfinite(a.astype(np.float32)).all()) for a in arrays)


def _scaled(op: Op, scale: Op) -> Op | None:
    """Return an operation with the scale behind it in its weights, or None: too large ones."""
    assert op.weight is not None
    assert scale.weight is not None
    with np.errstate(over="ignore", invalid="ignore"):
        weight = op.weight * scale.weight.reshape(-1, *(1,) * (op.weight.ndim - 1))
        bias = scale.bias
        if op.bias is not None:
            bias = op.bias * scale.weight + (0 if bias is None else bias)
    if not _finite(weight, bias):
        return None
    return replace(op, weight=weight, bias=bias, activation=scale.activation)


def _joined(op: Op, before: Op) -> Op | None:
    """Return one operation for two, where `op` alone reads `before`; None where there is none."""
    if before.activation or before.kind not in _FUSED:
        return None
    if op.kind == "activation":
        return replace(before, activation=op.activation)
    if op.kind == "scale" and before.kind != "add":
        return _scaled(before, op)
    return None


def _reads(program: Program) -> list[int]:
    """Return how often each value is read, the output once more."""
    counts = [0] * (len(program.ops) + 1)
    counts[-1] = 1
    for op in program.ops:
        for value in op.inputs:
            counts[value] += 1
    return counts


def _fuse(program: Program) -> Program:
    """Return the program with scales and activations in the operations before them."""
    counts = _reads(program)
    ops: list[Op] = []
    places = [0]  # of each old value
    reads = [counts[0]]  # of each new value
    for old, count in zip(program.ops, counts[1:], strict=True):
        op = replace(old, inputs=tuple(places[value] for value in old.inputs))
        source = op.inputs[0]
        before = ops[source - 1] if source else None
        joined = None
        if before is not None and reads[source] == 1:
            joined = _joined(op, before)
        if joined is not None or _idle(program, old, before):
            if joined is not None:
                ops[source - 1] = joined
            places.append(source)
            reads[source] += count - 1
            continue
        plain = op.kind == "scale" and _is_identity(op)
        ops.append(replace(op, kind="activation", weight=None, bias=None) if plain else op)
        places.append(len(ops))
        reads.append(count)
    if not ops:  # nothing but what hands on its input
        ops = [Op(kind="activation", inputs=(0,), shape=program.input_shape)]
    same = len(ops) == len(program.ops) and all(
        op.kind == old.kind for op, old in zip(ops, program.ops, strict=True)
    )
    return program if same else replace(program, ops=tuple(ops))


def _behind(op: Op, scale: Op) -> Op | None:
    """Return a linear or conv2d with the scale in front of it in its weights, or None."""
    assert op.weight is not None
    assert scale.weight is not None
    n_in = op.weight.shape[1]
    factor = np.repeat(scale.weight, n_in // len(scale.weight))  # pixels, behind a flatten
    weight = op.weight * factor.reshape(1, -1, *(1,) * (op.weight.ndim - 2))
    bias = op.bias
    if scale.bias is not None and scale.bias.any():
        if any(op.padding):  # the padding would be 0 of the scaled values
            return None
        offset = np.repeat(scale.bias, n_in // len(scale.weight))
        moved = op.weight.reshape(len(op.weight), n_in, -1).sum(axis=2) @ offset
        bias = moved if bias is None else bias + moved
    return replace(op, weight=weight, bias=bias) if _finite(weight, bias) else None


def _fold_forward(program: Program) -> Program:
    """Return the program with scales in the weights of all that reads them, where that is exact."""
    for i, scale in enumerate(program.ops):
        if scale.kind != "scale" or scale.activation or not _finite(scale.weight, scale.bias):
            continue
        flats = {
            j + 1: op
            for j, op in enumerate(program.ops)
            if op.kind == "flatten" and op.inputs == (i + 1,)
        }
        readers = {
            j: op
            for j, op in enumerate(program.ops)
            if any(value == i + 1 or value in flats for value in op.inputs) and j + 1 not in flats
        }
        if i + 1 == len(program.ops) or len(program.ops) in flats:
            continue
        folded = {
            j: _behind(op, scale) if op.kind in ("linear", "conv2d") else None
            for j, op in readers.items()
        }
        if any(op is None for op in folded.values()):
            continue
        ops = list(program.ops)
        for j, changed in folded.items():
            assert changed is not None
            ops[j] = changed
        source = scale.inputs[0]
        for j, op in enumerate(ops):
            if i + 1 in op.inputs:
                ops[j] = replace(op, inputs=(source,))
        return live(replace(program, ops=tuple(ops)))
    return program


_RULES: tuple[Callable[[Program], Program], ...] = (
    live,
    _fuse,
    _fold_forward,
    fold_constants,
    remove_unread,
)


def _apply_rules(program: Program) -> Program:
    """Return what all rules make of a program: itself where none applies."""
    for rule in _RULES:
        program = rule(program)
    return program


def _cast(program: Program, dtype: Any) -> Program:
    """Return the program with arrays of a type, and biases of zeros left out."""
    ops = []
    for op in program.ops:
        weight, bias = op.weight, op.bias
        with np.errstate(under="ignore"):
            weight = None if weight is None else np.ascontiguousarray(weight, dtype)
            bias = None if bias is None else np.ascontiguousarray(bias, dtype)
        ops.append(
            replace(op, weight=weight, bias=bias if bias is not None and bias.any() else None)
        )
    return replace(program, ops=tuple(ops))


def compact(program: Program) -> Program:
    """Return a program that is no larger and computes the same, up to the rounding of float32.

    BatchNorm and other scales go into the layers beside them and activations into the layers before
    them. Neurons and channels that nothing reads go; those that are constant go into the biases of
    what reads them, unless a convolution with padding does. Input and output keep their shapes.

    >>> ops = (
    ...     Op(kind="linear", inputs=(0,), shape=(2,), weight=np.eye(2, dtype=np.float32)),
    ...     Op(kind="activation", inputs=(1,), shape=(2,), activation="relu"),
    ... )
    >>> [(op.kind, op.activation) for op in compact(Program(input_shape=(2,), ops=ops)).ops]
    [('linear', 'relu')]
    """
    found = program
    while True:
        wide = _cast(found, np.float64)
        while (smaller := _apply_rules(wide)) is not wide:
            wide = smaller
        found = _cast(wide, np.float32)
        # what is rounded to 0 or 1 may make it smaller again
        if _apply_rules(found) is found:
            return found


def size(program: Program) -> dict[str, int]:
    """Return how many weights a program has.

    "kept" are those of linear and conv2d that are not zero, "prunable" all of them, and "dense" all
    numbers of the program, biases and scales among them.

    >>> weight = np.eye(2, dtype=np.float32)
    >>> op = Op(kind="linear", inputs=(0,), shape=(2,), weight=weight, bias=np.ones(2, np.float32))
    >>> size(Program(input_shape=(2,), ops=(op,)))
    {'kept': 2, 'prunable': 4, 'dense': 6}
    """
    layers = [op.weight for op in program.ops if op.kind in ("linear", "conv2d")]
    weights = [weight for weight in layers if weight is not None]
    arrays = [a for op in program.ops for a in (op.weight, op.bias) if a is not None]
    return {
        "kept": sum(int(np.count_nonzero(weight)) for weight in weights),
        "prunable": sum(weight.size for weight in weights),
        "dense": sum(array.size for array in arrays),
    }
