"""What a ticket reads: which original columns, how many a neuron, which together.

Everything is about the first layer: its weight [neurons, inputs], its mask of the same shape, and
`groups`, the span (start, stop) of each original column in the encoded inputs, in order, as
`secateurs.preparation.groups` tells: a one-hot group is one column. Neurons that read few columns
are the "singular features, like trees" of IUNet (method, section 2, weight maps). No number here
means much by itself: compare it with that of a shuffled ticket, which `shuffled` makes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from secateurs import masks
from secateurs.errors import InputError

__all__ = [
    "MEETINGS",
    "Groups",
    "PairStrength",
    "column_lift",
    "column_norms",
    "column_pairs",
    "column_share",
    "columns_read",
    "live_neurons",
    "pair_strength",
    "shuffled",
    "stability",
    "stability_floor",
]

Groups = Sequence[tuple[int, int]]


MEETINGS = 4.0
"""Neurons in which two columns must meet by chance for their pair to be looked at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairStrength:
    """How far pairs of columns lie from chance; matrices are [columns, columns].

    Args:
        z: standard deviations between a pair and its mean; NaN on the diagonal and for pairs that
            by chance meet in fewer than `MEETINGS` neurons.
        lift: how often they meet, over the mean of shuffled tickets; NaN where z is.
        floor: the largest z of any pair in any shuffled ticket; NaN if no pair was looked at.
    """

    z: NDArray[np.float64]
    lift: NDArray[np.float64]
    floor: float


def _kept(weight: Tensor, mask: Tensor, groups: Groups) -> Tensor:
    """Return the checked weight in float64 on the CPU, zero where the mask is."""
    if weight.ndim != 2 or mask.shape != weight.shape or mask.dtype != torch.bool:
        raise InputError(
            f"weight and mask must be [neurons, inputs], the mask of bools, got "
            f"{tuple(weight.shape)} and {tuple(mask.shape)} of {mask.dtype}; pass the first layer's"
        )
    ends = [0, *(stop for _, stop in groups)]
    fits = all(start == end < stop for (start, stop), end in zip(groups, ends, strict=False))
    if not groups or not fits or ends[-1] != weight.shape[1]:
        raise InputError(
            f"groups must split the {weight.shape[1]} inputs into spans in order, got "
            f"{list(groups)[:4]} ... up to {ends[-1]}; pass secateurs.preparation.groups"
        )
    return weight.detach().cpu().double().where(mask.cpu(), 0.0)


def _column_of_input(groups: Groups) -> Tensor:
    widths = torch.tensor([stop - start for start, stop in groups])
    return torch.arange(len(groups)).repeat_interleave(widths)


def _by_column(values: Tensor, groups: Groups) -> Tensor:
    """Return [rows, columns]: the sums of [rows, inputs] over the inputs of each column."""
    sums = values.new_zeros(len(values), len(groups))
    return sums.index_add_(1, _column_of_input(groups), values)


def _normalised(values: Tensor) -> Tensor:
    """Return the non-negative rows divided by their sums; rows of zeros stay."""
    return values / values.sum(1, keepdim=True).where(values.any(1, keepdim=True), 1.0)


def _neuron_shares(kept: Tensor, groups: Groups) -> Tensor:
    """Return [neurons, columns] the share of each column in a neuron's squared weights."""
    largest = kept.abs().amax(1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)
    return _normalised(_by_column((kept / largest).square(), groups))  # squares never underflow


def live_neurons(mask: Tensor) -> int:
    """Return how many neurons keep at least one of their inputs.

    >>> live_neurons(torch.tensor([[True, False], [False, False]]))
    1
    """
    return int(mask.any(1).sum())


