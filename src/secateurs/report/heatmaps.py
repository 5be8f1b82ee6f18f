"""Heatmaps: a labelled matrix with its numbers, and matrices side by side on one scale.

As in `secateurs.report.figures`: data in, SVG out, the same data give the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secateurs.errors import InputError
from secateurs.report import drawing
from secateurs.report.drawing import FIRM, MUTED, NARROW, PALETTE, WIDE, Chart, Floats

__all__ = ["heatmaps", "matrix"]

_MOST = 16  # rows or columns whose numbers can still be read

# Blue below 0, orange above, fainter towards 0: the paper of either theme shows through.
_BELOW, _ABOVE = ((0, 114, 178), (213, 94, 0))
_STEPS = 31  # of either sign: few colours compress well, and no eye tells more of them apart
_NONE = 2 * _STEPS + 1
_ACROSS = 5  # panels in a row


# ---- a matrix with its numbers -------------------------------------------------------------------


@drawing.style()
def matrix(
    values: ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    ylabel: str,
    xlabel: str,
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> str:
    """Return an SVG of a small matrix: a number in each cell, the larger the darker.

    No cell is so dark that its number would be hard to read, on paper or in the dark theme.

    Args:
        values: [rows, columns]; NaN stays empty.
        rows: their names, the first on top.
        columns: their names.
        ylabel: what a row is.
        xlabel: what a column is.
        log: whether the colours follow the logarithm; all values are then above 0.
        limits: values of the faintest and the darkest colour, beyond which it stays the same; None
            is the smallest and the largest value. Give it to matrices that are to be compared.

    Raises:
        InputError: not a matrix of these names, more than 16 of either, no finite value, limits
            that do not ascend, a value of 0 or below on a logarithmic scale.

    >>> svg = matrix([[0.03, 0.25], [0.12, 1.1]], rows=["rich", "lazy"], columns=["rich", "lazy"],
    ...              ylabel="alpha that found the mask", xlabel="alpha that trains", log=True)
    >>> ">0.030<" in svg, svg.count(">rich<")
    (True, 2)
    """
    numbers = _numbers(values, len(rows), len(columns))
    shares = _shares(numbers, log=log, limits=limits)
    high = float(np.nanmax(np.abs(numbers)))
    words = [[_word(float(v), high, log=log) for v in row] for row in numbers]
    names = [drawing.shorten(str(name), 28) for name in rows]
    heads = [drawing.shorten(str(name), 22) for name in columns]
    left = max(map(drawing.width_of, names)) + 10
    need = max(drawing.width_of(word) for row in words for word in row) + 10
    width = NARROW if left + need * len(heads) + 4 <= NARROW else WIDE
    across = min(72.0, (width - left - 4) / len(heads))
    down, top = 32.0, 30.0
    on_end = max(map(drawing.width_of, heads)) > across - 4
    foot = max(map(drawing.width_of, heads)) + 12 if on_end else 22.0
    bottom = top + down * len(names)
    chart = drawing.bare_chart(width, bottom + foot + 20, left=left, right=4, top=top, bottom=foot)
    chart.axes.set_axis_off()
    chart.over.append(drawing.text(0, 10, drawing.fitting(ylabel, width), fill=MUTED))
    for i, name in enumerate(names):
        y = top + (i + 0.5) * down
        chart.over.append(drawing.text(left - 8, y, name, anchor="end"))
        for j, word in enumerate(words[i]):
            chart.over.extend(_cell(left + j * across, y, across, down, float(shares[i, j]), word))
    for j, head in enumerate(heads):
        x = left + (j + 0.5) * across
        if on_end:
            chart.over.append(drawing.text(x, bottom + 6, head, anchor="end", rotate=-90))
        else:
            chart.over.append(drawing.text(x, bottom + 12, head, anchor="middle"))
    said = drawing.fitting(xlabel, width - left)
    middle = left + across * len(heads) / 2
    middle = min(max(middle, drawing.width_of(said) / 2), width - drawing.width_of(said) / 2)
    chart.over.append(drawing.text(middle, bottom + foot + 10, said, fill=MUTED, anchor="middle"))
    return drawing.to_svg(chart)


def _numbers(values: ArrayLike, n_rows: int, n_columns: int) -> Floats:
    """Return the values as [rows, columns] float64, not finite ones as NaN."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (n_rows, n_columns) or min(numbers.shape) == 0:
        raise InputError(
            f"matrix needs values [rows, columns] = [{n_rows}, {n_columns}] as they are named, one "
            f"or more of each, got shape {list(numbers.shape)}"
        )
    if max(numbers.shape) > _MOST:
        raise InputError(
            f"matrix writes out {_MOST} rows and columns at most, got {n_rows} and {n_columns}; "
            "use heatmaps"
        )
    if not np.isfinite(numbers).any():
        raise InputError("matrix needs a finite value, got only missing ones")
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _shares(numbers: Floats, *, log: bool, limits: tuple[float, float] | None) -> Floats:
    """Return how dark each cell is, from 0 to 1; NaN where it is empty."""
    low, high = limits or (float(np.nanmin(numbers)), float(np.nanmax(numbers)))
    if limits and not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"limits must be finite and ascend, got {low:g} and {high:g}")
    if log and not min(low, float(np.nanmin(numbers))) > 0:
        raise InputError(
            f"a logarithmic scale needs values above 0, got {min(low, np.nanmin(numbers)):g}; "
            "pass log=False"
        )
    if log:
        numbers, low, high = np.log(numbers), math.log(low), math.log(high)
    return np.clip((numbers - low) / (high - low or 1.0), 0, 1)


