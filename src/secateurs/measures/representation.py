"""How alike two representations of the same probes are, whatever the order of their neurons.

Rows are probes, the same ones in the same order; columns are neurons. CKA (Kornblith et al. 2019)
does not change under rotations, shifts and a common scale of either side. Its plain estimate is
biased: with more neurons than probes anything looks like anything. The debiased one is 0 in the
mean for independent representations, and a floor says what else chance gives.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import InputError

__all__ = ["Floor", "cka", "cka_floor", "column_centred", "unchanged_activations"]

_ROUNDINGS = 16  # steps of a float by which equal values may differ


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What chance gives.

    Args:
        mean: over the draws.
        high: the 95th percentile of the draws.
    """

    mean: float
    high: float


def column_centred(h: Tensor, *, size: Tensor | None = None) -> Tensor:
    """Return [probes, units] in float64 on the CPU, less the mean of every column.

    A column that does not vary beyond rounding becomes exactly 0: a correlation with it would be
    one with noise.

    Args:
        h: [probes, units].
        size: [units] how large the numbers were from which `h` comes, if it is a difference;
            rounding is counted in steps of that. None is the largest |h| of the column.

    Raises:
        InputError: not a matrix, no probes, or values that are not finite.

    >>> column_centred(torch.tensor([[1.0, 0.1], [3.0, 0.1]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    if h.ndim != 2 or not len(h):
        raise InputError(
            f"representations must be [probes, units], got {tuple(h.shape)}; "
            "flatten all but the first dimension"
        )
    eps = torch.finfo(h.dtype).eps if h.is_floating_point() else 0.0
    h = h.detach().cpu().double()
    if not h.isfinite().all():
        raise InputError("representations must be finite, got inf or NaN; leave diverged runs out")
    size = h.abs().amax(0) if size is None else size.detach().cpu().double()
    from_first = h - h[:1]  # equal numbers give an exact 0, which less their mean they may not
    varies = from_first.abs().amax(0) > _ROUNDINGS * eps * size
    return (from_first - from_first.mean(0)).where(varies, 0.0)


def _direction(a: Tensor, *, debiased: bool) -> Tensor:
    """Return the centred Gram matrix over its norm, [probes, probes]; zeros if it has none."""
    a = column_centred(a)
    scale = float(a.abs().amax()) if a.numel() else 0.0
    if not scale:
        return a.new_zeros(len(a), len(a))
    gram = (a / scale) @ (a / scale).T
    size = float(gram.norm())
    if debiased:
        n = len(gram)
        gram.fill_diagonal_(0)
        rows = gram.sum(1) / (n - 2)
        gram = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
        gram.fill_diagonal_(0)
    norm = float(gram.norm())
    left = norm > _ROUNDINGS * torch.finfo(gram.dtype).eps * len(gram) * size
    return gram / norm if left else torch.zeros_like(gram)


def _directions(a: Tensor, b: Tensor, *, debiased: bool) -> tuple[Tensor, Tensor]:
    least = 4 if debiased else 2
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < least:
        kind = "debiased CKA" if debiased else "CKA"
        raise InputError(
            f"{kind} needs [probes, units] of the same {least} or more probes, got "
            f"{tuple(a.shape)} and {tuple(b.shape)}; pass activations of one larger probe set"
        )
    return _direction(a, debiased=debiased), _direction(b, debiased=debiased)


def _cosine(one: Tensor, other: Tensor) -> float:
    return min(max(float((one * other).sum()), -1.0), 1.0)  # beyond 1 by rounding only


def cka(a: Tensor, b: Tensor, *, debiased: bool = True) -> float:
    """Return the linear CKA of two representations of the same probes (Kornblith et al. 2019).

    HSIC(a, b) / sqrt(HSIC(a, a) HSIC(b, b)). Debiased, HSIC is the unbiased HSIC_1 of Song et al.
    2012; it equals the inner product of the U-centred Gram matrices (Szekely and Rizzo 2014), and
    is computed as that. So this is a cosine: HSIC_1(a, a) cannot be negative, and no value leaves
    [-1, 1] but by rounding. There is nothing to clip or to flag; averages over minibatches have no
    such bound, and this takes all probes at once. Negative values are real: less alike than chance.

    0 where either side has nothing to compare: no column varies, or (debiased) the Gram matrix is
    zero off its diagonal but for what centring takes. Never NaN.

    Args:
        a: [probes, n] activations.
        b: [probes, m] activations of the same probes in the same order.
        debiased: False is the plain, biased estimate: at least 0, and high by chance alone unless
            probes far outnumber units.

    Raises:
        InputError: fewer than 4 probes (2 if biased), shapes that do not fit, or values that are
            not finite.

    >>> a = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    >>> round(cka(a, 3 * a.flip(1) + 1), 6)
    1.0
    >>> cka(a, torch.ones(50, 2))
    0.0
    """
    return _cosine(*_directions(a, b, debiased=debiased))


def cka_floor(
    a: Tensor,
    b: Tensor,
    *,
    generator: torch.Generator,
    draws: int = 100,
    debiased: bool = True,
) -> Floor:
    """Return the CKA by chance: that of `a` with `b`, whose probes are permuted.

    Shapes and geometry of both sides stay, and which probe is which is lost. That is the lowest
    sensible floor. Two networks that never met still see the same inputs and so have a common
    geometry, which a permutation destroys and debiasing does not take out. The better floor is
    `cka` of independently initialised networks of the same kind on the same probes, as below: what
    lies above it is more than the inputs and the architecture.

    Args:
        a: [probes, n] activations.
        b: [probes, m] activations of the same probes.
        generator: on the CPU, of the permutations.
        draws: how many permutations, at least 1.
        debiased: as of `cka`.

    Raises:
        InputError: no draw, or what `cka` refuses.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(60, 5, generator=generator)
    >>> a, b = (torch.relu(x @ torch.randn(5, 30, generator=generator)) for _ in range(2))
    >>> cka(a, b) > cka_floor(a, b, generator=generator).high  # two networks that never met
    True
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, got {draws}; 100 give a 95th percentile")
    one, other = _directions(a, b, debiased=debiased)
    found = []
    for _ in range(draws):
        order = torch.randperm(len(other), generator=generator)
        found.append(_cosine(one, other[order][:, order]))
    return Floor(mean=float(np.mean(found)), high=float(np.quantile(found, 0.95)))


