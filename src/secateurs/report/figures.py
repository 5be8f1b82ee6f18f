"""From tidy frames and arrays to SVG: the papers' figures and what else a report shows.

Each function takes data and returns the SVG as text; the same data give the same bytes. Missing
values are left out, and what cannot be drawn is refused.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import IdentityTransform
from numpy.typing import ArrayLike

from secateurs.errors import InputError
from secateurs.report import drawing
from secateurs.report.drawing import PALETTE, Floats

__all__ = [
    "DENSE",
    "accuracy_by_compression",
    "column_bars",
    "curves",
    "layer_density",
    "pair_matrix",
    "weight_histograms",
    "weight_map",
]

DENSE = "dense"
"""The arm that is a reference and not a competitor: a grey line, and no colour of the palette."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")


# ---- figures over an axis ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Series:
    """One arm: means over repeats at ascending x, with standard errors (NaN where unknown)."""

    name: str
    colour: str
    marker: str
    dashes: str
    x: Floats
    mean: Floats
    error: Floats


@drawing.style()
def accuracy_by_compression(
    frame: pd.DataFrame,
    *,
    value: str,
    by: str = "arm",
    x: str = "compression",
    error: str | None = None,
    ylabel: str,
    percent_left: bool = False,
    order: Sequence[str] | None = None,
) -> str:
    """Return an SVG of `value` against compression, one line an arm (figure 2 of the paper).

    Lines are means, bands one standard error to both sides. An arm named "dense" is a level line.

    Args:
        frame: one row a run, or one row a point if `error` is given.
        value: column of what is shown.
        by: column of the arms.
        x: column of the compression r = 1/density, positive; on a scale of powers of two.
        error: column of standard errors; without it they come from the repeats.
        ylabel: what `value` is, with its unit.
        percent_left: whether the axis is told as 100/r, the percentage of weights that are left,
            which falls to the right as in the lottery ticket papers.
        order: all arms of a page, so that an arm has one colour in all of its figures.

    Raises:
        InputError: an empty frame, a missing column, no finite value, several rows a point
            although `error` is given.

    >>> runs = pd.DataFrame({"arm": ["IUNet"] * 4, "compression": [2, 2, 8, 8],
    ...                      "accuracy": [0.91, 0.93, 0.90, 0.91]})
    >>> svg = accuracy_by_compression(runs, value="accuracy", ylabel="accuracy")
    >>> svg.startswith("<svg") and ">IUNet<" in svg
    True
    """
    columns = [value, by, x] + ([error] if error else [])
    frame = _usable(frame, columns, numeric=[value, x] + ([error] if error else []))
    if (frame[x] <= 0).any():
        raise InputError(
            f"{x} must be positive (r = 1/density), got {frame[x].min():g}; drop that row"
        )
    names = _names(frame[by], order)
    level = None
    is_dense = frame[by].astype(str) == DENSE
    if is_dense.any() and not is_dense.all():
        (level,) = _series(
            frame[is_dense].assign(**{x: 1.0}), value=value, by=by, x=x, error=error, names=names
        )
        frame = frame[~is_dense]
    lines = _series(frame, value=value, by=by, x=x, error=error, names=names)
    labelled = ([level] if level else []) + lines
    xlabel = "weights left, %" if percent_left else "compression r"
    chart = drawing.framed_chart(ylabel=ylabel, xlabel=xlabel, labels=_titles(labelled))
    axes = chart.axes
    axes.set_xscale("log", base=2)
    ratios = sorted({float(r) for line in lines for r in line.x})
    axes.xaxis.set_minor_locator(NullLocator())
    if level is not None:
        mean, se = float(level.mean[0]), float(level.error[0])
        if not math.isnan(se):
            axes.axhspan(mean - se, mean + se, color=level.colour, alpha=0.13, linewidth=0)
        axes.axhline(mean, color=level.colour, linewidth=1.5, dashes=(5, 3))
    for line in lines:
        _draw(chart, line, every=1)
    drawing.settle(chart)
    if len(ratios) == 1:  # a scale needs a range
        axes.set_xlim(ratios[0] / 2, ratios[0] * 2)

    def words(r: float) -> str:
        return f"{100 / r:.3g}" if percent_left else f"{r:g}"

    axes.xaxis.set_major_locator(FixedLocator(drawing.apart(chart, ratios, words)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda r, _: words(r)))
    _label_ends(chart, labelled, level=level)
    return drawing.to_svg(chart)


