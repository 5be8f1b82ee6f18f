"""Which kernel for which layer and tile, and which tiles for a batch: measured, or by density."""

import ctypes
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from secateurs.runtime import native, pack
from secateurs.runtime.program import Op, Program

__all__ = ["TILES", "cover", "density", "fastest", "is_block", "layer_kinds", "split_kind"]

_N = TypeVar("_N", int, str)

TILES = (1, 16, 32, 64)

_BLOCKS = (128, 256)  # columns of a block of rows that stays in the nearest cache
_SECONDS = 4e-3  # for the kernels of one layer and tile


def fastest(
    candidates: Mapping[_N, Callable[[], object]],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    within: float = 3.0,
) -> dict[_N, float]:
    """Return the least seconds of each candidate, called in turn until the time is up.

    Args:
        candidates: by name; each is called twice at least.
        seconds: of the clock, for all of them; on a busy machine four times as long may pass.
        clock: `time.thread_time` for what one thread does: others on its core do not count.
        within: who takes more than so many times the best's time is not called again.

    >>> sorted(fastest({"a": lambda: None, "b": lambda: time.sleep(1e-3)}, seconds=1e-2))
    ['a', 'b']
    """
    least = dict.fromkeys(candidates, math.inf)
    end, last = clock() + seconds, time.perf_counter() + 4 * seconds
    n_rounds = 0
    while n_rounds < 2 or (clock() < end and time.perf_counter() < last):
        bound = within * min(least.values(), default=0.0)
        for name, call in candidates.items():
            if n_rounds and least[name] > bound:
                continue
            begin = clock()
            call()
            least[name] = min(least[name], clock() - begin)
        n_rounds += 1
    return least


def cover(rows: int, costs: Mapping[int, float], *, n_threads: int = 1) -> list[tuple[int, int]]:
    """Return tiles (samples in one, rows) that take the least time for a batch.

    Args:
        rows: of the batch.
        costs: seconds of one tile by its number of samples.
        n_threads: tiles of one size are shared out over these.

    >>> costs = {1: 3.0, 16: 9.0, 32: 15.0}
    >>> cover(34, costs), cover(40, costs)
    ([(32, 32), (1, 2)], [(32, 32), (16, 8)])
    """
    known: dict[int, tuple[float, list[tuple[int, int]]]] = {0: (0.0, [])}

    def best(left: int) -> tuple[float, list[tuple[int, int]]]:
        if left not in known:
            options = []
            for n, cost in costs.items():
                n_tiles = left // n
                if n_tiles:
                    more, tiles = best(left % n)
                    whole = math.ceil(n_tiles / n_threads) * cost
                    options.append((whole + more, [(n, n_tiles * n), *tiles]))
                if left % n:  # the last tile is padded
                    options.append((math.ceil((n_tiles + 1) / n_threads) * cost, [(n, left)]))
            known[left] = min(options, key=lambda option: (option[0], len(option[1])))
        return known[left]

    return best(rows)[1]


def density(op: Op) -> float:
    """Return the share of an operation's weights that are kept."""
    assert op.weight is not None
    return float(np.count_nonzero(op.weight)) / max(op.weight.size, 1)


# --- layers --------------------------------------------------------------------------------------


def split_kind(kind: str) -> tuple[str, int | None]:
    """Return a kernel's name and its columns of a block, None for all.

    >>> split_kind("rows:128"), split_kind("sell")
    (('rows', 128), ('sell', None))
    """
    name, _, block = kind.partition(":")
    return name, int(block) if block else None


def is_block(kind: str) -> bool:
    """Return whether a kernel is rows in blocks of columns.

    >>> is_block("rows:128"), is_block("rows")
    (True, False)
    """
    name, _, block = kind.partition(":")
    return name == "rows" and block.isascii() and block.isdigit() and 16 <= int(block) <= 2**16


def _candidates(op: Op, *, n: int, isa: str) -> list[str]:
    assert op.weight is not None
    found = list(native.kinds(n=n, isa=isa))
    if n > 1:
        found += [f"rows:{block}" for block in _BLOCKS if block < op.weight.shape[1]]
    if density(op) < 0.1:  # it reads ten times as much, of which it needs nothing
        found = [kind for kind in found if not kind.startswith("dense")]
    return found


def _alike(program: Program) -> dict[tuple[int, ...], list[int]]:
    """Return linear layers of one shape and about one density, together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, op in enumerate(program.ops):
        if op.kind == "linear":
            assert op.weight is not None
            share = round(4 * math.log2(max(density(op), 1e-6)))
            groups.setdefault((*op.weight.shape, share), []).append(i)
    return groups


def _layer_timer(
    packed: pack.Packed, *, n: int, library: native.Native, work: float
) -> Callable[[], object]:
    """Return what runs one layer several times, without coming back to Python between.

    Args:
        packed: the layer.
        n: samples of the tile.
        library: the kernels.
        work: multiply-adds of one run.
    """
    layer = native.struct(packed)
    pointers = (ctypes.POINTER(native.Layer) * 1)(ctypes.pointer(layer))
    a, b = (pack.aligned(np.zeros((k, n), np.float32)) for k in (packed.n_cols, packed.n_rows))
    chain = library.function("secateurs_chain")
    times = ctypes.c_int32(max(1, round(1e6 / max(work, 1))))
    arguments = (ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(b.ctypes.data))

    def call(_keep: Any = (layer, a, b)) -> object:
        return chain(pointers, ctypes.c_int32(1), *arguments, ctypes.c_int64(n), times)

    return call


def layer_kinds(
    program: Program, *, sizes: Sequence[int], library: native.Native, precision: str
) -> dict[int, dict[int, str]]:
    """Return the fastest kernel of each linear layer for each tile size.

    Args:
        program: whose layers.
        sizes: samples of a tile.
        library: the kernels.
        precision: of the weights.
    """
    found: dict[int, dict[int, str]] = {n: {} for n in sizes}
    for members in _alike(program).values():
        op = program.ops[members[len(members) // 2]]
        assert op.weight is not None
        kept = pack.sparse(op.weight)
        packed: dict[str, pack.Packed] = {}
        used: set[str] = set()
        for n in sizes:
            names = _candidates(op, n=n, isa=library.isa)
            timers = {}
            for kind in names:
                if kind not in packed:
                    name, block = split_kind(kind)
                    packed[kind] = pack.pack(
                        kept, op.bias, kind=name, precision=precision, block=block
                    )
                work = 2.0 * n * max(len(kept.values), op.weight.size / 16)
                timers[kind] = _layer_timer(packed[kind], n=n, library=library, work=work)
            least = dict.fromkeys(timers, 0.0)
            if len(timers) > 1:
                least = fastest(timers, seconds=_SECONDS, clock=time.thread_time)
            # what other tiles have packed already is no second copy in memory
            best = min(least, key=lambda kind: least[kind] * (1.0 if kind in used else 1.03))
            used.add(best)
            found[n] |= dict.fromkeys(members, best)
    return found
