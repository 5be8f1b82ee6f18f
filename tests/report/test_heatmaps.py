"""Heatmaps are read back: the numbers in the cells, the colours of the pixels."""

import base64
import io
import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from secateurs.errors import InputError
from secateurs.report.heatmaps import heatmaps, matrix

EVIL = "数据 κ $x$ <b> & “q”\x00"
ABC = ["a", "b", "c"]


def words_of(svg):
    return [e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]


def made(values, **options):
    rows, columns = np.shape(values)
    names = {"rows": [f"r{i}" for i in range(rows)], "columns": [f"c{i}" for i in range(columns)]}
    return matrix(values, **names, ylabel="finds", xlabel="trains", **options)


def opacities(svg):
    return [float(found) for found in re.findall('fill-opacity="(.*?)"', svg)]


def numbers(svg, shape):
    words = [w for w in words_of(svg) if not re.match("[rc][0-9]|finds|trains", w)]
    return np.array(words).reshape(shape)


# ---- a matrix with its numbers -------------------------------------------------------------------


def test_each_number_stands_in_the_row_and_column_of_its_names():
    values = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    svg = matrix(values, rows=["up", "down"], columns=ABC, ylabel="y", xlabel="x")
    at = {}
    for e in ElementTree.fromstring(svg).iter():
        if e.tag.endswith("text"):
            at[e.text] = (float(e.get("x")), float(e.get("y")))
    for (i, row), (j, column) in itertools.product(enumerate(("up", "down")), enumerate(ABC)):
        x, y = at[f"{values[i, j]:.2f}"]
        assert y == at[row][1]
        assert x == at[column][0]
    assert at["up"][1] < at["down"][1]
    assert at["a"][0] < at["b"][0] < at["c"][0]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0.028, 0.93], ["0.03", "0.93"]),
        ([0.028, 1.2], ["0.03", "1.20"]),
        ([-0.001, 12.34], ["0.0", "12.3"]),
        ([-3.5, 250.0], ["−4", "250"]),
        ([0.0, 0.0], ["0", "0"]),
        ([-2.5e6, 1e5], ["−2.5e6", "1.0e5"]),
        ([1e-5, 2e-5], ["1.0e−5", "2.0e−5"]),
        ([np.nan, np.inf, 1.0], ["–", "–", "1.00"]),
    ],
)
def test_numbers_of_a_linear_scale_have_the_same_decimals(values, told):
    assert numbers(made([values]), len(values)).tolist() == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0281, "0.028"), (0.1, "0.10"), (1.0, "1.0"), (12.3, "12"), (99.6, "100"),
     (1234.0, "1,234"), (1e6, "1.0e6"), (2.5e-4, "2.5e−4")],
)  # fmt: skip
def test_numbers_of_a_logarithmic_scale_have_two_digits(value, told):
    assert numbers(made([[value, 0.5]], log=True), 2)[0] == told


def test_the_larger_the_darker_evenly_on_its_scale():
    even = opacities(made([[1, 2, 3, 4, 5]]))
    assert np.diff(even) == pytest.approx(0.51 / 4, abs=0.011)
    ratios = opacities(made([[1, 2, 4, 8, 16]], log=True))
    assert ratios == even
    assert opacities(made([[1, 2, 4, 8, 16]])) != even


def test_limits_make_matrices_comparable_and_cut_off_what_lies_beyond():
    options = {"limits": (1.0, 100.0), "log": True}
    assert opacities(made([[0.01, 10.0]], **options)) == pytest.approx([0.04, 0.295], abs=0.006)
    assert opacities(made([[10.0, 1e4]], **options)) == pytest.approx([0.295, 0.55], abs=0.006)


@given(
    st.lists(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=1, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_darkness_never_falls_as_the_value_rises(values):
    dark = np.array(opacities(made(values)))
    order = np.argsort(np.ravel(values), kind="stable")
    assert (np.diff(dark[order]) >= 0).all()
    assert dark.min() >= 0.04
    assert dark.max() <= 0.55


def test_equal_values_are_faint_and_missing_ones_are_outlines():
    assert opacities(made([[3.0, 3.0]])) == [0.04, 0.04]
    svg = made([[np.nan, 1.0]])
    assert len(opacities(svg)) == 1
    assert svg.count("fill:none") == 1


def test_names_are_text_whatever_they_are():
    svg = matrix([[1.0]], rows=[EVIL], columns=[EVIL], ylabel=EVIL, xlabel=EVIL)
    assert "<b>" not in svg
    assert words_of(svg).count(EVIL.replace("\x00", "\N{REPLACEMENT CHARACTER}")) == 4


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([[1.0, 2.0]], {"rows": ["a", "b"]}, r"= \[2, 2\] as they are named.* got shape \[1, 2\]"),
        (np.ones((0, 2)), {"rows": []}, "one or more of each"),
        (np.ones((17, 2)), {"rows": ["a"] * 17}, "16 rows and columns at most, got 17 and 2"),
        ([[np.nan, np.inf]], {}, "needs a finite value"),
        ([[1.0, 0.0]], {"log": True}, "needs values above 0, got 0; pass log=False"),
        ([[1.0, 2.0]], {"log": True, "limits": (-1.0, 1.0)}, "needs values above 0, got -1"),
        ([[1.0, 2.0]], {"limits": (1.0, 1.0)}, "limits must be finite and ascend, got 1 and 1"),
    ],
)
def test_what_is_no_matrix_is_refused(values, options, message):
    names = {"rows": ["a"], "columns": ["a", "b"]} | options
    with pytest.raises(InputError, match=message) as caught:
        matrix(values, ylabel="y", xlabel="x", **names)
    assert "\n" not in str(caught.value)


