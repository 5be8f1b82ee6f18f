"""The steps of a plan: what a program's operations become before anything is packed or placed.

A convolution to a single pixel becomes a linear layer, and for one sample one to very few pixels
too. For one sample, convolutions with strides read pixels that were gathered by phase before, and
those of small images pixels gathered for each tap.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from secateurs.runtime.program import Floats, Op, Program

__all__ = ["Layout", "Step", "Value", "alive", "lower", "taps"]

_TINY = 4  # pixels up to which a convolution of one sample becomes a linear layer
_PAIRS = 32  # taps, or pairs of pixels that meet, up to which they are written out
_SMALL = 64  # pixels up to which one sample's are gathered for each tap, to stand aligned
_WASTE = 1.5  # a row of pixels may be longer by this before pixels are gathered instead


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a value stands, in floats.

    Args:
        pitch, plane: from one row, or channel, to the next.
        guard, tail: zeros before the first and after the last channel; -1: no padding at all.
        size: of everything, rounded up.
    """

    pitch: int
    plane: int
    guard: int = -1
    tail: int = 0
    size: int = 0


@dataclass(kw_only=True, eq=False)
class Value:
    """What a step makes: (channels, height, width), of vectors (features, 1, 1).

    Args:
        shape: of it.
        vector: whether it has to stand without padding.
        phases: planes of one channel in what `gather` makes, else 0.
        by_tap: whether those planes are the pixels of one tap each, as the output's pixels stand.
        layout: how it stands, once that is known.
        at: the place of its first pixel in the tile, once that is known.
    """

    shape: tuple[int, int, int]
    vector: bool
    phases: int = 0
    by_tap: bool = False
    layout: Layout | None = None
    at: int = 0

    @property
    def known(self) -> Layout:
        """The layout, which is there."""
        assert self.layout is not None
        return self.layout


@dataclass(kw_only=True, eq=False)
class Step:
    """One step of a plan.

    Args:
        kind: of program.py, or copy (an image as a vector) or gather (pixels by their phase).
        op: index of the operation that it belongs to.
        inputs, out: the values.
        weight, bias: of linear layers, convolutions and scale.
        activation: applied last.
        residual: whether the last input is added before the activation.
        geometry: the operation itself, for windows.
        image: shape of what a window slides over, also where its pixels were gathered.
    """

    kind: str
    op: int
    inputs: list[Value]
    out: Value
    geometry: Op
    image: tuple[int, int, int] = (1, 1, 1)
    weight: Floats | None = None
    bias: Floats | None = None
    activation: str = ""
    residual: bool = False


@dataclass(eq=False)
class _Lowering:
    """The steps so far, and the value that holds each value of the program."""

    steps: list[Step] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)


def taps(n_in: int, n_out: int, *, kernel: int, stride: int, padding: int) -> list[range]:
    """Return for each output pixel along one axis the taps that fall inside of the image.

    >>> taps(2, 2, kernel=3, stride=1, padding=1)
    [range(1, 3), range(0, 2)]
    """
    first = [i * stride - padding for i in range(n_out)]
    return [range(max(0, -at), max(0, -at, min(kernel, n_in - at))) for at in first]