@drawing.style()
def curves(
    frame: pd.DataFrame,
    *,
    x: str = "epoch",
    y: str,
    by: str,
    ylabel: str,
    logy: bool = False,
    order: Sequence[str] | None = None,
) -> str:
    """Return an SVG of `y` over `x`, one line an arm: training curves, movement, overlap.

    Lines are means over repeats, bands one standard error to both sides.

    Args:
        frame: one row a point of a run.
        x: column of the epoch or step.
        y: column of what is shown.
        by: column of the arms.
        ylabel: what `y` is, with its unit.
        logy: whether its scale is logarithmic; values of 0 and below are then left out.
        order: all arms of a page, so that an arm has one colour in all of its figures.

    Raises:
        InputError: an empty frame, a missing column, no finite value.

    >>> history = pd.DataFrame({"epoch": [0, 1, 2], "loss": [1.0, 0.5, 0.3], "arm": "IUNet"})
    >>> ">IUNet<" in curves(history, y="loss", by="arm", ylabel="loss", logy=True)
    True
    """
    frame = _usable(frame, [x, y, by], numeric=[x, y])
    if logy:
        frame = frame[frame[y] > 0]
        if frame.empty:
            raise InputError(f"a logarithmic scale needs {y} above 0, got none; pass logy=False")
    names = _names(frame[by], order)
    lines = _series(frame, value=y, by=by, x=x, error=None, names=names)
    chart = drawing.framed_chart(ylabel=ylabel, xlabel=x, labels=_titles(lines))
    if logy:
        drawing.log_scale(chart)
    for i, line in enumerate(lines):
        _draw(chart, line, every=max(1, len(line.x) // 6), start=i)
    drawing.settle(chart)
    chart.axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=_whole(frame[x])))
    chart.axes.xaxis.set_major_formatter(FuncFormatter(drawing.plain))
    _label_ends(chart, lines)
    return drawing.to_svg(chart)


@drawing.style()
def layer_density(
    frame: pd.DataFrame,
    *,
    by: str = "arm",
    layer: str = "layer",
    value: str = "density",
    order: Sequence[str] | None = None,
) -> str:
    """Return an SVG of the density that each layer is left with, on a logarithmic scale.

    An emptied layer is a cross on the floor.

    Args:
        frame: one row a layer of a run, layers in the order of the network.
        by: column of the arms.
        layer: column of the layers' names; parts that all share are left out.
        value: column of the densities, from 0 to 1.
        order: all arms of a page, so that an arm has one colour in all of its figures.

    Raises:
        InputError: an empty frame, a missing column, no finite value, a density outside [0, 1].

    >>> masks = pd.DataFrame({"layer": ["0.weight", "1.weight"], "density": [0.1, 0.3], "arm": "a"})
    >>> ">0<" in layer_density(masks)
    True
    """
    frame = _usable(frame, [layer, value, by], numeric=[value])
    if not frame[value].between(0, 1).all():
        bad = frame[value][~frame[value].between(0, 1)].iloc[0]
        raise InputError(f"a density must be in [0, 1], got {bad:g}; pass kept fractions")
    layers = [str(one) for one in frame[layer].unique()]
    position = {name: float(i) for i, name in enumerate(layers)}
    frame = frame.assign(**{layer: frame[layer].astype(str).map(position)})
    names = _names(frame[by], order)
    lines = _series(frame, value=value, by=by, x=layer, error=None, names=names)
    shown = _distinct(layers)
    chart = drawing.framed_chart(
        ylabel="density", xlabel="layer", labels=_titles(lines), below=drawing.room_below(shown)
    )
    axes = chart.axes
    above = [m for line in lines for m in line.mean if m > 0]
    floor = (min(above) if above else 0.1) / 2.5
    axes.set_ylim(floor, max(1.0, *above) * 1.25 if above else 1.25)
    drawing.log_scale(chart)
    axes.set_xlim(-0.5, len(layers) - 0.5)
    for i, line in enumerate(lines):
        shift = (i - (len(lines) - 1) / 2) * min(0.12, 0.6 / len(lines))
        kept = line.mean > 0
        axes.plot(
            line.x + shift, np.where(kept, line.mean, np.nan), color=line.colour, linewidth=1,
            alpha=0.45,
        )  # fmt: skip
        axes.plot(
            line.x[kept] + shift, line.mean[kept], color=line.colour, marker=line.marker,
            linestyle="none", markeredgewidth=0,
        )  # fmt: skip
        axes.plot(
            line.x[~kept] + shift, np.full((~kept).sum(), floor), color=line.colour, marker="x",
            linestyle="none", clip_on=False, markeredgewidth=1.75,
        )  # fmt: skip
    drawing.settle(chart)
    axes.xaxis.set_major_locator(FixedLocator(list(range(len(layers)))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda *_: ""))
    drawing.name_ticks(chart, shown)
    _label_ends(chart, lines)
    return drawing.to_svg(chart)