# ---- matrices side by side -----------------------------------------------------------------------


def images(svg):
    """Return [rows, columns, RGBA] of each image, frame by frame and panel by panel."""
    urls = re.findall('data:image/png;base64,([^"]+)', svg)
    opened = [Image.open(io.BytesIO(base64.b64decode(url))) for url in urls]
    return [np.asarray(image.convert("RGBA")).astype(int) for image in opened]


def signed(pixels):
    """Return values from -1 to 1 as the colours tell them; NaN where grey."""
    grey = np.ptp(pixels[..., :3], axis=-1) < 10
    sign = np.where(pixels[..., 0] > pixels[..., 2], 1, -1)
    return np.where(grey, np.nan, sign * pixels[..., 3] / 255)


def side_by_side(panels, **options):
    return heatmaps(panels, ylabel="probe", xlabel="neuron", **options)


def test_colours_are_the_values_on_one_scale():
    values = np.random.default_rng(0).normal(size=(3, 32, 64))
    values[1] /= 10
    values[2, :, 5] = np.nan
    found = images(side_by_side(dict(zip(ABC, values, strict=True)), limit=2.0))
    assert len(found) == 3
    for pixels, panel in zip(found, values, strict=True):
        assert pixels.shape == (32, 64, 4)
        assert signed(pixels) == pytest.approx(
            np.clip(panel / 2, -1, 1), abs=0.5 / 31 + 1 / 255, nan_ok=True
        )


def test_frames_are_in_the_order_of_numpy_each_with_all_panels():
    values = np.arange(2 * 3).reshape(2, 3, 1, 1) / 6 * np.ones((2, 3, 4, 5))
    svg = side_by_side({"a": values, "b": -values}, limit=1.0)
    frames = ElementTree.fromstring(svg).findall(".//*[@data-frame]")
    assert [frame.get("data-frame") for frame in frames] == list("012345")
    assert [len(frame) for frame in frames] == [2] * 6
    places = [[image.get("x") for image in frame] for frame in frames]
    assert all(one == places[0] for one in places)
    assert places[0][0] != places[0][1]
    shown = [signed(pixels)[0, 0] for pixels in images(svg)]
    for i in range(6):
        assert shown[2 * i : 2 * i + 2] == pytest.approx([i / 6, -i / 6], abs=0.03)


def test_a_single_matrix_has_no_frames():
    assert "data-frame" not in side_by_side({"a": np.ones((2, 2))})
    assert side_by_side({"a": np.ones((1, 2, 2))}).count("data-frame") == 1


def test_the_scale_ignores_few_giants_and_says_so():
    values = np.linspace(-1, 1, 2001)[None]
    values[0, 0] = -1e6
    assert {"≤ −1", "≥ 1"} <= set(words_of(side_by_side({"a": values})))
    values[0, 0] = -1.0
    assert {"−1", "1"} <= set(words_of(side_by_side({"a": values}, limit=1.0)))
    assert {"≤ −0.5", "≥ 0.5"} <= set(words_of(side_by_side({"a": values}, limit=0.5)))


def test_what_is_not_finite_is_grey_and_told_only_where_it_occurs():
    values = np.ones((2, 3))
    assert "no value" not in words_of(side_by_side({"a": values}))
    values[0, 1], values[1, 2] = np.nan, np.inf
    svg = side_by_side({"a": values})
    assert "no value" in words_of(svg)
    assert np.isnan(signed(images(svg)[0])).tolist() == [[False, True, False], [False, False, True]]


def test_all_zero_is_paper():
    (pixels,) = images(side_by_side({"a": np.zeros((2, 2))}))
    assert (pixels[..., 3] == 0).all()


def test_titles_are_text_whatever_they_are():
    svg = heatmaps({EVIL: np.ones((2, 2))}, ylabel=EVIL, xlabel=EVIL)
    assert "<b>" not in svg
    assert words_of(svg).count(EVIL.replace("\x00", "\N{REPLACEMENT CHARACTER}")) == 3


def test_same_data_same_bytes():
    panels = {"a": np.random.default_rng(1).normal(size=(2, 4, 5))}
    assert side_by_side(panels) == side_by_side(panels)


@pytest.mark.parametrize(
    ("panels", "limit", "message"),
    [
        ({}, None, "needs a panel, got none"),
        ({"a": np.ones(3)}, None, r"got \[3\] for 'a' beside \[3\]"),
        ({"a": np.ones((0, 3))}, None, "not empty"),
        ({"a": np.ones((2, 3)), "b": np.ones((2, 4))}, None, r"got \[2, 4\] for 'b'"),
        ({"a": np.full((2, 3), np.nan)}, None, "needs a finite value"),
        ({"a": np.ones((2, 3))}, 0.0, "limit must be finite and above 0, got 0"),
        ({"a": np.ones((2, 3))}, np.inf, "limit must be finite and above 0, got inf"),
    ],
)
def test_panels_that_do_not_fit_are_refused(panels, limit, message):
    with pytest.raises(InputError, match=message) as caught:
        side_by_side(panels, limit=limit)
    assert "\n" not in str(caught.value)
