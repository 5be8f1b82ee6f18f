"""One self-contained HTML page: tables, figures and text, in sections, with no request to anywhere.

A page is data until `render`: a sequence of `Section`, each of blocks. Everything a caller passes
is escaped; an SVG is parsed, checked and rewritten, so that it can neither run nor load anything
and its ids meet no others on the page.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from secateurs.errors import InputError

__all__ = [
    "Axis",
    "Block",
    "Cell",
    "Facts",
    "Figure",
    "Scrubber",
    "Section",
    "Table",
    "Text",
    "Value",
    "render",
    "write",
    "write_figures",
]


@dataclass(frozen=True, kw_only=True)
class Value:
    """A measured number of a table: mean ± error, sorted by the mean.

    Args:
        mean: the number; NaN shows as missing.
        error: its standard error, or None where there is none.
        digits: decimals of both.
        note: a few muted words below, such as "published 74.1".
    """

    mean: float = field(kw_only=False)
    error: float | None = None
    digits: int = 2
    note: str = ""


Cell = str | int | float | None | Value


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose columns sort; the first column names the row.

    Args:
        title: its heading.
        columns: headings of the columns.
        rows: one cell a column in each. Whole numbers above 9,999 get separators, so pass ids as
            text; floats show about four significant digits, `Value` the decimals it says.
        note: one paragraph below.
        command: what reproduces it.

    Raises:
        InputError: no column, or a row with more or fewer cells than columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse rows that do not fit the columns."""
        if not self.columns:
            raise InputError(f"table {self.title!r} must have columns, got none; name at least one")
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise InputError(
                    f"every row of table {self.title!r} must have {len(self.columns)} cells, "
                    f"got {len(row)} in row {i}; pass None for a missing cell"
                )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with its words.

    Args:
        title: its heading.
        svg: the picture; see `secateurs.report.figures`.
        alt: what it shows, in a sentence, for those who do not see it.
        caption: one paragraph below.
        command: what reproduces it.

    Raises:
        InputError: no `alt`.
    """

    title: str
    svg: str
    alt: str
    caption: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse a picture without words."""
        _check_alt(self.title, self.alt)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One slider of a `Scrubber`.

    Args:
        name: what it moves along, such as "epoch".
        labels: its places in order, such as "12".

    Raises:
        InputError: no label.
    """

    name: str = field(kw_only=False)
    labels: Sequence[str] = field(kw_only=False)

    def __post_init__(self) -> None:
        """Refuse a slider without places."""
        if not len(self.labels):
            raise InputError(f"axis {self.name!r} must have labels, got none; name its places")


@dataclass(frozen=True, kw_only=True)
class Scrubber:
    """A picture of which one frame shows at a time; a slider for each axis chooses it.

    On paper and without scripts the last frame shows.

    Args:
        title: its heading.
        frames_svg: a picture in which groups with `data-frame="0"`, `"1"`, ... (or the ids
            "frame-0", "frame-1", ...) are the frames; everything else always shows. With several
            axes the last one runs fastest, as in a NumPy array.
        axes: what the frames differ in: as many frames as the product of their numbers of labels.
        alt: what it shows, in a sentence, for those who do not see it.
        caption: one paragraph below.
        command: what reproduces it.

    Raises:
        InputError: no `alt`, no axis, or two of one name.
    """

    title: str
    frames_svg: str
    axes: Sequence[Axis]
    alt: str
    caption: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse frames that nothing chooses."""
        _check_alt(self.title, self.alt)
        names = [axis.name for axis in self.axes]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"scrubber {self.title!r} must have axes of different names, "
                f"got {', '.join(map(repr, names)) or 'none'}; pass Axis(name, labels) for each"
            )

    @property
    def n_frames(self) -> int:
        """How many frames there are."""
        return math.prod(len(axis.labels) for axis in self.axes)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Plain paragraphs, escaped; without a title they continue what is above."""

    title: str = ""
    paragraphs: str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A card of names and values."""

    title: str
    items: Mapping[str, str]