def column_share(
    weight: Tensor,
    mask: Tensor,
    groups: Groups,
    *,
    by: Literal["magnitude", "count"] = "magnitude",
) -> Tensor:
    """Return [columns] the share of the kept weights that is on each original column.

    The shares sum to 1, or are all 0 if nothing is kept. A wide one-hot group has a large share
    by its width alone: `column_lift` takes that out.

    Args:
        weight: [neurons, inputs]; pruned weights need not be zero.
        mask: [neurons, inputs] of bools.
        groups: the span of each column.
        by: what is shared out: the sum of absolute "magnitude", or the "count".

    Raises:
        InputError: shapes or groups that do not fit, or an unknown `by`.

    >>> weight = torch.tensor([[3.0, 1.0, -1.0], [9.0, 2.0, 1.0]])
    >>> mask = torch.tensor([[True, True, True], [False, True, True]])
    >>> column_share(weight, mask, [(0, 1), (1, 3)]).tolist()
    [0.375, 0.625]
    """
    if by not in ("magnitude", "count"):
        raise InputError(f"by must be 'magnitude' or 'count', got {by!r}")
    kept = _kept(weight, mask, groups).abs()
    amounts = kept if by == "magnitude" else mask.cpu().double()
    return _normalised(_by_column(amounts.sum(0, keepdim=True), groups))[0]


def column_lift(mask: Tensor, groups: Groups) -> Tensor:
    """Return [columns] the density of each column's inputs over that of the layer.

    1 is what chance gives, whatever the width of the column; NaN if nothing is kept.

    Raises:
        InputError: a mask or groups that do not fit.

    >>> mask = torch.tensor([[True, True, False], [True, False, False]])
    >>> column_lift(mask, [(0, 1), (1, 3)]).tolist()
    [2.0, 0.5]
    """
    kept = _kept(mask, mask, groups)
    widths = torch.tensor([stop - start for start, stop in groups])
    return _by_column(kept.mean(0, keepdim=True), groups)[0] / widths / kept.mean()


def columns_read(weight: Tensor, mask: Tensor, groups: Groups) -> Tensor:
    """Return [neurons] the effective number of original columns that each neuron reads.

    The inverse participation 1 / sum_c p_c^2, where p_c is the share of column c in the neuron's
    kept squared weights (inverse Simpson index; Hill 1973, Ecology 54, order 2): k for k columns
    that count the same, 1 for a single column. A neuron that keeps nothing has 0; leave it out
    of means.

    Raises:
        InputError: shapes or groups that do not fit.

    >>> weight = torch.tensor([[1.0, 1.0, 0.0], [0.0, 5.0, 5.0], [1.0, 1.0, 1.0]])
    >>> mask = torch.tensor([[True] * 3, [True] * 3, [False] * 3])
    >>> columns_read(weight, mask, [(0, 1), (1, 3)]).tolist()
    [2.0, 1.0, 0.0]
    """
    concentration = _neuron_shares(_kept(weight, mask, groups), groups).square().sum(1)
    return torch.where(concentration > 0, 1 / concentration, 0.0)


def column_pairs(weight: Tensor, mask: Tensor, groups: Groups) -> Tensor:
    """Return [columns, columns] how strongly pairs of columns are combined in the same neurons.

    P_ij = sum over neurons of sqrt(p_i p_j), with the shares p of `columns_read`: the product of
    the columns' norms in a neuron over its squared norm. A neuron that reads k columns equally
    gives 1/k to each of their pairs, and every live neuron gives 1 to the diagonal in all. (The
    plain product p_i p_j found planted pairs less often: few large weights rule it.)

    Raises:
        InputError: shapes or groups that do not fit.

    >>> weight, mask = torch.tensor([[1.0, -1.0], [0.0, 3.0]]), torch.ones(2, 2).bool()
    >>> column_pairs(weight, mask, [(0, 1), (1, 2)]).round(decimals=3).tolist()
    [[0.5, 0.5], [0.5, 1.5]]
    """
    norms = _neuron_shares(_kept(weight, mask, groups), groups).sqrt()
    return norms.T @ norms