def unchanged_activations(start: Tensor, end: Tensor, *, live: Tensor | None = None) -> float:
    """Return the share of probes and units whose ReLU is on in both, or off in both.

    1 in lazy training, where the patterns are those of the start (Chizat et al. 2019).
    A unit is on where its preactivation is above 0.

    Args:
        start: [probes, units] preactivations at the start.
        end: [probes, units] those after training, of the same probes and units.
        live: [units] of bools, the units that count; units without inputs never change and would
            raise the share. None is all.

    Raises:
        InputError: shapes that do not fit, or nothing to count.

    >>> unchanged_activations(torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 0.5]]))
    0.5
    """
    if start.ndim != 2 or start.shape != end.shape:
        raise InputError(
            "preactivations must be [probes, units] of the same probes and units, got "
            f"{tuple(start.shape)} and {tuple(end.shape)}"
        )
    same = (start > 0) == (end > 0)
    if live is not None:
        if live.dtype != torch.bool or live.shape != same.shape[1:]:
            raise InputError(
                f"live must be one bool for each of {same.shape[1]} units, got "
                f"{tuple(live.shape)} of {live.dtype}"
            )
        same = same[:, live.to(same.device)]
    if not same.numel():
        raise InputError("there must be a live unit and a probe, got none; leave this layer out")
    return float(same.double().mean())
