"""Many small networks at once: stacked weights, hand-written gradients, full-batch descent.

A replica is a network without biases, f = s_L W_L phi(... phi(s_1 W_1 x)), with a mask, an alpha
and a learning rate of its own. All of them take a step in a few batched products, in groups whose
activations stay in the cache.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secateurs.errors import InputError

__all__ = [
    "Activation",
    "Layers",
    "Trained",
    "hidden",
    "largest_eigenvalues",
    "outputs",
    "tangent_change",
    "tangent_kernel",
    "train",
]

Layers = tuple[Tensor, ...]
"""[replicas, n_out, n_in] a layer, first layer first."""

Activation = Literal["relu", "linear"]

_CACHED = 2**18
"""Activations of a group of replicas, in numbers: 1 MiB of float32, half of a common L2 cache."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves.

    Args:
        weights: at the end.
        snapshots: by step, each as `weights`; those asked for.
    """

    weights: Layers
    snapshots: dict[int, Layers]


def _check(
    weights: Sequence[Tensor], x: Tensor, scales: Sequence[float], activation: str
) -> tuple[int, int]:
    """Return the number of replicas and rows; refuse what does not fit."""
    if activation not in ("relu", "linear"):
        raise InputError(f"activation must be 'relu' or 'linear', got {activation!r}")
    shapes = [tuple(w.shape) for w in weights]
    chained = len(weights) > 0 and all(w.ndim == 3 for w in weights) and x.ndim == 3
    if chained:
        sizes = [x.shape[2], *(w.shape[1] for w in weights)]
        chained = all(
            w.shape == (x.shape[0], n_out, n_in)
            for w, n_in, n_out in zip(weights, sizes, sizes[1:], strict=False)
        )
    if not chained or len(scales) != len(weights):
        raise InputError(
            "weights must be [replicas, n_out, n_in] a layer, with x [replicas, rows, n_in] and a "
            f"scale a layer, got {shapes}, {tuple(x.shape)} and {len(scales)} scales; stack them"
        )
    return x.shape[0], x.shape[1]


def _forward(
    weights: Sequence[Tensor], xt: Tensor, scales: Sequence[float], activation: Activation
) -> list[Tensor]:
    """Return the input of each layer and the output, [replicas, features, rows]."""
    found = [xt]
    for i, (w, s) in enumerate(zip(weights, scales, strict=True)):
        h = torch.bmm(w, found[-1]).mul_(s)
        if i < len(weights) - 1 and activation == "relu":
            h.relu_()
        found.append(h)
    return found


def outputs(
    weights: Sequence[Tensor],
    x: Tensor,
    *,
    scales: Sequence[float],
    activation: Activation = "relu",
) -> Tensor:
    """Return what each replica says, [replicas, rows, outputs].

    Args:
        weights: [replicas, n_out, n_in] a layer; masked ones are 0.
        x: [replicas, rows, inputs]; `expand` a shared one.
        scales: a factor a layer.
        activation: between layers, "relu" or "linear".

    Raises:
        InputError: shapes that do not fit, or no such activation.

    >>> w = (torch.ones(2, 3, 4), torch.ones(2, 1, 3))
    >>> outputs(w, torch.ones(2, 5, 4), scales=(0.5, 1.0))[:, 0, 0].tolist()
    [6.0, 6.0]
    """
    _check(weights, x, scales, activation)
    return _forward(weights, x.transpose(1, 2), scales, activation)[-1].transpose(1, 2)


def hidden(weights: Sequence[Tensor], x: Tensor, *, scales: Sequence[float]) -> Tensor:
    """Return the preactivations of the first layer, [replicas, rows, units].

    Args:
        weights: [replicas, n_out, n_in] a layer.
        x: [replicas, rows, inputs].
        scales: a factor a layer.

    Raises:
        InputError: shapes that do not fit.

    >>> hidden((torch.ones(1, 3, 4),), torch.ones(1, 2, 4), scales=(0.5,)).tolist()
    [[[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]]
    """
    _check(weights, x, scales, "relu")
    return torch.bmm(x, weights[0].transpose(1, 2)).mul_(scales[0])


# ---- training ----------------------------------------------------------------------------------


def _column(value: Tensor | float, n: int, like: Tensor, what: str) -> Tensor:
    """Return one number a replica, [replicas, 1, 1]."""
    column = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if column.ndim > 1 or (column.ndim == 1 and len(column) != n):
        raise InputError(
            f"{what} must be a number or one a replica, got shape {tuple(column.shape)} for "
            f"{n} replicas; pass one for each"
        )
    if not bool((column > 0).all()):
        raise InputError(f"{what} must be positive, got {float(column.min()):g}; raise it")
    return column.expand(n).reshape(n, 1, 1)


def train(
    weights: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    *,
    scales: Sequence[float],
    alpha: Tensor | float,
    lr: Tensor | float,
    steps: int,
    masks: Sequence[Tensor | None] | None = None,
    reference: Sequence[Tensor] | None = None,
    activation: Activation = "relu",
    at: Iterable[int] = (),
) -> Trained:
    """Descend on J(w) = mean (F - y)^2 / (2 alpha^2), F = alpha (f(m w) - f(m w_ref)).

    By whole batches (Chizat et al. 2019). Each replica is centred at its own *masked* reference. Of
    several outputs squares are summed. While the network is lazy, F learns at a speed that does not
    depend on alpha: dF/dt = -K (F - y) / rows. Pruned weights are 0 at every snapshot, and get no
    gradient.

    Args:
        weights: the start, [replicas, n_out, n_in] a layer; left as it is.
        x: [replicas, rows, inputs]; `expand` a shared one.
        y: [replicas, rows, outputs].
        scales: a factor a layer.
        alpha: one number, or one a replica.
        lr: as alpha.
        steps: how many.
        masks: bool of the shape of the weights a layer, or None for a dense layer; None is dense.
        reference: weights w_ref; None is the start.
        activation: between layers, "relu" or "linear".
        at: steps after which weights are kept, 0 the start.

    Raises:
        InputError: shapes that do not fit, or numbers that cannot work.

    >>> g = torch.Generator().manual_seed(0)
    >>> w = (torch.randn(2, 8, 3, generator=g), torch.randn(2, 1, 8, generator=g))
    >>> x, y = torch.randn(2, 6, 3, generator=g), torch.randn(2, 6, 1, generator=g)
    >>> done = train(w, x, y, scales=(0.6, 0.5), alpha=torch.tensor([0.1, 10.0]), lr=0.05, steps=9)
    >>> moved = [float((a - b).norm()) for a, b in zip(done.weights[0], w[0])]
    >>> moved[0] > moved[1]
    True
    """
    n, n_rows = _check(weights, x, scales, activation)
    if y.shape != (n, n_rows, weights[-1].shape[1]):
        raise InputError(
            f"y must be [replicas, rows, outputs] = {(n, n_rows, weights[-1].shape[1])}, got "
            f"{tuple(y.shape)}; expand a shared one"
        )
    if steps < 0:
        raise InputError(f"steps must be at least 0, got {steps}; 0 keeps the start")
    like = weights[0]
    kept: list[Tensor | None] = list(masks) if masks is not None else [None] * len(weights)
    if len(kept) != len(weights) or any(
        m is not None and (m.dtype != torch.bool or m.shape != w.shape)
        for m, w in zip(kept, weights, strict=False)
    ):
        got = [None if m is None else (m.dtype, tuple(m.shape)) for m in kept]
        raise InputError(
            f"masks must be bool of the shape of the weights, or None, one a layer, got {got}; "
            "stack one mask a replica"
        )
    columns = _column(alpha, n, like, "alpha"), _column(lr, n, like, "lr")
    wanted = sorted({step for step in at if 0 <= step <= steps} | {steps})
    widest = max([1, *(w.shape[1] for w in weights[:-1])])
    size = max(1, _CACHED // (widest * n_rows))
    parts: dict[int, list[Layers]] = {step: [] for step in wanted}
    for begin in range(0, n, size):
        part = slice(begin, begin + size)
        found = _descend(
            [w[part] for w in weights], x[part], y[part], scales,
            alpha=columns[0][part], lr=columns[1][part], wanted=wanted,
            masks=[None if m is None else m[part] for m in kept],
            reference=None if reference is None else [w[part] for w in reference],
            activation=activation,
        )  # fmt: skip
        for step, one in found.items():
            parts[step].append(one)
    snapshots = {
        step: tuple(torch.cat(layers) for layers in zip(*one, strict=True))
        for step, one in parts.items()
    }
    end = snapshots[steps]
    asked = set(at)
    return Trained(weights=end, snapshots={s: one for s, one in snapshots.items() if s in asked})


def _descend(
    weights: list[Tensor],
    x: Tensor,
    y: Tensor,
    scales: Sequence[float],
    *,
    alpha: Tensor,
    lr: Tensor,
    wanted: Sequence[int],
    masks: Sequence[Tensor | None],
    reference: Sequence[Tensor] | None,
    activation: Activation,
) -> dict[int, Layers]:
    """Train one group of replicas; return its weights at the wanted steps, the last among them."""
    factors = [None if m is None else m.to(w.dtype) for m, w in zip(masks, weights, strict=True)]

    def masked(layers: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(layers, factors, strict=True)
        return [w.clone() if m is None else w * m for w, m in pairs]

    weights = masked(weights)
    xt, yt = x.transpose(1, 2).contiguous(), y.transpose(1, 2).contiguous()
    start = weights if reference is None else masked(reference)
    # dJ/df = (alpha (f - f_ref) - y) / (alpha rows) = (f - target) / rows
    target = _forward(start, xt, scales, activation)[-1] + yt / alpha
    rate = lr / x.shape[1]
    fast = activation == "relu" and len(weights) == 2 and y.shape[2] == 1
    found: dict[int, Layers] = {}
    done = 0
    for step in wanted:
        if fast:
            _two_layers_(weights, xt, target, scales, rate=rate, factors=factors, steps=step - done)
        else:
            for _ in range(step - done):
                _any_depth_(weights, xt, target, scales, rate, factors, activation)
        done = step
        found[step] = tuple(w.clone() for w in weights)
    return found


def _any_depth_(
    weights: list[Tensor],
    xt: Tensor,
    target: Tensor,
    scales: Sequence[float],
    rate: Tensor,
    factors: Sequence[Tensor | None],
    activation: Activation,
) -> None:
    """Take one step in place."""
    seen = _forward(weights, xt, scales, activation)
    delta = (seen[-1] - target).mul_(rate)
    for i in reversed(range(len(weights))):
        gradient = torch.bmm(delta, seen[i].transpose(1, 2)).mul_(scales[i])
        if i:
            delta = torch.bmm(weights[i].transpose(1, 2), delta).mul_(scales[i])
            if activation == "relu":
                delta.mul_(seen[i].sign())
        factor = factors[i]
        weights[i].sub_(gradient if factor is None else gradient.mul_(factor))


def _two_layers_(
    weights: list[Tensor],
    xt: Tensor,
    target: Tensor,
    scales: Sequence[float],
    *,
    rate: Tensor,
    factors: Sequence[Tensor | None],
    steps: int,
) -> None:
    """Take steps of one hidden ReLU layer and one output, in place.

    With S the activation pattern and r the residual, B = S (r x)^T gives both gradients: a_i B_i
    for w_i, and w_i . B_i for a_i, since ReLU is homogeneous. Two products of matrices a step.
    """
    w, a = weights
    inner, outer = scales
    n, width, _ = w.shape
    wt = w.transpose(1, 2).contiguous()  # [replicas, inputs, units] is the faster order
    factor = None if factors[0] is None else factors[0].transpose(1, 2).contiguous()
    xs = inner * xt
    pattern = xs.new_empty(n, width, xs.shape[2])
    pulled, product = torch.empty_like(xs), torch.empty_like(wt)
    f, rate = torch.empty_like(target), outer * rate
    target, spare = target / outer, torch.empty_like(wt)
    rate = outer * rate
    for _ in range(steps):
        torch.bmm(wt.transpose(1, 2), xs, out=pattern)
        pattern.relu_()
        torch.bmm(a, pattern, out=f)
        pattern.sign_()
        f.sub_(target).mul_(rate)
        torch.mul(xs, f, out=pulled)
        torch.bmm(pulled, pattern.transpose(1, 2), out=product)
        for_readout = torch.mul(wt, product, out=spare).sum(1, keepdim=True)
        product.mul_(a)
        if factor is not None:
            product.mul_(factor)
        wt.sub_(product)
        if factors[1] is not None:
            for_readout.mul_(factors[1])
        a.sub_(for_readout)
    w.copy_(wt.transpose(1, 2))


# ---- the tangent kernel of one hidden layer ----------------------------------------------------


def _one_hidden(weights: Sequence[Tensor], x: Tensor, scales: Sequence[float]) -> None:
    _check(weights, x, scales, "relu")
    if len(weights) != 2 or weights[1].shape[1] != 1:
        raise InputError(
            "a closed form needs one hidden layer and one output, got "
            f"{[tuple(w.shape) for w in weights]}; see measures.kernel for others"
        )


def tangent_kernel(
    weights: Sequence[Tensor],
    x: Tensor,
    *,
    scales: Sequence[float],
    masks: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Return K = J J^T of each replica with one hidden ReLU layer, [replicas, rows, rows].

    Pruned weights have no tangent. Jacot et al. 2018.

    Args:
        weights: two layers, one output.
        x: [replicas, rows, inputs].
        scales: a factor a layer.
        masks: bool, one a layer, or None.

    Raises:
        InputError: more layers or outputs, or shapes that do not fit.

    >>> w = (torch.ones(1, 2, 1), torch.ones(1, 1, 2))
    >>> tangent_kernel(w, torch.tensor([[[1.0], [-1.0]]]), scales=(1.0, 1.0)).tolist()
    [[[4.0, 0.0], [0.0, 0.0]]]
    """
    _one_hidden(weights, x, scales)
    inner, outer = scales
    first, second = (None, None) if masks is None else masks
    found = []
    for i, (w, a) in enumerate(zip(*weights, strict=True)):  # a Jacobian is large: one at a time
        h = inner * x[i] @ w.T
        pulled = (h > 0) * a
        if first is None:
            kernel = (pulled @ pulled.T) * (x[i] @ x[i].T).mul_(inner**2)
        else:
            jacobian = (pulled[:, :, None] * first[i]) * (inner * x[i])[:, None, :]
            jacobian = jacobian.flatten(1)[:, first[i].flatten()]
            kernel = jacobian @ jacobian.T
        h = h.relu_() if second is None else h.relu_() * second[i]
        found.append((kernel + h @ h.T).mul_(outer**2))
    return torch.stack(found)


def largest_eigenvalues(weights: Sequence[Tensor], x: Tensor, *, scales: Sequence[float]) -> Tensor:
    """Return the largest eigenvalue of K / rows of each replica, [replicas].

    Descent with a learning rate below 2 over it is stable as long as the network is lazy.

    Args:
        weights: two layers, one output.
        x: [replicas, rows, inputs].
        scales: a factor a layer.

    Raises:
        InputError: more layers or outputs, or shapes that do not fit.

    >>> w = (torch.ones(1, 2, 1), torch.ones(1, 1, 2))
    >>> largest_eigenvalues(w, torch.ones(1, 3, 1), scales=(1.0, 1.0)).round(decimals=4).tolist()
    [4.0]
    """
    kernels = tangent_kernel(weights, x, scales=scales) / x.shape[1]
    largest: Tensor = torch.linalg.eigvalsh(kernels)[:, -1]
    return largest


def tangent_change(
    weights: Sequence[Tensor], start: Sequence[Tensor], x: Tensor, *, scales: Sequence[float]
) -> Tensor:
    """Return J(start) (weights - start), what the linearised network says more, [replicas, rows].

    Args:
        weights: two layers, one output.
        start: of the same shape; masks are those of its zeros, if the weights have them too.
        x: [replicas, rows, inputs].
        scales: a factor a layer.

    Raises:
        InputError: more layers or outputs, or shapes that do not fit.

    >>> start = (torch.ones(1, 2, 1), torch.ones(1, 1, 2))
    >>> end = (2 * start[0], start[1])
    >>> tangent_change(end, start, torch.ones(1, 1, 1), scales=(1.0, 1.0)).tolist()
    [[2.0]]
    """
    _one_hidden(weights, x, scales)
    _one_hidden(start, x, scales)
    h = hidden(start, x, scales=scales)
    moved = hidden([weights[0] - start[0], weights[1]], x, scales=scales)
    (_, a), (_, b) = start, weights
    change = torch.bmm((h > 0) * moved, a.transpose(1, 2))
    change += torch.bmm(h.relu(), (b - a).transpose(1, 2))
    return change.squeeze(2).mul_(scales[1])