Block = Table | Figure | Scrubber | Text | Facts


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of the page with its blocks, in order."""

    title: str
    blocks: Sequence[Block]
    intro: str = ""


def render(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    stamp: str = "",
    footer: str = "",
) -> str:
    """Return the page as one HTML text; the same arguments give the same bytes.

    Args:
        title: the page's heading.
        sections: its parts, in order.
        subtitle: one line below the heading.
        stamp: a warning such as "smoke: not evidence": on top, in the window's title and across
            every printed page.
        footer: one line at the end.

    Raises:
        InputError: an SVG that is broken, could run or load something, or lacks a frame.

    >>> page = render("Runs", [Section(title="One", blocks=[Text(paragraphs="1 < 2")])])
    >>> "<p>1 &lt; 2</p>" in page, "http" in page.replace("http-equiv", "")
    (True, False)
    """
    names = _Names()
    counter = itertools.count(1)
    views = []
    for section in sections:
        anchor = names.unique(section.title)
        blocks = [_view(block, names, counter) for block in section.blocks]
        _pair(blocks)
        views.append(
            {"id": anchor, "title": section.title, "intro": section.intro, "blocks": blocks}
        )
    return _template().render(
        title=title,
        sections=views,
        subtitle=subtitle,
        stamp=stamp,
        footer=footer,
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
    )


def write(path: Path, text: str) -> None:
    """Write a page, or a picture, to `path`, whole or not at all.

    Raises:
        InputError: not writable or disk full; an older file is intact.
    """
    from secateurs.checkpoint import write_atomic  # brings torch, which no page needs

    def fill(temporary: Path) -> None:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))

    write_atomic(path, fill)


def write_figures(folder: Path, blocks: Sequence[Block]) -> list[Path]:
    """Write each figure as an SVG file of its own, named by the words of its title.

    For papers and documents; a picture with sliders has no file.

    Raises:
        InputError: not writable or disk full.

    >>> import tempfile
    >>> figure = Figure(title="Who finds?", svg="<svg/>", alt="An example.")
    >>> [path.name for path in write_figures(Path(tempfile.mkdtemp()), [figure])]
    ['who-finds.svg']
    """
    names = _Names()
    written = []
    for block in blocks:
        if isinstance(block, Figure):
            written.append(folder / f"{names.unique(block.title).removeprefix('s-')}.svg")
            write(written[-1], block.svg)
    return written


# ---- blocks as the template reads them ---------------------------------------------------------


class _Names:
    """Anchors of one page: readable, and never the same twice."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def unique(self, title: str) -> str:
        """Return an anchor made of the words of `title`."""
        slug = "s-" + ("-".join(re.findall(r"[a-z0-9]+", title.lower()))[:60] or "part")
        name = slug
        for i in itertools.count(2):
            if name not in self._used:
                break
            name = f"{slug}-{i}"
        self._used.add(name)
        return name


def _view(block: Block, names: _Names, counter: Iterator[int]) -> dict[str, Any]:
    """Return what the template needs of one block."""
    view: dict[str, Any] = {
        "kind": type(block).__name__.lower(),
        "title": block.title,
        "id": names.unique(block.title or "text"),
        "layout": "wide",
        "command": getattr(block, "command", ""),
    }
    if isinstance(block, Table):
        return view | _table_view(block)
    if isinstance(block, Text):
        one = isinstance(block.paragraphs, str)
        return view | {"paragraphs": [block.paragraphs] if one else list(block.paragraphs)}
    if isinstance(block, Facts):
        return view | {"facts": list(block.items.items())}
    n_frames = block.n_frames if isinstance(block, Scrubber) else 0
    source = block.frames_svg if isinstance(block, Scrubber) else block.svg
    svg, width = _inline_svg(
        source, prefix=f"f{next(counter)}", title=block.title, alt=block.alt, n_frames=n_frames
    )
    view |= {"svg": Markup(svg), "caption": block.caption}
    view["layout"] = "half" if width <= _HALF else "wide"
    if isinstance(block, Scrubber):
        view["axes"] = [
            {"name": axis.name, "labels": list(axis.labels), "last": len(axis.labels) - 1}
            for axis in block.axes
        ]
    return view


_HALF = 520.0  # user units; two pictures of that width stand side by side


def _pair(blocks: list[dict[str, Any]]) -> None:
    """Let narrow pictures stand two in a row; one that is left has its words beside it."""
    waiting: dict[str, Any] | None = None
    for block in [*blocks, None]:
        if block is not None and block["layout"] == "half":
            waiting = None if waiting else block
        elif waiting:
            waiting["layout"] = "beside"
            waiting = None


def _is_number(cell: object) -> bool:
    return isinstance(cell, Value | Real) and not isinstance(cell, bool)


def _is_missing(cell: Any) -> bool:  # NumPy's numbers too, which `Cell` does not name
    number = cell.mean if isinstance(cell, Value) else cell
    return number is None or (isinstance(number, Real) and math.isnan(number))


def _table_view(table: Table) -> dict[str, Any]:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    numeric = [
        any(map(_is_number, cells)) and all(_is_number(c) or _is_missing(c) for c in cells)
        for cells in columns
    ]
    decimals = [_decimals(cells) for cells in columns]
    rows = [
        [_cell_view(cell, digits) for cell, digits in zip(row, decimals, strict=True)]
        for row in table.rows
    ]
    # Where one row has an error, all leave room for it: the means stay below each other.
    room = [max((len(row[i]["error"]) for row in rows), default=0) for i in range(len(columns))]
    return {
        "columns": [
            {"title": title, "numeric": is_numeric, "room": width}
            for title, is_numeric, width in zip(table.columns, numeric, room, strict=True)
        ],
        "rows": rows,
        "note": table.note,
    }


