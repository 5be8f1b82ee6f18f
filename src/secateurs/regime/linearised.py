"""Networks linear in their weights, and gradient descent with a fixed kernel: the lazy limit.

f_lin(x; w) = f(x; w0) + J(x; w0) (w - w0) (Lee et al. 2019, eq. 5). What is trained is dw = w - w0:
in lazy training |dw| is about 1/alpha, which float32 would lose beside w.
"""

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateurs.errors import InputError
from secateurs.masks.matching import check, check_same

__all__ = ["DROPOUT", "Descent", "Linearised", "check_evaluating", "kernel_descent", "linearise"]

DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
"""Layers whose outputs are drawn while they train."""

_Tensors = dict[str, Tensor]


def check_evaluating(network: nn.Module) -> None:
    """Refuse a network whose output for a row depends on chance or on the other rows.

    Raises:
        InputError: BatchNorm or dropout in training mode, or BatchNorm without running statistics.

    >>> check_evaluating(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval())
    """
    for name, module in network.named_modules():
        where = f"{type(module).__name__} ({name or 'the network itself'})"
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        chance = isinstance(module, DROPOUT) and module.p > 0
        if module.training and (chance or norm):
            raise InputError(
                "derivatives by the weights need outputs that depend on their own row alone, got "
                f"{where} in training mode; call .eval() first"
            )
        if norm and module.running_mean is None:
            raise InputError(
                "derivatives by the weights need outputs that depend on their own row alone, got "
                f"{where} without running statistics; make it with track_running_stats=True"
            )


@cache
def _load_forward_mode() -> None:
    """Let torch load what its first forward-mode derivative loads, which warns about torch.jit."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


def _check_real(network: nn.Module) -> None:
    bad = [f"{n} ({p.dtype})" for n, p in network.named_parameters() if not p.is_floating_point()]
    if bad:
        raise InputError(
            f"a network to linearise must have floating-point parameters, got {', '.join(bad[:4])};"
            " register what is not trained as a buffer"
        )


def _loaded(network: nn.Module, at: Mapping[str, Any] | None) -> nn.Module:
    """Return a copy of the network, in the state `at` if there is one."""
    network = deepcopy(network)
    if at is not None:
        own, given = (
            {name: value for name, value in state.items() if isinstance(value, Tensor)}
            for state in (network.state_dict(), at)
        )
        check_same(given, own, words=("at", "the network's state"))
        network.load_state_dict(dict(at))
    return network


def _freeze_(network: nn.Module) -> dict[str, str]:
    """Make buffers of all parameters; return for each of their names the first one of its tensor.

    The names differ where a tensor is shared, as in tied layers.
    """
    first = {parameter: name for name, parameter in network.named_parameters()}
    names = {}
    for prefix, module in list(network.named_modules()):
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            names[f"{prefix}.{name}" if prefix else name] = first[parameter]
            del module._parameters[name]
            module.register_buffer(name, parameter.detach())
    return names


def _home(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module below `module` that a dotted name belongs to, made if need be."""
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module, last


