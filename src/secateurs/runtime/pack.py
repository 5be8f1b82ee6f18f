"""Weights in the order in which the kernels read them.

| kind | tiles | what stands in `values` |
| --- | --- | --- |
| dense | multiples of 16 | panels of 12 rows, [panel][column][12] |
| rows | 1 and multiples of 16 | row after row, in blocks of columns if asked |
| dense1 | 1 | slabs of 64 rows, [slab][column][64] |
| sell | 1, AVX-512 | slabs of 64 rows by blocks of 31 columns, looked up in registers |

rows: bands of 1024 rows, if there are blocks, so that sums stay near until their next block; in a
band, block after block. `starts` [blocks + 1] bounds each block's entries in `order` (the output
row) and `counts` (its number of weights), which are sorted by that number; `indices` holds the
column of each value.

sell: slab by slab, `starts` [slabs + 1] counts the runs of blocks, `counts` holds for each run
(blocks, then steps of each of the four groups of 16 lanes), `indices` the first column of each
block, and `values` for each block 64 bytes (the place of each row among the sorted ones), then for
each group a word of sixteen 32-bit lanes (six 5-bit columns each) before every six value vectors.
A slot that is padding has column 31, where the kernel holds a zero.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime.precision import PRECISIONS, to_bf16
from secateurs.runtime.program import Floats

__all__ = ["KINDS", "Packed", "Sparse", "aligned", "pack", "sparse"]

KINDS = ("dense", "rows", "dense1", "sell")

_PANEL = 12  # rows of a panel of the dense kernel
_BAND = 1024  # rows whose sums wait in the second cache for their next block of columns
_SLAB = 64  # rows of a slab of the kernels for one sample
_LOOKUP = 31  # columns that two registers hold, with one place left for a zero
_UNUSED = np.uint32((1 << 30) - 1)  # a lane of which no column is used
_PER_WORD = 6  # 5-bit columns in a 32-bit lane


@dataclass(frozen=True, kw_only=True, eq=False)
class Sparse:
    """A weight of which only what is kept is there.

    Args:
        values: float32, row after row.
        columns: of each value, ascending within a row.
        counts: values of each row.
        n_cols: columns of the whole weight.
    """

    values: Floats
    columns: NDArray[Any]
    counts: NDArray[Any]
    n_cols: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """A layer as the kernels read it; see the module for what stands in the arrays.

    Args:
        kind: one of `KINDS`.
        precision: of the values, one of `PRECISIONS`.
        activation: "" or "relu".
        n_rows, n_cols: of the weight.
        n_blocks: blocks of columns in all bands (rows) or slabs (sell).
        n_per_band: blocks of columns in one band of rows (rows).
        n_kept: weights that are stored and not padding.
        values, indices, starts, counts, order, bias, scales: the arrays.
    """

    kind: str
    precision: str
    activation: str
    n_rows: int
    n_cols: int
    n_blocks: int
    n_kept: int
    values: NDArray[Any]
    indices: NDArray[Any]
    starts: NDArray[np.int32]
    counts: NDArray[np.int32]
    order: NDArray[np.int32]
    bias: Floats
    scales: Floats | None = None
    n_per_band: int = 1

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.values, self.indices, self.starts, self.counts, self.order, self.bias)
        scales = 0 if self.scales is None else self.scales.nbytes
        return sum(array.nbytes for array in arrays) + scales


def sparse(weight: Floats) -> Sparse:
    """Return what is kept (not zero) of a weight [out, in].

    >>> sparse(np.array([[0, 2], [0, 0], [3, 4]], np.float32)).counts
    array([1, 0, 2])
    """
    rows, columns = np.nonzero(weight)
    return Sparse(
        values=np.ascontiguousarray(weight[rows, columns], dtype=np.float32),
        columns=columns,
        counts=np.bincount(rows, minlength=len(weight)),
        n_cols=weight.shape[1],
    )


def pack(
    weight: Floats | Sparse,
    bias: Floats | None = None,
    *,
    kind: str,
    activation: str = "",
    precision: str = "fp32",
    block: int | None = None,
) -> Packed:
    """Return a layer packed for the kernels.

    Args:
        weight: [out, in] with zeros where it is pruned, or what is kept of it.
        bias: [out], or None for none.
        kind: one of `KINDS`.
        activation: "" or "relu".
        precision: of the values: "fp32", "bf16" (rounded to nearest) or "int8" (one scale a row).
        block: of kind rows: columns of a block, so that they stay in the nearest cache; all by
            default.

    Raises:
        InputError: an unknown name, or shapes that do not fit.

    >>> packed = pack(np.eye(3, dtype=np.float32), kind="rows")
    >>> packed.values, packed.indices
    (array([1., 1., 1.], dtype=float32), array([0, 1, 2], dtype=uint16))
    """
    for name, value, valid in (
        ("kind", kind, KINDS),
        ("precision", precision, PRECISIONS),
        ("activation", activation, ("", "relu")),
    ):
        if value not in valid:
            raise InputError(f"{name} must be one of {valid}, got {value!r}")
    if block is not None and block < 1:
        raise InputError(f"block must be positive, got {block}; None takes all columns at once")
    kept = weight if isinstance(weight, Sparse) else sparse(_matrix(weight))
    n_rows = len(kept.counts)
    bias = np.zeros(n_rows, np.float32) if bias is None else np.asarray(bias, np.float32)
    if bias.shape != (n_rows,):
        raise InputError(f"a bias must be [{n_rows}], one for each row, got {bias.shape}")
    values, scales = _reduced(kept, precision=precision)
    arrays: dict[str, Any]
    if kind == "rows":
        arrays = _rows(kept, values, block=block)
    elif kind == "sell":
        arrays = _sell(kept, values)
    else:
        arrays = _slabs(kept, values, size=_PANEL if kind == "dense" else _SLAB)
    order = arrays["order"]
    if kind == "sell":
        bias = _slab_order(bias, order)
        scales = None if scales is None else _slab_order(scales, order)
    return Packed(
        kind=kind,
        precision=precision,
        activation=activation,
        n_rows=n_rows,
        n_cols=kept.n_cols,
        n_kept=len(kept.values),
        bias=np.ascontiguousarray(bias),
        scales=scales,
        **arrays,
    )


def _matrix(weight: Floats) -> Floats:
    weight = np.asarray(weight, dtype=np.float32)
    if weight.ndim != 2:
        raise InputError(f"a weight must be [out, in], got shape {weight.shape}")
    return weight


def _row_ids(kept: Sparse) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(kept.counts)), kept.counts)


def _reduced(kept: Sparse, *, precision: str) -> tuple[NDArray[Any], Floats | None]:
    """Return values in their precision, and the scale of each row for int8."""
    if precision == "bf16":
        return to_bf16(kept.values), None
    if precision == "int8":
        if not np.isfinite(kept.values).all():
            raise InputError("int8 needs finite weights, got NaN or infinity; use fp32 or bf16")
        rows = _row_ids(kept)
        largest = np.zeros(len(kept.counts), np.float32)
        np.maximum.at(largest, rows, np.abs(kept.values))
        scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        # A denormal row may be too small for a scale of its own.
        scales = np.maximum(scales, np.float32(np.finfo(np.float32).tiny))
        return np.rint(kept.values / scales[rows]).astype(np.int8), scales
    return kept.values.astype(np.float32, copy=False), None


def _rows(kept: Sparse, values: NDArray[Any], *, block: int | None) -> dict[str, Any]:
    n_rows = len(kept.counts)
    width = max(1, min(block or kept.n_cols, kept.n_cols))
    n_blocks = max(1, -(-kept.n_cols // width))
    # With one block each output is written once, from wherever.
    size = max(1, min(n_rows, _BAND if n_blocks > 1 else n_rows))
    n_bands = max(1, -(-n_rows // size))
    rows = _row_ids(kept)
    part = rows // size * n_blocks + kept.columns // width
    counts = np.bincount(part * size + rows % size, minlength=n_bands * n_blocks * size)
    counts = counts.reshape(n_bands, n_blocks, size)
    counts[-1, :, n_rows - (n_bands - 1) * size :] = -1  # no such rows
    by_count = np.argsort(-counts, axis=2, kind="stable")
    place = np.argsort(by_count, axis=2).reshape(-1, size)
    counts = np.take_along_axis(counts, by_count, axis=2)
    # In the middle, a row without weights has nothing to add; the first block starts every row,
    # and the last one ends it.
    entry = counts > 0
    entry[:, [0, -1]] = counts[:, [0, -1]] >= 0
    order = by_count + size * np.arange(n_bands)[:, None, None]
    into = np.lexsort((kept.columns, place[part, rows % size], part))
    index_type = np.uint32 if kept.n_cols > 1 << 16 else np.uint16
    return {
        "n_blocks": n_bands * n_blocks,
        "n_per_band": n_blocks,
        "values": aligned(values[into]),
        "indices": aligned(kept.columns[into].astype(index_type)),
        "starts": np.concatenate([[0], np.cumsum(entry.sum(axis=2))]).astype(np.int32),
        "counts": counts[entry].astype(np.int32),
        "order": order[entry].astype(np.int32),
    }


def _slabs(kept: Sparse, values: NDArray[Any], *, size: int) -> dict[str, Any]:
    n_rows = len(kept.counts)
    n_slabs = -(-n_rows // size)
    full = aligned(np.zeros((n_slabs, kept.n_cols, size), values.dtype))
    rows = _row_ids(kept)
    full[rows // size, kept.columns, rows % size] = values
    nothing = np.zeros(1, np.int32)
    return {
        "n_blocks": n_slabs,
        "values": full.reshape(-1),
        "indices": nothing,
        "starts": nothing,
        "counts": nothing,
        "order": nothing,
    }


def _slab_order(array: Floats, order: NDArray[np.int32]) -> Floats:
    padded = np.zeros(-(-len(order) // _SLAB) * _SLAB, np.float32)
    padded[: len(order)] = array[order]
    return padded


def _sell(kept: Sparse, values: NDArray[Any]) -> dict[str, Any]:
    n_rows = len(kept.counts)
    n_slabs, n_blocks = -(-n_rows // _SLAB), max(1, -(-kept.n_cols // _LOOKUP))
    order = np.argsort(-kept.counts, kind="stable").astype(np.int32)
    rows, blocks = np.argsort(order)[_row_ids(kept)], kept.columns // _LOOKUP
    cell = rows * n_blocks + blocks
    counts = np.bincount(cell, minlength=n_slabs * _SLAB * n_blocks)
    # [slab, block, row of the slab]
    counts = counts.reshape(n_slabs, _SLAB, n_blocks).transpose(0, 2, 1)
    sorted_rows = np.argsort(-counts, axis=2, kind="stable")
    places = np.argsort(sorted_rows, axis=2).astype(np.uint8)
    steps = np.take_along_axis(counts, sorted_rows[:, :, ::16], axis=2)
    starts, runs, listed, steps = _runs(steps)
    words = -(-steps // _PER_WORD)
    vector = 16 * values.itemsize
    group_bytes = 64 * words + vector * steps
    sizes = np.where(steps[:, :, 0] > 0, 64 + group_bytes.sum(axis=2), 0)
    # Where each (slab, block) begins, in the order in which the kernel meets them.
    slab_of = np.repeat(np.arange(n_slabs), [len(part) for part in listed])
    sequence = np.concatenate([*listed, np.zeros(0, np.int64)]).astype(np.int64)
    ends = np.cumsum(sizes[slab_of, sequence])
    begin = np.zeros((n_slabs, n_blocks), np.int64)
    begin[slab_of, sequence] = ends - sizes[slab_of, sequence]
    data = aligned(np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8))
    inside = begin[slab_of, sequence][:, None] + np.arange(64)
    data[inside] = places[slab_of, sequence]

    # Each value's step is its rank in its (row, block); columns ascend, so cells are contiguous.
    first = np.zeros(n_slabs * _SLAB * n_blocks, np.int64)
    by_cell = np.argsort(cell, kind="stable")
    flat = np.bincount(cell, minlength=len(first))
    first[1:] = np.cumsum(flat)[:-1]
    step = np.empty(len(cell), np.int64)
    step[by_cell] = np.arange(len(cell)) - first[cell[by_cell]]
    slab = rows // _SLAB
    place = places[slab, blocks, rows % _SLAB].astype(np.int64)
    group, lane = place // 16, place % 16
    before = np.cumsum(group_bytes, axis=2) - group_bytes
    base = begin[slab, blocks] + 64 + before[slab, blocks, group]
    word = step // _PER_WORD
    at_word = base + word * (64 + _PER_WORD * vector)
    at_value = at_word + 64 + (step % _PER_WORD) * vector + lane * values.itemsize
    as_bytes = values.view(np.uint8).reshape(-1, values.itemsize)
    data[at_value[:, None] + np.arange(values.itemsize)] = as_bytes
    # Padding looks up the last place: all bits are set until a column clears some.
    lanes = data.view(np.uint32)
    counted = np.arange(int(words.max(initial=0)))
    owner = np.nonzero(words[slab_of, sequence][:, :, None] > counted)
    first_word = (begin[:, :, None] + 64 + before)[slab_of, sequence][owner[:2]]
    lanes[(first_word + owner[2] * (64 + _PER_WORD * vector))[:, None] // 4 + np.arange(16)] = (
        _UNUSED
    )
    cleared = (_LOOKUP - kept.columns % _LOOKUP).astype(np.uint32)
    cleared <<= (5 * (step % _PER_WORD)).astype(np.uint32)
    np.bitwise_and.at(lanes, at_word // 4 + lane, ~cleared)
    return {
        "n_blocks": n_slabs,
        "values": data,
        "indices": (sequence * _LOOKUP).astype(np.int32),
        "starts": starts,
        "counts": runs,
        "order": order,
    }


def _runs(
    steps: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32], list[NDArray[np.int64]], NDArray[np.int64]]:
    """Return for each slab its runs of blocks with one number of steps for each group.

    A change of the numbers costs the processor a wrong guess, worth a few steps: blocks are
    sorted, and numbers raised, where that costs less.
    """
    steps = steps.copy()
    starts, runs, listed = [0], [], []
    for slab in steps:
        used = np.flatnonzero(slab[:, 0])
        blocks = used[np.lexsort(slab[used].T[::-1])[::-1]]
        listed.append(blocks)
        for part in _merged(slab[blocks]):
            slab[blocks[part]] = slab[blocks[part]].max(axis=0)
            runs.append([part.stop - part.start, *slab[blocks[part.start]]])
        starts.append(len(runs))
    table = np.array(runs, np.int32).reshape(-1)
    return np.array(starts, np.int32), table, listed, steps


_GUESS = 4  # steps that a wrong guess of a branch costs, measured


def _merged(rows: NDArray[np.int64]) -> list[slice]:
    """Return the cheapest cut of sorted rows into runs: padding within runs + `_GUESS` a run."""
    n = len(rows)
    best = [0.0] + [float("inf")] * n
    cut = [0] * (n + 1)
    for end in range(1, n + 1):
        top = rows[end - 1].copy()
        for start in range(end - 1, max(-1, end - 65), -1):
            top = np.maximum(top, rows[start])
            cost = best[start] + float(top.sum()) * (end - start) + _GUESS
            if cost < best[end]:
                best[end], cut[end] = cost, start
    parts = []
    end = n
    while end:
        parts.append(slice(cut[end], end))
        end = cut[end]
    return parts[::-1]


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array at an address that is a multiple of 64, contiguous."""
    room = np.empty(array.nbytes + 64, np.uint8)
    offset = -room.ctypes.data % 64
    out = room[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out
