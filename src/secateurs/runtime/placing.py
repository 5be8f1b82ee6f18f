"""Where the values of a program stand in a tile.

A tile holds n samples, n innermost. For n >= 16 a value is [features][n] or [channels][height]
[width][n], nothing between. For n = 1 rows of an image are followed by zeros, and channels by rows
of zeros, so that a convolution can run over flat pixels: images of one size share one layout.
"""

import math
from dataclasses import dataclass

from secateurs.runtime.lowering import Layout, Step, Value
from secateurs.runtime.program import Op

__all__ = ["arrange", "place"]

_UNIT = 16  # floats to which places and channels are rounded
_GAP = 5
"""Pixels of a channel modulo 16: its pixels must not share a set of the caches with all others."""


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
                pixels += (_GAP - pixels) % 16
            plane = pixels * n
            value.layout = Layout(pitch=width * n, plane=plane, size=channels * plane)
        return
    sizes = _pitches(steps, values)
    for value in values:
        if value.vector:
            _, height, width = value.shape
            size = -(-math.prod(value.shape) // _UNIT) * _UNIT
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
        return -(-(height * self.pitch + self.guard) // _UNIT) * _UNIT

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
    pixels = -(-op.shape[1] * pitch // _UNIT) * _UNIT
    return (
        pixels
        - 1
        + sum((k - 1 - p) * f for k, p, f in zip(op.kernel, op.padding, (pitch, 1), strict=True))
    )


def _phase_layout(step: Step, sizes: dict[tuple[int, int], _Size]) -> Layout:
    op = step.geometry
    channels, rows, columns = step.out.shape
    pitch = sizes[op.shape[1], op.shape[2]].pitch
    plane = -(-rows * pitch // _UNIT) * _UNIT
    reach = -(-op.shape[1] * pitch // _UNIT) * _UNIT
    reach += (rows - op.shape[1]) * pitch + columns - op.shape[2]
    tail = -(-max(0, reach - plane) // _UNIT) * _UNIT
    size = channels * step.out.phases * plane + tail
    return Layout(pitch=pitch, plane=plane, guard=0, tail=tail, size=size)


def _tails(steps: list[Step], sizes: dict[tuple[int, int], _Size]) -> dict[tuple[int, int], int]:
    tails = dict.fromkeys(sizes, 0)
    for step in steps:
        if step.kind == "conv2d" and not step.inputs[0].phases:
            key = step.inputs[0].shape[1:]
            size = sizes[key]
            over = _reach(step.geometry, pitch=size.pitch) + 1 - size.plane(key[0])
            tails[key] = max(tails[key], -(-over // _UNIT) * _UNIT)
    return tails


def _padded(value: Value, size: _Size, tail: int) -> Layout:
    channels, height, _ = value.shape
    plane = size.plane(height)
    before = -(-size.guard // _UNIT) * _UNIT
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
    margin = _UNIT * max(
        [4] + [-(-_before(step) // _UNIT) for step in steps if step.kind == "gather"]
    )
    placed: list[tuple[int, int, list[int]]] = []
    for key in sorted(held, key=lambda k: -held[k].known.size):
        value, life = held[key], lives[key]
        size = max(_UNIT, -(-value.known.size // _UNIT) * _UNIT)
        at = margin
        for start, end, other in sorted(placed):
            if other[0] <= life[1] and life[0] <= other[1] and start < at + size and at < end:
                at = end
        placed.append((at, at + size, life))
        value.at = at + -(-max(0, value.known.guard) // _UNIT) * _UNIT
    for step in steps:
        for value in (*step.inputs, step.out):
            value.at = owner(value).at
    result.at = owner(result).at
    return max(end for _, end, _ in placed) + margin


def _before(step: Step) -> int:
    """Return how far before and after a value `gather` may read."""
    (y, x), pitch = step.geometry.kernel, step.inputs[0].known.pitch
    return (y + 1) * pitch + x + 4 * _UNIT
