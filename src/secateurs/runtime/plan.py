"""A program as the compiled kernels run it: packed, placed in a tile, handed over as structures."""

import ctypes
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime.lowering import Step, lower
from secateurs.runtime.native import Native
from secateurs.runtime.native import kinds as linear_kinds
from secateurs.runtime.placing import arrange, place
from secateurs.runtime.program import Floats, Program, check
from secateurs.runtime.structures import PlanStruct, StepStruct, fill, scratch, view

__all__ = ["Plan", "choices", "plan", "run", "time_steps"]

_HALF = 0.45  # density from which all weights are faster than the kept ones alone


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A program, ready to run; `run` runs it.

    Args:
        n: samples of a tile.
        isa: the instruction set.
        input_shape, output_shape: of one sample.
        kinds: for each operation the kind of its kernel, "" where there is no choice.
        ops: for each step the operation that it belongs to.
        n_floats: of a tile's memory.
        n_bytes: of packed weights, shared ones included.
        struct: `struct Plan` of images.inc; keeps all arrays alive.
        address: of it.
        call: `secateurs_run`, ready for numbers.
        native: the library.
    """

    n: int
    isa: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kinds: tuple[str, ...]
    ops: tuple[int, ...]
    n_floats: int
    n_bytes: int
    struct: Any
    address: int
    call: Any
    native: Native


def choices(program: Program, *, n: int, isa: str) -> tuple[tuple[str, ...], ...]:
    """Return for each operation the kinds of kernels that can run it on tiles of n samples.

    Of linear layers those of pack.py, of convolutions sparse and dense; none of all others.

    >>> from secateurs.runtime.program import Op
    >>> weight = np.eye(3, dtype=np.float32)
    >>> op = Op(kind="linear", inputs=(0,), shape=(3,), weight=weight)
    >>> choices(Program(input_shape=(3,), ops=(op,)), n=32, isa="avx2")
    (('rows', 'dense'),)
    """
    found: list[tuple[str, ...]] = [()] * len(program.ops)
    for step in lower(program, n=n)[0]:
        if step.kind == "linear":
            found[step.op] = linear_kinds(n=n, isa=isa)
        elif step.kind == "conv2d":
            found[step.op] = ("sparse", "dense")
    return tuple(found)


def _default(step: Step, *, n: int, isa: str) -> str:
    assert step.weight is not None
    weight = step.weight
    all_of_them = np.count_nonzero(weight) > _HALF * weight.size
    if step.kind == "conv2d":
        return "dense" if all_of_them else "sparse"
    if n == 1:
        return "dense1" if all_of_them else "sell" if isa == "avx512" else "rows"
    return "dense" if all_of_them else "rows"


def plan(
    program: Program,
    *,
    n: int,
    native: Native,
    kinds: Mapping[int, str] | None = None,
    precision: str = "fp32",
    packed: MutableMapping[Any, Any] | None = None,
) -> Plan:
    """Return a program packed and placed for tiles of n samples.

    A kernel of all weights multiplies the pruned ones too: there, as in torch, an infinite input
    makes NaN of a zero weight. `rows:128` is kind rows in blocks of 128 columns.

    Args:
        program: without call.
        n: 1 or a multiple of 16.
        native: the library.
        kinds: the kernel of an operation by its index, one of its `choices`; a guess by default.
        precision: of the weights of linear layers, as in pack.py.
        packed: packed weights of other plans of this program, to share; new ones are added.

    Raises:
        InputError: n, a kind or an operation that cannot be.

    >>> from secateurs.runtime.native import load
    >>> from secateurs.runtime.program import Op
    >>> native = load()
    >>> op = Op(kind="linear", inputs=(0,), shape=(3,), weight=np.eye(3, dtype=np.float32))
    >>> if native:
    ...     made = plan(Program(input_shape=(3,), ops=(op,)), n=1, native=native)
    ...     assert run(made, np.ones((5, 3), np.float32)).sum() == 15
    """
    check(program)
    if n != 1 and (n < 16 or n % 16):
        raise InputError(f"n must be 1 or a multiple of 16, got {n}")
    for index, op in enumerate(program.ops):
        if op.kind == "call":
            raise InputError(
                f"operation {index} ({op.name or op.kind}) is left to torch and cannot be planned; "
                "plan what stands before and after it"
            )
    kinds = kinds or {}
    possible = choices(program, n=n, isa=native.isa)
    for index, kind in kinds.items():
        valid = possible[index] if 0 <= index < len(possible) else ()
        if kind.partition(":")[0] not in valid:
            raise InputError(f"operation {index} runs as one of {valid}, got {kind!r}")
    store = {} if packed is None else packed
    steps, source, result = lower(program, n=n)
    arrange(steps, source, n=n)
    chosen = [""] * len(program.ops)
    for step in steps:
        if step.kind in ("linear", "conv2d"):
            guess = _default(step, n=n, isa=native.isa)
            chosen[step.op] = kinds.get(step.op, guess)
    n_floats = place(steps, source, result)
    beside = max((scratch(step) for step in steps), default=0)
    keep: list[Any] = []
    n_bytes = 0
    table = (StepStruct * max(1, len(steps)))()
    for row, step in zip(table, steps, strict=False):
        kind = chosen[step.op]
        # a convolution that is computed as a linear layer keeps its weights
        held = precision if program.ops[step.op].kind == "linear" else "fp32"
        n_bytes += fill(
            row, step, kind=kind, n=n, isa=native.isa, precision=held, store=store, keep=keep
        )
    whole = PlanStruct(
        n=n,
        n_steps=len(steps),
        arena=n_floats + beside,
        scratch=n_floats,
        **dict(zip(("in_channels", "in_height", "in_width"), source.shape, strict=True)),
        **dict(zip(("out_channels", "out_height", "out_width"), result.shape, strict=True)),
        input=view(source),
        output=view(result),
        in_guard=source.known.guard,
        in_tail=source.known.tail,
        steps=ctypes.addressof(table),
    )
    whole.keep = (table, keep)
    return Plan(
        n=n,
        isa=native.isa,
        input_shape=program.input_shape,
        output_shape=program.output_shape,
        kinds=tuple(chosen),
        ops=tuple(step.op for step in steps),
        n_floats=n_floats + beside,
        n_bytes=n_bytes,
        struct=whole,
        address=ctypes.addressof(whole),
        call=_run(native),
        native=native,
    )


def run(plan: Plan, x: NDArray[Any], *, n_threads: int = 1) -> Floats:
    """Return the outputs [rows, *output_shape] for x [rows, *input_shape].

    Args:
        plan: what to run; any number of threads may run the same one.
        x: as float32, or it is converted.
        n_threads: threads that share the tiles.

    Raises:
        InputError: x has another shape.
        MemoryError: there is no room for a tile.

    >>> from secateurs.runtime.native import load
    >>> from secateurs.runtime.program import Op
    >>> native = load()
    >>> op = Op(kind="activation", inputs=(0,), shape=(2,), activation="relu")
    >>> if native:
    ...     made = plan(Program(input_shape=(2,), ops=(op,)), n=16, native=native)
    ...     assert run(made, np.array([[-1.0, 2.0]])).tolist() == [[0.0, 2.0]]
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    if x.shape[1:] != plan.input_shape or x.ndim != len(plan.input_shape) + 1:
        shape = ", ".join(map(str, plan.input_shape))
        raise InputError(f"x must be [rows, {shape}], got {list(x.shape)}")
    y = np.empty((len(x), *plan.output_shape), np.float32)
    if plan.call(plan.address, x.ctypes.data, len(x), y.ctypes.data, n_threads):
        size = 4 * plan.n_floats >> 20
        raise MemoryError(f"a tile needs {size} MB for each thread; plan with a smaller n")
    return y