@drawing.style()
def weight_histograms(
    histograms: Mapping[str, ArrayLike],
    edges: ArrayLike,
    epochs: Sequence[int],
    *,
    xlabel: str = "|w|",
    max_frames: int = 40,
) -> tuple[str, list[str]]:
    """Return an SVG of frames and their epochs: how |w| is spread, epoch by epoch (figure 3).

    One panel a series, the same axes in all panels and frames; a grey outline keeps the first
    epoch in sight. Made for `secateurs.report.page.Scrubber`.

    Args:
        histograms: [epochs, bins] counts of each series; every row is scaled to shares.
        edges: [bins + 1] ends of the bins in log10 |w|, ascending.
        epochs: [epochs] their numbers.
        xlabel: what is counted, on a logarithmic scale.
        max_frames: more epochs are thinned to so many, the first and the last among them.

    Raises:
        InputError: no series, shapes that do not fit, edges that do not ascend, a negative count.

    >>> counts = {"kappa 1": [[1, 2, 1], [0, 1, 3]]}
    >>> svg, labels = weight_histograms(counts, [-3.0, -2.0, -1.0, 0.0], [0, 1])
    >>> labels, svg.count("data-frame")
    (['0', '1'], 2)
    """
    ends = np.asarray(edges, dtype=np.float64)
    if not histograms or not len(epochs):
        raise InputError("weight_histograms needs a series and an epoch, got none")
    if ends.ndim != 1 or len(ends) < 2 or not (np.diff(ends) > 0).all():
        raise InputError("edges must be ascending numbers, two or more: log10 of |w|")
    shares = {}
    for name, counts in histograms.items():
        rows = np.asarray(counts, dtype=np.float64)
        if rows.shape != (len(epochs), len(ends) - 1):
            raise InputError(
                f"histogram {name!r} must be [epochs, bins] = [{len(epochs)}, {len(ends) - 1}], "
                f"got {list(rows.shape)}"
            )
        rows = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
        if (rows < 0).any():
            raise InputError(f"histogram {name!r} must be counts, got {rows.min():g}")
        shares[str(name)] = rows / np.maximum(rows.sum(1, keepdims=True), 1e-300)
    chosen = np.unique(np.linspace(0, len(epochs) - 1, min(max_frames, len(epochs))).round())
    chosen = chosen.astype(int)
    top = max(float(rows[chosen].max()) for rows in shares.values()) * 1.06 or 1.0
    chart = drawing.panelled_chart(
        len(shares), xlabel=xlabel, ylabel="share of the weights, by bin"
    )
    colours = itertools.cycle(PALETTE)
    frames = [Element("g", {"data-frame": str(i)}) for i in range(len(chosen))]
    for (name, rows), axes, colour in zip(shares.items(), chart.panels, colours, strict=False):
        axes.set_xlim(ends[0], ends[-1])
        axes.set_ylim(0, top)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=ends[-1] - ends[0] >= 2))
        axes.xaxis.set_major_formatter(FuncFormatter(drawing.power_of_ten))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        left, right, _, upper = drawing.box(chart, axes)
        title = drawing.fitting(name, (right - left) * 0.9)  # it is bold
        chart.over.append(drawing.rectangle(left, upper - 17, 9, 9, colour))
        chart.over.append(drawing.text(left + 14, upper - 12.5, title, weight="600"))
        x, y = drawing.pixels(chart, axes, ends, np.zeros_like(ends))
        height = y[0] - drawing.pixels(chart, axes, ends[:1], np.array([top]))[1][0]
        chart.over.append(drawing.outline(x, y[0], rows[0] / top * height, drawing.FIRM, "none"))
        for frame, row in zip(frames, rows[chosen], strict=True):
            frame.append(drawing.outline(x, y[0], row / top * height, colour, colour))
    chart.over.extend(frames)
    grey = f"grey: epoch {epochs[0]}"
    chart.over.append(drawing.text(chart.width - 2, 11, grey, fill=drawing.MUTED, anchor="end"))
    return drawing.to_svg(chart), [str(epochs[i]) for i in chosen]


