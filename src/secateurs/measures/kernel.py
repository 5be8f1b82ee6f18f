"""The empirical neural tangent kernel of a network or a ticket, and how far it moved.

Lazy training keeps the kernel of the start (Jacot et al. 2018). Its change says how much of the
features was learnt, its alignment with the targets whether they are of use.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from secateurs.errors import InputError
from secateurs.masks.matching import check
from secateurs.regime.linearised import check_evaluating

__all__ = [
    "Outputs",
    "deviation",
    "kernel_change",
    "kernel_distance",
    "kernel_target_alignment",
    "kernel_velocity",
    "largest_eigenvalue",
    "ntk",
]

Outputs = Literal["trace", "full"]
"""One number a pair of inputs, the mean over the outputs, or one for each pair of outputs too."""

_BLOCK = 128
"""Inputs on a side of a block of the closed form; below the diagonal blocks are mirrored."""

_JACOBIAN_BYTES = 128 * 2**20
"""What a block of the Jacobian takes where no chunk is asked for; two are held at a time."""


class _Term(NamedTuple):
    """The gradient of the outputs by one parameter, as factors: b_i h_j, or b_i without inputs."""

    gradients: Tensor  # b [rows, outputs of the network, outputs of the layer]
    inputs: Tensor | None = None  # h [rows, inputs of the layer]
    kept: Tensor | None = None  # [outputs of the layer, inputs of the layer]

    def rows(self, part: slice) -> "_Term":
        inputs = None if self.inputs is None else self.inputs[part]
        return _Term(self.gradients[part], inputs, self.kept)


def _dot(one: Tensor, two: Tensor, outputs: Outputs) -> Tensor:
    """Return the products of [P, C, k] and [P', C, k]: [P, P'] or [P, P', C, C]."""
    if outputs == "trace":
        return one.flatten(1) @ two.flatten(1).T
    found = one.flatten(0, 1) @ two.flatten(0, 1).T
    return found.view(*one.shape[:2], *two.shape[:2]).transpose(1, 2)


def _contribution(one: _Term, two: _Term, outputs: Outputs) -> Tensor:
    """Return the kernel of one parameter: the sum over kept ij of h_j h'_j b_i b'_i."""
    if one.inputs is None or two.inputs is None:
        return _dot(one.gradients, two.gradients, outputs)
    h, h_two = one.inputs, two.inputs

    def gram(columns: Tensor | slice) -> Tensor:
        products = h[:, columns] @ h_two[:, columns].T
        return products if outputs == "trace" else products[:, :, None, None]

    whole = gram(slice(None))
    if one.kept is None:
        return whole * _dot(one.gradients, two.gradients, outputs)
    # a mask ties i to j: the sum over ij is a product of sums no more, but one product for each i
    total = torch.zeros_like(_dot(one.gradients[..., :1], two.gradients[..., :1], outputs))
    for i, kept in enumerate(one.kept):
        n_kept = int(kept.sum())
        if not n_kept:
            continue
        few = 2 * n_kept <= len(kept)
        columns = (kept if few else ~kept).nonzero()[:, 0]
        products = gram(columns) if few else whole - gram(columns)
        i_only = slice(i, i + 1)
        row = _dot(one.gradients[..., i_only], two.gradients[..., i_only], outputs)
        total.addcmul_(products, row)
    return total


_Terms = dict[str, _Term]
_Part = tuple[slice, slice, Tensor]


class _Source:
    """A network's kernel: what is differentiated by, where, and by which way."""

    def __init__(
        self, network: nn.Module, mask: Mapping[str, Tensor] | None, outputs: Outputs
    ) -> None:
        named = dict(network.named_parameters())
        self.kept = dict(mask or {})
        check(named, self.kept)
        self.network, self.outputs = network, outputs
        self.trained = [name for name, parameter in named.items() if parameter.requires_grad]
        if not self.trained:
            raise InputError(
                "a tangent kernel needs parameters that require gradients, got none; "
                "call .requires_grad_() on what is to be trained"
            )
        self.kept = {name: kept.to(named[name].device) for name, kept in self.kept.items()}
        self.state = {
            name: p.detach().masked_fill(~self.kept[name], 0) if name in self.kept else p.detach()
            for name, p in named.items()
        }

    def call(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return [rows, outputs]."""
        found = functional_call(self.network, {**self.state, **weights}, (x,))
        if not isinstance(found, Tensor) or len(found) != len(x):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the network must return one tensor with a row for each input, got {got}; "
                "wrap it in a module that returns the outputs"
            )
        return found.flatten(1) if found.ndim > 1 else found[:, None]

    def layers(self) -> dict[str, nn.Module] | None:
        """Return the layers with what is trained; None if one is not of the closed form."""
        found = {}
        trained = set(self.trained)
        for prefix, module in self.network.named_modules():
            own = [name for name, _ in module.named_parameters(prefix, recurse=False)]
            if trained.intersection(own):
                if type(module) not in (nn.Linear, nn.BatchNorm1d):
                    return None
                found[prefix] = module
        return found

    def terms(self, layers: Mapping[str, nn.Module], x: Tensor) -> _Terms | None:
        """Return each parameter's factors; None where they are not its gradient.

        That is so if a layer runs twice or on more than one vector an input, or if its weights are
        used elsewhere: the gradient of a sum of all outputs tells.
        """
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {prefix: [] for prefix in layers}

        def remember(prefix: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
            def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                seen[prefix].append((inputs[0].detach().clone() if inputs else output, output))
                return output.clone()  # or an activation in place would overwrite it

            return hook

        handles = [m.register_forward_hook(remember(prefix)) for prefix, m in layers.items()]
        weights = {name: self.state[name].detach().requires_grad_() for name in self.trained}
        try:
            outputs = self.call(weights, x)
        finally:
            for handle in handles:
                handle.remove()
        ran = {prefix: calls[0] for prefix, calls in seen.items() if calls}
        once = all(len(calls) <= 1 for calls in seen.values())
        if not ran or not once or any(h.ndim != 2 or len(h) != len(x) for h, _ in ran.values()):
            return None
        ends = [output for _, output in ran.values()]
        columns = [
            torch.autograd.grad(column.sum(), ends, retain_graph=True, materialize_grads=True)
            for column in outputs.unbind(1)
        ]
        terms: _Terms = {}
        for (prefix, (h, _)), parts in zip(ran.items(), zip(*columns, strict=True), strict=True):
            terms |= _factors(layers[prefix], prefix, h, torch.stack(parts, 1))
        terms = {name: term for name, term in terms.items() if name in weights}
        # unequal factors: outputs that sum to one have no other gradient than 0
        factors = torch.linspace(1, 2, outputs.shape[1], dtype=outputs.dtype, device=x.device)
        sums = torch.autograd.grad(
            outputs @ factors,
            list(weights.values()),
            torch.ones_like(outputs[:, 0]),
            materialize_grads=True,
        )
        for name, total in zip(weights, sums, strict=True):
            if not _adds_up(terms.get(name), total, factors):
                return None
        return {name: self._masked(name, term) for name, term in terms.items()}

    def _masked(self, name: str, term: _Term) -> _Term:
        kept = self.kept.get(name)
        if kept is None or bool(kept.all()):
            return term
        if term.inputs is None:
            return _Term(term.gradients[..., kept])
        return _Term(term.gradients, term.inputs, kept)

    def jacobian(self, x: Tensor, output: int | None) -> Iterator[Tensor]:
        """Yield for each parameter [rows, kept weights], or [rows * outputs, ...] for all."""
        weights = {name: self.state[name] for name in self.trained}

        def one(weights: dict[str, Tensor], row: Tensor) -> Tensor:
            found = self.call(weights, row[None])[0]
            return found if output is None else found[output]

        derivative = jacrev(one) if output is None else grad(one)
        found = vmap(derivative, in_dims=(None, 0))(weights, x)
        for name in weights:
            part = found.pop(name).reshape(-1, weights[name].numel())
            yield part[:, self.kept[name].flatten()] if name in self.kept else part

    def all_terms(self, x: Tensor, other: Tensor) -> tuple[_Terms, _Terms] | None:
        """Return the factors of both sets of inputs, the same if they are the same; or None."""
        layers = self.layers()
        one = None if layers is None else self.terms(layers, x)
        if layers is None or one is None:
            return None
        two = one if other is x else self.terms(layers, other)
        return None if two is None else (one, two)

    def by_terms(self, one: _Terms, two: _Terms, size: int, *, same: bool) -> Iterator[_Part]:
        """Yield what each parameter adds to each block."""
        n, m = (len(next(iter(terms.values())).gradients) for terms in (one, two))
        for i, j in _blocks(n, m, size, same=same):
            for name, term in one.items():
                yield i, j, _contribution(term.rows(i), two[name].rows(j), self.outputs)

    def by_jacobian(
        self, x: Tensor, other: Tensor, n_outputs: int, size: int | None, *, same: bool
    ) -> Iterator[_Part]:
        """Yield what each output (all of them if "full") adds to each block."""
        wanted: list[int | None] = [None] if self.outputs == "full" else [*range(n_outputs)]
        if size is None:
            row = sum(self.state[name].nbytes for name in self.trained)
            size = max(1, _JACOBIAN_BYTES // (row * (n_outputs if self.outputs == "full" else 1)))
        for output in wanted:
            before, one = None, list[Tensor]()
            for i, j in _blocks(len(x), len(other), size, same=same):
                if i != before:
                    before, one = i, list(self.jacobian(x[i], output))
                two = one if same and i == j else self.jacobian(other[j], output)
                for a, b in zip(one, two, strict=True):
                    shape = (-1, 1 if output is not None else n_outputs)
                    part = _dot(
                        a.view(*shape, a.shape[1]), b.view(*shape, b.shape[1]), self.outputs
                    )
                    yield i, j, part


def _factors(layer: nn.Module, prefix: str, h: Tensor, gradients: Tensor) -> _Terms:
    """Return the terms of a Linear or BatchNorm1d layer by parameter name."""
    dot = f"{prefix}." if prefix else ""
    if isinstance(layer, nn.BatchNorm1d):
        mean, var = layer.running_mean, layer.running_var
        assert mean is not None  # check_evaluating refuses it
        assert var is not None
        scaled = (h - mean) * (var + layer.eps).rsqrt()
        weight = _Term(gradients * scaled[:, None])
    else:
        weight = _Term(gradients, h)
    return {f"{dot}weight": weight, f"{dot}bias": _Term(gradients)}


def _adds_up(term: _Term | None, total: Tensor, factors: Tensor) -> bool:
    """Return whether the factors of a parameter add up to the gradient of a sum of outputs."""
    if term is None:
        return not total.any()
    b = torch.einsum("c,nci->ni", factors, term.gradients)
    own = b.sum(0) if term.inputs is None else b.T @ term.inputs
    size = b.norm() if term.inputs is None else b.norm() * term.inputs.norm()
    if own.shape != total.shape:
        return False
    return bool((own - total).norm() <= math.sqrt(torch.finfo(total.dtype).eps) * size)


def _blocks(n: int, m: int, size: int, *, same: bool) -> Iterator[tuple[slice, slice]]:
    """Yield pairs of slices of rows; none below the diagonal if both are of the same inputs."""
    for i in range(0, n, size):
        for j in range(i if same else 0, m, size):
            yield slice(i, min(i + size, n)), slice(j, min(j + size, m))


def ntk(
    network: nn.Module,
    x: Tensor,
    other: Tensor | None = None,
    *,
    mask: Mapping[str, Tensor] | None = None,
    outputs: Outputs = "trace",
    chunk: int | None = None,
) -> Tensor:
    """Return the empirical neural tangent kernel, (1/C) sum_c J_c(x) J_c(x')^T (Jacot et al. 2018).

    Divided by the number of outputs C, as neural-tangents does (Novak et al. 2020). J is by the
    parameters that require gradients: with the others frozen it is the kernel of a part.

    Networks in which only Linear and BatchNorm1d layers have parameters are computed layer by layer
    without a Jacobian, other networks by blocks of it. With a mask it is the kernel of
    f(x; m * w): pruned weights count as zero and have no derivative.

    Args:
        network: any module that returns one tensor; BatchNorm and dropout in evaluation mode.
        x: [P, ...] inputs.
        other: [P', ...] inputs to compare with; x itself unless given.
        mask: a ticket's mask.
        outputs: "trace" is the mean over outputs [P, P'], "full" is [P, C, P', C], not divided.
        chunk: inputs on a side of a block; without it 128, or what makes 128 MiB of Jacobian.

    Raises:
        InputError: training mode of BatchNorm or dropout, a mask of another network, no rows, or
            nothing that requires gradients.

    >>> network = nn.Linear(2, 1)
    >>> ntk(network, torch.tensor([[1.0, 0.0], [1.0, 2.0]])).tolist()  # x x' + 1
    [[2.0, 2.0], [2.0, 6.0]]
    """
    if outputs not in get_args(Outputs):
        raise InputError(f"outputs must be one of {', '.join(get_args(Outputs))}, got {outputs!r}")
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be at least 1, got {chunk}; None chooses one")
    same, columns = other is None, x if other is None else other
    if not len(x) or not len(columns) or x.shape[1:] != columns.shape[1:]:
        raise InputError(
            "x and other must be inputs of one shape with at least one row, got "
            f"{tuple(x.shape)} and {tuple(columns.shape)}; drop what is empty"
        )
    check_evaluating(network)
    source = _Source(network, mask, outputs)
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        first = source.call({}, x[:1]).detach()
        n = first.shape[1]
        kernel = first.new_zeros(len(x), len(columns), *((n, n) if outputs == "full" else ()))
        terms = source.all_terms(x, columns)
        if terms:
            parts = source.by_terms(*terms, chunk or _BLOCK, same=same)
        else:
            parts = source.by_jacobian(x, columns, n, chunk, same=same)
        for i, j, part in parts:
            kernel[i, j] += part
            if same and i != j:
                kernel[j, i] += part.T if outputs == "trace" else part.permute(1, 0, 3, 2)
    return kernel / n if outputs == "trace" else kernel.transpose(1, 2).contiguous()


def _in_double(*kernels: Tensor) -> list[Tensor]:
    shapes = {tuple(kernel.shape) for kernel in kernels}
    if len(shapes) > 1:
        raise InputError(
            f"the two must be of the same inputs, got shapes {' and '.join(map(str, shapes))}; "
            "take both from one probe set"
        )
    return [kernel.detach().double() for kernel in kernels]


def kernel_distance(K_0: Tensor, K_t: Tensor) -> float:
    """Return 1 - <K_0, K_t> / (|K_0| |K_t|), the kernel distance of Fort et al. (2020, sec. 2).

    From 0, also if only the scale differs, to 1, for kernels; NaN where one of them is zero.

    Raises:
        InputError: kernels of different shapes.

    >>> kernel_distance(torch.eye(2), 4 * torch.eye(2))
    0.0
    """
    one, two = (kernel / kernel.norm() for kernel in _in_double(K_0, K_t))
    # |a - b|^2 / 2 is 1 - <a, b> for unit vectors, and keeps the digits of small distances
    return float((one - two).square().sum() / 2)


def kernel_change(K_0: Tensor, K_t: Tensor) -> float:
    """Return |K_t - K_0| / |K_0|, which scale changes too (Geiger et al. 2020, sec. 3.3).

    Raises:
        InputError: kernels of different shapes.

    >>> kernel_change(torch.eye(2), 3 * torch.eye(2))
    2.0
    """
    one, two = _in_double(K_0, K_t)
    return float((two - one).norm() / one.norm())


def kernel_velocity(K_a: Tensor, K_b: Tensor, dt: float) -> float:
    """Return the kernel distance between two times, divided by dt (Fort et al. 2020, sec. 4).

    Raises:
        InputError: kernels of different shapes, or dt not above 0.

    >>> kernel_velocity(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 0.5) > 0.5
    True
    """
    if not dt > 0:
        raise InputError(f"dt must be above 0, got {dt}; pass the later kernel second")
    return kernel_distance(K_a, K_b) / dt


def kernel_target_alignment(K: Tensor, y: Tensor) -> float:
    """Return <HKH, YY'> / (|HKH| |YY'|), H = 1 - 11'/n, Y centred (Cortes et al. 2012, def. 4).

    From 0 to 1 for kernels, 1 if HKH is a multiple of YY'; NaN if HKH is zero.

    Args:
        K: [n, n].
        y: [n] class labels as integers or bools, taken one-hot, or [n] or [n, targets] numbers.

    Raises:
        InputError: another number of rows, or targets that are all the same.

    >>> y = torch.tensor([0, 1, 1])
    >>> same_class = (y[:, None] == y).float()
    >>> round(kernel_target_alignment(same_class, y), 6)
    1.0
    """
    if K.ndim != 2 or tuple(K.shape) != (len(y), len(y)):
        raise InputError(
            f"K must be [n, n] for y [n, ...], got {tuple(K.shape)} and {tuple(y.shape)}; "
            "pass the kernel of these rows, traced over outputs"
        )
    if not y.is_floating_point() and y.ndim == 1:
        y = F.one_hot(y.unique(return_inverse=True)[1])
    targets = y.reshape(len(y), -1).double().to(K.device)
    targets = targets - targets.mean(0)
    if not targets.any():
        raise InputError("an alignment needs targets that differ, got one value; add rows")
    K = K.detach().double()
    K = K - K.mean(0)
    K = K - K.mean(1, keepdim=True)
    similar = targets @ targets.T
    return float((K * similar).sum() / (K.norm() * similar.norm()))


def deviation(F_t: Tensor, F_lin: Tensor) -> float:
    """Return |F - F_lin| / |F|: how far a network's outputs are from the linearised network's.

    Both centred, F = alpha (f - f0). 0 where they are equal, even both zero, as at the start.

    Raises:
        InputError: outputs of different shapes.

    >>> deviation(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]))
    0.2
    """
    outputs, linear = _in_double(F_t, F_lin)
    apart = float((outputs - linear).norm())
    size = float(outputs.norm())
    return apart / size if size else (math.inf if apart else 0.0)


def largest_eigenvalue(K: Tensor) -> float:
    """Return the largest eigenvalue of a kernel [n, n] or [n, C, n, C].

    Descent on |F - y|^2 / (2 n) with this kernel is stable for learning rates below 2 n over it.

    Raises:
        InputError: a kernel between two sets of inputs.

    >>> largest_eigenvalue(torch.diag(torch.tensor([1.0, 4.0])))
    4.0
    """
    matrix = K.flatten(2).flatten(0, 1) if K.ndim == 4 else K
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(
            f"eigenvalues need a kernel [n, n] or [n, C, n, C], got {tuple(K.shape)}; "
            "pass one of a set of inputs with itself"
        )
    matrix = matrix.detach().double()
    return float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])
