"""Where networks of images look, and how local they are: small multiples of maps, bars of layers.

As in `secateurs.report.figures`: data in, SVG out, the same data give the same bytes.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from secateurs.errors import InputError
from secateurs.report import drawing
from secateurs.report.drawing import (
    FIRM,
    GREY,
    INK,
    MUTED,
    NARROW,
    PALETTE,
    RULE,
    WIDE,
    Chart,
    Floats,
)
from secateurs.report.figures import DENSE

__all__ = ["locality_bars", "logit_map_grid"]

_STEPS = 31  # few levels compress well, and no eye tells more of them apart


# ---- maps of logits ------------------------------------------------------------------------------


@drawing.style()
def logit_map_grid(
    maps: ArrayLike | Mapping[str, ArrayLike],
    names: Sequence[str],
    *,
    limits: tuple[float, float] | None = None,
    quantity: str = "weight on all paths",
) -> str:
    """Return an SVG of one image a logit, or a first-layer unit, on one scale (figure 4).

    Three channels are the red, green and blue of a pixel, the lighter the more; others are added
    up. Pixels with exactly 0 in all channels have no path, and stay empty.

    Args:
        maps: [logits, channels, height, width], at least 0: `measures.weight_maps.logit_maps`;
            or several of them by arm, each on a scale of its own, since pruning and training
            change the sums by orders of magnitude.
        names: of the logits.
        limits: values of the darkest and the lightest colour, beyond which it stays the same; None
            is 0.5% and 99.5% of the values of each arm. Give it to compare them.
        quantity: what a value is.

    Raises:
        InputError: no map, shapes or names that do not fit, negative or not finite values, limits
            that do not ascend.

    >>> import numpy as np
    >>> svg = logit_map_grid(np.ones((2, 3, 4, 4)), ["cat", "dog"])
    >>> svg.count("data:image/png"), ">cat<" in svg
    (2, True)
    """
    arms = {str(k): v for k, v in maps.items()} if isinstance(maps, Mapping) else {"": maps}
    panels = {arm: _panels(arm, values, len(names)) for arm, values in arms.items()}
    if not panels or not names:
        raise InputError("logit_map_grid needs a map with a name, got none; pass logit_maps")
    if limits and not (all(map(math.isfinite, limits)) and limits[0] < limits[1]):
        raise InputError(f"limits must be finite and ascend, got {limits[0]:g} and {limits[1]:g}")
    n = len(names)
    width = NARROW if n <= 5 or (n <= 10 and len(panels) == 1) else WIDE
    across = min(n, 5 if width == NARROW else 10)
    gap, head, top = 7.0, 17.0, 24.0
    wide = min((width - 2 - gap * (across - 1)) / across, 150.0)
    ratio = max(one.shape[2] / one.shape[3] for one in panels.values())
    tall = wide * ratio
    lines = math.ceil(n / across)
    block = top + lines * (head + tall) + (lines - 1) * gap
    height = len(panels) * block + (len(panels) - 1) * 18 + 4
    chart = drawing.bare_chart(width, height, left=1, right=1, top=top, bottom=1)
    chart.axes.set_axis_off()
    reach = 1 + across * (wide + gap) - gap
    for row, (arm, values) in enumerate(panels.items()):
        y = row * (block + 18)
        low, high = limits or _limits(values)
        _heading(chart, arm, quantity, values, low=low, high=high, y=y + 9, right=reach)
        for i, name in enumerate(names):
            x = 1 + (i % across) * (wide + gap)
            above = y + top + (i // across) * (head + tall + gap)
            said = drawing.fitting(str(name), wide * 12 / 11)
            chart.over.append(drawing.text(x + wide / 2, above + 7, said, anchor="middle", size=11))
            place = (x, above + head, wide, tall)
            chart.under.append(drawing.rectangle(*place, "pruned"))
            chart.under.append(_image(values[i], low, high, place))
            chart.over.append(drawing.rectangle(*place, "none", outline=RULE))
    return drawing.to_svg(chart)


def _panels(arm: str, values: ArrayLike, n: int) -> Floats:
    """Return [logits, 3 or 1, height, width]."""
    one = np.asarray(values, dtype=np.float64)
    if one.ndim != 4 or one.size == 0 or len(one) != n:
        raise InputError(
            f"maps must be [logits, channels, height, width] with a name for each logit, got shape "
            f"{list(one.shape)}{f' of {arm!r}' if arm else ''} and {n} names; pass logit_maps"
        )
    if not np.isfinite(one).all() or (one < 0).any():
        raise InputError(
            f"maps must be finite and at least 0, got {one.min():g}; pass absolute weights"
        )
    return one if one.shape[1] in (1, 3) else one.sum(1, keepdims=True)


def _limits(values: Floats) -> tuple[float, float]:
    """Return the ends of a scale; a few giants would leave everything else dark."""
    some = values[(values > 0).any(axis=1, keepdims=True) & np.ones_like(values, dtype=bool)]
    if not some.size:
        return 0.0, 1.0
    low, high = (float(q) for q in np.quantile(some, [0.005, 0.995]))
    return (low, high) if high > low else (0.0, float(some.max()) or 1.0)


def _heading(
    chart: Chart,
    arm: str,
    quantity: str,
    values: Floats,
    *,
    low: float,
    high: float,
    y: float,
    right: float,
) -> None:
    """Write the line above the maps of an arm: its name, what is shown, what the colours mean."""
    ends = [
        f"{'≤ ' if values.min() < low else ''}{_short(low)}",
        f"{'≥ ' if values.max() > high else ''}{_short(high)}",
    ]
    right = max(right, 300.0)
    chart.over.append(drawing.text(right, y, ends[1], fill=MUTED, anchor="end"))
    at = right - drawing.width_of(ends[1]) - 72
    ramp = "grey" if values.shape[1] == 3 else "ramp"
    if not any(element.find(f".//*[@id='{ramp}']") is not None for element in chart.over):
        chart.over.append(_gradient(ramp))
    bar = drawing.rectangle(at, y - 5, 60, 10, "none", outline=RULE)
    bar.set("style", f"{bar.get('style')}".replace("fill:none", f"fill:url(#{ramp})"))
    chart.over.append(bar)
    chart.over.append(drawing.text(at - 6, y, ends[0], fill=MUTED, anchor="end"))
    at -= 6 + drawing.width_of(ends[0]) + 12
    if (values == 0).all(axis=1).any():
        words = "no path"
        chart.over.append(drawing.text(at, y, words, fill=MUTED, anchor="end"))
        at -= drawing.width_of(words) + 12
        chart.over.append(drawing.rectangle(at, y - 4.5, 9, 9, "pruned", outline=FIRM))
        at -= 12
    said = drawing.fitting(arm, max(at * 0.6, 40))
    if arm:
        chart.over.append(drawing.text(1, y, said, weight="600"))
    start = 1 + (drawing.width_of(said) * 1.1 + 8 if arm else 0)
    if at - start > 40:
        words = drawing.fitting(quantity, at - start)
        chart.over.append(drawing.text(start, y, words, fill=MUTED))


def _short(value: float) -> str:
    """Return two digits of a number: weights on paths are of any size."""
    if value == 0 or 1e-3 <= value < 99_500:
        return f"{float(f'{value:.2g}'):g}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")


def _colours() -> list[tuple[int, int, int]]:
    """Return the colours of single values: cividis without its darkest end, as `weight_map`."""
    colours = matplotlib.colormaps["cividis"](np.linspace(0.18, 1.0, _STEPS + 1))[:, :3]
    return [(int(r), int(g), int(b)) for r, g, b in np.rint(colours * 255)]


def _gradient(name: str) -> Element:
    """Return the colours from low to high, which are the same in either theme."""
    grey = [(0, 0, 0), (255, 255, 255)]
    colours = (
        grey if name == "grey" else [_colours()[i] for i in np.linspace(0, _STEPS, 8, dtype=int)]
    )
    ramp = Element("linearGradient", {"id": name})
    for i, (red, green, blue) in enumerate(colours):
        stop = {"offset": f"{i / (len(colours) - 1):.2f}"}
        SubElement(ramp, "stop", stop | {"stop-color": f"#{red:02x}{green:02x}{blue:02x}"})
    definitions = Element("defs")
    definitions.append(ramp)
    return definitions


def _image(
    values: Floats, low: float, high: float, place: tuple[float, float, float, float]
) -> Element:
    """Return [3 or 1, height, width] as an image; pixels of exactly 0 are transparent."""
    shares = np.clip((values - low) / (high - low), 0, 1)
    steps = np.rint(shares * _STEPS).astype(np.uint8)
    no_path = (values == 0).all(axis=0)
    if len(values) == 3:
        levels = np.rint(steps * (255 / _STEPS)).astype(np.uint8)
        opacity = np.where(no_path, 0, 255).astype(np.uint8)
        href = _rgba_url(np.dstack([*(levels * ~no_path), opacity]))
    else:
        places = np.where(no_path, 0, steps[0] + 1).astype(np.uint8)
        href = drawing.image_url(places, [(0, 0, 0, 0), *((*c, 255) for c in _colours())])
    sides = dict(zip(("x", "y", "width", "height"), (f"{side:.2f}" for side in place), strict=True))
    return Element(
        "image",
        sides
        | {
            "preserveAspectRatio": "none",
            "style": "image-rendering:pixelated",
            "href": href,
        },
    )


def _rgba_url(pixels: NDArray[np.uint8]) -> str:
    """Return [height, width, 4] as a PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels, mode="RGBA").save(out, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")


# ---- locality of layers --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Bars:
    """One arm: [layers] means over repeats, NaN where it has no row."""

    name: str
    colour: str
    share: Floats
    chance: Floats
    error: Floats


@drawing.style()
def locality_bars(
    frame: pd.DataFrame,
    *,
    by: str = "arm",
    layer: str = "layer",
    share: str = "share",
    chance: str = "chance",
    order: Sequence[str] | None = None,
    ylabel: str = "kept weights inside the fields",
) -> str:
    """Return an SVG of the share of kept weights inside the CNN's fields, by layer and arm.

    A bar goes from the share by chance, a black line, to the share that was found, a dot: on the
    logarithmic scale its length is the lift. Means over repeats, with one standard error to both
    sides. A share of 0 is a cross on the floor. Layers where chance is 1 have nothing to compare
    and are left out.

    Args:
        frame: one row a layer of a run, layers in the order of the network, as of
            `measures.locality`.
        by: column of the arms.
        layer: column of the layers' names; parts that all share are left out.
        share: column of the shares, from 0 to 1; NaN is left out.
        chance: column of what is expected by chance.
        order: all arms of a page, so that an arm has one colour in all of its figures.
        ylabel: what a share is of.

    Raises:
        InputError: a missing column, no layer to compare, a share outside [0, 1].

    >>> frame = pd.DataFrame({"arm": "IUNet", "layer": ["0.weight", "1.weight"],
    ...                       "share": [0.1, 0.3], "chance": [0.01, 0.1]})
    >>> ">IUNet<" in locality_bars(frame)
    True
    """
    frame = _comparable(frame, by=by, layer=layer, share=share, chance=chance)
    layers = list(dict.fromkeys(frame[layer]))
    arms = _arms(frame, layers, by=by, layer=layer, share=share, chance=chance, order=order)
    shown = _distinct(layers)
    width = NARROW if len(layers) * len(arms) <= 40 else WIDE
    chart = drawing.framed_chart(
        ylabel=ylabel,
        xlabel="layer",
        labels=[*(arm.name for arm in arms), "by chance"],
        below=drawing.room_below(shown),
        width=width,
    )
    axes = chart.axes
    _scale(chart, arms, len(layers))
    floor = axes.get_ylim()[0]
    each = 0.8 / len(arms)
    thick = min(each * 0.55, 0.16)
    for i, arm in enumerate(arms):
        at = np.arange(len(layers)) + (i - (len(arms) - 1) / 2) * each
        found = arm.share > 0
        end = np.where(found, arm.share, floor)
        axes.bar(
            at, end - arm.chance, bottom=arm.chance, width=thick, color=arm.colour, alpha=0.45,
            linewidth=0,
        )  # fmt: skip
        side = each / 2
        axes.hlines(arm.chance, at - side, at + side, color=INK, linewidth=1.5)
        low, high = np.maximum(arm.share - arm.error, arm.share / 10), arm.share + arm.error
        known = found & (arm.error > 0)
        axes.vlines(at[known], low[known], high[known], color=INK, linewidth=1)
        axes.plot(
            at[found], arm.share[found], color=arm.colour, marker="o", linestyle="none",
            markersize=5, markeredgewidth=0,
        )  # fmt: skip
        none = arm.share == 0
        axes.plot(
            at[none], np.full(none.sum(), floor), color=arm.colour, marker="x", linestyle="none",
            clip_on=False, markeredgewidth=1.75,
        )  # fmt: skip
    drawing.settle(chart)
    axes.xaxis.set_major_locator(FixedLocator(list(range(len(layers)))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda *_: ""))
    drawing.name_ticks(chart, shown)
    _key(chart, arms)
    return drawing.to_svg(chart)


def _comparable(
    frame: pd.DataFrame, *, by: str, layer: str, share: str, chance: str
) -> pd.DataFrame:
    """Return the rows that have a share and a chance below 1."""
    columns = [by, layer, share, chance]
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(
            f"the frame must have the columns {', '.join(columns)}, it lacks {', '.join(missing)}; "
            f"it has {', '.join(map(str, frame.columns)) or 'none'}"
        )
    try:
        numbers = frame[[share, chance]].astype(np.float64)
    except (TypeError, ValueError) as err:
        raise InputError(f"{share} and {chance} must be numbers, but {err}") from err
    wrong = ((numbers < 0) | (numbers > 1)).any(axis=1)
    if wrong.any():
        one = numbers[wrong].iloc[0]
        raise InputError(
            f"shares must be in [0, 1], got {one[share]:g} beside a chance of {one[chance]:g}; "
            "pass fractions, not percentages"
        )
    frame = frame[columns].assign(**{share: numbers[share], chance: numbers[chance]})
    frame = frame[numbers[share].notna() & (numbers[chance] > 0) & (numbers[chance] < 1)]
    if frame.empty:
        raise InputError(
            f"locality_bars needs a layer with a {share} and a {chance} between 0 and 1, got none; "
            "where the fields are everything there is nothing to compare"
        )
    return frame.assign(**{by: frame[by].astype(str), layer: frame[layer].astype(str)})


def _arms(
    frame: pd.DataFrame,
    layers: list[str],
    *,
    by: str,
    layer: str,
    share: str,
    chance: str,
    order: Sequence[str] | None,
) -> list[_Bars]:
    names = list(dict.fromkeys([*map(str, order or ()), *frame[by]]))
    coloured = [name for name in names if name != DENSE]
    arms = []
    for name in names:
        part = frame[frame[by] == name]
        if part.empty:
            continue
        groups = part.groupby(layer)
        count = groups[share].count()
        error = groups[share].std().div(count**0.5)
        columns = [groups[share].mean(), groups[chance].mean(), error]
        found = [one.reindex(layers).to_numpy(dtype=np.float64) for one in columns]
        place = -1 if name == DENSE else coloured.index(name) % len(PALETTE)
        arms.append(
            _Bars(
                name=name,
                colour=GREY if place < 0 else PALETTE[place],
                share=found[0],
                chance=found[1],
                error=np.nan_to_num(found[2]),
            )
        )
    return arms


def _scale(chart: Chart, arms: Sequence[_Bars], n: int) -> None:
    """Set a logarithmic scale in percent that holds all of it."""
    values = np.concatenate([np.concatenate([a.share, a.chance, a.share + a.error]) for a in arms])
    values = values[values > 0]
    axes = chart.axes
    axes.set_ylim(values.min() / 1.5, min(values.max() * 1.3, 1.3))
    axes.set_xlim(-0.5, n - 0.5)
    drawing.log_scale(chart)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))


def _distinct(layers: Sequence[str]) -> list[str]:
    """Return names of layers without the parts that all of them begin or end with."""
    parts = [name.split(".") for name in layers]
    for end in (0, -1):
        while len(parts) > 1 and len({p[end] for p in parts}) == 1 and min(map(len, parts)) > 1:
            parts = [p[1:] if end == 0 else p[:-1] for p in parts]
    return [drawing.shorten(".".join(p), 22) for p in parts]


def _key(chart: Chart, arms: Sequence[_Bars]) -> None:
    """Write the arms with their colours at the right, and what the black lines are."""
    _, right, _, top = drawing.box(chart, chart.axes)
    x, y = right + 12, top + 6
    for arm in arms:
        chart.over.append(drawing.rectangle(x, y - 4.5, 9, 9, arm.colour))
        for words in drawing.wrapped(arm.name):
            chart.over.append(drawing.text(x + 15, y, words))
            y += drawing.LINE
        y += 2
    chart.over.append(drawing.rectangle(x - 1, y - 0.75, 11, 1.5, INK))
    chart.over.append(drawing.text(x + 15, y, "by chance", fill=MUTED))