def alive(op: Op, image: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """Return the taps along y and x that meet the image somewhere, and not only padding."""
    ys, xs = (
        sorted({tap for pixel in taps(n_in, n_out, kernel=k, stride=s, padding=p) for tap in pixel})
        for n_in, n_out, k, s, p in zip(
            image[1:], op.shape[1:], op.kernel, op.stride, op.padding, strict=True
        )
    )
    return ys, xs


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def lower(program: Program, *, n: int) -> tuple[list[Step], Value, Value]:
    """Return the steps of a program, its input and its output.

    Convolutions to a single pixel become linear layers, an addition after a convolution becomes
    part of it, and the flattening of what stands without gaps becomes nothing.
    """
    low = _Lowering()
    shape = _image(program.input_shape)
    low.values.append(Value(shape=shape, vector=shape[1:] == (1, 1)))
    uses = [0] * (len(program.ops) + 1)
    uses[-1] = 1
    for op in program.ops:
        for i in op.inputs:
            uses[i] += 1
    for index, op in enumerate(program.ops):
        _lower_op(low, index, op, uses=uses, n=n)
    return low.steps, low.values[0], low.values[-1]


def _lower_op(low: _Lowering, index: int, op: Op, *, uses: list[int], n: int) -> None:
    inputs = [low.values[i] for i in op.inputs]
    image = inputs[0].shape
    if op.kind == "flatten":
        low.values.append(_flat(low, index, op, inputs[0]))
        if op.activation:
            _append(low, index, op, [low.values.pop()], kind="activation")
        return
    if op.kind == "conv2d":
        if _is_unrolled(op, inputs[0], n=n):
            flat = _flat(low, index, op, inputs[0])
            weight = _unrolled(op, inputs[0])
            _append(low, index, op, [flat], kind="linear", weight=weight)
            return
        if n == 1:
            inputs = [_gathered(low, index, op, inputs[0])]
    if op.kind == "add" and op.inputs[0] != op.inputs[1]:
        last = low.steps[-1] if low.steps else None
        for one, other in ((0, 1), (1, 0)):
            # The convolution has to be the last step: only then is the other value there.
            if (
                last is not None
                and last.out is inputs[one]
                and last.kind == "conv2d"
                and not (last.activation or last.residual)
                and uses[op.inputs[one]] == 1
            ):
                last.inputs.append(inputs[other])
                last.residual, last.activation = True, op.activation
                low.values.append(last.out)
                return
    _append(low, index, op, inputs, kind=op.kind, weight=op.weight, image=image)


def _append(
    low: _Lowering,
    index: int,
    op: Op,
    inputs: list[Value],
    *,
    kind: str,
    weight: Floats | None = None,
    image: tuple[int, int, int] = (1, 1, 1),
) -> None:
    shape = _image(op.shape)
    # What is linear, or made of such values pixel by pixel, stands without gaps.
    pixelwise = kind in ("scale", "activation", "add", "concat", "mean")
    vector = kind == "linear" or (pixelwise and all(value.vector for value in inputs))
    out = Value(shape=shape, vector=vector or shape[1:] == (1, 1))
    low.values.append(out)
    bias = op.bias
    if kind == "linear" and bias is not None:
        bias = np.repeat(bias, math.prod(shape) // len(bias))
    low.steps.append(
        Step(
            kind=kind,
            op=index,
            inputs=inputs,
            out=out,
            geometry=op,
            image=image,
            weight=weight,
            bias=bias,
            activation=op.activation,
        )
    )


def _flat(low: _Lowering, index: int, op: Op, value: Value) -> Value:
    """Return a value as a vector."""
    if value.shape[1:] == (1, 1):
        return value
    out = Value(shape=(math.prod(value.shape), 1, 1), vector=True)
    step = Step(kind="copy", op=index, inputs=[value], out=out, geometry=op)
    low.steps.append(step)
    return out


def _windows(op: Op, value: Value) -> tuple[list[range], list[range]]:
    """Return the taps of each output pixel along y and along x."""
    y, x = (
        taps(n_in, n_out, kernel=k, stride=s, padding=p)
        for n_in, n_out, k, s, p in zip(
            value.shape[1:], op.shape[1:], op.kernel, op.stride, op.padding, strict=True
        )
    )
    return y, x


def _is_unrolled(op: Op, value: Value, *, n: int) -> bool:
    """Whether a convolution becomes a linear layer from all pixels to all pixels."""
    ys, xs = _windows(op, value)
    n_pairs = sum(map(len, ys)) * sum(map(len, xs))
    if op.shape[1:] != (1, 1):
        # One sample of a tiny image leaves most lanes idle, and linear layers do not.
        return n == 1 and n_pairs <= _PAIRS and math.prod(op.shape[1:]) <= _TINY
    # Where most pixels are never read, a dense layer would multiply by zeros. (For one sample, a
    # vector has no room for what a convolution over flat pixels writes.)
    return n == 1 or n_pairs * 4 >= math.prod(value.shape[1:])


def _unrolled(op: Op, value: Value) -> Floats:
    """Return the weight [out * its pixels, in * its pixels] of a convolution."""
    assert op.weight is not None
    ys, xs = _windows(op, value)
    weight = np.zeros((*op.shape, *value.shape), np.float32)
    for y, y_taps in enumerate(ys):
        for x, x_taps in enumerate(xs):
            for ky in y_taps:
                for kx in x_taps:
                    row = y * op.stride[0] + ky - op.padding[0]
                    column = x * op.stride[1] + kx - op.padding[1]
                    weight[:, y, x, :, row, column] = op.weight[:, :, ky, kx]
    return weight.reshape(math.prod(op.shape), -1)


def _direct(op: Op, value: Value) -> bool:
    """Whether a convolution of one sample can run over the flat pixels of its input."""
    width, out = value.shape[2], op.shape[2]
    return (
        op.stride == (1, 1)
        and not value.vector
        and max(width, out) + op.padding[1] <= _WASTE * out + 1
        and max(op.padding) < 64
    )


def _gathered(low: _Lowering, index: int, op: Op, value: Value) -> Value:
    ys, xs = alive(op, value.shape)
    small = math.prod(op.shape[1:]) <= _SMALL and op.kernel != (1, 1)
    if small and ys and xs and len(ys) * len(xs) <= _PAIRS:
        shape = (value.shape[0], op.shape[1], op.shape[2])
        out = Value(shape=shape, vector=False, phases=len(ys) * len(xs), by_tap=True)
        low.steps.append(Step(kind="gather", op=index, inputs=[value], out=out, geometry=op))
        return out
    if _direct(op, value):
        return value
    return _by_phase(low, index, op, value)


def _by_phase(low: _Lowering, index: int, op: Op, value: Value) -> Value:
    ys, xs = _offsets(op, 0), _offsets(op, 1)
    rows = op.shape[1] + max(at for _, at in ys) - min(at for _, at in ys)
    columns = op.shape[2] + max(at for _, at in xs) - min(at for _, at in xs)
    phases = len({a for a, _ in ys}) * len({a for a, _ in xs})
    out = Value(shape=(value.shape[0], rows, columns), vector=False, phases=phases)
    low.steps.append(Step(kind="gather", op=index, inputs=[value], out=out, geometry=op))
    return out


def _offsets(op: Op, axis: int) -> list[tuple[int, int]]:
    """Return for each tap along an axis its phase, and its pixel in that phase."""
    stride, padding = op.stride[axis], op.padding[axis]
    return [((k - padding) % stride, (k - padding) // stride) for k in range(op.kernel[axis])]
