"""What an engine's operations cost, beside the least that this core could take for them."""

import ctypes
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from secateurs.runtime import native
from secateurs.runtime.lowering import taps
from secateurs.runtime.net import Net
from secateurs.runtime.pack import aligned
from secateurs.runtime.plan import time_steps
from secateurs.runtime.program import Op
from secateurs.runtime.tuning import cover, density, fastest, split_kind

__all__ = ["COLUMNS", "Report", "peaks", "rows_of"]

COLUMNS = ("name", "kind", "shape", "density", "kernel", "bytes", "us", "gflops", "limit", "share")

_LANES = {"avx512": 16, "avx2": 8, "portable": 4}
_NEAR = 2**15  # bytes of pixels or features that the nearest cache holds
_FAR = 2**19  # bytes of weights that the second cache holds beside them
_SIZES = {"L1": 2**14, "L2": 2**18, "L3": 2**22}


@functools.cache
def peaks(library: native.Native) -> dict[str, float]:
    """Return what one core does at most: multiply-adds and reads, measured once in a process.

    Args:
        library: the kernels, whose instruction set counts.

    Returns:
        "fma" in FLOP/s, "L1", "L2" and "L3" in bytes/s, of 16 KB, 256 KB and 4 MB.
    """
    multiply, read = (library.function(f"secateurs_{name}") for name in ("multiply_add", "read"))
    multiply.restype = read.restype = ctypes.c_float
    multiply.argtypes = (ctypes.c_float, ctypes.c_float, ctypes.c_int64)
    read.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    lanes, times = _LANES[library.isa], 20_000
    x = aligned(np.ones(_SIZES["L3"] // 4, np.float32))
    calls: dict[str, Callable[[], object]] = {
        "fma": functools.partial(multiply, 0.5, 1.0, times),
        **{
            name: functools.partial(read, x.ctypes.data, size // 4 // lanes, 2**22 // size)
            for name, size in _SIZES.items()
        },
    }
    found = {
        name: fastest({name: call}, seconds=1e-2, clock=time.thread_time)[name]
        for name, call in calls.items()
    }
    return {
        name: (24.0 * lanes * times if name == "fma" else 2.0**22) / seconds
        for name, seconds in found.items()
    }


class Report(list[dict[str, Any]]):
    """One row for each operation; printed, a table.

    Args:
        rows: as `rows_of` makes them.
        tile: samples that were timed together.
        backend: what ran them.
        limits: of the core, as `peaks` returns them; none without the compiled kernels.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        *,
        tile: int,
        backend: str,
        limits: dict[str, float] | None = None,
    ) -> None:
        super().__init__(rows)
        self.tile = tile
        self.backend = backend
        self.limits = limits or {}

    def __repr__(self) -> str:
        cells = [list(COLUMNS), *([_shown(row.get(name)) for name in COLUMNS] for row in self)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        total = sum(row.get("us") or 0 for row in self)
        end = f"{self.tile} samples on one thread, {self.backend}"
        if self.limits:
            end += (
                f": {total:,.1f} us; limits: {self.limits['fma'] / 1e9:,.0f} GFLOP/s, "
                + ", ".join(f"{name} {self.limits[name] / 1e9:,.0f} GB/s" for name in _SIZES)
            )
        return "\n".join([*lines, end])


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _products(op: Op, source: tuple[int, ...], *, whole: bool) -> int:
    """Return the multiply-adds of one sample: of all weights, or of those that are kept.

    Those that only meet padding are none.
    """
    assert op.weight is not None
    kept = np.ones_like(op.weight, bool) if whole else op.weight != 0
    if op.kind == "linear":
        return int(np.count_nonzero(kept))
    meets = []  # by axis, for each tap the output pixels that meet a pixel through it
    for n, m, k, step, pad in zip(
        source[1:], op.shape[1:], op.kernel, op.stride, op.padding, strict=True
    ):
        inside = taps(n, m, kernel=k, stride=step, padding=pad)
        meets.append(np.array([sum(tap in places for places in inside) for tap in range(k)]))
    return int((kept.sum(axis=(0, 1)) * meets[0][:, None] * meets[1]).sum())


def _limit(op: Op, kernel: str, *, n: int, work: float, n_bytes: int, far: bool) -> Any:
    """Return the bytes that must be read for so many FLOP, and the cache that they come from."""
    assert op.weight is not None
    name, block = split_kind(kernel)
    if op.kind == "linear" and n == 1:
        return n_bytes, "L3" if far else "L2"
    if name in ("dense", "dense1"):
        return 0, "fma"
    columns = op.weight[0].size
    near = name == "sparse" or 4 * n * min(block or columns, columns) <= _NEAR
    # without sums of several rows in registers each product reads its own operand
    return 2 * work, "L1" if near else "L2"


def rows_of(net: Net, *, batch: int) -> tuple[list[dict[str, Any]], int, dict[str, float]]:
    """Return the rows of a report, the samples of the tile that was timed, and the core's limits.

    "share" is the least time by the roofline over the time taken: 1 is as fast as can be. Kept
    weights are what is multiplied, except by dense kernels, which multiply all.

    Args:
        net: what is reported.
        batch: rows whose (first) tile is timed.
    """
    program, library = net.program(), net.library
    rows: list[dict[str, Any]] = []
    for i, op in enumerate(program.ops):
        row: dict[str, Any] = {"name": op.name or str(i), "kind": op.kind, "kernel": net.backend}
        if op.weight is not None and op.kind != "scale":
            row |= {"shape": "x".join(map(str, op.weight.shape)), "density": density(op)}
        rows.append(row)
    if library is None:
        return rows, batch, {}
    n = cover(batch, net.costs)[0][0]
    made = net.plan(n)
    # about as large as what networks meet: denormals would slow some kernels down
    x = np.random.default_rng(0).standard_normal((n, *program.input_shape)).astype(np.float32)
    seconds = np.zeros(len(rows))
    np.add.at(seconds, list(made.ops), time_steps(made, x, repeats=10))
    limits = peaks(library)
    far = net.n_bytes > _FAR
    for i, (row, op) in enumerate(zip(rows, program.ops, strict=True)):
        kernel = made.kinds[i]
        row |= {"kernel": kernel or None, "us": 1e6 * float(seconds[i])}
        if op.weight is None or not kernel:
            continue
        n_bytes = net.packed_bytes(i, n=n)
        row["bytes"] = n_bytes
        whole = kernel in ("dense", "dense1")
        work = 2.0 * n * _products(op, program.shape(op.inputs[0]), whole=whole)
        read, source = _limit(op, kernel, n=n, work=work, n_bytes=n_bytes, far=far)
        least = max(work / limits["fma"], read / limits[source] if read else 0.0)
        compute = work / limits["fma"] >= least
        row |= {
            "gflops": work / 1e9 / max(seconds[i], 1e-9),
            "limit": "fma" if compute else source,
            "share": least / max(seconds[i], 1e-9),
        }
    return rows, n, limits
