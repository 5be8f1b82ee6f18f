"""Receiver operating characteristics: how well scores tell two classes apart.

As in `secateurs.report.figures`: data in, SVG out, the same data give the same bytes.
"""

import itertools
from collections.abc import Mapping
from xml.etree.ElementTree import Element

import numpy as np
from matplotlib.ticker import FixedLocator
from numpy.typing import ArrayLike

from secateurs.errors import InputError
from secateurs.report import drawing
from secateurs.report.drawing import GREY, MUTED, NARROW, PALETTE, Floats

__all__ = ["roc"]

_DASHES = ("", "5 2.5", "1.5 2", "7 2 1.5 2")
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@drawing.style()
def roc(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str = "false positive rate",
    ylabel: str = "true positive rate",
) -> str:
    """Return an SVG of ROC curves with their areas (AUC), and the diagonal of chance.

    Args:
        curves: [points] false and [points] true positive rates by name, both ascending from 0 to 1,
            as `sklearn.metrics.roc_curve` returns them. Areas are those below straight lines.
        xlabel: what the false positive rate is of.
        ylabel: what the true positive rate is of.

    Raises:
        InputError: no curve, lengths that differ, rates that do not ascend from 0 to 1.

    >>> svg = roc({"movement": ([0, 0, 1], [0, 0.5, 1])})
    >>> "AUC 0.750" in svg, "chance" in svg
    (True, True)
    """
    if not curves:
        raise InputError("roc needs a curve, got none")
    points = {str(name): _points(str(name), *rates) for name, rates in curves.items()}
    legend = [drawing.wrapped(name) for name in points]
    lines = [*itertools.chain.from_iterable(legend), "AUC 0.000", "chance"]
    right = 46 + max(map(drawing.width_of, lines))
    key = drawing.LINE * (len(lines) - 2 + len(points) + 1) + 7 * len(points)
    side = max(150.0, NARROW - 46 - right, key)
    chart = drawing.framed_chart(ylabel=ylabel, xlabel=xlabel, labels=(), right=right, tall=side)
    axes = chart.axes
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_major_formatter(drawing.plain)
    axes.yaxis.set_major_formatter(drawing.plain)
    drawing.settle(chart)
    _, edge, _, top = drawing.box(chart, axes)
    looks = itertools.cycle(PALETTE), itertools.cycle(_DASHES)
    chart.over.append(_path(chart, np.array([[0.0, 1.0], [0.0, 1.0]]), GREY, "5 3", 1.25))
    at = top + 6
    for rates, words, colour, dashes in zip(points.values(), legend, *looks, strict=False):
        chart.over.append(_path(chart, rates, colour, dashes, 1.75))
        chart.over.append(_key(edge + 14, at, colour, dashes))
        for line in words:
            chart.over.append(drawing.text(edge + 42, at, line))
            at += drawing.LINE
        area = float(np.trapezoid(rates[1], rates[0]))
        chart.over.append(drawing.text(edge + 42, at, f"AUC {area:.3f}", fill=MUTED))
        at += drawing.LINE + 7
    chart.over.append(_key(edge + 14, at, GREY, "5 3"))
    chart.over.append(drawing.text(edge + 42, at, "chance", fill=MUTED))
    return drawing.to_svg(chart)


def _points(name: str, false: ArrayLike, true: ArrayLike) -> Floats:
    """Return [2, points] rates, from (0, 0) to (1, 1)."""
    x, y = np.asarray(false, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise InputError(
            f"curve {name!r} must have as many false as true positive rates, two or more, got "
            f"shapes {list(x.shape)} and {list(y.shape)}"
        )
    for rates in (x, y):
        if not ((np.diff(rates) >= 0).all() and rates[0] == 0 and rates[-1] == 1):
            raise InputError(
                f"rates of curve {name!r} must ascend from 0 to 1, got {rates[0]:g} to "
                f"{rates[-1]:g}; pass those of sklearn.metrics.roc_curve"
            )
    return np.stack([x, y])


def _path(chart: drawing.Chart, rates: Floats, colour: str, dashes: str, width: float) -> Element:
    """Return a curve in the chart's pixels."""
    x, y = drawing.pixels(chart, chart.axes, rates[0], rates[1])
    steps = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    return _line(f"M{steps}", colour, dashes, width)


def _key(x: float, y: float, colour: str, dashes: str) -> Element:
    return _line(f"M{x:.1f} {y:.1f}h22", colour, dashes, 1.75)


def _line(path: str, colour: str, dashes: str, width: float) -> Element:
    style = f"fill:none;stroke:{drawing.variable(colour)};stroke-width:{width:g}"
    return Element(
        "path", {"d": path, "style": style + (f";stroke-dasharray:{dashes}" * bool(dashes))}
    )
