"""Did an MLP_VIS learn to be local? Three questions about its mask, each against chance.

`locality` counts the kept weights inside the receptive fields of the CNN that the network
contains. Hidden units have no fixed order: training from random weights treats all of a layer
alike, so the expected share inside is that of chance however local each unit became (but for the
border, which fewer fields read). It tells whether a CNN was *kept*, as in a network that one was
written into. `matched_locality` first gives each unit the position that fits it best, and
`reading_radius` needs no CNN at all.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.masks.matching import check_boolean, check_same
from secateurs.networks.conv import cnn_layers, cnn_shapes
from secateurs.networks.toeplitz import position_fields

__all__ = [
    "TOTAL",
    "Locality",
    "MatchedLocality",
    "Reading",
    "locality",
    "matched_locality",
    "reading_radius",
]

TOTAL = "total"
"""The row of all layers together that can be compared with chance."""


# ---- the fields of the CNN -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Locality:
    """How many kept weights of a layer are inside its receptive fields.

    Args:
        kept: number of kept weights.
        inside: how many of them are inside.
        share: inside / kept; NaN if nothing is kept.
        chance: the share of all weights that is inside: the expected one of a shuffled mask.
        lift: share / chance; NaN where there is nothing to compare.
        z: standard deviations between `inside` and its mean under the hypergeometric law, which
            is that of a mask shuffled within its layer; NaN where that leaves no room.
        comparable: whether the fields are a part of the layer; all of a dense layer is inside.
    """

    kept: int
    inside: int
    share: float
    chance: float
    lift: float
    z: float
    comparable: bool


def locality(mask: Mapping[str, Tensor], fields: Mapping[str, Tensor]) -> dict[str, Locality]:
    """Return for each layer, and in total, how many kept weights are inside `fields`.

    The total is of the layers that can be compared; its chance is what shuffling within layers
    gives, so that it owes nothing to how much each layer keeps.

    Args:
        mask: of an MLP_VIS, bool.
        fields: of the same weights: `networks.toeplitz.receptive_field_mask`.

    Raises:
        InputError: masks of different weights, or not bool.

    >>> fields = {"w": torch.tensor([[True, False, False, False]])}
    >>> locality({"w": torch.tensor([[True, True, False, False]])}, fields)["w"].lift
    2.0
    """
    for one in (mask, fields):
        check_boolean(one)
    check_same(mask, fields, words=("mask", "fields"))
    rows = {}
    n_kept, n_inside, expected, variance = 0, 0, 0.0, 0.0
    for name, keep in mask.items():
        field = fields[name].to(keep.device)
        total, n_field = field.numel(), int(field.count_nonzero())
        kept, inside = int(keep.count_nonzero()), int((keep & field).count_nonzero())
        comparable = 0 < n_field < total
        mean = kept * n_field / total
        spread = mean * (1 - n_field / total) * (total - kept) / max(total - 1, 1)
        rows[name] = _row(kept, inside, n_field / total, mean, spread, comparable=comparable)
        if comparable:
            n_kept, n_inside = n_kept + kept, n_inside + inside
            expected, variance = expected + mean, variance + spread
    chance = expected / n_kept if n_kept else math.nan
    some = any(row.comparable for row in rows.values())
    return {**rows, TOTAL: _row(n_kept, n_inside, chance, expected, variance, comparable=some)}


def _row(
    kept: int, inside: int, chance: float, mean: float, variance: float, *, comparable: bool
) -> Locality:
    share = inside / kept if kept else math.nan
    return Locality(
        kept=kept,
        inside=inside,
        share=share,
        chance=chance,
        lift=share / chance if comparable else math.nan,
        z=(inside - mean) / math.sqrt(variance) if comparable and variance > 0 else math.nan,
        comparable=comparable,
    )


# ---- the fields, wherever a unit has its own -----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MatchedLocality:
    """How many kept weights of a layer are inside the fields that fit its units best.

    Args:
        kept: number of kept weights, less those on units that read nothing themselves.
        inside: how many of them are inside.
        share: inside / kept; NaN if nothing is kept.
        chance: the mean share of redrawn masks, matched in the same way.
        lift: share / chance.
        z: standard deviations of the redrawn masks between share and chance; NaN for a single one.
    """

    kept: int
    inside: int
    share: float
    chance: float
    lift: float
    z: float


def matched_locality(
    mask: Mapping[str, Tensor],
    *,
    alpha: int,
    size: int,
    channels: int,
    generator: torch.Generator,
    n_shuffles: int = 5,
) -> dict[str, MatchedLocality]:
    """Return for each layer how local it is if each unit may be anywhere in its layer.

    A unit of the first layer gets the position whose 3 x 3 window holds most of its kept weights,
    above what any unit has there; a unit of the next layer then gets its own by what it reads of
    units placed so. Several units may share a position. Choosing the best is better than chance by
    itself, so chance is a redrawn mask, matched in the same way: each unit reads as many inputs as
    before, each input is read about as often (successive sampling; Rosén 1972), and the layers
    below stay. So neither a dark border nor units of many sizes count as local; a pixel that is
    read in several channels does. The last layer, dense in the CNN, is left out.

    Args:
        mask: of an MLP_VIS, bool, its layers in order.
        alpha: of that network.
        size: of its images.
        channels: of its images.
        generator: on the CPU, of the redrawn masks.
        n_shuffles: how many, at least 1.

    Raises:
        InputError: a mask of another network, or no redrawn mask.

    >>> from secateurs.networks.conv import MLPVis
    >>> from secateurs.networks.toeplitz import receptive_field_mask
    >>> mask = receptive_field_mask(MLPVis(1, size=8))
    >>> generator = torch.Generator().manual_seed(0)
    >>> found = matched_locality(mask, alpha=1, size=8, channels=3, generator=generator)
    >>> found["encoder.1.weight"].share, found["encoder.1.weight"].lift > 2
    (1.0, True)
    """
    if n_shuffles < 1:
        raise InputError(f"n_shuffles must be at least 1, got {n_shuffles}")
    _check_layers(mask, alpha, size, channels)
    places = torch.arange(size**2).repeat(channels)
    alive = torch.ones(len(places), dtype=torch.bool)
    rows = {}
    for (name, keep), (_, stride) in zip(mask.items(), cnn_layers(alpha), strict=False):
        kept = keep.cpu() & alive
        fields = position_fields(size, stride)
        inside, places_out = _matched(kept, places, fields, size, stride)
        n_kept = int(kept.count_nonzero())
        shares = torch.tensor(
            [
                float(_matched(_redrawn(kept, generator), places, fields, size, stride)[0].sum())
                / max(n_kept, 1)
                for _ in range(n_shuffles)
            ],
            dtype=torch.float64,
        )
        share = int(inside.sum()) / n_kept if n_kept else math.nan
        chance = float(shares.mean()) if n_kept else math.nan
        spread = float(shares.std()) if n_shuffles > 1 else 0.0
        rows[name] = MatchedLocality(
            kept=n_kept,
            inside=int(inside.sum()),
            share=share,
            chance=chance,
            lift=share / chance if n_kept else math.nan,
            z=(share - chance) / spread if spread > 0 else math.nan,
        )
        alive, places, size = kept.any(1), places_out, math.isqrt(len(fields))
    return rows


def _check_layers(mask: Mapping[str, Tensor], alpha: int, size: int, channels: int) -> None:
    check_boolean(mask)
    shapes = [(channels, size, size), *cnn_shapes(alpha, size)]
    widths = [math.prod(shape) for shape in shapes]
    expected = list(zip(widths[1:], widths, strict=False))
    found = [tuple(keep.shape) for keep in mask.values()]
    if found[: len(expected)] != expected:
        raise InputError(
            f"the mask must be of an MLP_VIS of alpha {alpha}, size {size} and {channels} "
            f"channels, whose layers are {expected[0]}, {expected[1]}, ..., got {found[:2]}; "
            "pass the alpha, size and channels of its network"
        )


def _matched(
    kept: Tensor, places: Tensor, fields: Tensor, size: int, stride: int
) -> tuple[Tensor, Tensor]:
    """Return [units] the kept weights inside the best field, and the position of that field.

    The best has most above what a unit with as many weights is expected to have there, or else a
    position that many units share would draw all units of the next layer to it.
    """
    counts = torch.zeros(len(kept), size**2, dtype=torch.float64)
    counts.index_add_(1, places, kept.double())
    each = counts.sum(0, keepdim=True) / counts.sum().clamp_min(1)
    excess = counts - counts.sum(1, keepdim=True) * each
    centres = _grid(math.isqrt(len(fields))) * stride
    far = torch.cdist(centres, _grid(size)).square()
    far *= 1e-6 / max(float(far.max()) * kept.shape[1], 1.0)  # decides between equals only
    where = (excess @ fields.double().T - counts @ far.T).argmax(1)
    return (counts * fields[where]).sum(1), where


def _grid(size: int) -> Tensor:
    """Return [positions, 2] the row and the column of each position."""
    side = torch.arange(size, dtype=torch.float64)
    return torch.cartesian_prod(side, side).view(-1, 2)


def _redrawn(kept: Tensor, generator: torch.Generator) -> Tensor:
    """Return a mask with the same number kept in each row, and about as many in each column."""
    rates = -torch.log1p(-kept.double().mean(0))  # of a race that an input wins with its frequency
    arrival = torch.empty(kept.shape).exponential_(generator=generator) / rates.float()
    first = torch.arange(kept.shape[1]) < kept.sum(1, keepdim=True)
    return torch.zeros_like(kept).scatter_(1, arrival.argsort(1), first)


# ---- no CNN at all -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """How far apart the pixels lie that a unit reads, in pixels.

    Args:
        radii: [units] the radius of each unit; NaN for one that reads fewer than two inputs.
        radius: the root of their mean square; NaN if there are none.
        uniform: what `radius` is if every unit draws its pixels from the whole image.
        pooled: what it is if every unit draws them from what all units read together. Below
            `uniform` where all prefer the middle; only a radius below this one says that units
            read neighbourhoods of their own.
    """

    radii: Tensor
    radius: float
    uniform: float
    pooled: float


def reading_radius(
    weight: Tensor,
    *,
    channels: int,
    size: int,
    by: Literal["magnitude", "count"] = "count",
) -> Reading:
    """Return how far apart the pixels lie that each unit of a first layer reads.

    A unit's squared radius is half of the mean squared distance between two different weights that
    it keeps, weighted by |w_i w_j| or not:

    r^2 = sum_i p_i |x_i - mean|^2 / (1 - sum_i p_i^2), with p = |w| / sum |w|.

    Its expected value under random placing does not depend on how many weights are kept.

    Args:
        weight: [units, channels * size * size] a first layer's weights, pruned ones 0, or its mask.
        channels: of the images.
        size: height and width of the images.
        by: whether each kept weight counts by its "magnitude", or as one in the "count".

    Raises:
        InputError: a shape that does not fit, or an unknown `by`.

    >>> mask = torch.zeros(1, 64, dtype=torch.bool)
    >>> mask[0, [0, 1]] = True  # two neighbours, half a pixel from their middle
    >>> found = reading_radius(mask, channels=1, size=8)
    >>> round(found.radius**2, 3), round(found.uniform, 2)
    (0.5, 3.27)
    """
    if by not in ("magnitude", "count"):
        raise InputError(f"by must be 'magnitude' or 'count', got {by!r}")
    if weight.ndim != 2 or weight.shape[1] != channels * size**2:
        raise InputError(
            f"weight must be [units, {channels} * {size} * {size}], got shape "
            f"{tuple(weight.shape)}; pass a first layer's, and the channels and size of its images"
        )
    sizes = weight.detach().cpu().double().abs()
    if by == "count":
        sizes = sizes.ne(0).double()
    reads = sizes.count_nonzero(1) > 1
    radii = torch.full((len(sizes),), math.nan, dtype=torch.float64)
    where = _grid(size).repeat(channels, 1)
    everywhere = torch.full((1, len(where)), 1 / len(where), dtype=torch.float64)
    uniform = float(_squared_radius(everywhere, where, everywhere.square().sum(1)).sqrt())
    if not bool(reads.any()):
        return Reading(radii=radii, radius=math.nan, uniform=uniform, pooled=math.nan)
    shares = sizes[reads] / sizes[reads].sum(1, keepdim=True)
    repeats = shares.square().sum(1)
    squares = _squared_radius(shares, where, repeats)
    radii[reads] = squares.sqrt()
    together = shares.mean(0, keepdim=True)
    pooled = _squared_radius(together, where, repeats.mean(0, keepdim=True) / len(shares))
    return Reading(
        radii=radii,
        radius=float(squares.mean().sqrt()),
        uniform=uniform,
        pooled=float(pooled.sqrt()),
    )


def _squared_radius(shares: Tensor, where: Tensor, repeats: Tensor) -> Tensor:
    """Return [rows] the squared radius of shares [rows, inputs] at `where` [inputs, 2].

    `repeats` is the chance that two draws are of one and the same weight.
    """
    centred = where - where.mean(0)
    spread = shares @ centred.square().sum(1) - (shares @ centred).square().sum(1)
    return spread.clamp_min(0) / (1 - repeats)
