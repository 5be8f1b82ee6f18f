"""Where the arithmetic runs, and how fast it may be without becoming inexact."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from secateurs.errors import InputError

__all__ = ["Precision", "Replayed", "arithmetic", "one_thread", "onednn_is_exact", "pick"]

Precision = Literal["fp32", "bf16"]


def pick(device: str | torch.device | None) -> torch.device:
    """Return the device asked for; None is CUDA where there is one and the CPU elsewhere.

    Raises:
        InputError: not a device, or one that this machine lacks.

    >>> pick("cpu")
    device(type='cpu')
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found).cpu()  # "meta" is a device that computes nothing
    except (RuntimeError, AssertionError, TypeError, ValueError) as err:
        raise InputError(
            f"device must be one that this machine has, such as 'cpu' or 'cuda', got {device!r}"
        ) from err
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: more add up sums in another order, and fight with other workers.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _OneDnnLinear(torch.autograd.Function):
    """y = x W^T + b in float32 by oneDNN, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (g,) = grads
        need_x, need_weight, _ = ctx.needs_input_grad
        grad_x = _onednn(g, weight.t().contiguous(), None) if need_x else None
        grad_w = _onednn(g.t().contiguous(), x.t().contiguous(), None) if need_weight else None
        return grad_x, grad_w, g.sum(0) if ctx.has_bias else None


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _FastLinear(TorchFunctionMode):
    """Routes float32 `F.linear` calls on matrices to oneDNN, in any module."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs:
            x, weight, *bias = args
            if x.dim() == 2 and x.dtype == weight.dtype == torch.float32:
                bias = bias[0] if bias else None
                return _OneDnnLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


@cache
def onednn_is_exact() -> bool:
    """Return whether the oneDNN linear layer works here and equals torch's own.

    A start-up self-test, once a process: output and gradients of a layer must agree with torch's
    to a relative error of 1e-6. The private operator behind it may change between torch versions;
    then the answer is no and torch's own is used.
    """
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(s, generator=generator) for s in ((64, 96), (80, 96)))
    b = torch.randn(80, generator=generator)
    try:
        results = []
        for linear in (F.linear, _OneDnnLinear.apply):
            inputs = [t.clone().requires_grad_() for t in (x, w, b)]
            y = linear(*inputs)
            results.append([y.detach(), *torch.autograd.grad(y.square().sum(), inputs)])
    except (RuntimeError, AttributeError, TypeError):
        return False
    return all(
        float((one - other).norm() / one.norm()) <= 1e-6
        for one, other in zip(*results, strict=True)
    )


@cache
def _is_amd_avx512() -> bool:
    """Return whether this is an AMD CPU with AVX-512, which torch's default fp32 linear ignores.

    Up to Zen 3 (AVX2) both run the same instructions, and torch's own is the faster one.
    """
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return "AuthenticAMD" in told and "avx512f" in told


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    # by what the CPU is and not by a stopwatch: a machine must choose the same in every run
    fast = device.type == "cpu" and _is_amd_avx512() and onednn_is_exact()
    with _FastLinear() if fast else nullcontext():
        yield


def arithmetic(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a training step runs.

    "fp32" is float32, by the fastest exact linear layer; "bf16" is torch's autocast, which keeps
    BatchNorm and losses in float32.

    Raises:
        InputError: precision is neither.
    """
    if precision == "fp32":
        return _exact(device)
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    raise InputError(f"precision must be 'fp32' or 'bf16', got {precision!r}")


class Replayed:
    """A step on equally many rows each time: on CUDA recorded once, then replayed as one graph.

    Launching the hundreds of kernels of a step costs the host more than most of them cost the
    device; a graph is one launch. The first calls run as they are (they make what an optimizer
    remembers and let libraries choose their kernels); other numbers of rows always do, and so does
    everything on another device. No call is lost or repeated: results are those of the step.

    The step must compute on the device alone and draw from the generators given only: what the
    host computes, learning rates and other draws are recorded as constants.

    Args:
        step: called with rows, a tensor; returns tensors, or None in the place of one.
        generators: on the device, that the step draws from.

    >>> double = Replayed(lambda rows: (2 * rows, None))
    >>> double(torch.tensor([1, 2])), double(torch.tensor([3]))
    ((tensor([2, 4]), None), (tensor([6]), None))
    """

    WARM_UP = 3

    def __init__(
        self,
        step: Callable[[Tensor], tuple[Tensor | None, ...]],
        *,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._step, self._generators = step, generators
        self._calls = 0
        self._rows: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._out: tuple[Tensor | None, ...] = ()
        self._aside: torch.cuda.Stream | None = None

    def __call__(self, rows: Tensor) -> tuple[Tensor | None, ...]:
        """Return what the step gives for `rows`, in tensors that no later call overwrites."""
        if self._rows is None:
            self._rows = rows.clone()
        if rows.shape != self._rows.shape:
            return self._step(rows)
        self._rows.copy_(rows)
        if not rows.is_cuda:
            return self._step(self._rows)
        self._calls += 1
        if self._calls <= self.WARM_UP:
            return self._warm_up(self._rows)
        if self._graph is None:
            self._graph = self._record(self._rows)
        self._graph.replay()
        return tuple(None if part is None else part.clone() for part in self._out)

    def _warm_up(self, rows: Tensor) -> tuple[Tensor | None, ...]:
        # beside the default stream, as graphs are recorded: what torch makes lazily is made there
        here = torch.cuda.current_stream()
        self._aside = self._aside or torch.cuda.Stream()
        self._aside.wait_stream(here)
        with torch.cuda.stream(self._aside):
            out = self._step(rows)
        here.wait_stream(self._aside)
        return out

    def _record(self, rows: Tensor) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self._out = self._step(rows)
        return graph