def _decimals(cells: Sequence[Any]) -> int | None:
    """Return with how many decimals all floats of a column read well, or None.

    Four digits of the largest do, unless they would leave nothing of the smallest.
    """
    sizes = [
        abs(float(c))
        for c in cells
        if isinstance(c, Real) and not isinstance(c, Integral) and math.isfinite(c) and c != 0
    ]
    if not sizes or max(sizes) >= 10_000:
        return None
    most = max(0, 3 - math.floor(math.log10(max(sizes))))
    if most > 6 or min(sizes) < 5 * 10.0**-most:
        return None
    texts = [f"{size:.{most}f}".rstrip("0") for size in sizes]
    return max(len(text) - text.index(".") - 1 if "." in text else 0 for text in texts)


def _cell_view(cell: Any, decimals: int | None) -> dict[str, str]:
    """Return a cell's text, its error and note, and what it sorts by ("" for its text)."""
    view = {"text": "", "error": "", "note": cell.note if isinstance(cell, Value) else ""}
    if _is_missing(cell):
        return view | {"sort": "NaN"}
    if isinstance(cell, Value):
        if cell.error is not None and not math.isnan(cell.error):
            view["error"] = f"± {cell.error:.{cell.digits}f}"
        text = _readable(f"{cell.mean:z,.{cell.digits}f}")
        return view | {"text": text, "sort": _sortable(cell.mean)}
    if isinstance(cell, bool):
        return view | {"text": "yes" if cell else "no", "sort": ""}
    if isinstance(cell, Integral):
        whole = int(cell)
        text = f"{whole:,}" if abs(whole) > 9_999 else str(whole)
        return view | {"text": _readable(text), "sort": _sortable(whole)}
    if isinstance(cell, Real):
        fixed = decimals is not None and math.isfinite(cell)
        text = f"{float(cell):z.{decimals}f}" if fixed else _short(float(cell))
        return view | {"text": _readable(text), "sort": _sortable(float(cell))}
    return view | {"text": str(cell), "sort": ""}


def _short(number: float) -> str:
    """Return a number at four significant digits, without an exponent where one can read it."""
    if math.isinf(number):
        return f"{number:+}"
    if abs(number) >= 10_000:
        return f"{number:,.0f}" if abs(number) < 1e9 else f"{number:.3g}"
    return f"{number:.4g}" if number == 0 or abs(number) >= 1e-4 else f"{number:.3g}"


def _readable(text: str) -> str:
    """Return a number with a true minus and infinity as their signs."""
    text = re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), text)
    return text.replace("inf", "∞").replace("+∞", "∞").replace("-", "−")


def _sortable(number: float) -> str:
    """Return a number as scripts read it; NumPy's own `repr` is another."""
    return repr(float(number)).removesuffix(".0").replace("inf", "Infinity")


# ---- pictures ----------------------------------------------------------------------------------

_DRAWN = "g path rect circle ellipse line polyline polygon text tspan image use title desc"
_DEFINED = "defs symbol marker clipPath mask pattern linearGradient radialGradient stop"
_ELEMENTS = frozenset(["svg", *_DRAWN.split(), *_DEFINED.split()])
_MATPLOTLIB_STYLE = re.compile(r"\*\s*\{[^{}]*\}")
_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")
# What loads in CSS beside url(), or hides it.
_LOADS = re.compile(r"(?i)image-set\(|src\(|\bimage\(|@import|\\")
_URL = re.compile(r"(?i)url\(\s*['\"]?(.*?)['\"]?\s*\)")
_FRAME_ID = re.compile(r"frame-(\d+)")


def _check_alt(title: str, alt: str) -> None:
    if not alt.strip():
        raise InputError(
            f"figure {title!r} must have an alt text, got none; say in a sentence what it shows"
        )


def _local(name: str) -> str:
    """Return a tag or attribute without its namespace, which inline SVG needs none of."""
    return name.rpartition("}")[2]


