"""The page of one fitted model: its facts, the structure card, its training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from secateurs import __version__, masks
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.fitted import FittedTickets
from secateurs.measures.structure import column_norms
from secateurs.preparation import feature_names, groups
from secateurs.recipes import regime_of
from secateurs.report import drawing, figures
from secateurs.report.card import Structure, first_layers, structure
from secateurs.report.drawing import Floats
from secateurs.report.page import Block, Facts, Figure, Section, Table, Text, Value, render

__all__ = ["density_figure", "model_page", "printable", "regime_line", "training_blocks"]


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
    if found is None:
        told = "Nothing was pruned (compression 1): there is no mask to read."
        sections.append(Section(title=_CARD, blocks=[Text(paragraphs=told)]))
    else:
        intro = (
            "What the first layer's mask keeps, beside what shuffled masks keep by chance: as many "
            "weights, at random places."
        )
        sections.append(Section(title=_CARD, intro=intro, blocks=_card(found, model)))
    sections.append(Section(title="Layers", blocks=_layers(model, found)))
    if curves := training_blocks(model):
        sections.append(Section(title="Training", blocks=curves))
    names = [printable(summary[name]) for name in ("data", "target") if summary.get(name)]
    kind = "dense network" if found is None else "ticket"
    return render(
        ": ".join(names) or type(model).__name__,
        sections,
        subtitle=f"{kind}, {_network(summary)}, r = {model.compression_:g}",
        footer=f"secateurs {__version__}",
    )


_CARD = "Structure card"


def regime_line(summary: Mapping[str, Any]) -> str:
    """Return how far the search went, and the word for it (`recipes.regime_of`).

    Independent masks of density d have an IoU near d / (2 - d), lazy ones near 1.

    >>> regime_line({"weight_movement": 2.0, "start_mask_overlap": 0.1, "density": 0.125})[:30]
    'rich: weights moved by 2 times'
    """
    moved, overlap = summary["weight_movement"], summary["start_mask_overlap"]
    chance = _chance_overlap(summary)
    return (
        f"{regime_of(moved)}: weights moved by {moved:.2g} times their start; mask overlap with "
        f"the start's {overlap:.2f} (chance {chance:.2f}, lazy 1)"
    )


def _chance_overlap(summary: Mapping[str, Any]) -> float:
    density: float = summary["density"]
    return density / (2 - density)


def _is_the_starts(summary: Mapping[str, Any]) -> bool:
    """Return whether a mask is nearer to that of the initial weights than to chance."""
    overlap: float = summary["start_mask_overlap"]
    return overlap > (1 + _chance_overlap(summary)) / 2


def _facts(
    model: TicketClassifier | TicketRegressor, command: str, size: int | None
) -> list[Block]:
    summary = model.summary_
    task = "regression"
    if isinstance(model, TicketClassifier):
        task = f"classification, {len(model.classes_):,} classes"
    columns, inputs, members = (summary[name] for name in ("columns", "inputs", "members"))
    items = {
        "task": task,
        "rows": f"{summary['rows']:,}",
        "columns": f"{columns:,}" + (f", {inputs:,} inputs" if inputs != columns else ""),
        "network": _network(summary) + (f", {members} members" if members > 1 else ""),
        "compression": f"{summary['compression']:g}; of all parameters "
        f"{summary['model_compression']:.3g}",
        "parameters kept": f"{summary['parameters_kept']:,} of {summary['parameters']:,}",
        "bytes": f"{summary['bytes'] if size is None else size:,}",
        "epochs": f"{summary['search_epochs']} search, {summary['finetune_epochs']} finetune",
        "seconds": f"{summary['seconds']:.1f}",
    }
    blocks: list[Block] = [Facts(title="Facts", items=items)]
    if summary["weight_movement"] is not None:
        line = regime_line(summary)
        blocks.append(Text(title="Regime", paragraphs=f"{line[0].upper()}{line[1:]}."))
    predict = command or "secateurs predict MODEL NEW_ROWS.csv --out predictions.csv"
    return [*blocks, Text(title="To predict", paragraphs=predict)]


def _network(summary: Mapping[str, Any]) -> str:
    widths = summary["widths"]
    same = len(set(widths)) == 1
    return f"{len(widths)}x{widths[0]}" if same else "-".join(map(str, widths))


def _card(found: Structure, model: TicketClassifier | TicketRegressor) -> list[Block]:
    """Return the structure card in numbers, words and pictures."""
    first = int(np.argmax(found.share))
    blocks: list[Block] = [
        Facts(title="In numbers", items=_numbers(found)),
        Text(title="In words", paragraphs=_words(found, model)),
        Figure(
            title="Columns that are kept",
            svg=figures.column_bars(
                [printable(name) for name in found.columns],
                found.share,
                chance=found.chance,
                error=found.error,
                xlabel="share of the kept |w|",
            ),
            alt=f"Bars of the share of kept weight on each of {len(found.columns)} columns; the "
            f"longest is {_short(found.columns[first])} with {found.share[first]:.1%}.",
            caption="A share of the first layer's kept |w|: neither an importance nor a causal "
            "effect. Numbers are standardised and categories are 0 or 1, and a column of many "
            "categories has many inputs: compare with the mark of chance."
            + (" Lines: one standard error over tickets." if found.error is not None else ""),
        ),
    ]
    if found.reads_chance[-1] > 1:
        low, high = found.reads_range
        blocks.append(
            Figure(
                title="Columns that a neuron reads",
                svg=_histogram(found.reads, found.reads_chance),
                alt=f"Histogram of the effective number of columns a neuron reads: median "
                f"{np.median(found.reads):.1f}, in shuffled masks {low:.1f} to {high:.1f}.",
                caption="The effective number: k for k columns of equal weight, 1 for a single "
                f"one. Line: {found.shuffles} shuffled masks.",
            )
        )
    return [*blocks, *_pair_blocks(found)] if found.pairs else blocks


def _numbers(found: Structure) -> dict[str, str]:
    items = {
        "weights kept": f"{found.kept:,} of {found.weights:,} ({found.kept / found.weights:.0%})",
        "columns read": f"{len(found.columns) - len(found.unread):,} of {len(found.columns):,}",
        "neurons that read": f"{found.live:,} of {found.neurons:,} (by chance "
        f"{found.live_chance:,.0f})",
        "columns a neuron reads": f"{np.median(found.reads):.1f} (by chance "
        f"{np.median(found.reads_chance):.1f})",
    }
    if math.isfinite(found.stability):
        chance = f"{found.stability_chance:z.2f}"
        items["stability over tickets"] = f"{found.stability:z.2f} (by chance {chance})"
    return {name: item.replace("-", "\N{MINUS SIGN}") for name, item in items.items()}


_NAMED = 5


def _words(found: Structure, model: TicketClassifier | TicketRegressor) -> list[str]:
    """Return what the card says, in sentences that claim no more than the numbers do."""
    at = {name: i for i, name in enumerate(found.columns)}
    drawn = f"{found.shuffles} shuffled masks"

    def share(name: str) -> str:
        i = at[name]
        return f"{_short(name)} ({found.share[i]:.1%}, by chance {found.chance[i]:.1%})"

    told = []
    if len(found.columns) == 1:
        told.append("There is one column: nothing to choose among.")
    else:
        if found.above:
            told.append(
                f"Kept more, for its width, than any column in {drawn}: "
                f"{_listed(list(map(share, found.above)))}."
            )
        if found.below:
            told.append(
                f"Kept less, for its width, than any column in {drawn}: "
                f"{_listed(list(map(share, found.below)))}."
            )
        if not found.above and not found.below:
            told.append(
                f"No column stands out: all are kept, for their width, as columns are in {drawn}."
            )
        if found.unread:
            told.append(f"Not read at all: {_listed(list(map(_short, found.unread)))}.")
        median, (low, high) = float(np.median(found.reads)), found.reads_range
        word = "fewer than" if median < low else "more than" if median > high else "as many as"
        told.append(
            f"A neuron reads {median:.1f} columns (median of those that read any): {word} in "
            f"{drawn}, whose medians are {low:.1f} to {high:.1f}."
        )
        told.append(_pair_words(found))
    if model.summary_["weight_movement"] is not None and _is_the_starts(model.summary_):
        told.append(
            f"The search was {regime_of(model.summary_['weight_movement'])}, and this mask is "
            "mostly that of the initial weights, which know nothing of the data."
        )
    return [*told, _stability_words(found, type(model).__name__)]


def _pair_words(found: Structure) -> str:
    among = (
        "" if len(found.paired) == len(found.columns) else f" of the {len(found.paired)} most kept"
    )
    if math.isnan(found.floor):
        return "Too little is kept of the columns to tell which are combined in neurons."
    drawn = f"{found.pair_shuffles} masks in which each column's weights were dealt out anew"
    if not found.pairs:
        return f"No two columns{among} are combined in neurons more than by chance, in {drawn}."
    named = [
        f"{_short(one.columns[0])} with {_short(one.columns[1])} ({one.lift:.2g} times chance)"
        for one in found.pairs
    ]
    return f"Combined in neurons more than any two columns are in {drawn}: {_listed(named)}."


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
        f"{found.stability:z.2f} on average; in shuffled masks {found.stability_chance:z.2f}"
        + (", by the widths of the columns alone." if np.ptp(found.chance) > 0 else ".")
    )


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


_MATRIX = 12


def _pair_blocks(found: Structure) -> list[Block]:
    """Return the matrix of the columns that meet most, and the first pairs as a table."""
    share = dict(zip(found.columns, found.share, strict=True))
    most = sorted(found.paired, key=lambda name: -share[name])
    shown = list(dict.fromkeys([*(name for one in found.pairs for name in one.columns), *most]))
    at = sorted(found.paired.index(name) for name in shown[:_MATRIX])
    drawn = f"{found.pair_shuffles} shuffled masks"
    first, second = map(_short, found.pairs[0].columns)
    n_pairs = int(np.isfinite(found.z).sum()) // 2
    return [
        Figure(
            title="Columns that are combined",
            svg=figures.pair_matrix(
                [printable(found.paired[i]) for i in at], found.z[np.ix_(at, at)]
            ),
            alt=f"Matrix of {len(at)} columns: how much more than by chance each two meet in "
            f"neurons; most of all {first} and {second}.",
            caption="Standard deviations above (orange) or below (blue) chance; only what is above "
            f"{found.floor:.1f}, the largest of any two columns in {drawn}, stands out. That "
            "weights meet in a neuron is no proof that columns interact in the data.",
        ),
        Table(
            title="Pairs that stand out",
            columns=["column", "with", "times chance", "z"],
            rows=[
                [*map(_short, one.columns), Value(one.lift), Value(one.z, digits=1)]
                for one in found.pairs[:_NAMED]
            ],
            note=(f"The first {_NAMED} of " if len(found.pairs) > _NAMED else "")
            + f"{len(found.pairs):,} among {n_pairs:,} pairs; by chance z is {found.floor:.1f} at "
            "most.",
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
    several = found is not None and found.tickets > 1
    blocks: list[Block] = [] if found is None else [density_figure(model)]
    names = [printable(name) for name in feature_names(model.preparation_)]
    weight, mask = first_layers(model)[0]
    by_column = column_norms(weight, mask, groups(model.preparation_))
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
            caption="|w|; the weights of a category's levels are taken together, and pruned where "
            "all of them are." + (" The first ticket." if several else ""),
        )
    )
    return blocks


def density_figure(model: FittedTickets) -> Figure:
    """Return the kept share of each layer of a pruned model; means over tickets."""
    unique = {id(mask): mask for mask in model.masks_}.values()
    rows = [
        {"layer": f"{i}", "density": kept / mask[name].numel(), "arm": "kept"}
        for mask in unique
        for i, (name, kept) in enumerate(masks.kept_per_layer(mask).items(), start=1)
    ]
    return Figure(
        title="Density by layer",
        svg=figures.layer_density(pd.DataFrame(rows)),
        alt=f"Kept share of the weights in each of {len(model.masks_[0])} hidden layers.",
        caption=f"{model.density_:.3g} over all; the output layer is not pruned."
        + (" Means over tickets." if len(unique) > 1 else ""),
    )


_PHASES = {
    "search": ("Search", "Before pruning, with all weights."),
    "finetune": ("Finetuning", "With the weights that the mask keeps."),
}
_LINES = {
    "loss": "training",
    "validation_loss": "validation",
    "contrastive": "contrastive part",
}


def training_blocks(model: FittedTickets) -> list[Block]:
    """Return curves of losses by phase, and of the learning rate."""
    history = model.history_
    if history.empty:
        return []
    several = history["ticket"].nunique() > 1
    error = "squared error" if isinstance(model, TicketRegressor) else "cross-entropy"
    blocks: list[Block] = []
    for phase in history["phase"].unique():
        part = history[history["phase"] == phase]
        names = [name for name in _LINES if name in part]
        # A column of nothing but missing values comes back from a file as one of objects.
        part = part[["epoch", *names]].astype(np.float64)
        long = part.melt(id_vars="epoch", var_name="line").rename(columns={"value": "loss"})
        long = long[np.isfinite(long["loss"])]
        if long.empty:
            continue
        lines = [_LINES[name] for name in long["line"].unique()]
        title, *words = _PHASES.get(phase, (f"Phase {phase}",))
        label = f"loss ({error})"
        if "contrastive part" in lines:
            label = "loss"
            words.append("Training counts the contrastive part, too.")
        if several:
            words.append("Means over tickets, one standard error to both sides.")
        blocks.append(
            Figure(
                title=title,
                svg=figures.curves(
                    long.assign(line=long["line"].map(_LINES)), y="loss", by="line", ylabel=label
                ),
                alt=f"Loss over {long['epoch'].nunique()} epochs of {phase}: {', '.join(lines)}.",
                caption=" ".join(words),
            )
        )
    if (history["lr"] > 0).any():
        phases = " and ".join(history["phase"].unique())
        blocks.append(
            Figure(
                title="Learning rate",
                svg=figures.curves(history, y="lr", by="phase", ylabel="learning rate", logy=True),
                alt=f"Learning rate over the epochs of {phases}.",
            )
        )
    return blocks


def printable(name: Any) -> str:
    """Return a name without what a page cannot hold: control characters and half surrogates."""
    return "".join(
        c if c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else "\ufffd"
        for c in str(name)
    )


def _short(name: str) -> str:
    return drawing.shorten(name, 40)
