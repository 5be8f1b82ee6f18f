"""What the figures are drawn with: charts with margins in pixels, words and shapes by hand, SVG.

matplotlib lays out lines, bands and scales; words are written as text by hand, since only the
reader's browser has fonts for all names. Colours are variables of the page's style with themselves
as fallback, so that a figure follows the page's theme and still stands alone.
"""

import base64
import io
import itertools
import math
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "FIRM",
    "GREY",
    "INK",
    "LINE",
    "MUTED",
    "NARROW",
    "PALETTE",
    "RULE",
    "SHAPES",
    "SIZE",
    "WIDE",
    "Chart",
    "Floats",
    "apart",
    "bare_chart",
    "box",
    "fitting",
    "framed_chart",
    "image_url",
    "log_scale",
    "log_tick",
    "marks",
    "name_ticks",
    "outline",
    "panelled_chart",
    "pixels",
    "plain",
    "power_of_ten",
    "rectangle",
    "room_below",
    "settle",
    "shorten",
    "spread",
    "style",
    "text",
    "to_svg",
    "variable",
    "width_of",
    "wrapped",
]

Floats = NDArray[np.float64]

PALETTE = ("#0072b2", "#d55e00", "#009271", "#b8608f", "#3391cc", "#b78100")
"""Okabe and Ito's colours for the colour-blind, dark enough for white: `--c1` ... of the page."""

INK, MUTED, RULE, FIRM, GREY = "#1d2125", "#5a6169", "#e1e1dc", "#85898d", "#555b62"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    FIRM: "firm",
    GREY: "c7",
    **{colour: f"c{i}" for i, colour in enumerate(PALETTE, 1)},
}
_PAPER = {"paper": "var(--paper, #fff)", "pruned": "var(--pruned, #f1f1ed)"}
NARROW, WIDE = 480.0, 960.0
SIZE = 12.0  # of letters, in pixels
LINE = 14.5  # from line to line


@contextmanager
def style() -> Iterator[None]:
    """Draw as below whatever the user's matplotlib is set to."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "secateurs",
                "text.parse_math": False,
                "font.size": SIZE,
                "axes.edgecolor": FIRM,
                "axes.linewidth": 1,
                "axes.spines.left": False,
                "axes.spines.right": False,
                "axes.spines.top": False,
                "axes.axisbelow": True,
                "axes.unicode_minus": True,
                "axes.formatter.useoffset": False,
                "axes.xmargin": 0.04,
                "axes.ymargin": 0.06,
                "grid.color": RULE,
                "grid.linewidth": 1,
                "xtick.color": FIRM,
                "xtick.labelcolor": MUTED,
                "ytick.labelcolor": MUTED,
                "ytick.major.size": 0,
                "ytick.minor.size": 0,
                "xtick.minor.size": 0,
                "lines.linewidth": 1.75,
                "lines.markersize": 5.5,
                "lines.solid_capstyle": "round",
                "path.simplify_threshold": 0.3,
            }
        )
        yield


# ---- charts --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure of matplotlib and what is written by hand below and above it, in its pixels."""

    width: float
    height: float
    figure: Figure
    panels: list[Axes]
    under: list[Element] = field(default_factory=list)
    over: list[Element] = field(default_factory=list)

    @property
    def axes(self) -> Axes:
        """The first panel."""
        return self.panels[0]


def bare_chart(
    width: float, height: float, *, left: float, right: float, top: float, bottom: float
) -> Chart:
    """Return one panel with margins in pixels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    axes = _add_panel(figure, left, top, width - left - right, height - top - bottom)
    return Chart(width=width, height=height, figure=figure, panels=[axes])


def _add_panel(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes at pixels counted from the upper left."""
    w, h = figure.get_size_inches() * 72
    axes = figure.add_axes((x / w, 1 - (y + height) / h, width / w, height / h))
    axes.patch.set_visible(False)
    return axes


