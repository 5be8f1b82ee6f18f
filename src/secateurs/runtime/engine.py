"""A compiled network: arrays in, arrays out, any number of rows, from any number of threads."""

import math
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.runtime import storage
from secateurs.runtime.compact import compact
from secateurs.runtime.net import Net
from secateurs.runtime.precision import PRECISIONS, rounded
from secateurs.runtime.program import Floats, Op, Program, check
from secateurs.runtime.reading import read
from secateurs.runtime.report import Report, rows_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Engine", "compile"]


def _split(program: Program) -> list[Program | Op]:
    """Return a program as programs for the kernels, and the parts between them left to torch."""
    parts: list[Program | Op] = []
    pending: list[Op] = []
    first, shape = 0, program.input_shape  # the value at which the pending operations begin

    def flush() -> None:
        if pending:
            parts.append(Program(input_shape=shape, ops=tuple(pending)))
            pending.clear()

    for i, op in enumerate(program.ops):
        if min(op.inputs) < first or (op.kind == "call" and op.inputs != (i,)):
            raise InputError(
                f"a part left to torch must be all that the rest reads, got {op.name or op.kind!r} "
                "beside another; leave a larger part to torch"
            )
        if op.kind != "call":
            pending.append(replace(op, inputs=tuple(value - first for value in op.inputs)))
            continue
        flush()
        parts.append(op)
        first, shape = i + 1, op.shape
    flush()
    return parts


def _compressed(program: Program, precision: str) -> Callable[[], Program]:
    """Return what unpacks a program, and holds its kept weights only."""
    blob = storage.dump(storage.Stored(program=program, precision=precision))
    return lambda: storage.parse(blob, verify=False).program


