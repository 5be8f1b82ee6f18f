"""Where the values of a program stand in a tile, and the steps that make them.

A tile holds n samples, n innermost. For n >= 16 a value is [features][n] or [channels][height]
[width][n], nothing between. For n = 1 rows of an image are followed by zeros, and channels by rows
of zeros, so that a convolution can run over flat pixels: images of one size share one layout.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from secateurs.runtime.program import Floats, Op, Program

__all__ = ["Layout", "Step", "Value", "alive", "arrange", "lower", "place", "taps"]

UNIT = 16  # floats to which places and channels are rounded
GAP = 5
"""Pixels of a channel modulo 16: its pixels must not share a set of the caches with all others."""
TINY = 4  # pixels up to which a convolution of one sample becomes a linear layer
PAIRS = 32  # taps, or pairs of pixels that meet, up to which they are written out
SMALL = 64  # pixels up to which one sample's are gathered for each tap, to stand aligned
WASTE = 1.5  # a row of pixels may be longer by this before pixels are gathered instead


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
        return n == 1 and n_pairs <= PAIRS and math.prod(op.shape[1:]) <= TINY
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
        and max(width, out) + op.padding[1] <= WASTE * out + 1
        and max(op.padding) < 64
    )


def _gathered(low: _Lowering, index: int, op: Op, value: Value) -> Value:
    ys, xs = alive(op, value.shape)
    small = math.prod(op.shape[1:]) <= SMALL and op.kernel != (1, 1)
    if small and ys and xs and len(ys) * len(xs) <= PAIRS:
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


def arrange(steps: list[Step], source: Value, *, n: int) -> None:
    """Give every value its layout."""
    values = [source, *(step.out for step in steps)]
    if n > 1:
        convolved = {id(step.inputs[0]) for step in steps if step.kind == "conv2d"}
        flattened = {id(step.inputs[0]) for step in steps if step.kind == "copy"}
        for value in values:
            channels, height, width = value.shape
            pixels = height * width
            if id(value) in convolved - flattened and pixels >= 32:
                pixels += (GAP - pixels) % 16
            plane = pixels * n
            value.layout = Layout(pitch=width * n, plane=plane, size=channels * plane)
        return
    sizes = _pitches(steps, values)
    for value in values:
        if value.vector:
            _, height, width = value.shape
            size = -(-math.prod(value.shape) // UNIT) * UNIT
            value.layout = Layout(pitch=width, plane=height * width, size=size)
    for step in steps:
        if step.kind == "gather":
            step.out.layout = _phase_layout(step, sizes)
    tails = _tails(steps, sizes)
    for value in values:
        if value.layout is None:
            value.layout = _padded(value, sizes[value.shape[1:]], tails[value.shape[1:]])


@dataclass(kw_only=True)
class _Size:
    """Of all images of one height and width: zero rows and columns that they need, and pitch."""

    rows: int = 0
    columns: int = 0
    pitch: int = 0

    def plane(self, height: int) -> int:
        return -(-(height * self.pitch + self.guard) // UNIT) * UNIT

    @property
    def guard(self) -> int:
        return self.rows * self.pitch + self.columns


def _pitches(steps: list[Step], values: list[Value]) -> dict[tuple[int, int], _Size]:
    sizes = {v.shape[1:]: _Size(pitch=v.shape[2]) for v in values if not v.vector}
    links: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for step in steps:
        if step.kind != "conv2d":
            continue
        op, value = step.geometry, step.inputs[0]
        out = step.out.shape[1:]
        if value.phases:
            sizes[out].pitch = max(sizes[out].pitch, value.shape[2])
            continue
        size = sizes[value.shape[1:]]
        size.rows = max(size.rows, op.padding[0])
        size.columns = max(size.columns, op.padding[1])
        size.pitch = max(size.pitch, value.shape[2] + op.padding[1])
        links.append((value.shape[1:], out))
    for _ in range(len(links) + 1):
        for one, other in links:
            widest = max(sizes[one].pitch, sizes[other].pitch)
            sizes[one].pitch = sizes[other].pitch = widest
    return sizes


def _reach(op: Op, *, pitch: int) -> int:
    """Return the last float of a plane that a convolution of one sample reads, from its origin."""
    pixels = -(-op.shape[1] * pitch // UNIT) * UNIT
    return (
        pixels
        - 1
        + sum((k - 1 - p) * f for k, p, f in zip(op.kernel, op.padding, (pitch, 1), strict=True))
    )


def _phase_layout(step: Step, sizes: dict[tuple[int, int], _Size]) -> Layout:
    op = step.geometry
    channels, rows, columns = step.out.shape
    pitch = sizes[op.shape[1], op.shape[2]].pitch
    plane = -(-rows * pitch // UNIT) * UNIT
    reach = -(-op.shape[1] * pitch // UNIT) * UNIT
    reach += (rows - op.shape[1]) * pitch + columns - op.shape[2]
    tail = -(-max(0, reach - plane) // UNIT) * UNIT
    size = channels * step.out.phases * plane + tail
    return Layout(pitch=pitch, plane=plane, guard=0, tail=tail, size=size)


def _tails(steps: list[Step], sizes: dict[tuple[int, int], _Size]) -> dict[tuple[int, int], int]:
    tails = dict.fromkeys(sizes, 0)
    for step in steps:
        if step.kind == "conv2d" and not step.inputs[0].phases:
            key = step.inputs[0].shape[1:]
            size = sizes[key]
            over = _reach(step.geometry, pitch=size.pitch) + 1 - size.plane(key[0])
            tails[key] = max(tails[key], -(-over // UNIT) * UNIT)
    return tails


def _padded(value: Value, size: _Size, tail: int) -> Layout:
    channels, height, _ = value.shape
    plane = size.plane(height)
    before = -(-size.guard // UNIT) * UNIT
    whole = before + channels * plane + tail
    return Layout(pitch=size.pitch, plane=plane, guard=size.guard, tail=tail, size=whole)


def place(steps: list[Step], source: Value, result: Value) -> int:
    """Give every value a place, where values that are not needed at the same time share; return
    the floats of all.

    The view of an image as a vector has the image's place where the image stands without gaps.
    """
    root: dict[int, Value] = {}

    def owner(value: Value) -> Value:
        while id(value) in root:
            value = root[id(value)]
        return value

    for step in [step for step in steps if step.kind == "copy"]:
        value, layout = step.inputs[0], step.inputs[0].known
        floats = step.out.known.plane * step.out.shape[0]
        if layout.guard <= 0 and layout.plane * value.shape[0] == floats:
            root[id(step.out)] = value
            steps.remove(step)
    lives: dict[int, list[int]] = {id(source): [0, 0]}
    held = {id(source): source}
    for time, step in enumerate(steps, start=1):
        for value in map(owner, (*step.inputs, step.out)):
            held[id(value)] = value
            lives.setdefault(id(value), [time, time])[1] = time
    lives[id(owner(result))][1] = len(steps) + 1
    # Steps may read a little beyond what they use, where whole vectors are the faster way.
    margin = UNIT * max(
        [4] + [-(-_before(step) // UNIT) for step in steps if step.kind == "gather"]
    )
    placed: list[tuple[int, int, list[int]]] = []
    for key in sorted(held, key=lambda k: -held[k].known.size):
        value, life = held[key], lives[key]
        size = max(UNIT, -(-value.known.size // UNIT) * UNIT)
        at = margin
        for start, end, other in sorted(placed):
            if other[0] <= life[1] and life[0] <= other[1] and start < at + size and at < end:
                at = end
        placed.append((at, at + size, life))
        value.at = at + -(-max(0, value.known.guard) // UNIT) * UNIT
    for step in steps:
        for value in (*step.inputs, step.out):
            value.at = owner(value).at
    result.at = owner(result).at
    return max(end for _, end, _ in placed) + margin


def _before(step: Step) -> int:
    """Return how far before and after a value `gather` may read."""
    (y, x), pitch = step.geometry.kernel, step.inputs[0].known.pitch
    return (y + 1) * pitch + x + 4 * UNIT