# ---- figures of matrices and bars --------------------------------------------------------------


@drawing.style()
def weight_map(
    matrix: ArrayLike,
    *,
    row_label: str,
    column_label: str,
    columns: Sequence[str] | None = None,
) -> str:
    """Return an SVG of |w| as an image; weights of exactly 0 are pruned and stay empty.

    Sides above 512 are shrunk to it: a place then shows the largest of its weights.

    Args:
        matrix: [rows, columns] weights; NaN counts as pruned.
        row_label: what a row is.
        column_label: what a column is.
        columns: names of the columns; written out while there is room.

    Raises:
        InputError: not a matrix, empty, or names that are not one a column.

    >>> svg = weight_map([[0.0, 1.0], [0.2, 0.0]], row_label="neuron", column_label="input")
    >>> "pruned 50%" in svg, "data:image/png;base64," in svg
    (True, True)
    """
    weights = np.abs(np.nan_to_num(np.asarray(matrix, dtype=np.float64), nan=0.0))
    if weights.ndim != 2 or weights.size == 0:
        raise InputError(f"weight_map needs a matrix with weights, got shape {list(weights.shape)}")
    if columns is not None and len(columns) != weights.shape[1]:
        raise InputError(
            f"columns must name each of the {weights.shape[1]} columns, got {len(columns)} names"
        )
    rows, n = weights.shape
    written: list[str] = []
    if columns is not None and n <= 40:
        written = [drawing.shorten(str(name), 30) for name in columns]
    tall = 222.0 if rows <= 100 else 300.0
    chart = drawing.framed_chart(
        ylabel=row_label,
        xlabel=column_label,
        labels=(),
        right=88,
        below=drawing.room_below(written),
        tall=tall,
    )
    axes = chart.axes
    axes.grid(visible=False)
    axes.set_xlim(0, n)
    axes.set_ylim(rows, 0)
    for axis, locator in ((axes.xaxis, MaxNLocator(6)), (axes.yaxis, MaxNLocator(6))):
        locator.set_params(integer=True)
        axis.set_major_locator(locator)
        axis.set_major_formatter(FuncFormatter(drawing.plain))
    drawing.settle(chart)
    if written:
        axes.xaxis.set_major_locator(FixedLocator([i + 0.5 for i in range(n)]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda *_: ""))
        axes.tick_params(axis="x", length=0)
        drawing.name_ticks(chart, written)
    left, right, bottom, top = drawing.box(chart, axes)
    kept = weights[weights > 0]
    # A few giants would leave everything else dark.
    high = float(np.quantile(kept, 0.995)) if kept.size else 1.0
    chart.under.append(drawing.rectangle(left, top, right - left, bottom - top, "pruned"))
    image = {
        "x": f"{left:.1f}", "y": f"{top:.1f}", "width": f"{right - left:.1f}",
        "height": f"{bottom - top:.1f}", "preserveAspectRatio": "none",
        "href": _png(_fit(weights, (bottom - top, right - left)), high),
    }  # fmt: skip
    chart.under.append(Element("image", image))
    _colour_bar(chart, right + 14, top, bottom, high, exact=kept.size == 0 or kept.max() <= high)
    words = f"pruned {1 - kept.size / weights.size:.0%}"
    left_of_words = chart.width - 4 - drawing.width_of(words)
    chart.over.append(
        drawing.rectangle(left_of_words - 14, 6, 9, 9, "pruned", outline=drawing.FIRM)
    )
    chart.over.append(drawing.text(left_of_words, 11, words, fill=drawing.MUTED))
    return drawing.to_svg(chart)


