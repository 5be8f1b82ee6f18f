"""The numbers of the structure card: what a fitted model's mask reads, beside what chance reads.

Every number stands beside that of shuffled masks, which keep as many weights at random places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.measures.structure import (
    Groups,
    column_share,
    columns_read,
    live_neurons,
    pair_strength,
    shuffled,
    stability,
)
from secateurs.preparation import feature_names, groups
from secateurs.report.drawing import Floats
from secateurs.seeds import stream

__all__ = ["Pair", "Structure", "first_layers", "structure"]

_PAIRED = 64  # columns whose pairs are looked at, the most kept: pairs grow with the square
_WORK = 8_400_000  # weights that all shuffles may move together: a second or two
_FIRST = "encoder.0.weight"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two columns that neurons combine more often than any shuffled mask combines any two.

    Args:
        columns: their names.
        lift: how often they meet in neurons, over the mean of shuffled masks.
        z: the same difference in standard deviations.
    """

    columns: tuple[str, str]
    lift: float
    z: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """What the first layer of a pruned model reads, beside what shuffled masks read.

    Several tickets count together: shares are means over them, neurons are all of them.

    Args:
        columns: names of the original columns.
        share: [columns] of the kept |w| on each; see `measures.structure.column_share`.
        chance: [columns] the expected share of a shuffled mask: the column's part of the inputs.
        error: [columns] standard errors of the share over tickets; None for one ticket.
        above, below: columns with a larger (smaller) share for their width than that of any
            column in any shuffled mask, the furthest first.
        unread: columns of which no ticket keeps a weight.
        reads: [live neurons] the effective number of columns each reads, ascending; see
            `measures.structure.columns_read`.
        reads_chance: the same, of all shuffled masks together.
        reads_range: the lowest and the highest median over neurons in a shuffled mask.
        live, neurons: neurons that keep an input, of how many.
        live_chance: the mean of the first over shuffled masks.
        kept, weights: weights that are kept, of how many.
        pairs: those that stand out, the furthest first.
        paired: the columns whose pairs were looked at: those with the largest shares.
        z: [paired, paired] how far pairs lie from chance, in standard deviations; NaN on the
            diagonal and for pairs that by chance meet in fewer than four neurons.
        floor: the largest z of two columns in any shuffled mask; NaN if no pair was looked at.
        stability, stability_chance: the mean Spearman correlation of the shares of two tickets,
            and that of shuffled ones; NaN for one ticket.
        tickets: how many.
        shuffles, pair_shuffles: how many shuffled masks stand behind all that is by chance; those
            of pairs deal each column's weights out to other neurons, so that they keep the shares.
    """

    columns: Sequence[str]
    share: Floats
    chance: Floats
    error: Floats | None
    above: Sequence[str]
    below: Sequence[str]
    unread: Sequence[str]
    reads: Floats
    reads_chance: Floats
    reads_range: tuple[float, float]
    live: int
    neurons: int
    live_chance: float
    kept: int
    weights: int
    pairs: Sequence[Pair]
    paired: Sequence[str]
    z: Floats
    floor: float
    stability: float
    stability_chance: float
    tickets: int
    shuffles: int
    pair_shuffles: int