def _run(native: Native) -> Any:
    call = native.function("secateurs_run")
    call.restype = ctypes.c_int32
    call.argtypes = (
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64),
        *(ctypes.c_void_p, ctypes.c_int32),
    )
    return call


def time_steps(plan: Plan, x: NDArray[Any], *, repeats: int = 10) -> NDArray[np.float64]:
    """Return the shortest time of each step [steps] on a full tile, in seconds; see `Plan.ops`.

    Args:
        plan: what to run.
        x: [n, *input_shape], float32.
        repeats: of which the shortest counts.

    Raises:
        InputError: x is not one full tile.

    >>> from secateurs.runtime.native import load
    >>> from secateurs.runtime.program import Op
    >>> native = load()
    >>> op = Op(kind="activation", inputs=(0,), shape=(2,), activation="relu")
    >>> if native:
    ...     made = plan(Program(input_shape=(2,), ops=(op,)), n=16, native=native)
    ...     assert time_steps(made, np.ones((16, 2), np.float32)).shape == (1,)
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    if x.shape != (plan.n, *plan.input_shape):
        raise InputError(f"x must be {[plan.n, *plan.input_shape]}, got {list(x.shape)}")
    y = np.empty((plan.n, *plan.output_shape), np.float32)
    arena = np.zeros(plan.n_floats + 16, np.float32)
    start = arena.ctypes.data + -arena.ctypes.data % 64
    times = np.empty((repeats, max(1, len(plan.ops))), np.int64)
    call = plan.native.function("secateurs_time_tile")
    call.restype = None
    call.argtypes = (ctypes.c_void_p,) * 5
    for row in times:
        call(plan.address, x.ctypes.data, y.ctypes.data, start, row.ctypes.data)
    return np.asarray(times.min(axis=0)[: len(plan.ops)] * 1e-9)