@drawing.style()
def column_bars(
    names: Sequence[str],
    shares: ArrayLike,
    chance: float | ArrayLike | None = None,
    error: ArrayLike | None = None,
    *,
    top: int = 20,
    xlabel: str = "share",
) -> str:
    """Return an SVG of bars: the columns with the largest shares, and all others in one bar.

    The bar of the others breaks off where it would dwarf the rest; its number is beside it.

    Args:
        names: of the columns.
        shares: [columns] from 0 to 1; NaN is left out.
        chance: [columns], or one number for all: what a bar would be by chance, as a mark.
        error: [columns] standard errors.
        top: how many bars there are at most, beside that of the others.
        xlabel: what a share is of.

    Raises:
        InputError: nothing to show, or lengths that differ.

    >>> svg = column_bars(["age", "income"], [0.7, 0.3], chance=0.5)
    >>> svg.index(">age<") < svg.index(">income<")
    True
    """
    values = _vector("shares", shares, len(names))
    marks = None if chance is None else _vector("chance", chance, len(names))
    errors = None if error is None else _vector("error", error, len(names))
    ranked = [int(i) for i in np.argsort(-values, kind="stable") if np.isfinite(values[i])]
    if not ranked:
        raise InputError("column_bars needs a finite share, got none")
    shown, rest = ranked[:top], ranked[top:]
    labels = [drawing.shorten(str(names[i]), 26) for i in shown]
    if rest:
        labels.append(f"{len(rest)} other column{'s' * (len(rest) > 1)}")
    left = max(map(drawing.width_of, labels)) + 12
    row = 18.0
    height = 44 + row * len(labels)
    chart = drawing.bare_chart(drawing.NARROW, height, left=left, right=58, top=22, bottom=22)
    axes = chart.axes
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(NullLocator())
    reach = [values[i] + (errors[i] if errors is not None else 0.0) for i in shown]
    reach += [marks[i] for i in shown] if marks is not None else []
    high = max([r for r in reach if math.isfinite(r)] + [1e-12]) * 1.04
    axes.set_xlim(min(0.0, *values[shown]), high)
    axes.set_ylim(len(labels), 0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    for at, i in enumerate(shown):
        mark = None if marks is None else float(marks[i])
        spread = None if errors is None else float(errors[i])
        _bar(chart, at, labels[at], float(values[i]), PALETTE[0], mark=mark, error=spread)
    if rest:
        others = float(values[rest].sum())
        mark = None if marks is None else float(np.nansum(marks[rest]))
        _bar(chart, len(shown), labels[-1], others, drawing.FIRM, mark=mark, error=None)
    place = chart.width - 6 - drawing.width_of("by chance")
    words = drawing.fitting(xlabel, place - 16 - left)
    chart.over.append(drawing.text(left, 10, words, fill=drawing.MUTED))
    if marks is not None:
        chart.over.append(drawing.rectangle(place - 8, 3, 2, 14, drawing.INK))
        chart.over.append(drawing.text(place, 10, "by chance", fill=drawing.MUTED))
    return drawing.to_svg(chart)


@drawing.style()
def pair_matrix(names: Sequence[str], matrix: ArrayLike, *, top: int = 12) -> str:
    """Return an SVG of pairs: orange above 0, blue below, the darker the further.

    Args:
        names: of the columns.
        matrix: [columns, columns] symmetric, 0 = as by chance; NaN stays empty.
        top: how many columns there are at most: those whose pairs lie furthest from 0.

    Raises:
        InputError: fewer than two columns, a matrix that is not theirs or not symmetric.

    >>> svg = pair_matrix(["age", "income"], [[0.0, 0.3], [0.3, 0.0]])
    >>> ">age<" in svg and ">+.30<" in svg
    True
    """
    values = np.asarray(matrix, dtype=np.float64)
    n = len(names)
    if n < 2 or values.shape != (n, n):
        raise InputError(
            f"pair_matrix needs two columns or more and a matrix of all their pairs, "
            f"got {n} names and shape {list(values.shape)}"
        )
    values = np.where(np.isfinite(values), values, np.nan)
    if not np.allclose(values, values.T, equal_nan=True):
        raise InputError("pair_matrix needs a symmetric matrix; average it with its transpose")
    pairs = np.where(np.eye(n, dtype=bool), 0.0, np.nan_to_num(np.abs(values)))
    chosen = np.sort(np.argsort(-pairs.sum(1), kind="stable")[:top])
    values = values[np.ix_(chosen, chosen)]
    labels = [drawing.shorten(str(names[i]), 22) for i in chosen]
    lower = np.tril(np.ones_like(values, dtype=bool), -1)
    high = float(np.nanmax(np.abs(np.where(lower, values, 0.0)))) or 1.0
    n = len(labels)
    left = max(map(drawing.width_of, labels[1:])) + 10
    side = min(38.0, (drawing.NARROW - left - 10) / (n - 1))
    head = max(map(drawing.width_of, labels[:-1]))
    height = 10 + side * (n - 1) + head + 12
    chart = drawing.bare_chart(drawing.NARROW, height, left=left, right=10, top=10, bottom=20)
    chart.axes.set_axis_off()
    # Row i of the picture is column i + 1: the first has no pair before it.
    for i, j in itertools.product(range(n - 1), range(n - 1)):
        value = values[i + 1, j]
        if j > i or math.isnan(value):
            continue
        x, y = left + j * side, 6 + i * side
        colour = PALETTE[1] if value > 0 else PALETTE[0]
        cell = drawing.rectangle(x + 0.75, y + 0.75, side - 1.5, side - 1.5, colour)
        cell.set("fill-opacity", f"{0.04 + 0.51 * abs(value) / high:.2f}")
        chart.over.append(cell)
        number = _signed(float(value), high)
        chart.over.append(
            drawing.text(
                x + side / 2, y + side / 2, number, anchor="middle", size=10 if side > 27 else 8
            )
        )
    for i, label in enumerate(labels[1:]):
        chart.over.append(drawing.text(left - 6, 6 + (i + 0.5) * side, label, anchor="end"))
    for j, label in enumerate(labels[:-1]):
        x, y = left + (j + 0.5) * side, 12 + (n - 1) * side
        chart.over.append(drawing.text(x, y, label, anchor="end", rotate=-90))
    return drawing.to_svg(chart)


# ---- data --------------------------------------------------------------------------------------


def _usable(frame: pd.DataFrame, columns: Sequence[str], numeric: Sequence[str]) -> pd.DataFrame:
    """Return the rows whose x and y are finite, as float64."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(
            f"the frame must have the columns {', '.join(columns)}, it lacks {', '.join(missing)}; "
            f"it has {', '.join(map(str, frame.columns)) or 'none'}"
        )
    if frame.empty:
        raise InputError(
            f"the frame must have rows of {', '.join(columns)}, got none; are there results yet?"
        )
    try:
        numbers = frame[list(numeric)].astype(np.float64)
    except (TypeError, ValueError) as err:
        raise InputError(f"{', '.join(numeric)} must be numbers, but {err}") from err
    frame = frame[list(columns)].assign(**{name: numbers[name] for name in numeric})
    finite = np.isfinite(numbers[list(numeric[:2])].to_numpy()).all(axis=1)
    finite &= frame[list(columns[:3])].notna().to_numpy().all(axis=1)
    if not finite.any():
        raise InputError(f"{', '.join(numeric[:2])} must have finite values, got only missing ones")
    usable: pd.DataFrame = frame.loc[finite]
    return usable


def _names(arms: "pd.Series[str]", order: Sequence[str] | None) -> list[str]:
    """Return the arms in the order of a page, or in that of their first rows."""
    found = [str(name) for name in arms.unique()]
    if order is None:
        return found
    first = [str(name) for name in order]
    return [*first, *(name for name in found if name not in first)]


def _series(
    frame: pd.DataFrame, *, value: str, by: str, x: str, error: str | None, names: Sequence[str]
) -> list[_Series]:
    """Return the arms that have rows, means and standard errors over their repeats."""
    coloured = [name for name in names if name != DENSE]
    arms = frame[by].astype(str)
    lines = []
    for name in names:
        part = frame[arms == name]
        if part.empty:
            continue
        groups = part.groupby(x)[value]
        mean, count = groups.mean(), groups.count()
        if error is None:
            se = groups.std().div(count**0.5)
        elif (count > 1).any():
            raise InputError(
                f"with errors given there must be one row for each {by} and {x}, got "
                f"{int(count.max())} of {name!r} at {count.idxmax():g}; leave the errors out"
            )
        else:
            se = part.groupby(x)[error].first()
        i = -1 if name == DENSE else coloured.index(name)
        lines.append(
            _Series(
                name=name,
                colour=drawing.GREY if i < 0 else PALETTE[i % len(PALETTE)],
                marker="" if i < 0 else _MARKERS[i % len(_MARKERS)],
                dashes="-" if i < len(PALETTE) else "--",
                x=mean.index.to_numpy(dtype=np.float64),
                mean=mean.to_numpy(dtype=np.float64),
                error=np.asarray(se, dtype=np.float64),
            )
        )
    return lines


def _titles(lines: Sequence[_Series]) -> list[str]:
    return [line.name for line in lines]


def _vector(name: str, values: float | ArrayLike, n: int) -> Floats:
    """Return [n] numbers, a single one repeated."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim == 0:
        vector = np.full(n, float(vector))
    if vector.shape != (n,):
        raise InputError(f"{name} must be one number for each of {n} names, got {vector.size}")
    return vector


def _whole(values: "pd.Series[float]") -> bool:
    return bool((values == values.round()).all())


def _fit(weights: Floats, pixels: tuple[float, float], side: int = 512) -> Floats:
    """Return the matrix at a size to show on `pixels`: no side above `side`, no blurred edges.

    A shrunk side has the largest weight of each block. A browser averages what is finer than its
    screen, which keeps the shares of pruned weights; but it would also blur what is coarser, so
    that is repeated.
    """
    for axis in (0, 1):
        n = weights.shape[axis]
        if n > side:
            starts = np.unique(np.linspace(0, n, side, endpoint=False).astype(int))
            weights = np.maximum.reduceat(weights, starts, axis=axis)
        elif n < pixels[axis]:
            weights = np.repeat(weights, max(1, min(math.ceil(2 * pixels[axis] / n), side // n)),
                                axis=axis)  # fmt: skip
    return weights


def _percent(value: float, high: float) -> str:
    """Return a share as others up to `high` are written: about two digits of the largest."""
    digits = min(6, max(0, math.ceil(-math.log10(high))))
    return f"{100 * value:z.{digits}f}%".replace("-", "−")


def _signed(value: float, high: float) -> str:
    """Return a number of a cell: two digits of the largest, no leading zero."""
    digits = min(3, max(0, 1 - math.floor(math.log10(high))))
    text = f"{value:+.{digits}f}"
    if not text.strip("+-0."):
        return "0"
    return re.sub(r"(?<=[+-])0\.", ".", text).replace("-", "−")


def _distinct(layers: Sequence[str]) -> list[str]:
    """Return names of layers without the parts that all of them begin or end with."""
    parts = [name.split(".") for name in layers]
    if len(parts) < 2:
        return list(layers)
    while len({p[0] for p in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [p[1:] for p in parts]
    while len({p[-1] for p in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [p[:-1] for p in parts]
    return [drawing.shorten(".".join(p), 22) for p in parts]


def _draw(chart: drawing.Chart, line: _Series, *, every: int, start: int = 0) -> None:
    """Draw a line with its band; with `every` > 1 only some points have markers."""
    banded = np.isfinite(line.error)
    if banded.any():
        low, high = line.mean - line.error, line.mean + line.error
        if chart.axes.get_yscale() == "log":
            low = np.maximum(low, line.mean / 10)
        chart.axes.fill_between(
            line.x, low, high, where=banded.tolist(), color=line.colour, alpha=0.16, linewidth=0
        )
    chart.axes.plot(
        line.x, line.mean, color=line.colour, linestyle=line.dashes, marker=line.marker,
        markevery=(min(start * every // 6, len(line.x) - 1), every), markeredgewidth=0,
    )  # fmt: skip


def _label_ends(
    chart: drawing.Chart, lines: Sequence[_Series], level: _Series | None = None
) -> None:
    """Write each line's name at its end, moved apart where they would overlap."""
    axes = chart.axes
    _, right, bottom, top = drawing.box(chart, axes)
    ends, texts = [], []
    low = axes.get_ylim()[0]
    for line in lines:
        at = np.flatnonzero(np.isfinite(line.mean))[-1]
        height = max(float(line.mean[at]), low)
        x, y = drawing.pixels(chart, axes, line.x[[at]], np.array([height]))
        ends.append((right if line is level else float(x[0]), float(y[0])))
        texts.append(drawing.wrapped(line.name))
    order = sorted(range(len(lines)), key=lambda i: (ends[i][1], i))
    sizes = [drawing.LINE * len(texts[i]) for i in order]
    places = drawing.spread([ends[i][1] for i in order], sizes, top - 4, bottom + 4)
    swatch = right + 18
    for i, level_of_words in zip(order, places, strict=True):
        line, up = lines[i], chart.height - level_of_words
        end, at_end = ends[i][0], chart.height - ends[i][1]
        leader = [end + 4, right + 4, swatch - 7], [at_end, at_end, up]
        key = ([swatch - 4, swatch + 4], [up, up]) if line.name == DENSE else ([swatch], [up])
        look: dict[str, Any] = {"transform": IdentityTransform(), "color": line.colour}
        chart.figure.add_artist(Line2D(*leader, linewidth=0.75, alpha=0.6, **look))
        chart.figure.add_artist(
            Line2D(*key, linewidth=1.75, marker=line.marker, markeredgewidth=0, **look)
        )
        for k, words in enumerate(texts[i]):
            shift = (drawing.LINE - 1) * (k - (len(texts[i]) - 1) / 2)
            chart.over.append(drawing.text(swatch + 9, level_of_words + shift, words))


def _bar(
    chart: drawing.Chart,
    at: int,
    label: str,
    value: float,
    colour: str,
    *,
    mark: float | None,
    error: float | None,
) -> None:
    """Draw row `at` of a bar chart: name, bar, number, standard error, mark of chance."""
    axes = chart.axes
    left, right, _, _ = drawing.box(chart, axes)
    low, high = axes.get_xlim()
    x, y = drawing.pixels(chart, axes, np.array([0.0, value]), np.array([at, at + 1.0]))
    start, end, middle = float(x[0]), float(x[1]), float(y.mean())
    broken = value > high
    end = min(end, right)
    bar = drawing.rectangle(
        min(start, end), y[0] + 2, max(abs(end - start), 0.75), y[1] - y[0] - 4, colour
    )
    bar.set("fill-opacity", "0.85")
    chart.over.append(bar)
    if broken:  # two gaps, as in a broken axis
        for gap in (10, 16):
            cut = drawing.rectangle(right - gap, y[0], 3, y[1] - y[0], "paper")
            cut.set("transform", f"skewX(-12) translate({middle * 0.2126:.1f} 0)")
            chart.over.append(cut)
    if error is not None and math.isfinite(error):
        ends, _ = drawing.pixels(chart, axes, np.array([value - error, value + error]), np.zeros(2))
        a, b = max(float(ends[0]), left), min(float(ends[1]), right)
        chart.over.append(drawing.rectangle(a, middle - 0.75, b - a, 1.5, drawing.INK))
    if mark is not None and low <= mark <= high:
        place, _ = drawing.pixels(chart, axes, np.array([mark]), np.zeros(1))
        chart.over.append(
            drawing.rectangle(float(place[0]) - 1, y[0] + 0.5, 2, y[1] - y[0] - 1, drawing.INK)
        )
    chart.over.append(drawing.text(left - 8, middle, label, anchor="end"))
    chart.over.append(drawing.text(right + 8, middle, _percent(value, max(high, value))))


def _colour_bar(
    chart: drawing.Chart, x: float, top: float, bottom: float, high: float, *, exact: bool
) -> None:
    """Draw the scale of `weight_map`."""
    ramp = Element("linearGradient", {"id": "ramp", "x1": "0", "y1": "1", "x2": "0", "y2": "0"})
    colours = _ramp()
    for i in np.linspace(0, len(colours) - 1, 8).astype(int):
        red, green, blue = colours[i]
        stop = {"offset": f"{i / (len(colours) - 1):.2f}"}
        stop["stop-color"] = f"#{red:02x}{green:02x}{blue:02x}"
        ramp.append(Element("stop", stop))
    definitions = Element("defs")
    definitions.append(ramp)
    chart.over.append(definitions)
    bar = drawing.rectangle(x, top + 16, 9, bottom - top - 16, "none")
    bar.set("style", "fill:url(#ramp)")
    chart.over.append(bar)
    chart.over.append(drawing.text(x, top + 5, "|w|", fill=drawing.MUTED))
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top - 16)
        sign = "" if exact or share < 1 else "≥ "
        number = f"{sign}{share * high:.2g}"
        chart.over.append(drawing.text(x + 14, y + (5 * share - 2.5), number, fill=drawing.MUTED))


_STEPS = 47  # few colours compress well, and no eye tells more of them apart


def _ramp() -> list[tuple[int, int, int]]:
    """Return the colours of |w|, small to large: cividis without its darkest end."""
    colours = matplotlib.colormaps["cividis"](np.linspace(0.18, 1.0, _STEPS))[:, :3]
    return [(int(r), int(g), int(b)) for r, g, b in np.rint(colours * 255)]


def _png(weights: Floats, high: float) -> str:
    """Return an image as a data URL; 0 is transparent."""
    steps = 1 + np.floor(np.clip(weights / high, 0, 1) * (_STEPS - 1) + 0.5)
    places = np.where(weights > 0, steps, 0).astype(np.uint8)
    return drawing.image_url(places, [(0, 0, 0, 0), *((*colour, 255) for colour in _ramp())])