def framed_chart(
    *,
    ylabel: str,
    xlabel: str,
    labels: Sequence[str],
    right: float | None = None,
    below: float = 0.0,
    tall: float = 222.0,
    width: float = NARROW,
    top: float = 26.0,
) -> Chart:
    """Return a chart with level rules, and room at the right for the names of its lines."""
    lines = [wrapped(name) for name in labels]
    if right is None:
        right = 32 + max((width_of(line) for name in lines for line in name), default=0.0)
    tall = max(tall, LINE * sum(len(name) for name in lines))
    bottom = 28 + max(16.0, below)
    chart = bare_chart(width, top + tall + bottom, left=46, right=right, top=top, bottom=bottom)
    chart.axes.grid(axis="y")
    chart.axes.yaxis.set_major_locator(MaxNLocator(6))
    chart.axes.yaxis.set_major_formatter(FuncFormatter(plain))
    chart.over.append(text(0, 10, ylabel, fill=MUTED))
    left, end, _, _ = box(chart, chart.axes)
    chart.over.append(text((left + end) / 2, chart.height - 8, xlabel, fill=MUTED, anchor="middle"))
    return chart


def panelled_chart(n: int, *, xlabel: str, ylabel: str) -> Chart:
    """Return `n` panels, four in a row."""
    across = min(n, 4)
    down = math.ceil(n / across)
    width = NARROW if n <= 2 else WIDE
    left, gap, top, between = 46.0, 26.0, 48.0, 66.0
    panel_width = (width - left - 8 - gap * (across - 1)) / across
    panel_height = 190.0 if n > 1 else 230.0
    height = top + down * panel_height + (down - 1) * between + 42
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    panels = []
    over = [text(0, 11, ylabel, fill=MUTED)]
    for i in range(n):
        x = left + (i % across) * (panel_width + gap)
        y = top + (i // across) * (panel_height + between)
        axes = _add_panel(figure, x, y, panel_width, panel_height)
        axes.grid(axis="y")
        axes.tick_params(axis="y", labelleft=i % across == 0)
        panels.append(axes)
        over.append(
            text(x + panel_width / 2, y + panel_height + 34, xlabel, fill=MUTED, anchor="middle")
        )
    return Chart(width=width, height=height, figure=figure, panels=panels, over=over)


def pixels(chart: Chart, axes: Axes, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return points of the data in pixels from the upper left."""
    points = axes.transData.transform(np.column_stack([x, y]))
    return points[:, 0], chart.height - points[:, 1]


def box(chart: Chart, axes: Axes) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of a panel in pixels from the upper left."""
    place = axes.get_position()
    return (
        place.x0 * chart.width,
        place.x1 * chart.width,
        chart.height * (1 - place.y0),
        chart.height * (1 - place.y1),
    )


# ---- scales and their words ----------------------------------------------------------------------


def log_scale(chart: Chart) -> None:
    """Make the level scale logarithmic, with ticks that read as numbers."""
    axis = chart.axes.yaxis
    chart.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=(1.0,), numticks=8))
    axis.set_major_formatter(FuncFormatter(log_tick))
    axis.set_minor_locator(NullLocator())


def settle(chart: Chart) -> None:
    """Choose the ticks of the level axis and leave room for them: after the data, before words."""
    axes = chart.axes
    low, high = sorted(axes.get_ylim())
    if axes.get_yscale() == "log" and math.log10(high / low) < 2:  # too few powers of ten
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        if len([t for t in axes.get_yticks() if low <= t <= high]) < 2:
            axes.yaxis.set_major_locator(MaxNLocator(5))
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    labels = axes.yaxis.get_major_formatter().format_ticks(ticks)
    place = axes.get_position()
    left = max(place.x0, (max(map(width_of, labels), default=0.0) + 10) / chart.width)
    axes.set_position((left, place.y0, place.x1 - left, place.height))


def apart(chart: Chart, ticks: Sequence[float], words: Callable[[float], str]) -> list[float]:
    """Return the ticks whose words do not run into those of the one before."""
    at, _ = pixels(chart, chart.axes, np.asarray(ticks), np.ones(len(ticks)))
    kept: list[int] = []
    for i, x in enumerate(at):
        if not kept or x - at[kept[-1]] >= 8 + 7 * len(words(ticks[i])):
            kept.append(i)
    return [ticks[i] for i in kept]