def shuffled(
    weight: Tensor, mask: Tensor, *, generator: torch.Generator, within: Groups | None = None
) -> tuple[Tensor, Tensor]:
    """Return weight and mask with the kept weights moved to random places of the layer.

    The positions are those of `masks.shuffle`, and the kept values are dealt out among them: a
    trained ticket has no values elsewhere. Pruned weights become zero.

    Args:
        weight: [neurons, inputs].
        mask: [neurons, inputs] of bools.
        generator: on the CPU, of the draws.
        within: groups; each column then keeps all it has and only deals its spans out to other
            neurons, which leaves how much is read of a column and undoes what is combined.

    >>> generator = torch.Generator().manual_seed(0)
    >>> weight, mask = torch.tensor([[2.0, 5.0], [3.0, 0.0]]), torch.tensor([[1, 1], [0, 0]]).bool()
    >>> moved, kept = shuffled(weight, mask, generator=generator)
    >>> sorted(moved[kept].tolist())
    [2.0, 5.0]
    """
    weight, mask = weight.detach().cpu(), mask.cpu()
    if within is not None:
        draws = torch.rand(len(mask), len(within), generator=generator)
        order = draws.argsort(0)[:, _column_of_input(within)]
        return weight.where(mask, 0.0).gather(0, order), mask.gather(0, order)
    kept = masks.shuffle({"weight": mask}, generator=generator)["weight"]
    values = weight[mask]
    moved = torch.zeros_like(weight)
    moved[kept] = values[torch.randperm(len(values), generator=generator)]
    return moved, kept


def column_norms(weight: Tensor, mask: Tensor, groups: Groups) -> Tensor:
    """Return [neurons, columns] the norm of the weights that each neuron keeps of each column.

    Raises:
        InputError: shapes or groups that do not fit.

    >>> weight, mask = torch.tensor([[2.0, 3.0, 4.0]]), torch.ones(1, 3).bool()
    >>> column_norms(weight, mask, [(0, 1), (1, 3)]).tolist()
    [[2.0, 5.0]]
    """
    kept = _kept(weight, mask, groups)
    return torch.stack([kept[:, start:stop].norm(dim=1) for start, stop in groups], dim=1)


def _chosen_norms(weight: Tensor, mask: Tensor, groups: Groups, columns: Sequence[int]) -> Tensor:
    """Return [neurons, columns + 1] the norms of the chosen columns, and of all others in the last.

    The shuffle moves what a neuron keeps of a column together, so that its norm stands for it.
    """
    norms = column_norms(weight, mask, groups)
    chosen = torch.as_tensor(list(columns))
    squares = norms.square()
    rest = (squares.sum(1) - squares[:, chosen].sum(1)).clamp_min(0).sqrt()
    return torch.cat([norms[:, chosen], rest[:, None]], dim=1)


