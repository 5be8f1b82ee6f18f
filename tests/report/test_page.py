import io
import itertools
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
from matplotlib.figure import Figure as MatplotlibFigure

from secateurs.errors import InputError
from secateurs.report import drawing
from secateurs.report.heatmaps import heatmaps, matrix
from secateurs.report.page import (
    Axis,
    Facts,
    Figure,
    Scrubber,
    Section,
    Table,
    Text,
    Value,
    render,
    write,
)

VOID = {"meta", "link", "input", "br", "img", "hr"}
EVIL = "<script>alert(1)</script> & \"quoted\" 'too'"
SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4">{}</svg>'


class Reader(HTMLParser):
    """Collects elements as (tag, attributes), text by the tag it stands in, and wrong nesting."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self.open, self.wrong = [], [], [], []
        self.feed(html)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def words(self, tag):
        return [text for name, text in self.texts if name == tag and text]


def read_block(block):
    return Reader(render("t", [Section(title="s", blocks=[block])]))


def cells(*row, more=()):
    table = Table(title="t", columns=[str(i) for i in range(len(row))], rows=[row, *more])
    html = render("t", [Section(title="s", blocks=[table])])
    body = re.search("<tbody>(.*?)</tr>", html, re.S)[1]
    found = re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", body, re.S)
    return [
        (
            re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", text)).strip(),
            (re.findall('data-v="(.*?)"', attrs) or [None])[0],
        )
        for attrs, text in found
    ]


# ---- structure ---------------------------------------------------------------------------------


def test_elements_are_nested_and_closed(page):
    assert Reader(page).wrong == []


def test_headings_descend_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in Reader(page).elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert levels.count(2) == 4


def test_ids_are_unique_and_every_reference_meets_one(page):
    reader = Reader(page)
    ids = [attrs["id"] for _, attrs in reader.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", page))
    for _, attrs in reader.elements:
        if attrs.get("href", "").startswith("#"):
            wanted.add(attrs["href"][1:])
        for name in ("aria-labelledby", "aria-describedby", "for"):
            wanted |= set((attrs.get(name) or "").split())
    assert wanted
    assert wanted <= set(ids)


def test_contents_lead_to_every_heading(page):
    reader = Reader(page)
    headings = {attrs["id"] for tag, attrs in reader.elements if tag in ("h2", "h3")}
    assert headings == {a["href"][1:] for a in reader.all("a") if a["href"] != "#main"}


def test_every_picture_has_a_name_and_its_own_box(page):
    pictures = Reader(page).all("svg")
    assert len(pictures) == 8
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in pictures)
    assert all(svg["viewbox"].startswith("0 0 ") and "width" not in svg for svg in pictures)


def test_a_page_tells_its_language_and_fits_any_screen(page):
    reader = Reader(page)
    assert page.startswith("<!doctype html>")
    assert reader.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in reader.all(
        "meta"
    )
    assert reader.all("a")[0] == {"class": "skip", "href": "#main"}


def test_nothing_is_asked_of_any_network(page):
    assert re.findall("https?:", page) == []
    assert re.findall(r"@import|<link(?! rel=\"icon\" href=\"data:)", page) == []
    policy = Reader(page).all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:;"
    )
    assert [e for e in Reader(page).elements if "src" in e[1]] == []


def test_same_arguments_same_bytes(page, sections):
    again = render(
        "IUNet ablations",
        sections,
        subtitle="Table 4",
        stamp="smoke: not evidence",
        footer="secateurs 0.1.0",
    )
    assert again == page


def test_a_full_page_is_small(sections, drawings):
    svgs, _ = drawings
    rows = [[f"run {i}", *(Value(i * 0.1, error=0.1) for _ in range(9))] for i in range(200)]
    table = Table(title="t", columns=list("abcdefghij"), rows=rows)
    flat = [svg for name, svg in svgs.items() if name != "frames"]
    pictures = [Figure(title="f", svg=flat[i % len(flat)], alt="a") for i in range(12)]
    page = render("t", [*sections, Section(title="s", blocks=[table, *pictures])])
    assert len(page.encode()) < 2_000_000


# ---- stamps, escapes ---------------------------------------------------------------------------


def test_a_stamp_is_in_the_title_on_top_at_the_end_and_on_paper(page):
    reader = Reader(page)
    assert reader.words("title") == ["[smoke: not evidence] IUNet ablations"]
    stamps = [(tag, a.get("class")) for tag, a in reader.elements if a.get("class") in MARKS]
    assert stamps == [("p", "stamp"), ("div", "watermark"), ("p", "stamp")]
    assert page.index('class="stamp"') < page.index("<h1>")
    assert page.count("smoke: not evidence") == 4


MARKS = ("stamp", "watermark")


def test_without_a_stamp_there_is_no_mark():
    reader = Reader(render("Runs", []))
    assert reader.words("title") == ["Runs"]
    assert [a for _, a in reader.elements if a.get("class") in MARKS] == []


def test_everything_a_caller_says_stays_text():
    scrub = SQUARE.format('<g data-frame="0"/>')
    blocks = [
        Table(title=EVIL, columns=[EVIL], rows=[[EVIL], [Value(1.0, note=EVIL)]], note=EVIL,
              command=EVIL),
        Figure(title=EVIL, svg=SQUARE.format(""), alt=EVIL, caption=EVIL, command=EVIL),
        Scrubber(title=EVIL, frames_svg=scrub, axes=[Axis(EVIL, [EVIL])], alt=EVIL, caption=EVIL),
        Text(title=EVIL, paragraphs=[EVIL, EVIL]),
        Facts(title=EVIL, items={EVIL: EVIL}),
    ]  # fmt: skip
    section = Section(title=EVIL, blocks=blocks, intro=EVIL)
    page = render(EVIL, [section], subtitle=EVIL, stamp=EVIL, footer=EVIL)
    reader = Reader(page)
    assert reader.wrong == []
    assert len(reader.all("script")) == 1
    assert "<script>alert" not in page
    assert EVIL in reader.words("h1")
    assert [svg["aria-label"] for svg in reader.all("svg")] == [EVIL, EVIL]
    assert page.count("alert(1)") >= 25


# ---- tables ------------------------------------------------------------------------------------


def test_cells_read_as_people_write_numbers():
    row = ["arm", 7, 1_234_567, Value(-0.001), Value(74.25, error=0.5, note="published 74.1"), True]
    assert cells(*row) == [
        ("arm", None),
        ("7", "7"),
        ("1,234,567", "1234567"),
        ("0.00", "-0.001"),
        ("74.25 ± 0.50 published 74.1", "74.25"),
        ("yes", None),
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-1.5, "−1.5"),
        (1 / 3, "0.3333"),
        (123456.7, "123,457"),
        (1e-9, "1e−9"),
        (2.5e12, "2.5e12"),
        (float("-inf"), "−∞"),
        (np.float32(0.5), "0.5"),
        (np.int64(12), "12"),
    ],
)
def test_a_single_number(number, text):
    assert cells("row", number)[1][0] == text


@pytest.mark.parametrize(
    ("number", "key"),
    [
        (float("inf"), "Infinity"),
        (Value(-np.float64("inf")), "-Infinity"),
        (Value(np.float64(1.5)), "1.5"),
        (np.float32(0.5), "0.5"),
        (np.int64(-3), "-3"),
        (1e-9, "1e-09"),
    ],
)
def test_numbers_sort_as_scripts_read_them(number, key):
    assert cells("a", number)[1][1] == key


def test_floats_of_a_column_have_the_same_decimals():
    assert cells("a", 43.0, more=[["b", 40.6]])[1][0] == "43.0"
    assert cells("a", 43.0, more=[["b", 0.0001]])[1][0] == "43"  # or the small one would be 0.00
    assert cells("a", 7.056, more=[["b", 42.07]])[1][0] == "7.06"


@pytest.mark.parametrize("missing", [None, float("nan"), Value(float("nan"), error=1.0)])
def test_a_missing_cell_is_a_dash_that_sorts_last(missing):
    assert cells("a", missing, more=[["b", 1.0]])[1] == ("– none", "NaN")


def test_an_unknown_error_is_left_out():
    assert cells("a", Value(1.0, error=float("nan")))[1][0] == "1.00"


def test_columns_of_numbers_stand_right_and_the_first_cell_names_the_row():
    table = Table(title="t", columns=["a", "b", "c"], rows=[["x", 1, "y"], ["z", None, 2]])
    reader = read_block(table)
    heads = reader.all("th")
    assert [head["scope"] for head in heads] == ["col"] * 3 + ["row"] * 2
    assert [head.get("class") for head in heads[:3]] == [None, "n", None]


def test_a_table_without_rows_says_so():
    assert "no rows yet" in read_block(Table(title="t", columns=["a"], rows=[])).words("td")


def test_rows_must_fit_the_columns():
    with pytest.raises(InputError, match="must have 2 cells, got 1 in row 1"):
        Table(title="t", columns=["a", "b"], rows=[[1, 2], [1]])
    with pytest.raises(InputError, match="must have columns"):
        Table(title="t", columns=[], rows=[])


# ---- pictures ----------------------------------------------------------------------------------


def picture(content):
    return Figure(title="f", svg=SQUARE.format(content), alt="a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<script>1</script>", "drawing only, got <script>"),
        ("<foreignObject/>", "drawing only, got <foreignObject>"),
        ("<style>p {color: red}</style>", "drawing only, got <style>"),
        ("<a href='#x'/>", "drawing only, got <a>"),
        ("<rect onclick='f()'/>", "must not run scripts, got attribute onclick"),
        ("<image href='http://x/y.png'/>", "must load nothing, got a reference to 'http"),
        ("<use href='other.svg#a'/>", "must load nothing"),
        ("<rect style='fill: url(http://x/)'/>", "must load nothing"),
        ("<rect fill='url(&quot;//x/&quot;)'/>", "must load nothing"),
        ("<image href='data:image/svg+xml;base64,AA=='/>", "must load nothing"),
        ("<image href='data:image/png,AA=='/>", "must load nothing"),
        ("<image href='data:image/png;base64,AA==&quot;&gt;'/>", "must load nothing"),
        ("<use href='data:image/png;base64,AA=='/>", "must load nothing"),
        ("<rect style='fill: URL(http://x/)'/>", "must load nothing"),
        (
            "<rect style='fill: u\\72l(http://x/)'/>",
            "must load nothing, got '\\\\' in attribute style",
        ),
        ("<rect style='mask: image-set(&quot;http://x/&quot; 1x)'/>", "got 'image-set('"),
        ("<use href='#gone'/>", "points at '#gone', which it does not have"),
        ("<rect>", "must be well-formed SVG, but mismatched tag"),
    ],
)
def test_what_could_run_or_load_is_refused(content, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_block(picture(content))


def test_what_is_not_svg_or_has_no_size_is_refused():
    with pytest.raises(InputError, match="must be SVG, got <p>"):
        read_block(Figure(title="f", svg="<p/>", alt="a"))
    with pytest.raises(InputError, match="must have a viewBox or a width and height"):
        read_block(Figure(title="f", svg="<svg/>", alt="a"))
    with pytest.raises(InputError, match="must have an alt text"):
        Figure(title="f", svg="<svg/>", alt=" ")


def test_size_may_come_from_width_and_height():
    (svg,) = read_block(Figure(title="f", svg="<svg width='9pt' height='4pt'/>", alt="a")).all(
        "svg"
    )
    assert (svg["viewbox"], svg["style"]) == ("0 0 9 4", "--w:9px")


def test_what_matplotlib_saves_by_itself_is_taken_twice():
    figure = MatplotlibFigure(figsize=(4, 3))
    figure.add_subplot().plot([1, 2, 3], marker="o")
    out = io.StringIO()
    figure.savefig(out, format="svg")
    block = Figure(title="f", svg=out.getvalue(), alt="a")
    page = render("t", [Section(title="s", blocks=[block, block])])
    test_ids_are_unique_and_every_reference_meets_one(page)
    test_nothing_is_asked_of_any_network(page)
    assert "<style" not in page.partition("</head>")[2]


def test_narrow_pictures_stand_in_pairs_and_a_single_one_beside_its_words():
    narrow, wide = (
        Figure(title="f", svg=f"<svg viewBox='0 0 {width} 4'/>", alt="a") for width in (480, 960)
    )
    page = render("t", [Section(title="s", blocks=[narrow, narrow, narrow, wide, narrow])])
    layouts = re.findall('<div class="block figure (.*?)">', page)
    assert layouts == ["half", "half", "beside", "wide", "beside"]


# ---- scrubbers ---------------------------------------------------------------------------------


def scrubber(content, *sizes):
    axes = [Axis(f"axis {i}", [f"{i}:{at}" for at in range(n)]) for i, n in enumerate(sizes)]
    return Scrubber(title="s", frames_svg=SQUARE.format(content), axes=axes, alt="a")


@pytest.mark.parametrize("frame", ["data-frame='{}'", "id='frame-{}'"])
def test_only_the_last_frame_shows_at_first(frame):
    content = "".join(f"<g {frame.format(i)}/>" for i in (0, 1, 2, 2))
    reader = read_block(scrubber(content, 3))
    groups = [(g["data-frame"], g.get("class")) for g in reader.all("g")]
    assert groups == [("0", None), ("1", None), ("2", "on last"), ("2", "on last")]
    (slider,) = reader.all("input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")
    assert slider["data-labels"] == '["0:0", "0:1", "0:2"]'
    assert "axis 0 0:2" in reader.words("p")


def test_every_axis_has_a_slider_of_its_own_with_its_name():
    block = scrubber("".join(f"<g data-frame='{i}'/>" for i in range(6)), 2, 3)
    assert block.n_frames == 6
    reader = read_block(block)
    assert [g.get("class") for g in reader.all("g")] == [None] * 5 + ["on last"]
    sliders, labels = reader.all("input"), reader.all("label")
    assert [slider["max"] for slider in sliders] == ["1", "2"]
    assert [slider["id"] for slider in sliders] == [label["for"] for label in labels]
    assert len({slider["id"] for slider in sliders}) == 2
    assert reader.words("label") == ["axis 0", "axis 1"]
    assert reader.words("output") == ["0:1", "1:2"]
    assert "axis 0 0:1, axis 1 1:2" in reader.words("p")


def test_a_frame_or_label_too_few_or_too_many_is_refused():
    with pytest.raises(InputError, match="data-frame 0 to 3, got none for 1, 3"):
        read_block(scrubber("<g data-frame='0'/><g data-frame='2'/>", 4))
    with pytest.raises(InputError, match="data-frame 0 to 5, got none for 2, 3, 4, 5"):
        read_block(scrubber("<g data-frame='0'/><g data-frame='1'/>", 2, 3))
    with pytest.raises(InputError, match="no frame beyond the 1 of its axes, got data-frame 1"):
        read_block(scrubber("<g data-frame='0'/><g data-frame='1'/>", 1))
    with pytest.raises(InputError, match="axis 'step' must have labels, got none"):
        Axis("step", [])
    for axes, told in (([], "none"), ([Axis("a", ["1"])] * 2, "'a', 'a'")):
        with pytest.raises(InputError, match=f"must have axes of different names, got {told}"):
            Scrubber(title="s", frames_svg="<svg/>", axes=axes, alt="a")


def test_thirty_frames_of_five_heatmaps_are_small():
    panels = np.random.default_rng(0).normal(size=(5, 5, 6, 32, 64))  # noise compresses worst
    svg = heatmaps(dict(zip("abcde", panels, strict=True)), ylabel="probe", xlabel="neuron")
    axes = [Axis("alpha", list("12345")), Axis("step", list("123456"))]
    block = Scrubber(title="s", frames_svg=svg, axes=axes, alt="a")
    page = render("t", [Section(title="s", blocks=[block])])
    assert page.count("data:image/png;base64,") == 150
    assert len(page.encode()) < 600_000


# ---- files, colours ----------------------------------------------------------------------------


def test_write_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "new" / "page.html"
    write(path, "one")
    write(path, "κ")
    assert path.read_bytes() == "κ".encode()
    assert [found.name for found in path.parent.iterdir()] == ["page.html"]


def test_write_to_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "file" / "page.html", "x")


CSS = resources.files("secateurs.report").joinpath("page.css").read_text()
THEMES = {
    name: dict(zip(("light", "dark"), colours, strict=True))
    for name, *colours in re.findall(
        r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", CSS
    )
}


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, two):
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def blend(over, under, opacity):
    mixed = [
        round(opacity * int(over[i : i + 2], 16) + (1 - opacity) * int(under[i : i + 2], 16))
        for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def test_contrast_is_that_of_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_and_lines_stand_out(theme):
    colour = {name: values[theme] for name, values in THEMES.items()}
    for name in ("ink", "muted", "accent"):
        for ground in ("paper", "sunk"):
            assert contrast(colour[name], colour[ground]) >= 4.5, (name, ground)
    assert contrast(colour["warn-ink"], colour["warn"]) >= 7
    for name in (*(f"c{i}" for i in range(1, 8)), "firm"):
        assert contrast(colour[name], colour["paper"]) >= 3, name
    for name in ("c1", "c2"):  # the darkest cells of `pair_matrix` carry numbers
        assert contrast(colour["ink"], blend(colour[name], colour["paper"], 0.55)) >= 4.5, name


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("log", [False, True])
def test_numbers_of_a_matrix_stand_out_from_their_cells(theme, log):
    colour = {name: values[theme] for name, values in THEMES.items()}
    values = np.geomspace(0.01, 20, 36).reshape(6, 6)
    values[2, 3] = np.nan
    names = list("abcdef")
    svg = matrix(values, rows=names, columns=names, ylabel="y", xlabel="x", log=log)
    cells = re.findall(
        r'style="fill:var\(--(\w+), #\w+\)" fill-opacity="([\d.]+)" /><text [^>]*fill:var\(--(\w+)',
        svg,
    )
    assert len(cells) == 35
    assert len({opacity for _, opacity, _ in cells}) > 10
    ratios = [
        contrast(colour[ink], blend(colour[fill], colour["paper"], float(opacity)))
        for fill, opacity, ink in cells
    ]
    assert min(ratios) >= 4.5
    empty = re.search(r"fill:none[^>]*/><text [^>]*fill:var\(--(\w+)", svg)[1]
    assert contrast(colour[empty], colour["paper"]) >= 4.5


def test_figures_and_page_agree_on_the_colours_of_paper():
    light = {name: values["light"] for name, values in THEMES.items()}
    assert tuple(light[f"c{i}"] for i in range(1, 7)) == drawing.PALETTE
    named = {"ink": drawing.INK, "muted": drawing.MUTED, "rule": drawing.RULE}
    assert light.items() >= (named | {"firm": drawing.FIRM, "c7": drawing.GREY}).items()


def test_every_variable_of_a_page_is_defined(page):
    assert set(re.findall(r"var\(--([\w-]+)", page)) <= set(re.findall(r"--([\w-]+):", page))