def room_below(names: Sequence[str]) -> float:
    """Return the pixels that names need below an axis: one line if they fit, else on end."""
    longest = max(map(width_of, names), default=0.0)
    return 16.0 if longest * len(names) < NARROW - 200 else longest * 10 / SIZE + 8


def name_ticks(chart: Chart, names: Sequence[str]) -> None:
    """Write a name at each tick of the lower axis, on end where they would not fit."""
    axes = chart.axes
    _, _, bottom, _ = box(chart, axes)
    ticks = np.asarray(axes.xaxis.get_major_locator()())
    at, _ = pixels(chart, axes, ticks, np.full(len(ticks), np.mean(axes.get_ylim())))
    level = room_below(names) <= 16
    for x, name in zip(at, names, strict=True):
        if level:
            words = text(float(x), bottom + 12, name, fill=MUTED, anchor="middle")
        else:
            words = text(float(x), bottom + 6, name, fill=MUTED, anchor="end", rotate=-90, size=10)
        chart.over.append(words)


def plain(value: float, _: object = None) -> str:
    return f"{value:g}".replace("-", "−")


_SUPERSCRIPTS = str.maketrans("-0123456789.", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹·")


def power_of_ten(exponent: float, _: object = None) -> str:
    """Return 10 to the exponent, as a number where it is short.

    Other than a mathematical text it needs no layout.
    """
    if exponent in (-2, -1, 0, 1, 2, 3):
        return f"{10.0**exponent:g}"
    return "10" + f"{exponent:g}".translate(_SUPERSCRIPTS)


def log_tick(value: float, _: object = None) -> str:
    """Return a number of a logarithmic scale."""
    return f"{value:g}" if 1e-3 <= value < 1e5 else power_of_ten(round(math.log10(value), 2))


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Return centres near the ascending `wanted` ones at which things of these sizes do not touch.

    The least squares solution: pool adjacent violators, as in isotonic regression.
    """
    offsets = np.concatenate([[0.0], np.cumsum((np.array(sizes[:-1]) + np.array(sizes[1:])) / 2)])
    pools: list[tuple[float, int]] = []
    for start in np.asarray(wanted) - offsets[: len(wanted)]:
        mean, n = float(start), 1
        while pools and pools[-1][0] > mean:
            before, m = pools.pop()
            mean, n = (mean * n + before * m) / (n + m), n + m
        pools.append((mean, n))
    starts = np.repeat([mean for mean, _ in pools], [n for _, n in pools])
    last = high - offsets[len(wanted) - 1]
    return [float(p) for p in np.clip(starts, min(low, last), last) + offsets[: len(wanted)]]


# ---- words and shapes ----------------------------------------------------------------------------


# What XML cannot hold, though a table's names can.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_THIN = frozenset("-iljtfrI.,:;|'!()[]/ ")
_BROAD = frozenset("mwMWOQG@%&")


def width_of(words: str) -> float:
    """Return the pixels that words need at most, roughly, in any sans-serif font."""
    ems = 0.0
    for letter in words:
        if unicodedata.east_asian_width(letter) in "WF":
            ems += 1.0
        elif letter in _THIN:
            ems += 0.42
        elif letter in _BROAD:
            ems += 0.95
        else:
            ems += 0.7 if letter.isupper() else 0.62
    return ems * SIZE


def shorten(name: str, longest: int) -> str:
    """Return a name with its middle left out if it is too long: ends tell columns apart."""
    if len(name) <= longest:
        return name
    tail = longest // 2 - 1
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"


def fitting(name: str, room: float) -> str:
    """Return a name, shortened so far that it needs no more than `room` pixels."""
    longest = len(name)
    while longest > 4 and width_of(shorten(name, longest)) > room:
        longest -= 1
    return shorten(name, longest)


def wrapped(name: str) -> list[str]:
    return textwrap.wrap(name, 22, max_lines=3, placeholder="…") or [""]


def text(
    x: float,
    y: float,
    words: str,
    *,
    fill: str = INK,
    anchor: str = "start",
    size: float = SIZE,
    weight: str = "",
    rotate: float = 0,
    halo: bool = False,
) -> Element:
    """Return words whose middle height is at y; a halo keeps them readable upon lines."""
    text = Element("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "dy": ".35em"})
    text.set("style", f"fill:{variable(fill)}")
    if halo:
        behind = f";stroke:{_PAPER['paper']};stroke-width:2.5;paint-order:stroke"
        text.set("style", text.get("style", "") + behind)
    if anchor != "start":
        text.set("text-anchor", anchor)
    if size != SIZE:
        text.set("font-size", f"{size:g}")
    if weight:
        text.set("font-weight", weight)
    if rotate:
        text.set("transform", f"rotate({rotate:g} {x:.1f} {y:.1f})")
    text.text = _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", words)
    return text


def rectangle(
    x: float, y: float, width: float, height: float, fill: str, outline: str = ""
) -> Element:
    sides = {"x": x, "y": y, "width": width, "height": height}
    rectangle = Element("rect", {name: f"{side:.2f}".rstrip("0").rstrip(".") for name, side in
                                 sides.items()})  # fmt: skip
    stroke = f";stroke:{variable(outline)}" if outline else ""
    rectangle.set("style", f"fill:{variable(fill)}{stroke}")
    return rectangle


def outline(x: Floats, base: float, heights: Floats, stroke: str, fill: str) -> Element:
    """Return a histogram: `x` [bins + 1] and `heights` [bins] in pixels, up from `base`."""
    # Whole quarters of a pixel, relative, make paths short.
    across = np.diff(np.rint(x * 4).astype(int))
    up = np.rint(heights * 4).astype(int)
    path = [f"M{round(float(x[0]) * 4)} {round(base * 4)}"]
    at, run = 0, 0
    for step, height in zip(across, up, strict=True):
        if height != at:
            path.append((f"h{run}" if run else "") + f"v{at - height}")
            at, run = int(height), 0
        run += int(step)
    path.append(f"h{run}" + (f"v{at}" if at else ""))
    style = f"fill:{variable(fill)};stroke:{variable(stroke)};fill-opacity:.22"
    return Element(
        "path",
        {
            "d": "".join(path),
            "transform": "scale(.25)",
            "style": style,
            "stroke-width": "5" if fill == "none" else "6",
        },
    )


def image_url(places: NDArray[np.uint8], colours: Sequence[tuple[int, int, int, int]]) -> str:
    """Return [rows, columns] places in `colours`, of red, green, blue and opacity, as a PNG."""
    image = Image.fromarray(places, mode="P")
    image.putpalette([*itertools.chain.from_iterable(colour[:3] for colour in colours)])
    opacity = bytes(colour[3] for colour in colours).rstrip(b"\xff")  # the rest of it is implied
    out = io.BytesIO()
    image.save(out, "png", optimize=True, **({"transparency": opacity} if opacity else {}))
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")


# Each about as large to the eye as a circle of radius 1: steps from the middle, joined and closed.
_OUTLINES: dict[str, Sequence[tuple[float, float]]] = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0, -1.3), (1.2, 0.8), (-1.2, 0.8)],
    "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
    "down": [(0, 1.3), (-1.2, -0.8), (1.2, -0.8)],
    "plus": [
        (-0.42, -1.25), (0.42, -1.25), (0.42, -0.42), (1.25, -0.42), (1.25, 0.42), (0.42, 0.42),
        (0.42, 1.25), (-0.42, 1.25), (-0.42, 0.42), (-1.25, 0.42), (-1.25, -0.42), (-0.42, -0.42),
    ],
    "cross": [
        (-0.6, -1.2), (0, -0.6), (0.6, -1.2), (1.2, -0.6), (0.6, 0), (1.2, 0.6), (0.6, 1.2),
        (0, 0.6), (-0.6, 1.2), (-1.2, 0.6), (-0.6, 0), (-1.2, -0.6),
    ],
}  # fmt: skip
SHAPES = ("circle", *_OUTLINES)
"""Of `marks`: seven beside six colours, so that both together tell 42 arms apart."""


def marks(
    points: Sequence[tuple[float, float, str]],
    shape: str,
    colour: str,
    *,
    radius: float = 4.5,
    hollow: bool = False,
    opacity: float = 1.0,
) -> Element:
    """Return a group of equal marks, each at x and y with the words that show on hovering."""
    paper, ink = _PAPER["paper"], variable(colour)
    look = f"fill:{paper};stroke:{ink};stroke-width:1.5"
    group = Element(
        "g", {"style": look if hollow else f"fill:{ink};stroke:{paper};stroke-width:.7"}
    )
    if opacity < 1:
        group.set("fill-opacity", f"{opacity:g}")
    for x, y, words in points:
        if shape == "circle":
            one = Element("circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{radius:g}"})
        else:
            corners = [(x + radius * dx, y + radius * dy) for dx, dy in _OUTLINES[shape]]
            one = Element(
                "path", {"d": "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in corners) + "z"}
            )
        title = Element("title")
        title.text = _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", words)
        one.append(title)
        group.append(one)
    return group


# ---- SVG -----------------------------------------------------------------------------------------


_COLOUR = re.compile(r"#[0-9a-f]{6}")
_NUMBER = re.compile(r"-?\d+\.\d+")
_SPACES = re.compile(r"\s+")
_LINES = re.compile(r" ?([A-Za-z]) ?")
_ANCHOR = re.compile(r"text-anchor: (\w+)")


def variable(colour: str) -> str:
    """Return a colour as the page's variable, with itself for where there is no page."""
    if colour in _PAPER:
        return _PAPER[colour]
    name = _VARIABLES.get(colour)
    return f"var(--{name}, {colour})" if name else colour


def _round(number: re.Match[str]) -> str:
    value = float(number[0])
    text = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def to_svg(chart: Chart) -> str:
    """Return the chart as a small SVG, without what matplotlib says about itself."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    chart.figure.savefig(out, format="svg", metadata=nothing)
    drawn = ElementTree.fromstring(out.getvalue().encode("utf-8"))
    used = set(re.findall(r"#([\w.-]+)", out.getvalue()))
    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg"})
    root.set("viewBox", f"0 0 {chart.width:g} {chart.height:g}")
    root.set("font-size", f"{SIZE:g}")
    root.set("font-family", "system-ui,sans-serif")
    root.set("stroke-linejoin", "round")
    root.extend(chart.under)
    for child in drawn:
        root.extend(_tidy(child, used))
    root.extend(chart.over)
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(element: Element, used: set[str]) -> list[Element]:
    """Return an element of matplotlib, shorter; a group that says nothing gives its children."""
    tag = element.tag.rpartition("}")[2]
    children = [new for child in element for new in _tidy(child, used)]
    if tag in ("style", "metadata") or (tag == "defs" and not children):
        return []
    new = Element(tag)
    for full_name, value in element.attrib.items():
        name = full_name.rpartition("}")[2]
        if name == "id" and value not in used:
            continue
        if name == "transform" and value.startswith("rotate(-0"):
            continue
        if name == "style" and tag == "text":
            # The font is the page's; anchor and colour are all that is left.
            if anchor := _ANCHOR.search(value):
                new.set("text-anchor", anchor[1])
            colour = _COLOUR.search(value)
            new.set("style", f"fill:{variable(colour[0] if colour else INK)}")
        elif name == "style":
            short = value.replace(": ", ":").replace("; ", ";")
            new.set(name, _COLOUR.sub(lambda found: variable(found[0]), short))
        elif name in ("id", "href", "clip-path"):
            new.set(name, value)
        else:
            short = _NUMBER.sub(_round, value)
            if name == "d":
                short = _LINES.sub(r"\1", _SPACES.sub(" ", short.strip()))
            new.set(name, short)
    new.text = (element.text or "").strip() or None
    new.extend(children)
    return children if tag == "g" and not new.attrib else [new]