class Linearised(nn.Module):
    """A network linear in its weights; made by `linearise`.

    Its parameters are the displacements dw = w - w0, zero at first, under the network's own names:
    masks of the network fit, and any optimizer trains it. Weight decay pulls towards w0. The start
    w0 is kept in buffers below `_network` and moves with `.to()` and `.double()`.
    """

    def __init__(
        self, network: nn.Module, *, at: Mapping[str, Any] | None, mask: Mapping[str, Tensor] | None
    ) -> None:
        super().__init__()
        inner = _loaded(network, at)
        parameters = dict(inner.named_parameters())
        if mask is not None:
            check(parameters, mask)
        self._aliases = _freeze_(inner)
        self._network = inner
        self._kept = nn.Module()
        for name, kept in (mask or {}).items():
            # a buffer's name may have no dots
            self._kept.register_buffer(name.replace(".", "/"), kept.to(parameters[name].device))
            inner.get_buffer(name).copy_(parameters[name].detach().masked_fill(~kept, 0))
        for name, parameter in parameters.items():
            start = torch.zeros_like(parameter, requires_grad=False)
            try:
                home, last = _home(self, name)
                home.register_parameter(last, nn.Parameter(start, parameter.requires_grad))
            except KeyError as err:
                raise InputError(
                    f"a linearised network needs other names than its own, got {name}; "
                    "put the network into an nn.Sequential"
                ) from err
        self._forward_mode = True

    def train(self, mode: bool = True) -> "Linearised":  # noqa: FBT001, the name is torch's
        """Set the training flag of the module; the network inside stays as it was linearised."""
        self.training = mode
        return self

    def displacement(self) -> _Tensors:
        """Return dw by name, zero where the mask prunes; differentiable."""
        kept = {name.replace("/", "."): kept for name, kept in self._kept.named_buffers()}
        return {
            name: dw.masked_fill(~kept[name], 0) if name in kept else dw
            for name, dw in self.named_parameters()
        }

    def state(self) -> dict[str, Any]:
        """Return w0 + dw and the buffers: a state dict that the network loads.

        >>> network = nn.Linear(2, 1)
        >>> network.load_state_dict(linearise(network).state())
        <All keys matched successfully>
        """
        moved = {name: dw.detach() for name, dw in self.displacement().items()}
        return {
            name: value + moved[self._aliases[name]] if name in self._aliases else value
            for name, value in self._network.state_dict().items()
        }

    def _outputs(self, weights: _Tensors, inputs: tuple[Any, ...]) -> Tensor:
        buffers = {
            name: buffer.clone()  # forward passes may write to buffers
            for name, buffer in self._network.named_buffers(remove_duplicate=False)
            if name not in self._aliases
        }
        shared = {name: weights[first] for name, first in self._aliases.items()}
        # fused attention has derivatives of the first order in reverse mode alone
        with sdpa_kernel(SDPBackend.MATH):
            outputs = functional_call(self._network, buffers | shared, inputs)
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"the network must return one tensor, got {type(outputs).__name__}; "
                "wrap it in a module that returns the outputs"
            )
        return outputs

    def _by_reverse_mode(
        self, start: _Tensors, moved: _Tensors, inputs: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return f and J dw as the derivative of u -> J^T u, which is linear in u, along dw."""
        with torch.enable_grad():
            weights = {name: w.detach().requires_grad_() for name, w in start.items()}
            outputs = self._outputs(weights, inputs)
            u = torch.zeros_like(outputs, requires_grad=True)
            back = torch.autograd.grad(
                outputs, list(weights.values()), u, create_graph=True, materialize_grads=True
            )
            # what the outputs do not depend on has a gradient without a graph
            parts = [(b, moved[name]) for name, b in zip(weights, back, strict=True) if b.grad_fn]
            change = torch.zeros_like(outputs)
            if parts:
                ends, along = zip(*parts, strict=True)
                change = torch.autograd.grad(ends, u, along, create_graph=True)[0]
        return outputs.detach(), change if torch.is_grad_enabled() else change.detach()

    def forward(self, *inputs: Any) -> Tensor:
        """Return f(x; w0) + J(x; w0) dw, shaped as the network's outputs."""
        moved = self.displacement()
        start = {name: self._network.get_buffer(name) for name in moved}
        if self._forward_mode:
            _load_forward_mode()
            try:
                found = jvp(lambda w: self._outputs(w, inputs), (start,), (moved,))
                outputs, change = found[0], found[1]
            # operations without forward mode, autograd.Functions made before torch.func: if the
            # inputs are at fault, the other way says so
            except RuntimeError:
                outputs, change = self._by_reverse_mode(start, moved, inputs)
                self._forward_mode = False
        else:
            outputs, change = self._by_reverse_mode(start, moved, inputs)
        linear: Tensor = outputs + change
        return linear


def linearise(
    network: nn.Module,
    *,
    at: Mapping[str, Any] | None = None,
    mask: Mapping[str, Tensor] | None = None,
) -> Linearised:
    """Return f_lin(x; w) = f(x; w0) + J(x; w0) (w - w0) as a trainable module (Lee et al. 2019).

    The network itself is copied and left as it is. The product J dw is computed for each batch in
    forward mode, or in reverse mode twice where an operation has no forward mode; one that lacks
    second derivatives too (`torch.cdist`, CTC) cannot be linearised and torch says so.

    Args:
        network: any module that returns one tensor; BatchNorm and dropout in evaluation mode.
        at: the state dict w0; the network's present state unless given.
        mask: a ticket's mask. Its network f(x; m * w) is then linearised at m * w0: pruned weights
            and their displacements count as zero.

    Raises:
        InputError: training mode of BatchNorm or dropout, parameters that are not floating-point,
            a state or a mask of another network.

    >>> network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    >>> linear, x = linearise(network), torch.ones(2, 3)
    >>> bool((linear(x) == network(x)).all())
    True
    >>> [name for name, _ in linear.named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    check_evaluating(network)
    _check_real(network)
    return Linearised(network, at=at, mask=mask)


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Outputs after kernel gradient descent: [n, ...], or [steps, n, ...] for several steps."""

    outputs: Tensor
    outputs_test: Tensor | None


def _matrix(kernel: Tensor) -> Tensor:
    """Return a kernel in float64, over rows or over all numbers of the flattened outputs."""
    return (kernel.flatten(2).flatten(0, 1) if kernel.ndim == 4 else kernel).double()


def _check_kernel(kernel: Tensor, rows: Tensor, columns: Tensor, name: str) -> None:
    shapes = [(len(rows), len(columns))]
    if rows.ndim == 2:
        shapes.append((*rows.shape, *columns.shape))
    if tuple(kernel.shape) not in shapes:
        raise InputError(
            f"{name} must be {' or '.join(map(str, shapes))} for these outputs, got "
            f"{tuple(kernel.shape)}; take it from measures.kernel.ntk"
        )


def kernel_descent(
    kernel: Tensor,
    f0: Tensor,
    y: Tensor,
    *,
    lr: float,
    steps: int | Sequence[int],
    kernel_test: Tensor | None = None,
    f0_test: Tensor | None = None,
) -> Descent:
    """Return outputs after full-batch gradient descent on |F - y|^2 / (2 n) with a fixed kernel.

    F_t = y + (1 - lr K / n)^t (f0 - y) (Lee et al. 2019, sec. 2.2, in discrete time), by the
    eigenvectors of K: exact for every t, and all steps cost one decomposition. It is what a
    linearised network does, and the limit of alpha (f - f0) under loss / alpha^2 as alpha grows.
    With `objectives.mse`, whose gradient is 2 (F - y) / (n C), pass lr * 2 / C. Descent is stable
    for lr < 2 n / largest eigenvalue (`measures.kernel.largest_eigenvalue`).

    Args:
        kernel: [n, n], the same for each output, or [n, C, n, C] (`ntk(..., outputs="full")`). For
            several outputs only the second is exact. A ticket's kernel holds its mask.
        f0: [n] or [n, C] outputs at the start; zeros if centred.
        y: targets, shaped as f0.
        lr: the learning rate.
        steps: how many, or several counts.
        kernel_test: [m, n] or [m, C, n, C], other inputs against those trained on.
        f0_test: [m] or [m, C] outputs at the start on the other inputs.

    Raises:
        InputError: shapes that do not fit, a negative number of steps, or a test kernel without its
            outputs at the start (or the reverse).

    >>> found = kernel_descent(torch.eye(2), torch.zeros(2), torch.ones(2), lr=1.0, steps=[0, 1, 2])
    >>> found.outputs.tolist()
    [[0.0, 0.0], [0.5, 0.5], [0.75, 0.75]]
    """
    if f0.shape != y.shape or f0.ndim not in (1, 2):
        raise InputError(
            f"f0 and y must both be [n] or [n, C], got {tuple(f0.shape)} and {tuple(y.shape)}; "
            "make y one-hot for classes"
        )
    if (kernel_test is None) != (f0_test is None):
        raise InputError("kernel_test and f0_test belong together, got one of them; pass both")
    _check_kernel(kernel, f0, f0, "kernel")
    counts = [steps] if isinstance(steps, int) else list(steps)
    if not counts or min(counts) < 0:
        raise InputError(f"steps must be counts of at least 0, got {steps}; pass 0 for the start")
    t = torch.tensor(counts, dtype=torch.float64, device=f0.device)[:, None]
    square = _matrix(kernel)
    values, vectors = torch.linalg.eigh((square + square.T) / 2)
    missing = (y - f0).double().reshape(len(square), -1)
    parts = vectors.T @ missing
    rate = lr * values / len(f0)
    # sum over k < t of (1 - rate)^k: expm1 keeps the digits of directions that hardly move
    slow = rate < 0.5
    gone = torch.where(
        slow, torch.expm1(t * torch.log1p(-torch.where(slow, rate, 0))), (1 - rate) ** t - 1
    )
    done = torch.where(rate == 0, t, -gone / torch.where(rate == 0, 1, rate))

    def outputs(at: Tensor, start: Tensor) -> Tensor:
        moved = (at @ vectors * (lr / len(f0))) @ (done[:, :, None] * parts)
        found: Tensor = start + moved.reshape(len(counts), *start.shape).to(start.dtype)
        return found[0] if isinstance(steps, int) else found

    test = None
    if kernel_test is not None and f0_test is not None:
        _check_kernel(kernel_test, f0_test, f0, "kernel_test")
        test = outputs(_matrix(kernel_test), f0_test)
    return Descent(outputs=outputs(square, f0), outputs_test=test)
