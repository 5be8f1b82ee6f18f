"""What a network computes, as NumPy arrays: the form in which the runtime holds it.

A program is a list of operations. Value 0 is the input, operation i makes value i + 1, and the
last value is the output. Values have no batch axis here: (features,) or (channels, height, width).

| kind | inputs | what it makes |
| --- | --- | --- |
| linear | 1 | weight [out, in] x + bias [out] |
| conv2d | 1 | weight [out, in, kh, kw] correlated with x, + bias [out]; stride, padding: (y, x) |
| scale | 1 | x * weight + bias, by channel or feature: [channels] each |
| activation | 1 | the activation alone |
| max_pool | 1 | kernel, stride, padding: (y, x) each; padding counts as minus infinity |
| avg_pool | 1 | the same; include_padding: whether zeros of the padding count |
| flatten | 1 | (channels, height, width) as (channels * height * width,) |
| add | 2 | the sum of two values of one shape |
| concat | 2 and more | values side by side along the first axis |
| mean | 2 and more | the mean of values of one shape (members of an ensemble) |
| call | 1 | what `function`, a part left to torch, makes of a batch |

linear, conv2d, scale and add end in their `activation`, as the activation kind does: "" (none),
relu, gelu (by erf), gelu_tanh, sigmoid, tanh, or softmax over the first axis.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError

__all__ = ["ACTIVATIONS", "KINDS", "Floats", "Op", "Program", "check"]

ACTIVATIONS = ("", "relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "softmax")
KINDS = (
    "linear",
    "conv2d",
    "scale",
    "activation",
    "max_pool",
    "avg_pool",
    "flatten",
    "add",
    "concat",
    "mean",
    "call",
)

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Op:
    """One operation; see the module for its kinds.

    Args:
        kind: one of `KINDS`.
        inputs: the values that it reads.
        shape: of the value that it makes, without the batch axis.
        weight: float32; zeros are pruned weights.
        bias: float32 or None.
        activation: what is applied last, one of `ACTIVATIONS`.
        stride, padding, kernel: of convolutions and pooling, (y, x).
        include_padding: of avg_pool.
        function: of call; a batch as float32 [rows, ...] in, float32 [rows, *shape] out.
        name: of the module or node that it came from, for reports and errors.
    """

    kind: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    weight: Floats | None = None
    bias: Floats | None = None
    activation: str = ""
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    kernel: tuple[int, int] = (1, 1)
    include_padding: bool = True
    function: Callable[[Floats], Floats] | None = None
    name: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Operations in the order in which they run.

    Args:
        input_shape: of one sample: (features,) or (channels, height, width).
        ops: the operations; the last one makes the output.
    """

    input_shape: tuple[int, ...]
    ops: tuple[Op, ...]

    def shape(self, value: int) -> tuple[int, ...]:
        """Return the shape of a value, without the batch axis."""
        return self.ops[value - 1].shape if value else self.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the last value."""
        return self.shape(len(self.ops))


def _window(size: tuple[int, ...], op: Op) -> tuple[int, int]:
    """Return the height and width that a window of `op.kernel` leaves of an image."""
    y, x = (
        (n + 2 * pad - k) // step + 1
        for n, k, step, pad in zip(size[1:], op.kernel, op.stride, op.padding, strict=True)
    )
    return y, x


def _expected(program: Program, op: Op) -> tuple[int, ...]:
    """Return the shape that an operation must have, from those of its inputs and weights."""
    sources = [program.shape(i) for i in op.inputs]
    source = sources[0]
    if op.kind == "linear":
        assert op.weight is not None
        if len(source) != 1 or op.weight.shape[1:] != source:
            raise InputError(f"a weight of shape {op.weight.shape} for a value of shape {source}")
        return op.weight.shape[:1]
    if op.kind in ("conv2d", "max_pool", "avg_pool"):
        if len(source) != 3:
            raise InputError(f"needs an image, got a value of shape {source}")
        n_channels = source[0]
        if op.kind == "conv2d":
            assert op.weight is not None
            if op.weight.shape[1:] != (source[0], *op.kernel):
                raise InputError(f"a weight of shape {op.weight.shape} for {source}")
            n_channels = op.weight.shape[0]
        elif any(2 * pad > k for pad, k in zip(op.padding, op.kernel, strict=True)):
            raise InputError(f"padding {op.padding} is more than half of the kernel {op.kernel}")
        return (n_channels, *_window(source, op))
    if op.kind == "flatten":
        return (math.prod(source),)
    if op.kind == "concat":
        if len({s[1:] for s in sources}) > 1:
            raise InputError(f"values of shapes {sources} do not stand side by side")
        return (sum(s[0] for s in sources), *source[1:])
    if len(set(sources)) > 1:
        raise InputError(f"needs values of one shape, got {sources}")
    if op.kind == "scale" and (op.weight is None or op.weight.shape != source[:1]):
        raise InputError(f"needs one factor for each of {source[0]} channels")
    return source


def check(program: Program) -> None:
    """Raise unless every operation fits the values that it reads, and makes what it says.

    Raises:
        InputError: which operation does not, and why.

    >>> weight = np.ones((2, 3), np.float32)
    >>> op = Op(kind="linear", inputs=(0,), shape=(2,), weight=weight)
    >>> check(Program(input_shape=(3,), ops=(op,)))
    """
    if not program.ops or not all(n >= 1 for n in program.input_shape):
        raise InputError(
            "a program needs an input of positive size and at least one operation, got "
            f"{program.input_shape} and {len(program.ops)}"
        )
    for i, op in enumerate(program.ops):
        where = f"operation {i} ({op.kind}{f', {op.name}' if op.name else ''})"
        if op.kind not in KINDS or op.activation not in ACTIVATIONS:
            raise InputError(
                f"{where}: must be one of {KINDS} and end in one of {ACTIVATIONS}, "
                f"got {op.activation!r}"
            )
        many = op.kind in ("concat", "mean")
        n_inputs = len(op.inputs)
        if n_inputs < 2 if many else n_inputs != (2 if op.kind == "add" else 1):
            raise InputError(f"{where}: reads {n_inputs} values")
        if not all(0 <= value <= i for value in op.inputs):
            raise InputError(f"{where}: reads values {op.inputs} of which only 0 to {i} exist")
        numbers: list[Any] = [*op.shape, *op.stride, *op.kernel]
        if not all(n >= 1 for n in numbers) or min(op.padding) < 0:
            raise InputError(f"{where}: sizes must be positive, got shape {op.shape}")
        if (op.weight is None) == (op.kind in ("linear", "conv2d", "scale")):
            raise InputError(f"{where}: a weight is {'missing' if op.weight is None else 'odd'}")
        if op.kind == "call":
            continue
        try:
            expected = _expected(program, op)
        except InputError as err:
            raise InputError(f"{where}: {err}") from None
        if op.shape != expected:
            raise InputError(f"{where}: makes shape {expected}, not {op.shape}")
        if op.bias is not None and op.bias.shape != op.shape[:1]:
            raise InputError(f"{where}: a bias of shape {op.bias.shape} for {op.shape[0]} rows")