def _word(value: float, high: float, *, log: bool) -> str:
    """Return a number of a cell: two digits of itself, or as many decimals as the largest has."""
    if math.isnan(value):
        return "–"
    if log:
        size = abs(value)
        return f"{value:#.2g}".rstrip(".") if 1e-3 <= size < 99.5 else _far(value)
    if not 1e-3 <= high < 1e5:
        return _far(value)
    digits = max(0, (2 if high >= 1 else 1) - math.floor(math.log10(high)))
    return f"{value:z.{digits}f}".replace("-", "−")


def _far(value: float) -> str:
    """Return a number that is too large or too small to be written out."""
    if value == 0:
        return "0"
    if 99.5 <= abs(value) < 99_999.5:
        return f"{value:,.0f}".replace("-", "−")
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")


def _cell(
    x: float, middle: float, width: float, height: float, share: float, word: str
) -> list[Element]:
    """Return a coloured rectangle and its number; an outline where there is none."""
    sides = (x + 0.75, middle - height / 2 + 0.75, width - 1.5, height - 1.5)
    if math.isnan(share):
        empty = drawing.rectangle(*sides, "none", outline=drawing.RULE)
        return [empty, drawing.text(x + width / 2, middle, word, fill=MUTED, anchor="middle")]
    cell = drawing.rectangle(*sides, PALETTE[0])
    cell.set("fill-opacity", f"{0.04 + 0.51 * share:.2f}")  # as in `pair_matrix`: ink stays 4.5:1
    return [cell, drawing.text(x + width / 2, middle, word, anchor="middle")]


# ---- matrices side by side -----------------------------------------------------------------------


