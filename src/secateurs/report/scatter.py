"""What methods cost for what they reach, and what goes with a gain: scatters of a store's frame.

Figures with their words: the caption holds what was left out and the statistic that the picture
shows. Marks tell more when pointed at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import IdentityTransform

from secateurs.errors import InputError
from secateurs.measures import statistics
from secateurs.report import drawing, labels
from secateurs.report.drawing import PALETTE, SHAPES, Chart, Floats
from secateurs.report.page import Figure
from secateurs.report.tables import DATASET, SPLIT, chosen, mean_of_sets

__all__ = ["FAMILIES", "accuracy_against_cost", "arm_families", "gain_against"]

FAMILIES = ("dense networks", "tickets", "ensembles", "other models")
"""What kinds of methods there are, in the order of their colours."""

_FEW = 8  # names; more need a wide picture


# ---- accuracy against cost -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """How a column of cost is shown."""

    label: str
    words: Callable[[float], str]
    scale: float = 1.0


def _bytes(size: float) -> str:
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size:.3g} B"


_COSTS = {
    "size.bytes": _Cost(label="bytes", words=_bytes),
    "predict_seconds": _Cost(
        label="milliseconds per 1,000 rows, one thread", words=lambda ms: f"{ms:.3g}", scale=1e3
    ),
    "fit_seconds": _Cost(label="CPU seconds to fit", words=lambda s: f"{s:.3g}"),
}


@dataclass(frozen=True, kw_only=True)
class _Method:
    """One arm: what it reaches in percent or points, what it costs, where its mark stands."""

    name: str
    value: float
    error: float
    cost: float
    n_datasets: int
    whole: bool  # on all data sets
    at: float  # `value`, or the floor


def arm_families(frame: pd.DataFrame) -> dict[str, str]:
    """Return the family of each arm, one of `FAMILIES`, by what its cells are.

    Args:
        frame: of `Store.frame`.

    >>> arm_families(pd.DataFrame({"arm": ["dense", "IUNet", "xgboost"],
    ...                            "kind": ["TicketCell", "TicketCell", "PeerCell"],
    ...                            "size.density": [1.0, 0.125, None]}))
    {'dense': 'dense networks', 'IUNet': 'tickets', 'xgboost': 'other models'}
    """
    found = {}
    for arm, cells in frame.groupby("arm", sort=False):
        if "kind" in cells and (cells["kind"] == "PeerCell").any():
            found[str(arm)] = "other models"
        elif "n_tickets" in cells and (cells["n_tickets"] > 1).any():
            found[str(arm)] = "ensembles"
        elif "size.density" in cells and (cells["size.density"] < 1).any():
            found[str(arm)] = "tickets"
        else:
            found[str(arm)] = "dense networks"
    return found


@drawing.style()
def accuracy_against_cost(
    frame: pd.DataFrame,
    value: str,
    *,
    cost: str = "size.bytes",
    side: str = "test",
    baseline: str | None = None,
    families: Mapping[str, str] | None = None,
    floor: float | None = None,
    title: str = "",
    command: str = "",
) -> Figure:
    """Return a figure with one mark a method: its mean over data sets against what it costs.

    Costs are geometric means over data sets, on a logarithmic scale. Light steps join the methods
    that no cheaper one equals (the Pareto front). A method that lacks some of the data sets is
    hollow and not part of the front: its mean is that of other data sets.

    Args:
        frame: of `Store.frame`; an arm's configurations are chosen on validation rows.
        value: a share of which more is better, such as "balanced_accuracy".
        cost: a column, such as "size.bytes" or "predict_seconds".
        side: "test" or "validation".
        baseline: with an arm, heights are what the others gain on it, in points, paired by split.
            The bars are then the standard error of that gain; without it they hold how much
            easier one data set is than another, too.
        families: by arm; those that it lacks are as in `arm_families`.
        floor: methods below this height, in the unit of the axis, are drawn on it, with their
            number beside the name.
        title: its heading.
        command: that reproduces it.

    Raises:
        InputError: a column that is not there, no method with a value and a cost, or whatever
            `chosen` and `statistics.compare` refuse.

    >>> frame = pd.DataFrame({
    ...     "arm": ["dense", "IUNet"], "tried": 1, "rows.dataset": "d", "rows.split": 0, "seed": 0,
    ...     "test.accuracy": [0.8, 0.8], "size.bytes": [8e5, 1e5], "size.density": [1.0, 0.125]})
    >>> figure = accuracy_against_cost(frame, "accuracy")
    >>> ">IUNet<" in figure.svg, ">tickets<" in figure.svg
    (True, True)
    """
    column = f"{side}.{value}"
    _require(frame, ["arm", DATASET, SPLIT, column, cost])
    shown = _COSTS.get(cost, _Cost(label=cost, words=lambda number: f"{number:.3g}"))
    best = chosen(frame, value)
    methods, left_out, n_sets = _methods(best, column, cost, shown.scale, baseline, floor)
    family_of = arm_families(best) | dict(families or {})
    front = _front(methods)
    word = value.replace("_", " ")
    against = f"{word.capitalize()} against {_plain_cost(cost, shown)}"
    return Figure(
        title=title or against,
        svg=_cost_svg(methods, front, family_of, word, shown, n_sets, baseline, floor),
        alt=f"{against}: one mark for each of {len(methods)} methods; cheapest to dearest on the "
        f"front: {', '.join(m.name for m in front) or 'none'}.",
        caption=_cost_caption(methods, left_out, n_sets, side, baseline, shown),
        command=command,
    )


def _methods(
    best: pd.DataFrame,
    column: str,
    cost: str,
    scale: float,
    baseline: str | None,
    floor: float | None,
) -> tuple[list[_Method], list[str], int]:
    """Return what can be drawn, the arms without a value or a cost, and how many sets there are."""
    means = best.groupby(["arm", DATASET, SPLIT])[column].mean().reset_index().dropna()
    if baseline is not None and baseline not in set(means["arm"]):
        raise InputError(
            f"baseline must be an arm with values, one of "
            f"{', '.join(map(str, means['arm'].unique()))}, got {baseline!r}"
        )
    every = means if baseline is None else means[means["arm"] == baseline]
    n_sets = every[DATASET].nunique()
    methods: list[_Method] = []
    left_out: list[str] = []
    for arm in best["arm"].unique():
        mine = means[means["arm"] == arm].merge(every[[DATASET, SPLIT]].drop_duplicates())
        paid = mean_of_sets(best[best["arm"] == arm], cost, geometric=True)
        if paid is None or mine.empty:
            left_out.append(str(arm))
            continue
        if baseline is None:
            mean = statistics.mean_over_datasets(mine[column], mine[DATASET])
            found, error, n = mean.mean, mean.standard_error, mean.n_datasets
        else:
            gain = statistics.compare(
                means, arm=arm, baseline=baseline, value=column, dataset=DATASET, split=SPLIT,
                unpaired="drop",
            )  # fmt: skip
            found, error, n = gain.difference, gain.standard_error, gain.n_datasets
        height = 100 * found
        methods.append(
            _Method(
                name=str(arm),
                value=height,
                error=float("nan") if arm == baseline else 100 * error,
                cost=scale * paid,
                n_datasets=n,
                whole=n == n_sets,
                at=height if floor is None else max(height, floor),
            )
        )
    if not methods:
        raise InputError(
            f"no arm has both {column} and {cost} above 0; are there results yet, and is the cost "
            "measured?"
        )
    return methods, left_out, n_sets


def _cost_svg(
    methods: Sequence[_Method],
    front: Sequence[_Method],
    family_of: Mapping[str, str],
    word: str,
    cost: _Cost,
    n_sets: int,
    baseline: str | None,
    floor: float | None,
) -> str:
    """Return the picture: bars, the front, marks and their names."""
    present = {family_of[method.name]: None for method in methods}  # in order
    every = [*FAMILIES, *(family for family in present if family not in FAMILIES)]
    looks = {family: _look(i) for i, family in enumerate(every) if family in present}
    few = len(methods) <= _FEW
    chart = _chart(
        [(look, family) for family, look in looks.items()],
        ylabel=f"{word} minus {baseline}, points" if baseline else f"{word}, %",
        xlabel=cost.label,
        width=drawing.NARROW if few else drawing.WIDE,
        tall=260.0 if few else 430.0,
    )
    axes = chart.axes
    for method in methods:
        ends = _bar(method, floor)
        colour, _ = looks[family_of[method.name]]
        axes.plot([method.cost] * 2, ends, color=colour, linewidth=1.2, alpha=0.45)
    axes.plot(
        [m.cost for m in front], [m.at for m in front], color=drawing.FIRM, linewidth=1,
        alpha=0.55, drawstyle="steps-post",
    )  # fmt: skip
    if baseline:
        axes.axhline(0, color=drawing.FIRM, linewidth=1)
    _log_ticks(chart, [m.cost for m in methods], lambda number, _: cost.words(number))
    _set_floor(chart, floor)
    drawing.settle(chart)
    costs, heights = (np.array([getattr(m, name) for m in methods]) for name in ("cost", "at"))
    x, y = drawing.pixels(chart, axes, costs, heights)
    words = [_told(method, cost, n_sets, baseline) for method in methods]
    for family, (colour, shape) in looks.items():
        for whole in (True, False):
            points = [
                (float(x[i]), float(y[i]), words[i])
                for i, method in enumerate(methods)
                if family_of[method.name] == family and method.whole == whole
            ]
            if points:
                chart.over.append(drawing.marks(points, shape, colour, radius=5, hollow=not whole))
    names = [
        drawing.fitting(m.name, 220) + (f" {m.value:.1f}" if m.at != m.value else "")
        for m in methods
    ]
    _label(chart, [name.replace(" -", " −") for name in names], x, y, _bars(chart, methods, floor))
    return drawing.to_svg(chart)


def _front(methods: Sequence[_Method]) -> list[_Method]:
    """Return the methods that no other equals at no more cost, by cost."""
    front: list[_Method] = []
    for method in sorted((m for m in methods if m.whole), key=lambda m: (m.cost, -m.value)):
        if not front or method.value > front[-1].value:
            front.append(method)
    return front


def _told(method: _Method, cost: _Cost, n_sets: int, baseline: str | None) -> str:
    """Return what a mark says when it is pointed at."""
    error = f" ± {method.error:.2f}" if np.isfinite(method.error) else ""
    value = f"{_signed(method.value)}{error} points" if baseline else f"{method.value:.2f}{error} %"
    return (
        f"{method.name}\n{value}\n{cost.label}: {cost.words(method.cost)}\n"
        f"{method.n_datasets} of {n_sets} data sets"
    )


def _plain_cost(column: str, cost: _Cost) -> str:
    return {"predict_seconds": "latency", "fit_seconds": "time to fit"}.get(column, cost.label)


def _cost_caption(
    methods: Sequence[_Method],
    left_out: Sequence[str],
    n_sets: int,
    side: str,
    baseline: str | None,
    cost: _Cost,
) -> str:
    """Return how the picture is read, and what is not as the others in it."""
    height = f"gain on {baseline}, paired by split," if baseline else "mean"
    parts = [
        f"Heights: {height} ± standard error over {_sets(n_sets)}, {side} rows. "
        f"{cost.label.capitalize()}: geometric mean over data sets. Light steps: methods that no "
        "cheaper one equals."
    ]
    if hollow := [m.name for m in methods if not m.whole]:
        parts.append(f"Hollow, on fewer data sets and not on the steps: {', '.join(hollow)}.")
    if low := [m.name for m in methods if m.at != m.value]:
        parts.append(f"Below the axis, drawn on its floor: {', '.join(low)}.")
    if left_out:
        parts.append(f"Without a value or a cost, left out: {', '.join(left_out)}.")
    return " ".join(parts)


# ---- what goes with a gain -----------------------------------------------------------------------

_QUANTITIES = {
    "regime.weight_movement": "relative weight movement",
    "regime.start_mask_overlap": "overlap with the mask of the start (IoU)",
}


@drawing.style()
def gain_against(
    frame: pd.DataFrame,
    x: str = "regime.weight_movement",
    *,
    value: str,
    baseline: str = "dense",
    side: str = "test",
    families: Mapping[str, str] | None = None,
    xlabel: str = "",
    logx: bool = False,
    floor: float | None = None,
    title: str = "",
    command: str = "",
) -> Figure:
    """Return a figure with one mark a cell: its gain on the baseline against another quantity.

    Gains are paired: the baseline's value on the same data set and split is subtracted, its mean
    over seeds. The caption holds Spearman's rank correlation within data sets
    (`statistics.rank_correlation`) over the cells, and over the means of each arm on each data
    set where there are several splits: splits of one arm are not independent, so that only the
    second p can be trusted.

    Args:
        frame: of `Store.frame`; several configurations of an arm are several marks, and a cell
            that stands in several arms is one, in the first of them.
        x: a column of numbers.
        value: a share, such as "balanced_accuracy".
        baseline: the arm that is subtracted, and not drawn.
        side: "test" or "validation".
        families: what shares a colour, by arm; an arm that it lacks has its own.
        xlabel: what `x` is; by default in words for what every search measures, else its name.
        logx: whether its scale is logarithmic; values of 0 and below are then left out.
        floor: cells that gain less, in points, are drawn on it; the statistic has them as they are.
        title: its heading.
        command: that reproduces it.

    Raises:
        InputError: a column or baseline that is not there, several configurations of the
            baseline, or no cell with an x and a gain.

    >>> frame = pd.DataFrame({
    ...     "arm": ["dense", "a", "b"], "rows.dataset": "d", "rows.split": 0, "seed": 0,
    ...     "test.accuracy": [0.8, 0.7, 0.9], "regime.weight_movement": [None, 0.1, 2.0]})
    >>> figure = gain_against(frame, value="accuracy", logx=True)
    >>> "ρ = +1.00 over 2 cells" in figure.caption
    True
    """
    column = f"{side}.{value}"
    cells, n_left_out = _gains(frame, x, column, baseline, logx=logx)
    family_of = dict(families or {})
    cells["family"] = [str(family_of.get(arm, arm)) for arm in cells["arm"]]
    at = cells["gain"] if floor is None else cells["gain"].clip(lower=floor)
    label = xlabel or _QUANTITIES.get(x, x)
    ylabel = f"{value.replace('_', ' ')} minus {baseline}, points"
    order = list(dict.fromkeys([*map(str, family_of.values()), *cells["family"]]))
    told = _correlations(cells, x)
    low = int((at != cells["gain"]).sum())
    return Figure(
        title=title or f"Gain against {label}",
        svg=_gain_svg(cells.assign(at=at), x, order, label, ylabel, floor, logx=logx),
        alt=f"Gain of {len(cells):,} cells on {baseline} against {label}. {told}",
        caption=f"Each mark is a cell, minus {baseline} on the same data set and split; "
        f"{_sets(cells[DATASET].nunique())}. {told}"
        + (f" Below the axis, drawn on its floor: {low:,} cells." if low else "")
        + (f" Without {label} or a pair, left out: {n_left_out:,} cells." if n_left_out else ""),
        command=command,
    )


def _gain_svg(
    cells: pd.DataFrame,
    x: str,
    order: Sequence[str],
    label: str,
    ylabel: str,
    floor: float | None,
    *,
    logx: bool,
) -> str:
    """Return the picture: one mark a cell, `at` its height, in the look of its family."""
    present = [family for family in order if family in set(cells["family"])]
    looks = {family: _look(i) for i, family in enumerate(present)}
    narrow = len(present) <= _FEW and len(cells) <= 60
    chart = _chart(
        [(look, family) for family, look in looks.items()],
        ylabel=ylabel,
        xlabel=label,
        width=drawing.NARROW if narrow else drawing.WIDE,
        tall=260.0 if narrow else 400.0,
    )
    axes = chart.axes
    axes.plot(cells[x], cells["at"], linestyle="none")  # for the limits
    axes.axhline(0, color=drawing.FIRM, linewidth=1)
    if logx:
        _log_ticks(chart, cells[x].tolist(), drawing.log_tick)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.xaxis.set_major_formatter(FuncFormatter(drawing.plain))
    _set_floor(chart, floor)
    drawing.settle(chart)
    across, down = drawing.pixels(chart, axes, cells[x].to_numpy(), cells["at"].to_numpy())
    words = [_of_cell(row, x, label) for row in cells.to_dict("records")]
    radius, opacity = (3.0, 0.6) if len(cells) > 120 else (4.0, 0.85)
    for family, (colour, shape) in looks.items():
        mine = np.flatnonzero(cells["family"] == family)
        points = [(float(across[i]), float(down[i]), words[i]) for i in mine]
        chart.over.append(drawing.marks(points, shape, colour, radius=radius, opacity=opacity))
    return drawing.to_svg(chart)


def _gains(
    frame: pd.DataFrame, x: str, column: str, baseline: str, *, logx: bool
) -> tuple[pd.DataFrame, int]:
    """Return the cells with an x and a gain in points, and how many of other arms have none."""
    _require(frame, ["arm", DATASET, SPLIT, "seed", column, x])
    is_baseline = frame["arm"] == baseline
    if not is_baseline.any():
        known = ", ".join(map(str, frame["arm"].unique()))
        raise InputError(f"baseline must be one of {known}, got {baseline!r}")
    base = frame[is_baseline]
    if base.duplicated([DATASET, SPLIT, "seed"]).any():
        raise InputError(
            f"the baseline {baseline!r} has several configurations on one split; give each a name "
            "of its own"
        )
    means = base.groupby([DATASET, SPLIT])[column].mean().rename("baseline")
    others = frame[~is_baseline]
    if "key" in others:
        others = others.drop_duplicates("key")
    cells = others.join(means, on=[DATASET, SPLIT])
    try:
        numbers = cells[x].astype(np.float64)
    except (TypeError, ValueError) as err:
        raise InputError(f"{x} must be numbers, but {err}") from err
    cells = cells.assign(gain=100 * (cells[column] - cells["baseline"]), **{x: numbers})
    usable = np.isfinite(cells[[x, "gain"]].to_numpy(np.float64)).all(axis=1)
    if logx:
        usable &= (cells[x] > 0).to_numpy()
    if not usable.any():
        raise InputError(
            f"no arm beside {baseline!r} has {x}{' above 0' * logx} and a split that {baseline!r} "
            "has too; are there results yet?"
        )
    kept: pd.DataFrame = cells[usable].reset_index(drop=True)
    return kept, int((~usable).sum())


def _correlations(cells: pd.DataFrame, x: str) -> str:
    """Return the rank correlation within data sets in words."""
    found = statistics.rank_correlation(cells[x], cells["gain"], cells[DATASET])
    means = cells.groupby(["arm", DATASET], sort=False)[[x, "gain"]].mean().reset_index()
    if not np.isfinite(found.rho):
        return "Within data sets nothing varies that could be correlated."
    told = (
        "Spearman's rank correlation within data sets, p by permutations within data sets: "
        f"ρ = {_signed(found.rho)} over {found.n:,} cells (p = {found.p:.2g})"
    )
    if len(means) == len(cells):
        return f"{told}."
    fewer = statistics.rank_correlation(means[x], means["gain"], means[DATASET])
    if not np.isfinite(fewer.rho):
        return f"{told}; the cells of an arm are not independent, so that p is too small."
    return (
        f"{told}; ρ = {_signed(fewer.rho)} over {fewer.n:,} means of an arm on a data set "
        f"(p = {fewer.p:.2g}), which does not take the splits of an arm for independent."
    )


def _of_cell(row: Mapping[Any, Any], x: str, label: str) -> str:
    """Return what a mark says when it is pointed at."""
    dataset = str(row[DATASET]).removeprefix("sklearn:")
    return (
        f"{row['arm']}\n{dataset}, split {row[SPLIT]}\n"
        f"{_signed(row['gain'])} points, {label} {row[x]:.3g}"
    )


# ---- parts ---------------------------------------------------------------------------------------

_Look = tuple[str, str]  # colour, shape


def _look(i: int) -> _Look:
    return PALETTE[i % len(PALETTE)], SHAPES[i % len(SHAPES)]


def _signed(number: float) -> str:
    return f"{number:+z.2f}".replace("-", "−")


def _sets(n: int) -> str:
    return f"{n} data set{'s' * (n != 1)}"


def _require(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in frame.columns]:
        raise InputError(
            f"the frame must have the columns {', '.join(columns)}, it lacks {', '.join(missing)}"
        )


def _chart(
    key: Sequence[tuple[_Look, str]], *, ylabel: str, xlabel: str, width: float, tall: float
) -> Chart:
    """Return a chart with the key to its marks in lines below the name of the level axis."""
    placed: list[tuple[float, int, _Look, str]] = []
    x, line = 6.0, 0
    for look, name in key:
        words = drawing.fitting(name, width - 30)
        needed = 12 + drawing.width_of(words) + 16
        if x + needed > width and x > 6:
            x, line = 6.0, line + 1
        placed.append((x, line, look, words))
        x += needed
    chart = drawing.framed_chart(
        ylabel=ylabel,
        xlabel=xlabel,
        labels=(),
        right=14,
        tall=tall,
        width=width,
        top=28 + 17.0 * (line + 1) + 4,
    )
    for left, row, (colour, shape), words in placed:
        level = 28 + 17.0 * row + 4
        chart.over.append(drawing.marks([(left, level, words)], shape, colour))
        chart.over.append(drawing.text(left + 9, level, words, fill=drawing.MUTED))
    return chart


def _log_ticks(
    chart: Chart, values: Sequence[float], words: Callable[[float, object], str]
) -> None:
    """Make the lower scale logarithmic, with ticks that read as numbers and do not meet."""
    axes = chart.axes
    axes.set_xscale("log")
    low, high = min(values), max(values)
    if high / low < 1.5:  # a scale needs a range
        axes.set_xlim(low / 2, high * 2)
    low, high = axes.get_xlim()
    axis: Axis = axes.xaxis
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(words))
    for subs in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
        if sum(low <= tick <= high for tick in axis.get_majorticklocs()) >= 3:
            break


def _set_floor(chart: Chart, floor: float | None) -> None:
    if floor is not None:
        high = max(chart.axes.get_ylim()[1], floor + 1e-9)
        chart.axes.set_ylim(floor - 0.03 * (high - floor), high)


def _bar(method: _Method, floor: float | None) -> tuple[float, float]:
    """Return the ends of a method's error bar, none of them below the floor; of no length if there
    is no error, or if the method stands on the floor."""
    if not np.isfinite(method.error) or method.at != method.value:
        return method.at, method.at
    low = method.value - method.error
    return low if floor is None else max(low, floor), method.value + method.error


def _bars(chart: Chart, methods: Sequence[_Method], floor: float | None) -> Floats:
    """Return [methods, 4] left, right, top and bottom of the error bars in pixels."""
    costs = np.array([method.cost for method in methods])
    lows, highs = np.array([_bar(method, floor) for method in methods]).T
    x, bottom = drawing.pixels(chart, chart.axes, costs, lows)
    _, top = drawing.pixels(chart, chart.axes, costs, highs)
    return np.column_stack([x - 2, x + 2, top, bottom])


def _label(chart: Chart, names: Sequence[str], x: Floats, y: Floats, bars: Floats) -> None:
    """Write each name near its mark, with a line to it where it had to move away."""
    left, _, bottom, top = drawing.box(chart, chart.axes)
    size = 11.0
    sizes = np.array([[drawing.width_of(name) * size / drawing.SIZE, size + 2] for name in names])
    room = (left, chart.width - 2, top - 8, bottom - 2)
    places = labels.places(np.column_stack([x, y]), sizes, bars, room)
    for name, (start, middle), (width, height), at_x, at_y in zip(
        names, places, sizes, x, y, strict=True
    ):
        end = float(np.clip(at_x, start, start + width))
        if np.hypot(end - at_x, middle - at_y) > 13:
            edge = middle + (height / 2 - 1) * np.sign(at_y - middle) * (end == at_x)
            line = Line2D(
                [float(at_x), end],
                [chart.height - float(at_y), chart.height - float(edge)],
                transform=IdentityTransform(),
                color=drawing.FIRM,
                linewidth=0.75,
                alpha=0.7,
            )
            chart.figure.add_artist(line)
        chart.over.append(drawing.text(float(start), float(middle), name, size=size, halo=True))
