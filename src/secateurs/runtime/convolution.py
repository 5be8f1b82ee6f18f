"""Convolutions in the order in which the kernels read them.

The kept weights of a convolution are packed by parts (blocks of input channels whose pixels stay in
the nearest cache), in a part by output row, in a row by tap, in a tap by channel. `offsets` holds
for each weight the place of the pixel that it meets, from the place of the output's first tap;
`starts` [part, row, taps + 1] bounds the weights of each tap, `order` [part, row] names the output
rows, which are sorted by their number of weights. Dense ones: `values` [part, rows / R, taps,
channels, R] with rows R together, and offsets [part, taps, channels].

Positions are grouped by the taps that fall inside of the image; `ranges` lists for each group pairs
(from, to) of taps, and `blocks` runs of vectors of positions of one group each.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.runtime.lowering import Step, alive, taps
from secateurs.runtime.pack import aligned
from secateurs.runtime.program import Floats

__all__ = ["LANES", "Conv", "PackedConv", "Positions", "pack_conv", "positions", "struct"]

LANES = {"avx512": 16, "avx2": 8, "portable": 4}
_DENSE_ROWS = {"avx512": 6, "avx2": 4, "portable": 4}
_VECTORS = {"avx512": 16, "avx2": 8, "portable": 8}  # of a block
_RUNS = (8, 4, 3, 2, 1)  # of a block
_DENSE_VECTORS = {"avx512": 4, "avx2": 3, "portable": 3}
_NEAR_FLAT = 65536  # the same for one sample
_NEAR = 98304  # bytes of pixels that a part may touch, by measurement: twice the nearest cache

_BLOCK = np.dtype(
    [
        ("n_runs", "<i4"),
        ("length", "<i4"),
        ("group", "<i4"),
        ("mask", "<i4"),
        ("in", "<i4", (_RUNS[0],)),
        ("out", "<i4", (_RUNS[0],)),
    ]
)


class Conv(ctypes.Structure):
    """`struct Conv` of images.inc."""

    _fields_ = (
        ("dense", ctypes.c_int32),
        ("relu", ctypes.c_int32),
        ("residual", ctypes.c_int32),
        ("n_rows", ctypes.c_int32),
        ("n_parts", ctypes.c_int32),
        ("n_taps", ctypes.c_int32),
        ("n_blocks", ctypes.c_int32),
        ("gap", ctypes.c_int32),
        ("unit", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("groups", ctypes.c_void_p),
        ("ranges", ctypes.c_void_p),
        ("blocks", ctypes.c_void_p),
        ("masks", ctypes.c_void_p),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedConv:
    """The weights of a convolution, for all plans whose pixels stand alike; see the module.

    Args:
        dense: whether zeros are there too.
        n_parts, n_taps: parts, and taps that ever meet the image.
        values, offsets, starts, order, bias: the arrays.
    """

    dense: bool
    n_parts: int
    n_taps: int
    values: Floats
    offsets: NDArray[np.int32]
    starts: NDArray[np.int32]
    order: NDArray[np.int32]
    bias: Floats

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.values, self.offsets, self.starts, self.order, self.bias)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True, kw_only=True, eq=False)
class Positions:
    """Where a convolution runs, for one n; see the module.

    Args:
        groups, ranges, blocks: the arrays.
        masks: [vectors, lanes], all ones where a position is a pixel, or None.
    """

    groups: NDArray[np.int32]
    ranges: NDArray[np.int32]
    blocks: NDArray[Any]
    masks: NDArray[np.int32] | None


def _axis_taps(step: Step, axis: int) -> list[range]:
    op = step.geometry
    return taps(
        step.image[1 + axis],
        op.shape[1 + axis],
        kernel=op.kernel[axis],
        stride=op.stride[axis],
        padding=op.padding[axis],
    )


def _tap_offsets(step: Step, *, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the place of each tap's pixel [taps], and of each channel [channels], in units."""
    op, value = step.geometry, step.inputs[0]
    layout = value.known
    ys, xs = alive(step.geometry, step.image)
    pitch, plane = layout.pitch // n, layout.plane // n
    channels = np.arange(value.shape[0], dtype=np.int64) * plane * max(1, value.phases)
    if value.by_tap:
        return np.arange(value.phases, dtype=np.int64) * plane, channels
    if not value.phases:
        y = (np.array(ys, dtype=np.int64) - op.padding[0]) * pitch
        x = np.array(xs, dtype=np.int64) - op.padding[1]
        return (y[:, None] + x[None, :]).reshape(-1), channels
    places, phases = [], []
    for axis in (0, 1):
        stride, padding = op.stride[axis], op.padding[axis]
        at = [((k - padding) % stride, (k - padding) // stride) for k in range(op.kernel[axis])]
        names = sorted({a for a, _ in at})
        first = min(pixel for _, pixel in at)
        phases.append([names.index(a) for a, _ in at])
        places.append([pixel - first for _, pixel in at])
    n_x = len(set(phases[1]))
    phase = np.add.outer(np.array(phases[0], np.int64) * n_x, np.array(phases[1], np.int64))
    place = np.add.outer(np.array(places[0], np.int64) * pitch, np.array(places[1], np.int64))
    return (phase * plane + place)[ys][:, xs].reshape(-1), channels


def _n_parts(step: Step, *, n: int) -> int:
    """Return how many parts keep the pixels that a block meets in the nearest cache."""
    op = step.geometry
    ys, xs = alive(step.geometry, step.image)
    near = _NEAR
    pitch = step.inputs[0].known.pitch
    if n == 1:
        floats = 16 * 16 + 2 * 16 + (len(ys) - 1) * pitch
        floats = min(floats, step.inputs[0].known.plane) * max(1, step.inputs[0].phases)
        near = _NEAR_FLAT
    else:
        floats = 16 * (len(ys) + 3 * op.stride[0]) * (len(xs) + 3 * op.stride[1])
        floats = min(floats, 16 * step.inputs[0].shape[1] * step.inputs[0].shape[2])
    channels = step.inputs[0].shape[0]
    return -(-channels // max(1, min(channels, near // (4 * floats))))


def pack_conv(step: Step, *, kind: str, n: int, isa: str) -> PackedConv:
    """Return the weights of a convolution, packed.

    Args:
        step: a conv2d whose values have their layouts.
        kind: sparse or dense.
        n: samples of a tile; for more than 1 the result is the same.
        isa: the instruction set.
    """
    assert step.weight is not None
    ys, xs = alive(step.geometry, step.image)
    weight = step.weight[:, :, ys][:, :, :, xs].reshape(*step.weight.shape[:2], -1)
    tap_at, channel_at = _tap_offsets(step, n=n)
    n_rows = len(weight)
    parts = np.array_split(np.arange(weight.shape[1]), _n_parts(step, n=n))
    make = _dense if kind == "dense" else _sparse
    pieces = [
        make(
            weight[:, part].transpose(0, 2, 1),
            np.add.outer(tap_at, channel_at[part]),
            n_together=_DENSE_ROWS[isa],
        )
        for part in parts
    ]
    values, offsets, counts, orders = (list(each) for each in zip(*pieces, strict=True))
    flat = np.concatenate([c.reshape(-1) for c in counts])
    starts = np.concatenate([[0], np.cumsum(flat)])
    # Each row, or dense part, has its taps' first weights and the end of the last one.
    n_taps = len(tap_at)
    at = np.arange(len(flat) // max(n_taps, 1) if n_taps else len(parts) * n_rows)[:, None]
    starts = starts[at * n_taps + np.arange(n_taps + 1)]
    bias = np.zeros(n_rows, np.float32) if step.bias is None else step.bias
    return PackedConv(
        dense=kind == "dense",
        n_parts=len(parts),
        n_taps=n_taps,
        values=aligned(np.concatenate(values).astype(np.float32)),
        offsets=aligned(np.concatenate(offsets).astype(np.int32)),
        starts=np.ascontiguousarray(starts, dtype=np.int32),
        order=np.concatenate(orders).astype(np.int32),
        bias=np.ascontiguousarray(bias, dtype=np.float32),
    )


_Piece = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def _sparse(weight: Floats, offsets: NDArray[Any], *, n_together: int) -> _Piece:
    """Return values, offsets, counts [row, tap] and order of a weight [row, tap, channel]."""
    del n_together
    order = np.argsort(-np.count_nonzero(weight, axis=(1, 2)), kind="stable")
    weight = weight[order]
    rows, tap, channel = np.nonzero(weight)
    counts = np.count_nonzero(weight, axis=2)
    return weight[rows, tap, channel], offsets[tap, channel], counts, order


def _dense(weight: Floats, offsets: NDArray[Any], *, n_together: int) -> _Piece:
    n_rows, n_taps, n_channels = weight.shape
    n_blocks = -(-n_rows // n_together)
    full = np.zeros((n_blocks * n_together, n_taps, n_channels), np.float32)
    full[:n_rows] = weight
    values = full.reshape(n_blocks, n_together, n_taps * n_channels).transpose(0, 2, 1)
    counts = np.full((1, n_taps), n_channels)
    return values.reshape(-1), offsets.reshape(-1), counts, np.zeros(0, np.int32)


def positions(step: Step, *, n: int, isa: str, kind: str) -> Positions:
    """Return where a convolution runs.

    Args:
        step: a conv2d whose values have their layouts.
        n: samples of a tile.
        isa: the instruction set.
        kind: sparse or dense: how many vectors a block has.
    """
    lanes = LANES[isa]
    most = _DENSE_VECTORS[isa] if kind == "dense" else _VECTORS[isa]
    if n == 1:
        return _flat_positions(step, lanes=lanes, most=most)
    op = step.geometry
    width, out_width = step.inputs[0].shape[2], op.shape[2]
    ys, xs = alive(step.geometry, step.image)
    of_y = [(ys.index(r[0]), ys.index(r[-1]) + 1) if r else (0, 0) for r in _axis_taps(step, 0)]
    of_x = [(xs.index(r[0]), xs.index(r[-1]) + 1) if r else (0, 0) for r in _axis_taps(step, 1)]
    groups = [0]
    ranges: list[tuple[int, int]] = []
    blocks: list[tuple[Any, ...]] = []
    for (y0, y1), rows in _alike(of_y):
        for (x0, x1), columns in _alike(of_x):
            pairs = [(y * len(xs) + x0, y * len(xs) + x1) for y in range(y0, y1)]
            ranges.extend(_joined(pairs) if x1 > x0 else [])
            # Runs of floats that lie together in the input and in the output.
            wide = len(columns) if op.stride[1] == 1 else 1
            runs = [
                (
                    (y * op.stride[0] * width + x * op.stride[1]) * n,
                    (y * out_width + x) * n,
                )
                for y in rows
                for x in columns[::wide]
            ]
            for part, at, length in _tiled(len(runs), wide * n // lanes, most=most):
                places = [(a + at * lanes, b + at * lanes) for a, b in runs[part]]
                blocks.append((length, len(groups) - 1, places))
            groups.append(len(ranges))
    table = np.zeros(len(blocks), _BLOCK)
    for row, (length, group, places) in zip(table, blocks, strict=True):
        row["n_runs"], row["length"], row["group"] = len(places), length, group
        row["in"][: len(places)] = [source for source, _ in places]
        row["out"][: len(places)] = [out for _, out in places]
    return Positions(
        groups=np.array(groups, np.int32),
        ranges=np.array(ranges, np.int32).reshape(-1),
        blocks=table,
        masks=None,
    )


def _joined(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in pairs:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out


def _alike(ranges: list[tuple[int, int]]) -> list[tuple[tuple[int, int], list[int]]]:
    """Return neighbouring pixels along an axis that meet the same taps."""
    found: list[tuple[tuple[int, int], list[int]]] = []
    for pixel, taps_ in enumerate(ranges):
        if found and found[-1][0] == taps_:
            found[-1][1].append(pixel)
        else:
            found.append((taps_, [pixel]))
    return found


def _tiled(n_runs: int, length: int, *, most: int) -> list[tuple[slice, int, int]]:
    """Return a cut of runs of vectors into blocks of at most `most`: runs, first vector, length.

    Of blocks of one size, nearly square ones share most of what they read.
    """
    sizes = [(r, min(length, most // r)) for r in _RUNS if r <= min(n_runs, most)]
    runs, longest = max(sizes, key=lambda size: (size[0] * size[1], -size[0] - size[1]))
    cuts: list[slice] = []
    for size in _even(n_runs, most=runs):
        end = (cuts[-1].stop if cuts else 0) + size
        while not cuts or cuts[-1].stop < end:
            at = cuts[-1].stop if cuts else 0
            cuts.append(slice(at, at + next(r for r in _RUNS if r <= end - at)))
    blocks = []
    for part in cuts:
        start = 0
        for n_vectors in _even(length, most=longest):
            blocks.append((part, start, n_vectors))
            start += n_vectors
    return blocks


def _even(n: int, *, most: int) -> list[int]:
    """Return the sizes of the fewest parts of n of at most `most` each, nearly equal."""
    n_parts = -(-n // most)
    return [(i + 1) * n // n_parts - i * n // n_parts for i in range(n_parts)]


def _flat_positions(step: Step, *, lanes: int, most: int) -> Positions:
    _, height, width = step.out.shape
    pitch = step.out.known.pitch
    n_vectors = -(-height * pitch // lanes)
    pixels = np.arange(n_vectors * lanes)
    inside = (pixels % pitch < width) & (pixels < height * pitch)
    sizes = _even(n_vectors, most=most)
    table = np.zeros(len(sizes), _BLOCK)
    table["n_runs"], table["length"] = 1, sizes
    table["mask"] = np.cumsum(sizes) - sizes
    table["in"][:, 0] = table["out"][:, 0] = table["mask"] * lanes
    ys, xs = alive(step.geometry, step.image)
    n_taps = len(ys) * len(xs)
    return Positions(
        groups=np.array([0, 1], np.int32),
        ranges=np.array([0, n_taps], np.int32),
        blocks=table,
        masks=aligned(np.where(inside, -1, 0).astype(np.int32).reshape(n_vectors, lanes)),
    )


def struct(step: Step, packed: PackedConv, where: Positions, *, unit: int) -> Conv:
    """Return the C structure, which keeps its arrays alive."""
    conv = Conv(
        dense=int(packed.dense),
        relu=int(step.activation == "relu"),
        residual=int(step.residual),
        n_rows=len(packed.bias),
        n_parts=packed.n_parts,
        n_taps=packed.n_taps,
        n_blocks=len(where.blocks),
        unit=unit,
        values=packed.values.ctypes.data,
        offsets=packed.offsets.ctypes.data,
        starts=packed.starts.ctypes.data,
        order=packed.order.ctypes.data,
        bias=packed.bias.ctypes.data,
        groups=where.groups.ctypes.data,
        ranges=where.ranges.ctypes.data,
        blocks=where.blocks.ctypes.data,
        masks=None if where.masks is None else where.masks.ctypes.data,
    )
    conv.keep = (packed, where)
    return conv