@drawing.style()
def heatmaps(
    panels: Mapping[str, ArrayLike],
    *,
    ylabel: str,
    xlabel: str,
    limit: float | None = None,
) -> str:
    """Return an SVG of matrices side by side on one scale: blue below 0, orange above.

    Made for preactivations H [probes, neurons] of a dense network, its ticket and controls. With
    leading axes the picture is one of frames for `secateurs.report.page.Scrubber`, in the order of
    NumPy: the last leading axis runs fastest.

    Args:
        panels: [..., rows, columns] by title, all of one shape; NaN is grey, for a neuron that is
            cut off.
        ylabel: what a row is.
        xlabel: what a column is.
        limit: the value of the full colours, beyond which they stay the same; None is the 99.5%
            quantile of all |values|.

    Raises:
        InputError: no panel, shapes that differ or are none of a matrix, no finite value, a limit
            that is not above 0.

    >>> import numpy as np
    >>> H = np.linspace(-1, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # alpha, step, probe, neuron
    >>> svg = heatmaps({"dense": H, "ticket": H / 2}, ylabel="probe", xlabel="neuron")
    >>> svg.count("data-frame"), svg.count("data:image/png")
    (6, 12)
    """
    arrays, high = _checked(panels, limit)
    n_rows, n_columns = next(iter(arrays.values())).shape[-2:]
    across = min(len(arrays), _ACROSS)
    down = math.ceil(len(arrays) / across)
    width = NARROW if across <= 2 else WIDE
    gap, top, between = 14.0, 50.0, 26.0
    wide = (width - 2 - gap * (across - 1)) / across
    tall = min(240.0, max(130.0, wide * n_rows / n_columns))
    height = top + down * tall + (down - 1) * between + 24
    chart = drawing.bare_chart(width, height, left=1, right=1, top=top, bottom=24)
    chart.axes.set_axis_off()
    places = [
        (1 + (i % across) * (wide + gap), top + (i // across) * (tall + between))
        for i in range(len(arrays))
    ]
    stacks = [values.reshape(-1, n_rows, n_columns) for values in arrays.values()]
    for (x, y), title in zip(places, arrays, strict=True):
        said = drawing.fitting(title, wide * 0.9)  # it is bold
        chart.over.append(drawing.text(x, y - 11, said, weight="600"))
        chart.under.append(drawing.rectangle(x, y, wide, tall, "paper"))
        chart.over.append(drawing.rectangle(x, y, wide, tall, "none", outline=drawing.RULE))
    is_framed = next(iter(arrays.values())).ndim > 2
    for at in range(len(stacks[0])):
        images = [
            _image(stack[at] / high, x, y, wide, tall)
            for stack, (x, y) in zip(stacks, places, strict=True)
        ]
        if is_framed:
            frame = Element("g", {"data-frame": str(at)})
            frame.extend(images)
            images = [frame]
        chart.under.extend(images)
    everything = np.concatenate([stack.ravel() for stack in stacks])
    _scale(chart, everything, high, ylabel)
    said = drawing.fitting(xlabel, width)
    chart.over.append(drawing.text(width / 2, height - 9, said, fill=MUTED, anchor="middle"))
    return drawing.to_svg(chart)


def _checked(
    panels: Mapping[str, ArrayLike], limit: float | None
) -> tuple[dict[str, Floats], float]:
    """Return the panels as float64, not finite values as NaN, and the value of the full colours."""
    if not panels:
        raise InputError("heatmaps needs a panel, got none")
    arrays = {str(name): np.asarray(one, dtype=np.float64) for name, one in panels.items()}
    first = next(iter(arrays.values())).shape
    for name, one in arrays.items():
        if one.ndim < 2 or one.size == 0 or one.shape != first:
            raise InputError(
                f"every panel must be [..., rows, columns] of one shape and not empty, got "
                f"{list(one.shape)} for {name!r} beside {list(first)}"
            )
    arrays = {name: np.where(np.isfinite(one), one, np.nan) for name, one in arrays.items()}
    if limit is None:
        sizes = np.abs(np.concatenate([one.ravel() for one in arrays.values()]))
        if np.isnan(sizes).all():
            raise InputError("heatmaps needs a finite value, got only missing ones")
        limit = float(np.nanquantile(sizes, 0.995)) or float(np.nanmax(sizes)) or 1.0
    if not (math.isfinite(limit) and limit > 0):
        raise InputError(f"limit must be finite and above 0, got {limit:g}; None chooses it")
    return arrays, limit


def _image(scaled: Floats, x: float, y: float, width: float, height: float) -> Element:
    """Return values from -1 to 1 as an image."""
    steps = np.rint(np.clip(scaled, -1, 1) * _STEPS) + _STEPS
    levels: NDArray[np.uint8] = np.where(np.isnan(steps), _NONE, steps).astype(np.uint8)
    return Element(
        "image",
        {
            "x": f"{x:.2f}", "y": f"{y:.2f}", "width": f"{width:.2f}", "height": f"{height:.2f}",
            "preserveAspectRatio": "none",
            "style": "image-rendering:pixelated",
            "href": drawing.image_url(levels, _colours()),
        },
    )  # fmt: skip


def _colours() -> list[tuple[int, int, int, int]]:
    """Return the colours from -1 to 1 with their opacity, and that of none."""
    signed = range(-_STEPS, _STEPS + 1)
    shown = [
        (*(_ABOVE if step > 0 else _BELOW), round(255 * abs(step) / _STEPS)) for step in signed
    ]
    return [*shown, (0x85, 0x89, 0x8D, 0x90)]


def _scale(chart: Chart, values: Floats, high: float, ylabel: str) -> None:
    """Draw the line above the panels: what a row is, and what the colours mean."""
    ramp = Element("linearGradient", {"id": "diverging"})
    for offset, colour, opacity in ((0, 0, 1), (0.5, 0, 0), (0.5, 1, 0), (1, 1, 1)):
        stop = SubElement(ramp, "stop", {"offset": f"{offset:g}", "stop-color": PALETTE[colour]})
        stop.set("stop-opacity", str(opacity))
    definitions = Element("defs")
    definitions.append(ramp)
    chart.over.append(definitions)
    low_end = "≤ " if np.nanmin(values, initial=0) < -high else ""
    high_end = "≥ " if np.nanmax(values, initial=0) > high else ""
    ends = [
        f"{low_end}{drawing.plain(-float(f'{high:.2g}'))}",
        f"{high_end}{float(f'{high:.2g}'):g}",
    ]
    at = chart.width - 2 - drawing.width_of(ends[1])
    chart.over.append(drawing.text(at, 11, ends[1], fill=MUTED))
    at -= 106
    bar = drawing.rectangle(at, 6, 100, 10, "none", outline=drawing.RULE)
    bar.set("style", f"{bar.get('style')}".replace("fill:none", "fill:url(#diverging)"))
    chart.over.append(bar)
    at -= 6
    chart.over.append(drawing.text(at, 11, ends[0], fill=MUTED, anchor="end"))
    at -= drawing.width_of(ends[0]) + 14
    if np.isnan(values).any():
        chart.over.append(drawing.text(at, 11, "no value", fill=MUTED, anchor="end"))
        at -= drawing.width_of("no value") + 14
        mark = drawing.rectangle(at, 6, 10, 10, FIRM)
        mark.set("fill-opacity", ".56")
        chart.over.append(mark)
        at -= 10
    chart.over.append(drawing.text(0, 11, drawing.fitting(ylabel, max(at, 40)), fill=MUTED))
