"""The page of one fitted model: its facts, what its mask reads (the structure card), its training.

`structure` computes the card's numbers, `model_page` draws them. Every number stands beside that of
shuffled masks, which keep as many weights at random places.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from secateurs import __version__, masks
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.measures.structure import (
    Groups,
    column_pairs,
    column_share,
    columns_read,
    live_neurons,
    shuffled,
    stability,
)
from secateurs.preparation import feature_names, groups
from secateurs.report import drawing, figures
from secateurs.report.drawing import Floats
from secateurs.report.page import Block, Facts, Figure, Section, Table, Text, render
from secateurs.seeds import stream

__all__ = ["Pair", "Structure", "model_page", "regime_line", "structure"]

PAIRED = 64
"""Columns whose pairs are looked at, those with the largest shares: pairs grow with the square."""

_WORK = 8_400_000  # weights that all shuffles may move together: a second or two
_FIRST = "encoder.0.weight"


# ---- the card's numbers --------------------------------------------------------------------------


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
        paired: the columns whose pairs were looked at.
        z: [paired, paired] how far pairs lie from chance, in standard deviations.
        floor: the largest z of two columns in any shuffled mask.
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
    tickets, spans = _first_layers(model), groups(model.preparation_)
    names = [_printable(name) for name in feature_names(model.preparation_)]
    generator = stream(0, "structure")
    n = _affordable(sum(weight.numel() for weight, _ in tickets))
    shares = _shares(tickets, spans)
    reads, live = _reads(tickets, spans)
    chance_reads, chance_live, chance_stability, spread = [], [], [], []
    widths = np.array([stop - start for start, stop in spans], dtype=np.float64)
    chance = widths / widths.sum()
    for _ in range(n):
        drawn = [shuffled(*ticket, generator=generator) for ticket in tickets]
        found, count = _reads(drawn, spans)
        chance_reads.append(found)
        chance_live.append(count)
        moved = _shares(drawn, spans)
        chance_stability.append(stability(list(moved)))
        spread.append(_excess(moved.mean(0), chance))
    share = shares.mean(0)
    excess, drawn_excess = _excess(share, chance), np.stack(spread)
    order = np.argsort(-excess, kind="stable")
    above = [names[i] for i in order if excess[i] > drawn_excess.max()]
    below = [names[i] for i in order[::-1] if excess[i] < drawn_excess.min()]
    medians = [float(np.median(one)) for one in chance_reads]
    norms = [_norms(weight, mask, spans) for weight, mask in tickets]
    chosen = np.sort(np.argsort(-share, kind="stable")[:PAIRED])
    m = _affordable(sum(one.shape[0] * len(chosen) for one in norms))
    z, lift, floor = _paired(norms, chosen, m, generator)
    i, j = np.nonzero(np.triu(z > floor, 1))
    pairs = [
        Pair(columns=(names[chosen[a]], names[chosen[b]]), lift=float(lift[a, b]), z=float(z[a, b]))
        for a, b in sorted(zip(i, j, strict=True), key=lambda at: -z[at])
    ]
    several = len(tickets) > 1
    return Structure(
        columns=names,
        share=share,
        chance=chance,
        error=shares.std(0, ddof=1) / math.sqrt(len(tickets)) if several else None,
        above=above,
        below=below,
        unread=[name for name, one in zip(names, share, strict=True) if one == 0],
        reads=reads,
        reads_chance=np.sort(np.concatenate(chance_reads)),
        reads_range=(min(medians), max(medians)),
        live=live,
        neurons=sum(len(mask) for _, mask in tickets),
        live_chance=float(np.mean(chance_live)),
        kept=sum(int(mask.sum()) for _, mask in tickets),
        weights=sum(mask.numel() for _, mask in tickets),
        pairs=pairs,
        paired=[names[one] for one in chosen],
        z=z,
        floor=floor,
        stability=stability(list(shares)),
        stability_chance=float(np.mean(chance_stability)),
        tickets=len(tickets),
        shuffles=n,
        pair_shuffles=m,
    )


def _first_layers(model: TicketClassifier | TicketRegressor) -> list[tuple[Tensor, Tensor]]:
    """Return weight and mask of the first layer, of the last member of each ticket."""
    last = {id(mask): (network, mask) for network, mask in
            zip(model.members_, model.masks_, strict=True)}  # fmt: skip
    return [(network.get_parameter(_FIRST), mask[_FIRST]) for network, mask in last.values()]


def _affordable(size: int) -> int:
    """Return how many shuffles of so many weights are made: 39 are a test at 2.5%."""
    return max(9, min(39, _WORK // max(size, 1)))


def _shares(tickets: Sequence[tuple[Tensor, Tensor]], spans: Groups) -> Floats:
    """Return [tickets, columns] the shares."""
    return np.stack([column_share(weight, mask, spans).numpy() for weight, mask in tickets])


def _reads(tickets: Sequence[tuple[Tensor, Tensor]], spans: Groups) -> tuple[Floats, int]:
    """Return how many columns the live neurons of all tickets read, ascending, and how many."""
    found = np.concatenate([columns_read(*ticket, spans).numpy() for ticket in tickets])
    return np.sort(found[found > 0]), sum(live_neurons(mask) for _, mask in tickets)


def _excess(share: Floats, chance: Floats) -> Floats:
    """Return [columns] how far shares lie from chance, on one scale for narrow and wide columns.

    The variance of a share under shuffling is proportional to chance * (1 - chance).
    """
    scale = np.sqrt(chance * (1 - chance))
    return (share - chance) / np.where(scale > 0, scale, np.inf)


def _norms(weight: Tensor, mask: Tensor, spans: Groups) -> Tensor:
    """Return [neurons, columns] the norm of the kept weights of each column."""
    kept = weight.detach().where(mask, 0.0).double()
    return torch.stack([kept[:, start:stop].norm(dim=1) for start, stop in spans], dim=1)


def _paired(
    norms: Sequence[Tensor], chosen: Any, n: int, generator: torch.Generator
) -> tuple[Floats, Floats, float]:
    """Return z and lift of the pairs of chosen columns, and the largest z by chance.

    `measures.structure.pair_strength` standardises by the spread of the shuffles, in which they
    take part and the ticket does not, so that its floor is too low: of a hundred pairs one would
    stand out by chance in a quarter of all tickets. Here mean and spread are those of ticket and
    shuffles together, which makes them exchangeable: by chance the ticket is beyond all n in one
    of n + 1 cases (maxT; Westfall and Young 1993). And one spread, growing with the root of the
    mean as that of counts does, serves all pairs: n shuffles tell too little of each.
    """
    # The shuffle moves a column's weights in a neuron together: its norm stands for them, and one
    # more column for those that were not chosen.
    layers = []
    for one in norms:
        squares = one.square()
        rest = (squares.sum(1) - squares[:, chosen].sum(1)).clamp_min(0).sqrt()
        layers.append(torch.cat([one[:, chosen], rest[:, None]], dim=1))
    spans = [(i, i + 1) for i in range(len(chosen) + 1)]
    draws = [sum(column_pairs(one, one > 0, spans) for one in layers)]
    for _ in range(n):
        moved = [shuffled(one, one > 0, generator=generator, within=spans) for one in layers]
        draws.append(sum(column_pairs(*one, spans) for one in moved))
    strength = torch.stack(draws)[:, :-1, :-1].numpy()  # type: ignore[arg-type]
    mean = strength.mean(0)
    pair = (mean > 0) & ~np.eye(len(chosen), dtype=bool)
    root = np.where(pair, np.sqrt(mean), np.inf)
    far = (strength - mean) / root
    spread = math.sqrt(np.square(far[:, pair]).sum() / max(1, n * pair.sum()))
    z = far / (spread or 1.0)
    lift = strength[0] / np.where(pair, strength[1:].mean(0), np.inf)
    return z[0], lift, float(z[1:].max())


# ---- the page ------------------------------------------------------------------------------------


def model_page(
    model: TicketClassifier | TicketRegressor,
    *,
    comparison: Table | None = None,
    command: str = "",
    size: int | None = None,
) -> str:
    """Return the page of a fitted model; the same model gives the same bytes.

    Args:
        model: fitted or loaded.
        comparison: what it is worth beside simpler models; see `secateurs.command.comparison`.
        command: that predicts with it; "" leaves its folder's name open.
        size: bytes of its folder; None tells those of its tensors.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> clf = TicketClassifier(widths=(16, 16), search_epochs=2, finetune_epochs=7, random_state=0)
    >>> page = model_page(clf.fit(X, y))
    >>> "Structure card" in page, "petal width (cm)" in page
    (True, True)
    """
    summary = model.summary_
    found = structure(model)
    sections = [Section(title="Model", blocks=_facts(model, command, size))]
    if comparison is not None:
        intro = "The same settings, fitted on the other rows and measured on rows held out."
        sections.append(Section(title="Comparison", intro=intro, blocks=[comparison]))
    card = _dense_card() if found is None else _card(found, type(model).__name__)
    intro = "" if found is None else _CARD
    sections.append(Section(title="Structure card", intro=intro, blocks=card))
    layers = _layers(model, found)
    sections.append(Section(title="Layers", blocks=layers))
    if curves := _training(model.history_):
        sections.append(Section(title="Training", blocks=curves))
    names = [_printable(summary[name]) for name in ("data", "target") if summary.get(name)]
    kind = "ticket" if model.compression_ > 1 else "dense network"
    return render(
        ": ".join(names) or type(model).__name__,
        sections,
        subtitle=f"{kind}, {_network(summary)}, r = {model.compression_:g}",
        footer=f"secateurs {__version__}",
    )


_CARD = (
    "What the mask of the first layer keeps, beside what shuffled masks keep by chance: as many "
    "weights, at random places."
)


def regime_line(summary: Mapping[str, Any]) -> str:
    """Return how far the search went, and the word for it.

    Independent masks of density d have an IoU near d / (2 - d), lazy ones near 1. Rich: weights
    moved by more than their size and the mask is nearer to independent of the start's; lazy: both
    otherwise.

    >>> regime_line({"weight_movement": 2.0, "start_mask_overlap": 0.1, "density": 0.125})[:30]
    'rich: weights moved by 2 times'
    """
    moved, overlap = summary["weight_movement"], summary["start_mask_overlap"]
    chance = summary["density"] / (2 - summary["density"])
    far, new = moved > 1, overlap < (1 + chance) / 2
    word = "rich" if far and new else "between rich and lazy" if far or new else "lazy"
    return (
        f"{word}: weights moved by {moved:.2g} times their start; mask overlap with the start's "
        f"{overlap:.2f} (chance {chance:.2f}, lazy 1)"
    )


def _facts(
    model: TicketClassifier | TicketRegressor, command: str, size: int | None
) -> list[Block]:
    summary = model.summary_
    task = "regression"
    if isinstance(model, TicketClassifier):
        task = f"classification, {len(model.classes_):,} classes"
    items = {
        "task": task,
        "rows": f"{summary['rows']:,}",
        "columns": f"{summary['columns']:,}, as {summary['inputs']:,} inputs",
        "network": _network(summary)
        + (f", {summary['members']} members" if summary["members"] > 1 else ""),
        "compression": f"{summary['compression']:g} of the weights, "
        f"{summary['model_compression']:.3g} in all",
        "parameters kept": f"{summary['parameters_kept']:,} of {summary['parameters']:,}",
        "bytes": f"{summary['bytes'] if size is None else size:,}",
        "epochs": f"{summary['search_epochs']} of search, {summary['finetune_epochs']} of finetuning",
        "seconds": f"{summary['seconds']:.1f}",
    }
    blocks: list[Block] = [Facts(title="Facts", items=items)]
    if summary["weight_movement"] is not None:
        blocks.append(Text(title="Regime", paragraphs=f"{regime_line(summary).capitalize()}."))
    command = command or _predicts("MODEL")
    blocks.append(Text(title="To predict", paragraphs=command))
    return blocks


def _predicts(folder: str) -> str:
    return f"secateurs predict {shlex.quote(folder)} NEW_ROWS.csv --out predictions.csv"


def _network(summary: Mapping[str, Any]) -> str:
    widths = summary["widths"]
    same = len(set(widths)) == 1
    return f"{len(widths)}x{widths[0]}" if same else "-".join(map(str, widths))


def _dense_card() -> list[Block]:
    told = "Nothing was pruned (compression 1): there is no mask to read."
    return [Text(paragraphs=told)]


def _card(found: Structure, estimator: str) -> list[Block]:
    """Return the structure card in numbers, words and pictures."""
    blocks: list[Block] = [
        Facts(title="In numbers", items=_numbers(found)),
        Text(title="In words", paragraphs=_words(found, estimator)),
    ]
    first = int(np.argmax(found.share))
    blocks.append(
        Figure(
            title="Columns that are kept",
            svg=figures.column_bars(
                found.columns,
                found.share,
                chance=found.chance,
                error=found.error,
                xlabel="share of the kept |w|",
            ),
            alt=f"Bars of the share of kept weight on each of {len(found.columns)} columns; the "
            f"longest is {found.columns[first]} with {found.share[first]:.1%}.",
            caption="A share of the first layer's kept |w|: neither an importance nor a causal "
            "effect. Numbers are standardised and categories are 0 or 1, and a column of many "
            "categories has many inputs: compare with the mark of chance."
            + (" Lines: one standard error over tickets." if found.error is not None else ""),
        )
    )
    if found.reads.size and found.reads_chance[-1] > 1:
        low, high = found.reads_range
        blocks.append(
            Figure(
                title="Columns that a neuron reads",
                svg=_histogram(found.reads, found.reads_chance),
                alt=f"Histogram of the effective number of columns a neuron reads: median "
                f"{np.median(found.reads):.1f}, in shuffled masks {low:.1f} to {high:.1f}.",
                caption="The effective number: k for k columns of equal weight, 1 for a single "
                f"one. Grey: {found.shuffles} shuffled masks.",
            )
        )
    if found.pairs:
        blocks += _pair_blocks(found)
    return blocks


def _numbers(found: Structure) -> dict[str, str]:
    items = {
        "weights kept": f"{found.kept:,} of {found.weights:,} ({found.kept / found.weights:.0%})",
        "neurons that read": f"{found.live:,} of {found.neurons:,} (by chance "
        f"{found.live_chance:,.0f})",
        "columns read": f"{len(found.columns) - len(found.unread):,} of {len(found.columns):,}",
        "columns a neuron reads": f"{np.median(found.reads):.1f} (by chance "
        f"{np.median(found.reads_chance):.1f})",
    }
    if math.isfinite(found.stability):
        items["stability over tickets"] = (
            f"{found.stability:.2f} (by chance {found.stability_chance:.2f})"
        )
    return items


_NAMED = 5


def _words(found: Structure, estimator: str) -> list[str]:
    """Return what the card says, in sentences that claim no more than the numbers do."""
    told = []
    masks_ = f"{found.shuffles} shuffled masks"
    at = {name: i for i, name in enumerate(found.columns)}

    def share(name: str) -> str:
        i = at[name]
        return f"{_short(name)} ({found.share[i]:.1%}, by chance {found.chance[i]:.1%})"

    if len(found.columns) == 1:
        told.append("There is one column: nothing to choose among.")
    else:
        if found.above:
            told.append(
                f"More weight than any column has in {masks_}, for its width: "
                f"{_listed(found.above, share)}."
            )
        else:
            told.append(f"No column has more weight, for its width, than in {masks_}.")
        if found.below:
            told.append(f"Less than any has there: {_listed(found.below, share)}.")
        if found.unread:
            told.append(f"Not read at all: {_listed(found.unread, _short)}.")
        median, (low, high) = float(np.median(found.reads)), found.reads_range
        word = "fewer than" if median < low else "more than" if median > high else "as many as"
        told.append(
            f"A neuron reads {median:.1f} columns (median of those that read any): {word} in "
            f"shuffled masks, whose medians are {low:.1f} to {high:.1f}."
        )
        told.append(_pair_words(found))
    told.append(_stability_words(found, estimator))
    return told


def _pair_words(found: Structure) -> str:
    among = "" if len(found.paired) == len(found.columns) else f" of the {PAIRED} most kept columns"
    drawn = f"{found.pair_shuffles} masks in which each column's weights were dealt out anew"
    if not found.pairs:
        return f"No two columns{among} meet in neurons more than the foremost pairs do in {drawn}."
    named = [
        f"{_short(one.columns[0])} with {_short(one.columns[1])} ({one.lift:.2g} times chance)"
        for one in found.pairs
    ]
    return f"Combined in neurons, beyond any pair in {drawn}: {_listed(named, str)}."


def _stability_words(found: Structure, estimator: str) -> str:
    if found.tickets == 1:
        return (
            "One ticket cannot tell what another seed would keep: ask for several by "
            f"--set n_tickets=3, in Python {estimator}(n_tickets=3)."
        )
    if not math.isfinite(found.stability):
        return f"All columns have the same share in one of {found.tickets} tickets: no order."
    return (
        f"The shares of two of the {found.tickets} tickets have a rank correlation of "
        f"{found.stability:.2f} on average; in shuffled masks {found.stability_chance:.2f}, by "
        "the widths of the columns alone."
    )


def _listed(names: Sequence[str], say: Any) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(say(name) for name in names[:_NAMED])
    return f"{listed} and {more:,} more" if more > 0 else listed


def _pair_blocks(found: Structure) -> list[Block]:
    """Return the matrix of the columns that meet most, and the first pairs as a table."""
    shown = list(dict.fromkeys(name for pair in found.pairs for name in pair.columns))[:12]
    at = [found.paired.index(name) for name in shown]
    drawn = f"{found.pair_shuffles} shuffled masks"
    first = found.pairs[0]
    return [
        Figure(
            title="Columns that are combined",
            svg=figures.pair_matrix(shown, found.z[np.ix_(at, at)]),
            alt=f"Matrix of {len(shown)} columns: how much more than by chance each two meet in "
            f"neurons; the foremost are {first.columns[0]} and {first.columns[1]}.",
            caption="Standard deviations above (orange) or below (blue) chance. Meeting in neurons "
            f"is no interaction of their effects. Only what is above {found.floor:.1f}, the "
            f"largest of any pair in {drawn}, stands out.",
        ),
        Table(
            title="Pairs that stand out",
            columns=["column", "with", "times chance", "z"],
            rows=[
                [*map(_short, pair.columns), round(pair.lift, 2), round(pair.z, 1)]
                for pair in found.pairs[:_NAMED]
            ],
            note=f"{len(found.pairs):,} of {len(found.paired) * (len(found.paired) - 1) // 2:,} "
            f"pairs; the largest z by chance is {found.floor:.1f}, of {drawn}.",
        ),
    ]


@drawing.style()
def _histogram(reads: Floats, by_chance: Floats) -> str:
    """Return an SVG of how many columns neurons read, the shuffled ones as a grey outline."""
    high = max(float(reads[-1]), float(by_chance[-1]))
    ends = np.linspace(1.0, high * (1 + 1e-9) + 1e-6, 31)
    shares = [np.histogram(one, ends)[0] / len(one) for one in (reads, by_chance)]
    top = max(float(one.max()) for one in shares) * 1.06
    chart = drawing.framed_chart(
        ylabel="share of the neurons",
        xlabel="columns read (effective number)",
        labels=(),
        right=10,
    )
    axes = chart.axes
    axes.set_xlim(ends[0], ends[-1])
    axes.set_ylim(0, top)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(drawing.plain))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    x, y = drawing.pixels(chart, axes, ends, np.zeros_like(ends))
    tall = y[0] - drawing.pixels(chart, axes, ends[:1], np.array([top]))[1][0]
    blue = drawing.PALETTE[0]
    model, chance = (one / top * tall for one in shares)
    chart.over.append(drawing.outline(x, y[0], model, blue, blue))
    chart.over.append(drawing.outline(x, y[0], chance, drawing.INK, "none"))
    place = chart.width - 10 - drawing.width_of("shuffled")
    chart.over.append(drawing.text(place, 10, "shuffled", fill=drawing.MUTED))
    chart.over.append(drawing.rectangle(place - 14, 9, 9, 2, drawing.INK))
    place -= 32 + drawing.width_of("this model")
    chart.over.append(drawing.text(place, 10, "this model", fill=drawing.MUTED))
    chart.over.append(drawing.rectangle(place - 14, 5, 9, 9, blue))
    return drawing.to_svg(chart)


def _layers(model: TicketClassifier | TicketRegressor, found: Structure | None) -> list[Block]:
    """Return the density of each layer, and the first one as a matrix."""
    blocks: list[Block] = []
    several = found is not None and found.tickets > 1
    if found is not None:
        unique = {id(mask): mask for mask in model.masks_}.values()
        rows = [
            {"layer": f"{i}", "density": kept / mask[name].numel(), "arm": "kept"}
            for mask in unique
            for i, (name, kept) in enumerate(masks.kept_per_layer(mask).items(), start=1)
        ]
        n = len(model.masks_[0])
        blocks.append(
            Figure(
                title="Density by layer",
                svg=figures.layer_density(pd.DataFrame(rows)),
                alt=f"Kept share of the weights in each of {n} hidden layers.",
                caption=f"{model.density_:.3g} over all; the output layer is not pruned."
                + (" Means over tickets." if several else ""),
            )
        )
    names = [_printable(name) for name in feature_names(model.preparation_)]
    weight, mask = _first_layers(model)[0]
    by_column = _norms(weight, mask, groups(model.preparation_))
    order = by_column.sum(1).argsort(descending=True, stable=True)
    blocks.append(
        Figure(
            title="First layer",
            svg=figures.weight_map(
                by_column[order].numpy(),
                row_label="neuron, by size",
                column_label="original column",
                columns=names,
            ),
            alt=f"Absolute weights from {len(names)} columns to {len(weight)} neurons; pruned ones "
            "are empty.",
            caption="|w|; the weights of a category's levels are taken together."
            + (" The first ticket." if several else ""),
        )
    )
    return blocks


def _training(history: pd.DataFrame) -> list[Block]:
    """Return curves of losses by phase, and of the learning rate."""
    blocks: list[Block] = []
    lines = {"loss": "training", "validation_loss": "validation", "contrastive": "contrastive part"}
    if history.empty:
        return blocks
    several = history["ticket"].nunique() > 1
    numbers = history.assign(
        **{name: history[name].astype(np.float64) for name in lines if name in history}
    )
    for phase in history["phase"].unique():
        part = numbers[numbers["phase"] == phase]
        long = part.melt(
            id_vars="epoch",
            value_vars=[name for name in lines if name in part],
            var_name="line",
            value_name="value",
        )
        long = long[np.isfinite(long["value"])]
        if long.empty:
            continue
        long["line"] = long["line"].map(lines)
        caption = {
            "search": "The objective before pruning; validation is its error alone.",
            "finetune": "After pruning, from the start again.",
        }.get(phase, "")
        blocks.append(
            Figure(
                title=f"Loss of the {phase} phase",
                svg=figures.curves(long, y="value", by="line", ylabel="loss"),
                alt=f"Loss over {part['epoch'].nunique()} epochs of {phase}: "
                f"{', '.join(long['line'].unique())}.",
                caption=caption
                + (" Means over tickets, one standard error to both sides." if several else ""),
            )
        )
    if (history["lr"] > 0).any():
        blocks.append(
            Figure(
                title="Learning rate",
                svg=figures.curves(history, y="lr", by="phase", ylabel="learning rate", logy=True),
                alt=f"Learning rate over the epochs of {' and '.join(history['phase'].unique())}.",
            )
        )
    return blocks


def _printable(name: Any) -> str:
    """Return a name without what a page cannot hold: control characters and half surrogates."""
    return "".join(
        c if c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else "\ufffd"
        for c in str(name)
    )


def _short(name: str) -> str:
    return drawing.shorten(name, 40)
