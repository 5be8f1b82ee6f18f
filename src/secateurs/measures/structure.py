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
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor

from secateurs import masks
from secateurs.errors import InputError

__all__ = [
    "Groups",
    "PairStrength",
    "column_lift",
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


@dataclass(frozen=True, kw_only=True, eq=False)
class PairStrength:
    """How strongly columns meet in neurons, against shuffled tickets; all [columns, columns].

    Args:
        strength: see `column_pairs`.
        mean: of the strength over shuffled tickets.
        sd: of the strength over shuffled tickets.
        z: (strength - mean) / sd; NaN for 0/0.
        lift: strength / mean; NaN for 0/0.
        floor: [shuffles] the largest z of two different columns in each shuffled ticket. Among
            thousands of pairs the largest z is large by chance: trust pairs above this floor,
            whose quantiles hold for all pairs at once (maxT; Westfall and Young 1993).
    """

    strength: Tensor
    mean: Tensor
    sd: Tensor
    z: Tensor
    lift: Tensor
    floor: Tensor


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


def pair_strength(
    weight: Tensor,
    mask: Tensor,
    groups: Groups,
    *,
    generator: torch.Generator,
    n_shuffles: int = 50,
    keep_columns: bool = False,
) -> PairStrength:
    """Return `column_pairs` beside what shuffled tickets give.

    A pair that no shuffle combines has z = inf: more shuffles tell how rare it is.

    Args:
        weight: [neurons, inputs].
        mask: [neurons, inputs] of bools.
        groups: the span of each column.
        generator: on the CPU, of the shuffles.
        n_shuffles: at least 2; all their [columns, columns] are held at once.
        keep_columns: shuffle each column over the neurons instead of the whole layer. Under the
            layer's shuffle every pair of two much-read columns stands out, combined or not.

    Raises:
        InputError: shapes or groups that do not fit, or fewer than 2 shuffles.

    >>> weight = torch.eye(8).repeat_interleave(2, 1)  # neuron i reads columns 2i and 2i + 1
    >>> found = pair_strength(weight, weight != 0, [(i, i + 1) for i in range(16)],
    ...                       generator=torch.Generator().manual_seed(0))
    >>> round(float(found.strength[0, 1]), 3), float(found.z[0, 1]) > 2
    (0.5, True)
    """
    if n_shuffles < 2:
        raise InputError(f"n_shuffles must be at least 2 for a spread, got {n_shuffles}")
    strength = column_pairs(weight, mask, groups)
    within = groups if keep_columns else None
    draws = (shuffled(weight, mask, generator=generator, within=within) for _ in range(n_shuffles))
    chance = torch.stack([column_pairs(*one, groups) for one in draws])
    mean = chance.mean(0)
    # The mean of equal numbers may round to something else, which would leave a tiny spread.
    varies = (chance != chance[0]).any(0)
    mean, sd = mean.where(varies, chance[0]), chance.std(0).where(varies, 0.0)
    z = (strength - mean) / sd
    diagonal = torch.eye(len(groups), dtype=torch.bool) | ~varies
    largest = ((chance - mean) / sd).masked_fill(diagonal, -torch.inf).flatten(1).amax(1)
    lift = strength / mean
    return PairStrength(strength=strength, mean=mean, sd=sd, z=z, lift=lift, floor=largest)


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