def structure(model: TicketClassifier | TicketRegressor) -> Structure | None:
    """Return what a fitted model's first layer reads; None for a dense model, which has no mask.

    One member a ticket is read, the last: snapshots share their mask. The same model gives the
    same numbers.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> clf = TicketClassifier(widths=(16, 16), search_epochs=2, finetune_epochs=7, random_state=0)
    >>> found = structure(clf.fit(X, y))
    >>> len(found.share), found.chance.tolist(), found.neurons
    (4, [0.25, 0.25, 0.25, 0.25], 16)
    """
    if model.compression_ <= 1:
        return None
    tickets, spans = first_layers(model), groups(model.preparation_)
    names = feature_names(model.preparation_)
    generator = stream(0, "structure")
    widths = np.array([stop - start for start, stop in spans], dtype=np.float64)
    chance = widths / widths.sum()
    shares, reads, live = _seen(tickets, spans)
    n = _affordable(sum(weight.numel() for weight, _ in tickets))
    drawn = [
        _seen([shuffled(*ticket, generator=generator) for ticket in tickets], spans)
        for _ in range(n)
    ]
    share = shares.mean(0)
    far = _excess(share, chance)
    by_chance = np.stack([_excess(one.mean(0), chance) for one, _, _ in drawn])
    order = np.argsort(-far, kind="stable")
    medians = [float(np.median(one)) for _, one, _ in drawn]
    chosen = sorted(np.argsort(-share, kind="stable")[:_PAIRED].tolist())
    paired = [names[i] for i in chosen]
    m = _affordable(sum(len(mask) for _, mask in tickets) * len(chosen))
    found = pair_strength(tickets, spans, columns=chosen, generator=generator, n_shuffles=m)
    above = np.nonzero(np.triu(found.z > found.floor, 1))
    beyond = sorted(zip(*above, strict=True), key=lambda at: -found.z[at])
    return Structure(
        columns=names,
        share=share,
        chance=chance,
        error=shares.std(0, ddof=1) / math.sqrt(len(tickets)) if len(tickets) > 1 else None,
        above=[names[i] for i in order if far[i] > by_chance.max()],
        below=[names[i] for i in order[::-1] if far[i] < by_chance.min()],
        unread=[name for name, one in zip(names, share, strict=True) if one == 0],
        reads=reads,
        reads_chance=np.sort(np.concatenate([one for _, one, _ in drawn])),
        reads_range=(min(medians), max(medians)),
        live=live,
        neurons=sum(len(mask) for _, mask in tickets),
        live_chance=float(np.mean([one for _, _, one in drawn])),
        kept=sum(int(mask.sum()) for _, mask in tickets),
        weights=sum(mask.numel() for _, mask in tickets),
        pairs=[
            Pair(
                columns=(paired[i], paired[j]), lift=float(found.lift[i, j]), z=float(found.z[i, j])
            )
            for i, j in beyond
        ],
        paired=paired,
        z=found.z,
        floor=found.floor,
        stability=stability(list(shares)),
        stability_chance=float(np.mean([stability(list(one)) for one, _, _ in drawn])),
        tickets=len(tickets),
        shuffles=n,
        pair_shuffles=m,
    )


def first_layers(model: TicketClassifier | TicketRegressor) -> list[tuple[Tensor, Tensor]]:
    """Return weight and mask of the first layer, of the last member of each ticket: snapshots share
    their mask.
    """
    last = {id(mask): (network, mask) for network, mask in
            zip(model.members_, model.masks_, strict=True)}  # fmt: skip
    return [(network.get_parameter(_FIRST), mask[_FIRST]) for network, mask in last.values()]


def _affordable(size: int) -> int:
    """Return how many shuffles of so many weights are made: 39 are a test at 2.5%."""
    return max(9, min(39, _WORK // max(size, 1)))


def _seen(tickets: Sequence[tuple[Tensor, Tensor]], spans: Groups) -> tuple[Floats, Floats, int]:
    """Return shares [tickets, columns], what live neurons read in ascending order, their number."""
    shares = np.stack([column_share(weight, mask, spans).numpy() for weight, mask in tickets])
    reads = np.concatenate([columns_read(*ticket, spans).numpy() for ticket in tickets])
    return shares, np.sort(reads[reads > 0]), sum(live_neurons(mask) for _, mask in tickets)


def _excess(share: Floats, chance: Floats) -> Floats:
    """Return [columns] how far shares lie from chance, on one scale for narrow and wide columns.

    The variance of a share under shuffling is proportional to chance * (1 - chance).
    """
    scale = np.sqrt(chance * (1 - chance))
    return (share - chance) / np.where(scale > 0, scale, np.inf)