class Engine:
    """Runs a compiled network; see `compile`.

    Args:
        program: made small, its weights rounded to `precision`.
        precision: of the weights of linear layers.
        kinds: kernels by tile size and operation, where they are known.
        tune: whether to measure the kernels now.
        source: returns the program again, so that its weights need not stay in memory whole.
    """

    def __init__(
        self,
        program: Program,
        *,
        precision: str = "fp32",
        kinds: Mapping[int, Mapping[int, str]] | None = None,
        tune: bool = True,
        source: Callable[[], Program] | None = None,
    ) -> None:
        self.input_shape = program.input_shape
        self.output_shape = program.output_shape
        self.precision = precision
        self._n_inputs = math.prod(self.input_shape)
        self._ndim = 1 + len(self.input_shape)
        parts = _split(program)
        self._parts: list[Net | Op] = [
            part if isinstance(part, Op) else Net(part, precision=precision) for part in parts
        ]
        nets = [part for part in self._parts if isinstance(part, Net)]
        if kinds and len(self._parts) == 1 and nets:
            nets[0].use(kinds)
        for net in nets:
            if tune:
                net.tune()
            net.give_back(source or _compressed(net.program(), precision))
        self._only = nets[0] if len(self._parts) == 1 and nets else None
        self._lock = threading.Lock()

    # --- arrays in, arrays out -------------------------------------------------------------------

    def __call__(self, x: Any, *, n_threads: int | None = None) -> Any:
        """Return the network's output for a batch.

        Args:
            x: [rows, ...] numbers: an array (or what NumPy makes one of) gives a float32 array, a
                torch tensor a float32 tensor on its device. Any number of rows, 0 among them.
            n_threads: by default 1 for up to 32 rows or a fraction of a millisecond, else
                $SECATEURS_THREADS or the cores that the process may use.

        Raises:
            InputError: another shape, or no numbers.
        """
        if type(x) is np.ndarray:
            return self._run(x, n_threads)
        torch: Any = sys.modules.get("torch")
        if torch is not None and isinstance(x, torch.Tensor):
            return self._run_tensor(x, n_threads, torch)
        return self._run(self._array(x), n_threads)

    def _array(self, x: Any) -> NDArray[Any]:
        try:
            return np.asarray(x)
        except (TypeError, ValueError) as err:
            raise InputError(
                f"an engine takes an array of shape {self._wanted()}, got {type(x).__name__}; "
                "convert it by numpy.asarray"
            ) from err

    def _wanted(self) -> str:
        return f"(rows, {', '.join(map(str, self.input_shape))})"

    def _run_tensor(self, x: "Tensor", n_threads: int | None, torch: Any) -> "Tensor":
        if x.is_complex() or x.is_quantized or x.layout is not torch.strided:
            raise InputError(
                f"an engine takes dense tensors of numbers, got {x.dtype} as {x.layout}; convert it"
            )
        plain = x.detach().to(device="cpu")
        plain = plain.float() if plain.dtype != torch.uint8 else plain
        made: Tensor = torch.from_numpy(self._run(plain.numpy(), n_threads)).to(x.device)
        return made

    def _run(self, x: NDArray[Any], n_threads: int | None) -> Floats:
        if x.ndim != self._ndim or x.shape[1:] != self.input_shape:
            hint = "; for one sample pass x[None]" if x.shape == self.input_shape else ""
            raise InputError(
                f"an engine of this network takes shape {self._wanted()}, got {x.shape}"
                f"{hint or '; reshape it'}"
            )
        if x.dtype != np.float32:
            if x.dtype.kind not in "fiub":
                raise InputError(
                    f"an engine takes numbers, got {x.dtype}; convert them by .astype('float32')"
                )
            with np.errstate(over="ignore"):  # what float32 does not hold is infinite
                x = x.astype(np.float32, order="C")
        rows = len(x)
        if n_threads is not None and (type(n_threads) is not int or n_threads < 1):
            raise InputError(f"n_threads must be a positive number or None, got {n_threads!r}")
        x = x.reshape(rows, self._n_inputs)
        if not (x.flags.c_contiguous and x.flags.aligned):
            x = np.require(x, requirements=["C", "A"])
        run = self._run_parts if self._only is None else self._only.run
        y = run(x, n_threads)
        return y.reshape(rows, *self.output_shape)

    def _run_parts(self, x: Floats, n_threads: int | None) -> Floats:
        rows, shape = len(x), self.input_shape
        for part in self._parts:
            if isinstance(part, Net):
                x, shape = part.run(x, n_threads), part.output_shape
                continue
            assert part.function is not None
            given = x.reshape(rows, *shape)
            with self._lock:  # a torch module need not be safe to share
                x = np.ascontiguousarray(part.function(given), np.float32)
            shape = part.shape
            if x.shape != (rows, *shape):
                raise InputError(
                    f"{part.name or 'a part'} left to torch must make shape {(rows, *shape)}, got "
                    f"{x.shape}; compile it with an example of this kind"
                )
            x = x.reshape(rows, math.prod(shape))
        return x

    # --- what it is ------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of the packed weights that are in memory now."""
        return sum(part.n_bytes for part in self._parts if isinstance(part, Net))

    def report(self, *, rows: int = 64) -> Report:
        """Return a table of operations: density, kernel, bytes, time, share of the roofline.

        Args:
            rows: of the batch that is timed, by one thread.

        Raises:
            InputError: rows is no positive number.
        """
        if type(rows) is not int or rows < 1:
            raise InputError(f"rows must be a positive number, got {rows!r}; 1 and 64 are usual")
        found: list[dict[str, Any]] = []
        limits: dict[str, float] = {}
        tile, backend = rows, "torch"
        for part in self._parts:
            if isinstance(part, Net):
                more, tile, limits = rows_of(part, batch=rows)
                found, backend = found + more, part.backend
            else:
                found.append({"name": part.name, "kind": "call", "kernel": "torch"})
        return Report(found, tile=tile, backend=backend, limits=limits)

    def __repr__(self) -> str:
        nets = [part for part in self._parts if isinstance(part, Net)]
        kept, prunable = (sum(getattr(net, name) for net in nets) for name in ("kept", "prunable"))
        shapes = " -> ".join(map(str, (self.input_shape, self.output_shape)))
        return (
            f"Engine({shapes}, {kept:,} of {prunable:,} weights kept, {self.precision}, "
            f"{nets[0].backend if nets else 'torch'})"
        )

    # --- files -----------------------------------------------------------------------------------

    def _program(self) -> Program:
        """Return the whole program, or raise where parts are torch's."""
        if self._only is None:
            name = next(part.name for part in self._parts if isinstance(part, Op))
            raise InputError(
                f"an engine with a part left to torch cannot be stored, got {name or 'one'}; "
                "compile the network without unsupported='torch'"
            )
        return self._only.program()

    def to_bytes(self, *, about: Mapping[str, Any] | None = None) -> bytes:
        """Return what `save` writes.

        Args:
            about: what the file says besides, as JSON holds it.

        Raises:
            InputError: a part is left to torch.
        """
        program = self._program()
        assert self._only is not None
        stored = storage.Stored(
            program=program,
            precision=self.precision,
            kinds=self._only.kinds,
            about=about or {},
        )
        return storage.dump(stored)

    def save(self, path: str | Path, *, about: Mapping[str, Any] | None = None) -> None:
        """Write one file that `secateurs.runtime.load` maps.

        Args:
            path: of the file; an older one is replaced in one step.
            about: as for `to_bytes`.

        Raises:
            InputError: not writable, the disk is full, or a part is left to torch.
        """
        storage.write(Path(path), self.to_bytes(about=about))

    @classmethod
    def from_bytes(cls, blob: bytes, *, tune: bool = False) -> Self:
        """Return the engine of `to_bytes`, trusting nothing in it.

        Args:
            blob: the content of a file.
            tune: whether to measure the kernels here, or to use those that the file names.

        Raises:
            InputError: what is wrong with it.
        """
        source = partial(storage.parse, blob, verify=False)
        return cls._of(storage.parse(blob), source, tune=tune)

    @classmethod
    def read(
        cls, path: str | Path, *, verify: bool = True, tune: bool = True
    ) -> tuple[Self, dict[str, Any]]:
        """Return the engine that a file holds, and what else the file says.

        Args:
            path: of the file.
            verify: whether to compare the checksum of its weights.
            tune: as for `from_bytes`.

        Raises:
            InputError: what is wrong with the file.
        """
        whole = storage.mapped(Path(path))
        name = str(path)
        stored = storage.parse(whole, verify=verify, name=name)
        source = partial(storage.parse, whole, verify=False, name=name)
        return cls._of(stored, source, tune=tune), dict(stored.about)

    @classmethod
    def _of(
        cls, stored: storage.Stored, source: Callable[[], storage.Stored], *, tune: bool
    ) -> Self:
        return cls(
            stored.program,
            precision=stored.precision,
            kinds=stored.kinds,
            tune=tune,
            source=lambda: source().program,
        )

    def __reduce__(self) -> tuple[Callable[..., "Engine"], tuple[bytes]]:
        return Engine.from_bytes, (self.to_bytes(),)


