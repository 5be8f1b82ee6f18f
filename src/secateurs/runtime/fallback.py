"""Run a program without the compiled library: NumPy, with numba or SciPy for sparse weights.

Values hold the batch last, [features, rows] and [channels, height, width, rows], so that a product
with few weights reads whole runs of memory.
"""

import math
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from secateurs.errors import FallbackWarning, InputError
from secateurs.runtime.activations import activate
from secateurs.runtime.program import Floats, Op, Program

__all__ = ["BACKENDS", "announce", "backend", "run", "runner"]

BACKENDS = ("numba", "scipy", "numpy")
"""What multiplies by sparse weights, the fastest first."""

_SPARSE = 0.1  # above this density, a dense product is faster than a sparse one of these
_SCRATCH = 1 << 24  # floats that unfolded images may take: more rows run in several tiles

_Product: TypeAlias = Callable[[Floats], Floats]
_Step: TypeAlias = Callable[..., Floats]


@cache
def backend() -> str:
    """Return what multiplies by sparse weights here: the first of `BACKENDS` that is installed.

    >>> backend() in BACKENDS
    True
    """
    return next(name for name in BACKENDS if name == "numpy" or find_spec(name) is not None)


@cache
def announce(reason: str) -> None:
    """Warn, once in a process for each reason, that programs run here without the library.

    Args:
        reason: why, such as "it was not built".

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     announce("an example")
    >>> caught[0].category.__name__
    'FallbackWarning'
    """
    with_what = {"numpy": "NumPy", "scipy": "SciPy", "numba": "numba"}[backend()]
    warnings.warn(
        f"the compiled library of secateurs.runtime is absent ({reason}); {with_what} runs "
        "networks instead, correctly and slower; install with a C++ compiler on the PATH",
        FallbackWarning,
        stacklevel=3,
    )


@cache
def _numba_kernel() -> Any:
    import numba

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
    def multiply(
        starts: Any, columns: Any, values: Any, x: Any, y: Any
    ) -> None:  # pragma: no cover
        for row in range(len(starts) - 1):
            for k in range(starts[row], starts[row + 1]):
                value, source = values[k], x[columns[k]]
                for j in range(x.shape[1]):
                    y[row, j] += value * source[j]

    return multiply


def _product(weight: Floats, kind: str) -> _Product:
    """Return the function x -> weight x, for weight [rows, columns] and x [columns, ...]."""
    if kind == "numpy" or np.count_nonzero(weight) > _SPARSE * weight.size:
        return lambda x: weight @ x
    if kind == "scipy":
        from scipy import sparse

        packed = sparse.csr_array(weight)
        return lambda x: packed @ x
    rows, columns = np.nonzero(weight)
    values = weight[rows, columns]
    starts = np.searchsorted(rows, np.arange(len(weight) + 1))
    kernel = _numba_kernel()

    def multiply(x: Floats) -> Floats:
        y = np.zeros((len(weight), x.shape[1]), np.float32)
        kernel(starts, columns, values, np.ascontiguousarray(x), y)
        return y

    return multiply


def _windows(x: Floats, op: Op, fill: float) -> Floats:
    """Return [channels, height, width, rows, ky, kx]: what each window of an image sees."""
    edges = [(0, 0), *((pad, pad) for pad in op.padding), (0, 0)]
    padded = np.pad(x, edges, constant_values=fill) if any(op.padding) else x
    seen: Floats = sliding_window_view(padded, op.kernel, axis=(1, 2))
    return seen[:, :: op.stride[0], :: op.stride[1]]


def _channels(numbers: Floats, x: Floats) -> Floats:
    """Return numbers of channels as they are broadcast over values."""
    return numbers.reshape(-1, *(1,) * (x.ndim - 1))


def _linear(op: Op, kind: str) -> _Step:
    assert op.weight is not None
    return _product(op.weight, kind)


def _conv2d(op: Op, kind: str) -> _Step:
    assert op.weight is not None
    multiply = _product(op.weight.reshape(len(op.weight), -1), kind)

    def step(x: Floats) -> Floats:
        unfolded = _windows(x, op, 0).transpose(0, 4, 5, 1, 2, 3)
        return multiply(unfolded.reshape(math.prod(unfolded.shape[:3]), -1)).reshape(
            *op.shape, x.shape[-1]
        )

    return step


def _avg_pool(op: Op, size: tuple[int, ...]) -> _Step:
    counts = _windows(np.ones((1, *size, 1), np.float32), op, 0).sum(axis=(-2, -1))

    def step(x: Floats) -> Floats:
        total: Floats = _windows(x, op, 0).sum(axis=(-2, -1))
        total /= np.float32(math.prod(op.kernel)) if op.include_padding else counts
        return total

    return step