def _inline_svg(
    source: str, *, prefix: str, title: str, alt: str, n_frames: int
) -> tuple[str, float]:
    """Return an SVG fit for the page, and its width in user units.

    Ids become "PREFIX-0", "PREFIX-1", ...; without frames `data-frame` means nothing.
    """
    try:
        root = ElementTree.fromstring(source.encode("utf-8"))
    except ElementTree.ParseError as err:
        raise InputError(
            f"figure {title!r} must be well-formed SVG, but {err}; "
            "use secateurs.report.figures or save with format='svg'"
        ) from err
    if _local(root.tag) != "svg":
        raise InputError(f"figure {title!r} must be SVG, got <{_local(root.tag)}>")
    _drop(root)
    width, height = _size(root, title)
    new_ids: dict[str, str] = {}
    for element in root.iter():
        if (old := element.get("id")) is not None:
            if frame := _FRAME_ID.fullmatch(old):
                element.set("data-frame", frame[1])
            if old in new_ids:
                del element.attrib["id"]
            else:
                new_ids[old] = f"{prefix}-{len(new_ids)}"
    frames = set()
    for element in root.iter():
        _clean(element, new_ids, title)
        if n_frames and (at := element.get("data-frame")) is not None:
            frames.add(at)
            if at == str(n_frames - 1):
                element.set("class", "on last")
    wanted = [str(i) for i in range(n_frames)]
    if missing := [at for at in wanted if at not in frames]:
        raise InputError(
            f"scrubber {title!r} must have groups data-frame 0 to {n_frames - 1}, "
            f"got none for {', '.join(missing[:5])}"
        )
    if extra := sorted(frames.difference(wanted)):
        raise InputError(
            f"scrubber {title!r} must have no frame beyond the {n_frames} of its axes, got "
            f"data-frame {', '.join(extra[:5])}; do the axes name all places?"
        )
    for name in ("width", "height", "version", "id", "class"):
        root.attrib.pop(name, None)
    if "viewBox" not in root.attrib:
        root.set("viewBox", f"0 0 {width:g} {height:g}")
    root.set("role", "img")
    root.set("aria-label", alt)
    root.set("style", f"--w:{width:g}px")
    root.tail = None
    return ElementTree.tostring(root, encoding="unicode"), width


def _drop(root: ElementTree.Element) -> None:
    """Remove what matplotlib writes about itself; its universal style is in the page's."""
    for parent in list(root.iter()):
        for child in list(parent):
            name = _local(child.tag)
            own = name == "style" and _MATPLOTLIB_STYLE.fullmatch((child.text or "").strip())
            if name == "metadata" or own:
                parent.remove(child)


def _size(root: ElementTree.Element, title: str) -> tuple[float, float]:
    """Return width and height in user units."""
    box = root.get("viewBox", "").replace(",", " ").split()[2:]
    sides = box or [re.sub(r"(px|pt)$", "", root.get(side, "")) for side in ("width", "height")]
    try:
        width, height = (float(side) for side in sides)
    except ValueError as err:
        raise InputError(
            f"figure {title!r} must have a viewBox or a width and height in pixels or points"
        ) from err
    return width, height


def _clean(element: ElementTree.Element, new_ids: Mapping[str, str], title: str) -> None:
    """Drop namespaces, rename ids and what points at them, refuse what could run or load."""
    element.tag = _local(element.tag)
    if element.tag not in _ELEMENTS:
        raise InputError(
            f"figure {title!r} must be a drawing only, got <{element.tag}>; "
            "leave styles, scripts and foreign content out"
        )
    point = _pointer(new_ids, title)
    attributes = {_local(name): value for name, value in element.attrib.items()}
    element.attrib.clear()
    for name, value in attributes.items():
        if name.lower().startswith("on"):
            raise InputError(f"figure {title!r} must not run scripts, got attribute {name}")
        if name in ("space", "aria-labelledby", "aria-describedby"):
            continue
        if name == "id":
            element.set("id", new_ids[value])
        elif name == "href":
            is_image = element.tag == "image" and _IMAGE.fullmatch(value)
            element.set("href", value if is_image else point(value))
        else:
            loads = None if name.startswith(("aria-", "data-")) else _LOADS.search(value)
            if loads:
                raise InputError(
                    f"figure {title!r} must load nothing, got {loads[0]!r} in attribute {name}; "
                    "leave it out"
                )
            element.set(name, _URL.sub(lambda found: f"url({point(found[1])})", value))


def _pointer(new_ids: Mapping[str, str], title: str) -> Callable[[str], str]:
    """Return what renames a reference such as "#clip"."""

    def point(reference: str) -> str:
        if not reference.startswith("#"):
            raise InputError(
                f"figure {title!r} must load nothing, got a reference to {reference[:60]!r}; "
                "embed pixels as <image href='data:image/png;base64,...'>"
            )
        if reference[1:] not in new_ids:
            raise InputError(f"figure {title!r} points at {reference!r}, which it does not have")
        return f"#{new_ids[reference[1:]]}"

    return point


# ---- package data ------------------------------------------------------------------------------


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.from_string(_asset("page.html.jinja"))
