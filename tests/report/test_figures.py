"""Figures are read back: what stands in the SVG must be the data."""

import base64
import io
import itertools
import re
import time
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from secateurs.errors import InputError
from secateurs.report import figures
from secateurs.report.drawing import FIRM, GREY, PALETTE, RULE

NAME = "数据 κ $x$ <b> & “q”\x00"


def variable(colour):
    return f", {colour})"


class Plot:
    """An SVG with its scales: `y(pixel)` and `x(pixel)` give data back, through the ticks."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg)
        self.all = [(e.tag.rpartition("}")[2], e) for e in self.root.iter()]

    def words(self):
        return [e.text for tag, e in self.all if tag == "text"]

    def coloured(self, tag, colour):
        return [e for name, e in self.all if name == tag and variable(colour) in e.get("style", "")]

    def points(self, element):
        numbers = re.findall(r"-?\d*\.?\d+", element.get("d"))
        return np.array(numbers, dtype=float).reshape(-1, 2)

    def line(self, colour):
        """Return the points of the one long open path of a colour."""
        (path,) = [
            e
            for e in self.coloured("path", colour)
            if "fill:none" in e.get("style") and "stroke-opacity" not in e.get("style")
            and len(self.points(e)) > 1 and e.get("clip-path")
        ]  # fmt: skip
        return self.points(path)

    def scale(self):
        """Return what turns a height in pixels into a value, from the level rules and ticks."""
        heights = sorted({self.points(e)[0, 1] for e in self.coloured("path", RULE)}, reverse=True)
        ticks = [number(t) for t in self.words() if number(t) is not None]
        return heights, ticks


def number(text):
    try:
        return float(text.replace("−", "-").rstrip("%"))
    except ValueError:
        return None


def to_value(plot, n_below):
    """Return the function from pixels to values; `n_below` ticks belong to the lower axis."""
    heights, ticks = plot.scale()
    ticks = ticks[n_below : n_below + len(heights)]
    slope, start = np.polyfit(heights, ticks, 1)
    assert np.allclose(slope * np.array(heights) + start, ticks, atol=abs(slope) * 0.1)
    return lambda pixel: slope * np.asarray(pixel) + start, abs(slope)


# ---- all of them -------------------------------------------------------------------------------


def test_the_same_data_give_the_same_bytes(runs, drawings):
    def draw():
        return figures.accuracy_by_compression(
            runs, value="accuracy", ylabel="balanced accuracy (%)", order=list(runs.arm.unique())
        )

    assert draw() == drawings[0]["accuracy"]
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path"}):
        assert draw() == drawings[0]["accuracy"]
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_figures_are_small_and_follow_the_theme(drawings):
    for name, svg in drawings[0].items():
        assert len(svg.encode()) < (120_000 if name == "frames" else 40_000), name
        assert svg.count("http") == 1  # the name of the language
        assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox=')
        loose = re.findall(r"(?<!, )#[0-9a-f]{6}\b", re.sub("stop-color=.{9}", "", svg))
        assert loose == [], name
        assert "font-family:" not in svg
        assert "DejaVu" not in svg


def test_names_in_any_script_stay_as_they_are():
    frame = pd.DataFrame({"arm": [NAME] * 2, "compression": [2, 4], "v": [1.0, 2.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svgs = [
            figures.accuracy_by_compression(frame, value="v", ylabel=NAME),
            figures.curves(frame, x="compression", y="v", by="arm", ylabel=NAME),
            figures.layer_density(frame.assign(layer=NAME, density=0.1)),
            figures.weight_histograms({NAME: [[1, 2]]}, [-2, -1, 0], [0])[0],
            figures.weight_map([[1.0]], row_label=NAME, column_label=NAME, columns=[NAME]),
            figures.column_bars([NAME], [1.0]),
            figures.pair_matrix([NAME, "b"], [[0.0, 1.0], [1.0, 0.0]]),
        ]
    for svg in svgs:
        assert "数据 κ $x$" in " ".join(Plot(svg).words())


@pytest.mark.slow  # by the clock, so on a machine with nothing else to do
def test_a_figure_is_drawn_at_once(runs, history, histograms, weights):
    counts, edges = histograms
    draw = [
        lambda: figures.accuracy_by_compression(runs, value="accuracy", ylabel="accuracy"),
        lambda: figures.curves(history, y="loss", by="arm", ylabel="loss"),
        lambda: figures.weight_histograms(counts, edges, range(105)),
        lambda: figures.weight_map(weights, row_label="neuron", column_label="input"),
    ]
    for one in draw:
        best = []
        for _ in range(3):
            begin = time.perf_counter()
            one()
            best.append(time.perf_counter() - begin)
        assert min(best) < 0.25


FRAMES = {
    "accuracy_by_compression": lambda f: figures.accuracy_by_compression(
        f, value="accuracy", ylabel="accuracy"
    ),
    "curves": lambda f: figures.curves(f, y="loss", by="arm", ylabel="loss"),
    "layer_density": figures.layer_density,
}
FULL = pd.DataFrame(
    {"arm": ["a", "a"], "compression": [2, 4], "accuracy": [0.5, 0.6], "epoch": [0, 1],
     "loss": [1.0, 0.5], "layer": ["x", "y"], "density": [0.1, 0.2]}
)  # fmt: skip
NEEDED = {
    "accuracy_by_compression": ["accuracy", "arm", "compression"],
    "curves": ["epoch", "loss", "arm"],
    "layer_density": ["layer", "density", "arm"],
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_that_cannot_be_drawn_are_refused(name):
    draw, columns = FRAMES[name], NEEDED[name]
    draw(FULL)
    for column in columns:
        with pytest.raises(InputError, match=f"it lacks {column}; it has "):
            draw(FULL.drop(columns=column))
    with pytest.raises(InputError, match=r"must have rows of .*, got none"):
        draw(FULL.iloc[:0])
    values = {"accuracy_by_compression": "accuracy", "curves": "loss", "layer_density": "density"}
    with pytest.raises(InputError, match="must be numbers"):
        draw(FULL.assign(**{values[name]: ["high", "low"]}))
    with pytest.raises(InputError, match="must have finite values"):
        draw(FULL.assign(**{values[name]: [np.nan, np.inf]}))


@pytest.mark.parametrize("name", FRAMES)
def test_rows_with_missing_values_are_as_no_rows(name):
    holes = pd.concat([FULL, FULL.assign(accuracy=np.nan, loss=np.nan, density=np.nan, arm="b")])
    holes = pd.concat([holes, FULL.assign(arm=None)], ignore_index=True)
    assert FRAMES[name](holes) == FRAMES[name](FULL)


# ---- accuracy by compression -------------------------------------------------------------------


def test_lines_are_means_and_bands_standard_errors(runs):
    runs = runs[runs.arm.isin(["IUNet", "no-ILO"])]
    plot = Plot(figures.accuracy_by_compression(runs, value="accuracy", ylabel="accuracy"))
    value, pixel = to_value(plot, n_below=5)
    for arm, colour in zip(("IUNet", "no-ILO"), PALETTE, strict=False):
        groups = runs[runs.arm == arm].groupby("compression").accuracy
        mean, se = groups.mean(), groups.std() / np.sqrt(8)
        x, y = plot.line(colour).T
        assert value(y) == pytest.approx(mean.to_numpy(), abs=pixel)
        assert np.diff(x) == pytest.approx(np.diff(x)[0], abs=0.2)  # powers of two lie level
        (use,) = [u for u in plot.coloured("use", colour) if "fill-opacity" in u.get("style")]
        band = plot.points(plot.root.find(f".//*[@id='{use.get('href')[1:]}']"))
        points = np.add(band, [0, float(use.get("y"))])
        for r, at in zip(mean.index, x, strict=True):
            ends = value(points[np.abs(points[:, 0] - at) < 0.3, 1])
            assert ends.min() == pytest.approx(mean[r] - se[r], abs=1.5 * pixel)
            assert ends.max() == pytest.approx(mean[r] + se[r], abs=1.5 * pixel)


def test_the_dense_arm_is_a_level_line_without_a_colour(runs):
    plot = Plot(figures.accuracy_by_compression(runs, value="accuracy", ylabel="accuracy"))
    value, pixel = to_value(plot, n_below=5)
    (level,) = [e for e in plot.coloured("path", GREY) if "dasharray" in e.get("style")]
    heights = plot.points(level)[:, 1]
    mean = runs[runs.arm == "dense"].accuracy.mean()
    assert value(heights) == pytest.approx([mean, mean], abs=pixel)
    assert "1" not in plot.words()  # its compression is no tick
    assert "dense" in plot.words()
    assert len(plot.line(PALETTE[0])) == 5  # the first colour is the second arm's


def test_a_dense_arm_alone_is_drawn_at_its_own_compression(runs):
    words = Plot(
        figures.accuracy_by_compression(runs[runs.arm == "dense"], value="accuracy", ylabel="a")
    ).words()
    assert "1" in words
    assert "dense" in words


def test_given_errors_need_one_row_a_point(runs):
    means = runs.groupby(["arm", "compression"], as_index=False).accuracy.agg(["mean", "sem"])
    svg = figures.accuracy_by_compression(
        means, value="mean", error="sem", ylabel="accuracy", order=list(runs.arm.unique())
    )
    assert svg == figures.accuracy_by_compression(
        runs, value="accuracy", ylabel="accuracy", order=list(runs.arm.unique())
    )
    with pytest.raises(InputError, match="one row for each arm and compression, got 2 of 'dense'"):
        figures.accuracy_by_compression(
            pd.concat([means, means]), value="mean", error="sem", ylabel="accuracy"
        )


def test_percent_left_renames_the_axis_and_moves_nothing(runs):
    drawn = [
        figures.accuracy_by_compression(runs, value="accuracy", ylabel="a", percent_left=percent)
        for percent in (False, True)
    ]
    by_ratio, by_percent = map(Plot, drawn)
    assert (by_percent.line(PALETTE[0]) == by_ratio.line(PALETTE[0])).all()
    told = {"compression r": "weights left, %", "2": "50", "4": "25", "8": "12.5", "16": "6.25"}
    told |= {"32": "3.12"}
    values = by_ratio.words()
    first = values.index("2")
    assert by_percent.words()[first : first + 5] == [told[word] for word in values[first:][:5]]
    assert told["compression r"] in by_percent.words()
    assert "compression r" not in by_percent.words()


def test_an_arm_keeps_its_colour_where_others_are_missing(runs):
    order = list(runs.arm.unique())
    some = runs[runs.arm == "no-ILO"]
    plot = Plot(
        figures.accuracy_by_compression(some, value="accuracy", ylabel="accuracy", order=order)
    )
    assert len(plot.line(PALETTE[2])) == 5
    assert len(Plot(FRAMES["accuracy_by_compression"](some)).line(PALETTE[0])) == 5


def test_arms_differ_in_marker_as_in_colour(runs):
    root = Plot(figures.accuracy_by_compression(runs, value="accuracy", ylabel="a"))
    shapes = {}
    for colour in PALETTE[:5]:
        markers = [use for use in root.coloured("use", colour) if "opacity" not in use.get("style")]
        (shape,) = {root.root.find(f".//*[@id='{u.get('href')[1:]}']").get("d") for u in markers}
        shapes[colour] = shape
        assert len(markers) == 5 + 1  # at each compression, and beside the name
    assert len(set(shapes.values())) == 5


def test_a_compression_that_is_no_ratio_is_refused():
    with pytest.raises(InputError, match=r"compression must be positive .*, got 0"):
        FRAMES["accuracy_by_compression"](FULL.assign(compression=[0, 2]))


# ---- curves, layers ----------------------------------------------------------------------------


def test_curves_are_the_means_of_every_epoch(history):
    one = history[history.arm == "IUNet"]
    plot = Plot(figures.curves(one, y="loss", by="arm", ylabel="loss"))
    value, pixel = to_value(plot, n_below=6)
    mean = one.groupby("epoch").loss.mean()
    x, y = plot.line(PALETTE[0]).T
    at = np.interp(np.arange(105), np.linspace(0, 104, 2), [x[0], x[-1]])
    assert value(np.interp(at, x, y)) == pytest.approx(mean.to_numpy(), abs=1.5 * pixel)


def test_a_logarithmic_scale_leaves_out_what_it_cannot_show():
    frame = pd.DataFrame({"epoch": [0, 1, 2], "loss": [0.0, 0.1, 10.0], "arm": "a"})
    draw = {"y": "loss", "by": "arm", "ylabel": "loss", "logy": True}
    svg = figures.curves(frame, **draw)
    assert svg == figures.curves(frame[1:], **draw)
    assert {"0.1", "1", "10"} <= set(Plot(svg).words())
    with pytest.raises(InputError, match="needs loss above 0, got none; pass logy=False"):
        figures.curves(frame[:1], **draw)


def test_an_emptied_layer_is_a_cross_on_the_floor():
    frame = pd.DataFrame({"layer": ["a", "b", "c"], "density": [0.4, 0.0, 0.1], "arm": "IUNet"})
    plot = Plot(figures.layer_density(frame))
    uses = [u for u in plot.coloured("use", PALETTE[0]) if float(u.get("x")) < 400]
    heights = sorted((float(u.get("x")), float(u.get("y"))) for u in uses)[:3]
    assert max(heights, key=lambda at: at[1]) == heights[1]
    shapes = {u.get("href") for u in uses}
    assert len(shapes) == 2


def test_layers_lose_what_all_their_names_share(layers):
    words = Plot(figures.layer_density(layers)).words()
    assert [w for w in words if w in {"0", "3", "24"}] == ["0", "3", "24"]
    assert not any("weight" in w for w in words)


def test_a_density_above_one_is_refused():
    with pytest.raises(InputError, match=r"must be in \[0, 1\], got 12"):
        figures.layer_density(FULL.assign(density=[0.5, 12]))


# ---- histograms --------------------------------------------------------------------------------


def heights_of(path, n_bins):
    """Return [bins] heights of an outline, in quarters of a pixel."""
    steps = re.findall(r"([hv])(-?\d+)", path.get("d"))
    total = sum(int(by) for kind, by in steps if kind == "h")
    heights, at = [], 0
    for kind, by in steps:
        if kind == "v":
            at -= int(by)
        else:
            heights += [at] * int(by)
    middles = (np.arange(n_bins) + 0.5) * total / n_bins
    return np.array(heights)[middles.astype(int)]


def test_frames_show_the_counts_on_fixed_axes(histograms, drawings):
    counts, _ = histograms
    svg, labels = drawings[0]["frames"], drawings[1]
    assert len(labels) == 40
    assert (labels[0], labels[-1]) == ("0", "104")
    frames = ElementTree.fromstring(svg).findall(".//*[@data-frame]")
    assert [frame.get("data-frame") for frame in frames] == [str(i) for i in range(40)]
    epochs = list(map(int, labels))
    shares = {name: rows / rows.sum(1, keepdims=True) for name, rows in counts.items()}
    unit = None
    for epoch, frame in zip(epochs, frames, strict=True):
        for rows, path in zip(shares.values(), frame, strict=True):
            found = heights_of(path, 60)
            unit = unit or found.max() / rows[epoch].max()
            assert found / unit == pytest.approx(rows[epoch], abs=2 / unit)


def test_few_epochs_are_all_frames():
    svg, labels = figures.weight_histograms({"a": [[1, 0], [0, 1]]}, [-2, -1, 0], [3, 9])
    assert labels == ["3", "9"]
    first, second = ElementTree.fromstring(svg).findall(".//*[@data-frame]")
    assert heights_of(first[0], 2)[1] == heights_of(second[0], 2)[0] == 0
    assert heights_of(first[0], 2)[0] == heights_of(second[0], 2)[1] > 0


def test_epochs_without_counts_are_flat():
    svg, _ = figures.weight_histograms({"a": [[0, 0], [np.nan, np.nan]]}, [-2, -1, 0], [0, 1])
    for frame in ElementTree.fromstring(svg).findall(".//*[@data-frame]"):
        assert "v" not in frame[0].get("d")


@pytest.mark.parametrize(
    ("counts", "edges", "epochs", "message"),
    [
        ({}, [-1, 0], [0], "needs a series and an epoch"),
        ({"a": np.ones((0, 1))}, [-1, 0], [], "needs a series and an epoch"),
        ({"a": [[1]]}, [0, -1], [0], "edges must be ascending"),
        ({"a": [[1, 2]]}, [-1, 0], [0], r"'a' must be \[epochs, bins\] = \[1, 1\], got \[1, 2\]"),
        ({"a": [[-1.0]]}, [-1, 0], [0], "'a' must be counts, got -1"),
    ],
)
def test_histograms_that_do_not_fit_are_refused(counts, edges, epochs, message):
    with pytest.raises(InputError, match=message):
        figures.weight_histograms(counts, edges, epochs)


# ---- maps --------------------------------------------------------------------------------------


def pixels_of(svg):
    """Return [rows, columns, RGBA] of the image in an SVG."""
    data = re.search('data:image/png;base64,([^"]+)', svg)[1]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    return np.asarray(image.convert("RGBA")).astype(int)


def map_of(matrix, **kwargs):
    return figures.weight_map(matrix, row_label="r", column_label="c", **kwargs)


def test_only_pruned_weights_are_empty():
    matrix = np.array([[0.0, 1e-9, 0.5], [-1.0, np.nan, 0.25]])
    image = pixels_of(map_of(matrix))
    tall, wide = image.shape[0] // 2, image.shape[1] // 3
    assert image.shape[:2] == (2 * tall, 3 * wide)
    for i, j in itertools.product(range(2), range(3)):
        block = image[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide]
        assert (block == block[0, 0]).all()
        assert (block[0, 0, 3] == 0) == (matrix[i, j] == 0 or np.isnan(matrix[i, j]))
    kept = image[::tall, ::wide].reshape(-1, 4)
    light = {abs(w): c[:3] @ [0.2, 0.7, 0.1] for w, c in zip(matrix.flat, kept, strict=True)}
    assert light[1e-9] < light[0.25] < light[0.5] < light[1.0]


def test_long_sides_are_shrunk_and_lose_no_weight():
    matrix = np.zeros((2000, 700))
    matrix[::400, ::70] = 1.0
    image = pixels_of(map_of(matrix))
    assert image.shape[:2] == (512, 512)
    assert (image[..., 3] > 0).sum() == 5 * 10


def test_all_pruned_is_an_empty_map():
    svg = map_of(np.zeros((3, 3)))
    assert (pixels_of(svg)[..., 3] == 0).all()
    assert "pruned 100%" in Plot(svg).words()


def test_columns_are_named_while_there_is_room():
    assert "age" in Plot(map_of(np.ones((2, 3)), columns=["age", "b", "c"])).words()
    many = [f"column {i}" for i in range(41)]
    assert "column 1" not in Plot(map_of(np.ones((2, 41)), columns=many)).words()


@pytest.mark.parametrize(
    ("matrix", "columns", "message"),
    [
        (np.ones(3), None, r"needs a matrix with weights, got shape \[3\]"),
        (np.ones((0, 3)), None, r"needs a matrix with weights, got shape \[0, 3\]"),
        (np.ones((2, 3)), ["a"], "must name each of the 3 columns, got 1 names"),
    ],
)
def test_what_is_no_map_is_refused(matrix, columns, message):
    with pytest.raises(InputError, match=message):
        map_of(matrix, columns=columns)


# ---- bars and pairs ----------------------------------------------------------------------------


def bars_of(svg, colour):
    return [float(e.get("width")) for e in Plot(svg).coloured("rect", colour)]


def test_bars_are_as_long_as_the_shares_and_the_rest_is_one():
    shares = np.array([0.05, 0.4, np.nan, 0.2, 0.1, 0.15])
    svg = figures.column_bars(list("abcdef"), shares, top=3)
    lengths = bars_of(svg, PALETTE[0])
    assert np.array(lengths) / lengths[0] == pytest.approx([1, 0.5, 0.375], abs=0.01)
    words = Plot(svg).words()
    assert [w for w in words if w in set("abcdef")] == ["b", "d", "f"]
    assert "2 other columns" in words
    assert bars_of(svg, FIRM)[0] / lengths[0] == pytest.approx(0.375, abs=0.01)
    assert "15.0%" in words


def test_a_rest_that_would_dwarf_the_bars_breaks_off():
    names = [f"c{i}" for i in range(500)]
    svg = figures.column_bars(names, np.full(500, 0.002), top=20)
    assert "96.0%" in Plot(svg).words()
    assert bars_of(svg, FIRM)[0] < 1.2 * bars_of(svg, PALETTE[0])[0]
    assert svg.count("skewX") == 2


def test_marks_of_chance_stand_where_chance_is():
    plot = Plot(figures.column_bars(["a", "b"], [0.8, 0.2], chance=[0.4, 0.1]))
    marks = [float(e.get("x")) + 1 for e in plot.coloured("rect", "#1d2125")][:2]
    (a, b) = plot.coloured("rect", PALETTE[0])
    start, full = float(a.get("x")), float(a.get("width"))
    assert marks == pytest.approx([start + full / 2, start + full / 8], abs=0.1)
    assert float(b.get("x")) == start


def test_bars_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="shares must be one number for each of 2 names, got 1"):
        figures.column_bars(["a", "b"], [1.0])
    with pytest.raises(InputError, match="error must be one number for each of 1 names, got 2"):
        figures.column_bars(["a"], [1.0], error=[1.0, 2.0])
    with pytest.raises(InputError, match="needs a finite share, got none"):
        figures.column_bars(["a"], [np.nan])


def test_cells_say_sign_by_colour_and_size_by_strength():
    matrix = np.array([[9.0, 0.4, np.nan], [0.4, 9.0, -0.2], [np.nan, -0.2, 9.0]])
    plot = Plot(figures.pair_matrix(["a", "b", "c"], matrix))
    (above,), (below,) = plot.coloured("rect", PALETTE[1]), plot.coloured("rect", PALETTE[0])
    assert float(above.get("fill-opacity")) == pytest.approx(0.55)
    assert float(below.get("fill-opacity")) == pytest.approx(0.295, abs=0.01)
    assert [w for w in plot.words() if w not in set("abc")] == ["+.40", "−.20"]


def test_the_columns_with_the_strongest_pairs_are_shown_in_their_order():
    matrix = np.zeros((30, 30))
    matrix[7, 21] = matrix[21, 7] = 5.0
    matrix[2, 21] = matrix[21, 2] = -1.0
    names = [f"n{i}" for i in range(30)]
    words = Plot(figures.pair_matrix(names, matrix, top=3)).words()
    assert {w for w in words if w.startswith("n")} == {"n2", "n7", "n21"}
    assert "+5.0" in words


def test_pairs_that_are_none_are_refused():
    with pytest.raises(InputError, match=r"got 2 names and shape \[3, 3\]"):
        figures.pair_matrix(["a", "b"], np.zeros((3, 3)))
    with pytest.raises(InputError, match="got 1 names"):
        figures.pair_matrix(["a"], [[0.0]])
    with pytest.raises(InputError, match="needs a symmetric matrix"):
        figures.pair_matrix(["a", "b"], [[0, 1], [2, 0]])