def _call(op: Op) -> _Step:
    function = op.function
    assert function is not None
    return lambda x: np.moveaxis(function(np.ascontiguousarray(np.moveaxis(x, -1, 0))), 0, -1)


def _step(program: Program, op: Op, kind: str) -> _Step:
    """Return what an operation does to its values, but for its bias and activation."""
    if op.kind == "linear":
        return _linear(op, kind)
    if op.kind == "conv2d":
        return _conv2d(op, kind)
    if op.kind == "avg_pool":
        return _avg_pool(op, program.shape(op.inputs[0])[1:])
    if op.kind == "call":
        return _call(op)
    weight = op.weight
    if op.kind == "scale" and weight is not None:
        return lambda x: x * _channels(weight, x)
    plain: dict[str, _Step] = {
        "activation": lambda x: x,
        "max_pool": lambda x: _windows(x, op, -np.inf).max(axis=(-2, -1)),
        "flatten": lambda x: x.reshape(-1, x.shape[-1]),
        "add": np.add,
        "concat": lambda *xs: np.concatenate(xs),
        "mean": lambda *xs: sum(xs[1:], start=xs[0]) / np.float32(len(xs)),
    }
    return plain[op.kind]


def _last_reads(program: Program) -> list[set[int]]:
    """Return the values that no operation after each one reads."""
    seen = {len(program.ops)}
    last: list[set[int]] = []
    for op in reversed(program.ops):
        last.append(set(op.inputs) - seen)
        seen |= set(op.inputs)
    return last[::-1]


def _tile(program: Program) -> int:
    """Return how many rows may run at once."""
    unfolded = [
        math.prod(op.shape[1:]) * math.prod(op.kernel) * program.shape(op.inputs[0])[0]
        for op in program.ops
        if op.kind in ("conv2d", "max_pool", "avg_pool")
    ]
    return max(1, _SCRATCH // max(unfolded, default=1))


def runner(program: Program, *, kind: str | None = None) -> Callable[[NDArray[Any]], Floats]:
    """Return the function that runs a program, made ready once.

    It takes [rows, *input_shape] of any number type and makes float32 [rows, *output_shape].

    Args:
        program: what to run.
        kind: what multiplies by sparse weights, one of `BACKENDS`; None is the fastest here.

    Raises:
        InputError: an unknown kind; the function, rows of another shape.

    >>> op = Op(kind="linear", inputs=(0,), shape=(1,), weight=np.ones((1, 3), np.float32))
    >>> runner(Program(input_shape=(3,), ops=(op,)))(np.ones((2, 3)))
    array([[3.],
           [3.]], dtype=float32)
    """
    if kind is not None and kind not in BACKENDS:
        raise InputError(f"kind must be None or one of {', '.join(BACKENDS)}, got {kind!r}")
    steps = [_step(program, op, kind or backend()) for op in program.ops]
    ends = _last_reads(program)
    tile = _tile(program)

    def on_tile(x: Floats) -> Floats:
        values: dict[int, Floats] = {0: np.ascontiguousarray(np.moveaxis(x, 0, -1))}
        for i, (op, step) in enumerate(zip(program.ops, steps, strict=True)):
            y = step(*(values[value] for value in op.inputs))
            if op.bias is not None:
                y = y + _channels(op.bias, y)
            values[i + 1] = activate(y, op.activation)
            for value in ends[i]:
                del values[value]
        return np.ascontiguousarray(np.moveaxis(values[len(steps)], -1, 0))

    def on_rows(x: NDArray[Any]) -> Floats:
        x = np.asarray(x)
        if x.shape[1:] != program.input_shape or x.ndim == 0:
            raise InputError(
                f"rows must be of shape {program.input_shape}, got an array of shape {x.shape}; "
                "pass [rows, ...]"
            )
        made = np.empty((len(x), *program.output_shape), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN pass through
            for start in range(0, len(x), tile):
                part = slice(start, start + tile)
                made[part] = on_tile(x[part].astype(np.float32, copy=False))
        return made

    return on_rows


def run(program: Program, x: NDArray[Any]) -> Floats:
    """Return what a program makes of rows: `runner` for a single batch.

    Args:
        program: what to run.
        x: [rows, *input_shape].

    Raises:
        InputError: rows of another shape.

    >>> op = Op(kind="activation", inputs=(0,), shape=(2,), activation="relu")
    >>> run(Program(input_shape=(2,), ops=(op,)), np.array([[-1.0, 1.0]]))
    array([[0., 1.]], dtype=float32)
    """
    return runner(program)(x)
