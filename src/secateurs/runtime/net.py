"""A program made ready for the kernels: plans for several tile sizes, and when to use which."""

import ctypes
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime import dense, fallback, native
from secateurs.runtime.plan import Plan, choices, plan, time_steps
from secateurs.runtime.program import Floats, Program
from secateurs.runtime.tuning import TILES, cover, fastest, is_block, layer_kinds

__all__ = ["Net", "default_threads"]

_Function = Callable[[Floats], Floats]
_Runner = Callable[[Floats, int], Floats]
_Kinds = Mapping[int, Mapping[int, str]]

# What a tile costs beside one sample where nothing was measured: weights are read once a tile.
_COSTS = {1: 1.0, 16: 3.5, 32: 5.5, 64: 10.0}
_IMAGE_COSTS = {1: 1.0, 16: 15.0, 32: 30.0, 64: 60.0}
_MOST_ARENA = 2**28  # bytes of one tile's values
_SECONDS = 2e-2  # for the tiles of a whole network, and for each batch of torch's
_BATCHES = (1, 16, 32, 64, 256, 1024)  # at which torch's dense path is measured
_FEW_ROWS = 32  # starting threads takes longer than so few rows
_SHORT = 2e-4  # seconds: or than so short a time
_CLEAR = 64  # batch from which torch's lead or lag is clear
_LONG = 0.5  # seconds that one run of torch's path may take to be measured
_MOST_COVERS = 4096  # so that whoever sends batches of every size fills no memory
_AHEAD = 0.97  # of our time, at most, for torch to be used


def default_threads(rows: int) -> int:
    """Return how many threads answer a batch unless told: $SECATEURS_THREADS, or the cores.

    Raises:
        InputError: the variable holds no positive number.

    >>> default_threads(1)
    1
    """
    if rows <= _FEW_ROWS:
        return 1
    asked = os.environ.get("SECATEURS_THREADS")
    if asked is None:
        allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
        return len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    if not asked.isascii() or not asked.isdigit() or not 1 <= int(asked) <= 4096:
        raise InputError(f"SECATEURS_THREADS must be a positive number, got {asked!r}; unset it")
    return int(asked)


def _sizes_and_costs(program: Program) -> tuple[tuple[int, ...], dict[int, float]]:
    """Return the tile sizes whose values fit into memory, and what to take for their costs."""
    values = [program.input_shape, *(op.shape for op in program.ops)]
    n_bytes = 4 * sum(math.prod(shape) for shape in values)
    sizes = tuple(n for n in TILES if n == 1 or n * n_bytes <= _MOST_ARENA)
    images = any(op.kind == "conv2d" for op in program.ops)
    if images:  # pixels share weights as samples do, so that large tiles gain nothing
        sizes = tuple(n for n in sizes if n <= 16)
    return sizes, {n: (_IMAGE_COSTS if images else _COSTS)[n] for n in sizes}