def pair_strength(
    tickets: Sequence[tuple[Tensor, Tensor]],
    groups: Groups,
    *,
    columns: Sequence[int] | None = None,
    generator: torch.Generator,
    n_shuffles: int = 39,
) -> PairStrength:
    """Return which pairs of columns neurons combine more often than by chance.

    Chance is `shuffled` within columns: each keeps what is read of it. Mean and spread are those
    of the ticket and its shuffles together, which makes them exchangeable: by chance a ticket has
    a pair above `floor` in one of n_shuffles + 1 cases, whatever the number of pairs (maxT;
    Westfall and Young 1993).

    Args:
        tickets: weight [neurons, inputs] and mask of each; their neurons count together.
        groups: the span of each column.
        columns: positions of those whose pairs are looked at, in order; None is all.
        generator: on the CPU, of the shuffles.
        n_shuffles: at least 1; 39 are a test at 2.5%.

    Raises:
        InputError: shapes or groups that do not fit, or no shuffle.

    >>> generator = torch.Generator().manual_seed(0)
    >>> mask = torch.rand(200, 8, generator=generator) < 0.3
    >>> mask[:60, :2] = True  # some neurons read the first two columns together
    >>> groups = [(i, i + 1) for i in range(8)]
    >>> found = pair_strength([(torch.ones(200, 8), mask)], groups, generator=generator)
    >>> bool(found.z[0, 1] > found.floor)
    True
    """
    if n_shuffles < 1:
        raise InputError(f"n_shuffles must be at least 1, got {n_shuffles}")
    columns = range(len(groups)) if columns is None else columns
    n = len(columns)
    layers = [_chosen_norms(weight, mask, groups, columns) for weight, mask in tickets]
    spans = [(i, i + 1) for i in range(n + 1)]
    draws, variances = [], []
    for k in range(n_shuffles + 1):
        strength, variance = torch.zeros(2, n + 1, n + 1, dtype=torch.float64)
        for layer in layers:
            norms, kept = layer, layer > 0
            if k > 0:
                norms, kept = shuffled(layer, kept, generator=generator, within=spans)
            strength += column_pairs(norms, kept, spans)
            # Two columns whose neurons are matched at random: the variance of a sum of products.
            spread = functional.normalize(norms, dim=1).var(0, correction=0)
            variance += len(norms) ** 2 / max(len(norms) - 1, 1) * spread.outer(spread)
        draws.append(strength)
        variances.append(variance)
    found = torch.stack(draws)[:, :-1, :-1].numpy()
    scale = torch.stack(variances).mean(0)[:-1, :-1].sqrt().numpy()
    # Where columns hardly meet by chance, one meeting is already far from it, and such pairs alone
    # would set the floor. How often a column is read is the same in all shuffles, so they may go.
    meetings = np.zeros_like(scale)
    for layer in layers:
        readers = (layer[:, :-1] > 0).double().sum(0)
        meetings += (readers.outer(readers) / len(layer)).numpy()
    pair = (scale > 0) & (meetings >= MEETINGS) & ~np.eye(n, dtype=bool)
    z = (found - found.mean(0)) / np.where(pair, scale, np.nan)
    lift = found[0] / np.where(pair, found[1:].mean(0), np.nan)
    return PairStrength(
        z=z[0], lift=lift, floor=float(z[1:][:, pair].max()) if pair.any() else np.nan
    )


def stability(shares: Sequence[ArrayLike]) -> float:
    """Return the mean Spearman correlation of column shares over all pairs of tickets.

    NaN for fewer than 2 tickets, and if the shares of any are constant (a correlation with them
    is undefined), as those of one column or of nothing kept are. Not 0 by chance where columns
    differ in width: see `stability_floor`.

    Args:
        shares: one [columns] for each ticket, such as `column_share`.

    Raises:
        InputError: tickets with different numbers of columns.

    >>> round(stability([[0.1, 0.3, 0.6], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]), 3)
    -0.333
    """
    rows = [np.asarray(one, dtype=np.float64) for one in shares]
    if len({row.shape for row in rows}) > 1 or any(row.ndim != 1 for row in rows):
        raise InputError(
            f"tickets must have the same columns, got shares of {sorted({r.shape for r in rows})}; "
            "compare tickets of one preparation"
        )
    if len(rows) < 2 or any(np.ptp(row) == 0 if row.size else True for row in rows):
        return float("nan")
    ranks = rankdata(np.stack(rows), axis=1)
    centred = ranks - ranks.mean(1, keepdims=True)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    above = np.triu_indices(len(rows), k=1)
    return float((units @ units.T)[above].mean())


def stability_floor(
    tickets: Sequence[tuple[Tensor, Tensor]],
    groups: Groups,
    *,
    generator: torch.Generator,
    n_shuffles: int = 20,
    **settings: Any,
) -> float:
    """Return the mean stability of the same tickets, each shuffled: what widths alone give.

    Args:
        tickets: weight and mask of each.
        groups: the span of each column.
        generator: on the CPU, of the shuffles.
        n_shuffles: how often all tickets are shuffled.
        **settings: as of `column_share`.

    Raises:
        InputError: shapes or groups that do not fit.

    >>> ticket = torch.ones(9, 8), torch.ones(9, 8).bool()
    >>> generator = torch.Generator().manual_seed(0)
    >>> floor = stability_floor([ticket] * 2, [(0, 1), (1, 3), (3, 8)], generator=generator)
    >>> round(floor, 3)
    1.0
    """
    found = []
    for _ in range(n_shuffles):
        moved = (shuffled(*ticket, generator=generator) for ticket in tickets)
        found.append(stability([column_share(*one, groups, **settings) for one in moved]))
    return float(np.mean(found))