def compile(
    network: Any,
    mask: Mapping[str, Any] | None = None,
    example: "Tensor | None" = None,
    precision: str = "fp32",
    *,
    unsupported: Literal["error", "torch"] = "error",
    tune: bool = True,
) -> Engine:
    """Return an engine that computes what a network does, from its kept weights alone.

    BatchNorm is folded into its neighbours and dead neurons are removed, exactly up to rounding;
    what remains is packed for the fastest kernels on this processor. The network is left as it is
    and read as in evaluation.

    Args:
        network: a torch module, a ticket, or a `Program`.
        mask: by parameter name; what it prunes is taken for zero. A ticket has its own.
        example: a batch, for networks whose input shape their first layer does not tell.
        precision: of the weights of linear layers: "fp32", "bf16", or "int8" with a scale for each
            row. The last two change outputs.
        unsupported: "error", or "torch" to leave modules that are not supported to torch.
        tune: whether to time the kernels (and the dense path of torch, where it is loaded) and
            take the fastest; without, densities choose.

    Raises:
        InputError: what in the network is not supported, by name, or an unknown precision.

    >>> program = Program(
    ...     input_shape=(3,),
    ...     ops=(Op(kind="linear", inputs=(0,), shape=(2,), weight=np.eye(2, 3, dtype="f4")),),
    ... )
    >>> engine = compile(program, tune=False)
    >>> engine(np.arange(6.0).reshape(2, 3))
    array([[0., 1.],
           [3., 4.]], dtype=float32)
    """
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise InputError(f"precision must be one of {names}, got {precision!r}")
    if isinstance(network, Program):
        if mask is not None:
            raise InputError("a program has its mask in its weights, got another; leave it out")
        program = network
    else:
        if mask is None and hasattr(network, "function") and hasattr(network, "mask"):  # a ticket
            plain = network.function is network.network
            network, mask = network.function, network.mask if plain else None
        program = read(network, mask, example, unsupported=unsupported)
    check(program)
    return Engine(rounded(compact(program), precision), precision=precision, tune=tune)