class Net:
    """A program without parts of torch, its plans for several tile sizes, and when to use which.

    Plans are made at first use, under a lock; what runs them changes nothing.

    Args:
        program: made small.
        precision: of the weights of linear layers.
    """

    def __init__(self, program: Program, *, precision: str) -> None:
        weighted = [op for op in program.ops if op.kind in ("linear", "conv2d")]
        self.input_shape = program.input_shape
        self.output_shape = program.output_shape
        self.prunable = sum(op.weight.size for op in weighted if op.weight is not None)
        self.kept = sum(np.count_nonzero(op.weight) for op in weighted if op.weight is not None)
        self.precision = precision
        self.kinds: dict[int, dict[int, str]] = {}
        self._source: Callable[[], Program] = lambda: program
        self._shape = (math.prod(program.input_shape), math.prod(program.output_shape))
        self.library = native.load()  # None without the compiled kernels
        self._lock = threading.Lock()
        self._packed: dict[Any, Any] = {}
        self._plans: dict[int, Plan] = {}
        self._runners: dict[int, _Runner] = {}
        self._covers: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._dense: dict[int, _Function | None] = {}  # by the smallest batch
        self._measured = False
        self.sizes, self.costs = _sizes_and_costs(program)
        self._fallback: _Function | None = None
        if self.library is None:
            fallback.announce("it was not built, or from other sources: reinstall")

    @property
    def backend(self) -> str:
        """What runs it: an instruction set, or what does without the library."""
        return self.library.isa if self.library is not None else fallback.backend()

    @property
    def n_bytes(self) -> int:
        """Bytes of the packed weights; plans share those that they can."""
        return sum(int(packed.n_bytes) for packed in self._packed.values())

    def packed_bytes(self, index: int, *, n: int) -> int:
        """Return the bytes of one operation's packed weights, as the plan for n samples reads them.

        Args:
            index: of the operation.
            n: samples of a tile.
        """
        kind = self.plan(n).kinds[index]
        found = [
            packed
            for key, packed in self._packed.items()
            if key[:2] == (index, kind) and key[2] in (self.precision, "fp32", n == 1)
        ]
        return int(found[0].n_bytes) if found else 0

    def program(self) -> Program:
        """Return the program, unpacked anew if it was given back."""
        return self._source()

    def give_back(self, source: Callable[[], Program]) -> None:
        """Hold what unpacks the program instead of the program, where nothing else needs it.

        Args:
            source: returns an equal program.
        """
        if self.library is not None:
            self._source = source

    def use(self, kinds: _Kinds) -> None:
        """Take kernels from a file; where this processor has other ones they are chosen anew.

        Args:
            kinds: by tile size and operation.
        """
        if self.library is None:
            return
        program = self.program()
        for n in self.sizes:
            possible = choices(program, n=n, isa=self.library.isa)
            self.kinds[n] = {
                i: kind
                for i, kind in kinds.get(n, {}).items()
                if i < len(possible)
                and (kind in possible[i] or (is_block(kind) and "rows" in possible[i]))
            }

    def plan(self, n: int) -> Plan:
        """Return the plan for tiles of n samples, made at the first call."""
        found = self._plans.get(n)
        if found is not None:
            return found
        with self._lock:
            if n not in self._plans:
                self._make(n)
            return self._plans[n]

    def _make(self, n: int) -> None:
        assert self.library is not None
        made = plan(
            self.program(),
            n=n,
            kinds=self.kinds.get(n, {}),
            native=self.library,
            precision=self.precision,
            packed=self._packed,
        )
        self.kinds[n] = {i: kind for i, kind in enumerate(made.kinds) if kind}
        self._runners[n] = _runner(made, self._shape[1])
        self._plans[n] = made

    def _tile(self, n: int) -> _Runner:
        if n not in self._runners:
            self.plan(n)
        return self._runners[n]

    def threads(self, rows: int) -> int:
        """Return how many threads answer a batch: one where starting others takes longer."""
        if rows <= _FEW_ROWS:
            return 1
        short = min(cost / n for n, cost in self.costs.items()) * rows < _SHORT
        return 1 if self._measured and short else default_threads(rows)

    def run(self, x: Floats, n_threads: int | None) -> Floats:
        """Return [rows, outputs] for float32 [rows, inputs], C-contiguous."""
        rows = len(x)
        if not rows:
            return np.empty((0, self._shape[1]), np.float32)
        if self.library is None:
            return self._run_fallback(x)
        n_torch = dense.n_torch_threads() if self._dense else 0
        if n_threads == n_torch or (n_threads is None and self.threads(rows) <= n_torch):
            other = self._dense[max(n for n in self._dense if n <= rows)]
            if other is not None:
                return other(x)
        if n_threads is None:
            n_threads = self.threads(rows)
        if rows == 1:
            return self._tile(1)(x, 1)
        key = (rows, n_threads)
        tiles = self._covers.get(key)
        if tiles is None:
            tiles = cover(rows, self.costs, n_threads=n_threads)
            if len(self._covers) < _MOST_COVERS:
                self._covers[key] = tiles
        if len(tiles) == 1:
            return self._tile(tiles[0][0])(x, n_threads)
        y = np.empty((rows, self._shape[1]), np.float32)
        begin = 0
        for n, size in tiles:
            part = slice(begin, begin + size)
            y[part] = self._tile(n)(x[part], n_threads)
            begin += size
        return y

    def _run_fallback(self, x: Floats) -> Floats:
        if self._fallback is None:
            with self._lock:
                if self._fallback is None:
                    self._fallback = fallback.runner(self.program())
        made = self._fallback(x.reshape(len(x), *self.input_shape))
        return made.reshape(len(x), self._shape[1])

    def tune(self) -> None:
        """Measure kernels, tiles and the dense path that torch has here, and take the fastest."""
        if self.library is None:
            return
        program = self.program()
        self.kinds = layer_kinds(
            program, sizes=self.sizes, library=self.library, precision=self.precision
        )
        with self._lock:
            self._packed.clear()
            self._plans.clear()
            convs = any(op.kind == "conv2d" for op in program.ops)
            for n in self.sizes:
                if convs:
                    self.kinds[n] |= self._conv_kinds(program, n)
                self._make(n)
        x = np.zeros((max(self.sizes), self._shape[0]), np.float32)
        timers = {n: partial(self._tile(n), x[:n], 1) for n in self.sizes}
        # none is given up: they do different amounts of work
        least = fastest(timers, seconds=_SECONDS, clock=time.thread_time, within=math.inf)
        self.costs = {n: least[n] for n in self.sizes}
        self._measured = True
        self._covers.clear()
        self._compare_with_torch(program)

    def _conv_kinds(self, program: Program, n: int) -> dict[int, str]:
        """Return the faster kernel of each convolution, measured within the whole."""
        assert self.library is not None
        possible = choices(program, n=n, isa=self.library.isa)
        open_ones = [i for i, kinds in enumerate(possible) if len(kinds) > 1 and "sparse" in kinds]
        x = np.zeros((n, *program.input_shape), np.float32)
        seconds: dict[str, NDArray[np.float64]] = {}
        for kind in ("sparse", "dense"):
            made = plan(
                program,
                n=n,
                kinds={**self.kinds[n], **dict.fromkeys(open_ones, kind)},
                native=self.library,
                precision=self.precision,
            )
            seconds[kind] = np.zeros(len(program.ops))
            once = time_steps(made, x, repeats=1)
            repeats = min(10, max(1, int(_SECONDS / max(once.sum(), 1e-6))))
            least = np.minimum(once, time_steps(made, x, repeats=repeats))
            np.add.at(seconds[kind], list(made.ops), least)
        return {
            i: "dense" if seconds["dense"][i] < seconds["sparse"][i] else "sparse"
            for i in open_ones
        }

    def _compare_with_torch(self, program: Program) -> None:
        """Use torch's dense path for the batches at which it is faster than ours."""
        self._dense = {}
        others = {
            name: dense.torch_runner(program, packed=name == "packed")
            for name in ("packed", "plain")
        }
        known = {name: other for name, other in others.items() if other is not None}
        if not known:
            return
        thin = self.kept < 0.3 * self.prunable
        n_torch = dense.n_torch_threads()
        # one thread's own time where torch has no other: neighbours on its core do not count
        cpu_clock = time.thread_time if n_torch == 1 else time.process_time
        clock = time.thread_time if n_torch == 1 else time.perf_counter
        found: dict[int, _Function | None] = {}
        for rows in _BATCHES:
            x = np.zeros((rows, self._shape[0]), np.float32)
            timers = {name: partial(other, x) for name, other in known.items()}
            n_ours = min(self.threads(rows), n_torch)
            timers["ours"] = partial(self.run, x, n_ours)
            least = fastest(timers, seconds=_SECONDS / 8, clock=clock)
            best = min(known, key=lambda name: least[name])
            taken = least[best] < _AHEAD * least["ours"]
            if taken:  # a neighbour may have slowed us down: torch's cores have to work less, too
                again = fastest(timers, seconds=_SECONDS, clock=cpu_clock, within=math.inf)
                taken = again[best] / n_torch < _AHEAD * again["ours"] / n_ours
            found[rows] = known[best] if taken else None
            # larger batches help torch, but not by that much
            clear = rows >= _CLEAR and thin and least[best] > 1.5 * least["ours"]
            if clear or 4 * least["ours"] > _LONG:
                break
        self._dense = found if any(found.values()) else {}


def _runner(made: Plan, n_outputs: int) -> _Runner:
    """Return what runs a plan with as little as possible of Python."""
    call = made.native.function("secateurs_run")
    address = ctypes.addressof(made.struct)

    def run(x: Floats, n_threads: int) -> Floats:
        y = np.empty((len(x), n_outputs), np.float32)
        if call(address, x.ctypes.data, len(x), y.ctypes.data, n_threads):
            raise MemoryError(
                f"a tile needs {4 * made.n_floats >> 20} MB for each thread, which are not there"
            )
        return y

    call.restype = ctypes.c_int32
    call.argtypes = (
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32),
    )
    return run
