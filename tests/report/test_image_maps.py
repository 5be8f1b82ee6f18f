"""Maps and bars are read back: the colours of the pixels, the heights of the marks."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from secateurs.errors import InputError
from secateurs.report.drawing import GREY, INK, PALETTE
from secateurs.report.image_maps import locality_bars, logit_map_grid
from secateurs.report.page import Figure, Section, render

EVIL = "数据 κ $x$ <b> & “q”\x00"


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).uniform(1, 2, shape)


def elements(svg, tag):
    return [e for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}" + tag)]


def words_of(svg):
    return [e.text for e in elements(svg, "text")]


def images(svg):
    """Return [rows, columns, RGBA] of each image."""
    urls = [e.get("href").partition(",")[2] for e in elements(svg, "image")]
    opened = [Image.open(io.BytesIO(base64.b64decode(url))) for url in urls]
    return [np.asarray(image.convert("RGBA")).astype(float) for image in opened]


def place(element):
    return [float(element.get(side)) for side in ("x", "y", "width", "height")]


# ---- maps of logits ------------------------------------------------------------------------------


def test_the_channels_are_the_colours_of_the_pixels_on_one_scale():
    maps = drawn(3, 3, 5, 7)
    found = images(logit_map_grid(maps, ["a", "b", "c"], limits=(1.0, 2.0)))
    assert len(found) == 3
    for pixels, one in zip(found, maps, strict=True):
        assert pixels.shape == (5, 7, 4)
        assert (pixels[..., 3] == 255).all()
        shares = np.moveaxis(pixels[..., :3], -1, 0) / 255
        assert shares == pytest.approx(one - 1, abs=0.5 / 31 + 0.003)


def test_a_single_channel_is_the_lighter_the_more():
    maps = np.linspace(1, 2, 24).reshape(1, 1, 4, 6)
    (pixels,) = images(logit_map_grid(maps, ["a"]))
    light = pixels[..., :3] @ [0.2, 0.7, 0.1]
    assert (np.diff(light.ravel()) >= 0).all()
    assert light[-1, -1] > 2 * light[0, 0]


def test_other_channels_are_added_up():
    maps = drawn(2, 5, 4, 4)
    summed = maps.sum(1, keepdims=True)
    assert logit_map_grid(maps, ["a", "b"]) == logit_map_grid(summed, ["a", "b"])


@pytest.mark.parametrize("channels", [1, 3])
def test_only_pixels_without_a_path_are_empty_and_then_it_is_told(channels):
    maps = drawn(2, channels, 4, 4)
    svg = logit_map_grid(maps, ["a", "b"])
    assert all((pixels[..., 3] == 255).all() for pixels in images(svg))
    assert "no path" not in words_of(svg)
    maps[1, :, 2, 3] = 0
    maps[0, 0, 0, 0] = 1e-9
    svg = logit_map_grid(maps, ["a", "b"])
    first, second = images(svg)
    assert (first[..., 3] == 255).all()
    assert np.argwhere(second[..., 3] == 0).tolist() == [[2, 3]]
    assert "no path" in words_of(svg)


def test_a_few_giants_do_not_darken_the_rest_and_the_scale_says_so():
    maps = drawn(2, 3, 32, 32)
    plain = images(logit_map_grid(maps, ["a", "b"]))
    assert not any("≥ 2e" in word for word in words_of(logit_map_grid(maps, ["a", "b"])))
    maps[0, 0, 0, 0] = 1e6
    svg = logit_map_grid(maps, ["a", "b"])
    after = images(svg)
    assert after[1] == pytest.approx(plain[1], abs=9)
    assert {"≤ 1", "≥ 2"} <= set(words_of(svg))
    assert {"1", "2"} <= set(words_of(logit_map_grid(drawn(1, 3, 4, 4), ["a"], limits=(1, 2))))


def test_each_arm_has_its_own_scale_unless_limits_are_given():
    maps = drawn(2, 3, 8, 8)
    apart = images(logit_map_grid({"dense": maps * 1e5, "pruned": maps}, ["a", "b"]))
    assert len(apart) == 4
    for dense, pruned in zip(apart[:2], apart[2:], strict=True):
        assert dense == pytest.approx(pruned, abs=9)
    limits = {"limits": (0.0, 2.0)}
    together = images(logit_map_grid({"small": maps / 2, "large": maps}, ["a", "b"], **limits))
    assert together[0][..., :3].mean() < 0.6 * together[2][..., :3].mean()


def test_each_name_stands_above_its_image_and_each_arm_above_its_row():
    names = [f"class {i}" for i in range(10)]
    svg = logit_map_grid({"up": drawn(10, 3, 4, 4), "down": drawn(10, 3, 4, 4)}, names)
    found = [place(image) for image in elements(svg, "image")]
    texts = {}
    for e in elements(svg, "text"):
        texts.setdefault(e.text, []).append((float(e.get("x")), float(e.get("y"))))
    for i, (x, y, width, height) in enumerate(found):
        middle, above = texts[names[i % 10]][i // 10]
        assert middle == pytest.approx(x + width / 2, abs=0.1)
        assert 0 < y - above < 14
        assert width == pytest.approx(height, abs=0.02)
    assert texts["up"][0][1] < found[0][1] < texts["down"][0][1] < found[10][1]


@pytest.mark.parametrize("n", [1, 2, 5, 6, 10, 23])
@pytest.mark.parametrize("arms", [1, 3])
def test_images_lie_inside_of_the_picture_and_on_no_other(n, arms):
    maps = {f"arm {i}": drawn(n, 1, 4, 6) for i in range(arms)}
    svg = logit_map_grid(maps, [f"unit {i}" for i in range(n)])
    _, _, width, height = map(float, re.search('viewBox="(.*?)"', svg)[1].split())
    boxes = np.array([place(image) for image in elements(svg, "image")])
    assert len(boxes) == n * arms
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= width).all()
    assert (boxes[:, 1] + boxes[:, 3] <= height).all()
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            aside = abs(one[0] - other[0]) >= one[2] - 0.02
            assert aside or abs(one[1] - other[1]) >= one[3]


@pytest.mark.parametrize(
    ("high", "told"), [(0.0123, "0.012"), (1234.0, "1200"), (2.5e9, "2.5e9"), (4e-7, "4.0e−7")]
)
def test_the_scale_is_told_in_two_digits(high, told):
    svg = logit_map_grid(np.full((1, 3, 2, 2), high), ["a"], limits=(0.0, high))
    assert {"0", told} <= set(words_of(svg))


def test_maps_of_nothing_are_empty():
    svg = logit_map_grid(np.zeros((2, 3, 4, 4)), ["a", "b"])
    assert all((pixels[..., 3] == 0).all() for pixels in images(svg))
    assert np.isfinite(images(logit_map_grid(np.ones((1, 3, 4, 4)), ["a"]))[0]).all()


@pytest.mark.parametrize(
    ("maps", "names", "options", "message"),
    [
        ({}, ["a"], {}, "needs a map with a name, got none"),
        (np.ones((1, 3, 4)), ["a"], {}, r"got shape \[1, 3, 4\] and 1 names"),
        ({"dense": np.ones((2, 3, 4, 4))}, ["a"], {}, r"\[2, 3, 4, 4\] of 'dense' and 1 names"),
        (np.ones((0, 3, 4, 4)), [], {}, r"got shape \[0, 3, 4, 4\]"),
        (-np.ones((1, 3, 4, 4)), ["a"], {}, "finite and at least 0, got -1"),
        (np.full((1, 3, 4, 4), np.inf), ["a"], {}, "finite and at least 0, got inf"),
        (np.ones((1, 3, 4, 4)), ["a"], {"limits": (2, 1)}, "finite and ascend, got 2 and 1"),
    ],
)
def test_what_is_no_map_is_refused(maps, names, options, message):
    with pytest.raises(InputError, match=message) as caught:
        logit_map_grid(maps, names, **options)
    assert "\n" not in str(caught.value)


# ---- locality of layers --------------------------------------------------------------------------

LAYERS = [f"encoder.{i}.weight" for i in (1, 4, 7)]


def rows(arm="IUNet", share=(0.04, 0.1, 0.2), chance=(0.01, 0.1, 0.4), **columns):
    return pd.DataFrame(
        {"arm": arm, "layer": LAYERS[: len(share)], "share": share, "chance": chance, **columns}
    )


def corners(svg, tag, colour):
    """Return the vertical ends of the shapes of a colour in the drawing of matplotlib."""
    found = []
    for e in elements(svg, tag):
        if f", {colour})" in e.get("style", "") and (d := e.get("d")):
            numbers = np.array(re.findall(r"-?\d*\.?\d+", d), dtype=float).reshape(-1, 2)
            found.append((numbers[:, 1].min(), numbers[:, 1].max()))
    return found


def bars(svg, colour):
    """Return the [top, bottom] pixels of the bars of a colour, in the order of the layers."""
    return [ends for ends in corners(svg, "path", colour) if ends[1] - ends[0] >= 0.5]


def dots(svg, colour):
    return [
        float(e.get("y"))
        for e in elements(svg, "use")
        if f", {colour})" in e.get("style", "") and "stroke:var(--firm" not in e.get("style", "")
    ]


def test_a_bar_goes_from_chance_to_the_share_and_its_length_is_the_lift():
    svg = locality_bars(rows(share=(0.04, 0.2, 0.1), chance=(0.01, 0.1, 0.4)))
    found = bars(svg, PALETTE[0])
    lengths = np.array([bottom - top for top, bottom in found])
    assert len(found) == 3
    assert lengths == pytest.approx(lengths[1] * np.array([2, 1, 2]), abs=0.5)  # of log 2
    marks = dots(svg, PALETTE[0])
    assert marks[0] == pytest.approx(found[0][0], abs=0.2)  # above chance
    assert marks[2] == pytest.approx(found[2][1], abs=0.2)  # below it
    lines = sorted(middle for middle, _ in corners(svg, "path", INK))
    assert lines == pytest.approx(sorted([found[0][1], found[1][1], found[2][0]]), abs=0.2)


def test_repeats_are_means_with_an_error():
    repeats = pd.concat([rows(share=(s, s, s)) for s in (0.05, 0.06, 0.07)])
    svg = locality_bars(repeats)
    alone = locality_bars(rows(share=(0.06, 0.06, 0.06)))
    assert len(dots(svg, PALETTE[0])) == 3
    errors = [ends for ends in corners(svg, "path", INK) if ends[1] - ends[0] > 0.5]
    assert len(errors) == 3
    assert not [ends for ends in corners(alone, "path", INK) if ends[1] - ends[0] > 0.5]
    per_log = (bars(svg, PALETTE[0])[0][1] - bars(svg, PALETTE[0])[0][0]) / np.log(6)
    error = np.std([0.05, 0.06, 0.07], ddof=1) / 3**0.5
    length = np.log((0.06 + error) / (0.06 - error)) * per_log
    assert errors[0][1] - errors[0][0] == pytest.approx(length, abs=0.3)


def test_layers_without_anything_to_compare_are_left_out():
    svg = locality_bars(rows(share=(0.04, 0.1, 1.0), chance=(0.01, 0.05, 1.0)))
    words = words_of(svg)
    assert "1" in words
    assert "4" in words
    assert "7" not in words
    missing = locality_bars(rows(share=(0.04, np.nan, 0.5)))
    assert len(bars(missing, PALETTE[0])) == 2


def test_a_share_of_nothing_is_on_the_floor():
    svg = locality_bars(rows(share=(0.0, 0.1, 0.2)))
    found = dots(svg, PALETTE[0])
    assert len(found) == 3
    assert max(found) == pytest.approx(bars(svg, PALETTE[0])[0][1], abs=0.2)


def test_arms_have_the_colours_of_the_page_and_dense_is_grey():
    frame = pd.concat([rows("b"), rows("dense")])
    svg = locality_bars(frame, order=["a", "dense", "b"])
    assert bars(svg, PALETTE[1])
    assert bars(svg, GREY)
    assert not bars(svg, PALETTE[0])
    words = words_of(svg)
    assert words.index("dense") < words.index("b") < words.index("by chance")
    assert "a" not in words


def test_many_arms_and_layers_stay_inside_of_the_picture():
    frames = [
        rows(f"arm {i}", share=[0.1 * (i + 1)] * 9, chance=[0.05] * 9, layer=list("abcdefghi"))
        for i in range(6)
    ]
    svg = locality_bars(pd.concat(frames))
    _, _, width, height = map(float, re.search('viewBox="(.*?)"', svg)[1].split())
    for e in elements(svg, "text"):
        assert 0 <= float(e.get("x")) <= width
        assert 0 <= float(e.get("y")) <= height
    assert len(dots(svg, PALETTE[5])) == 9


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (rows().drop(columns="chance"), "it lacks chance; it has arm, layer, share"),
        (rows(share=(4.0, 10.0, 20.0)), r"in \[0, 1\], got 4 beside a chance of 0.01"),
        (rows(chance=(1.0, 1.0, 1.0)), "where the fields are everything there is nothing"),
        (rows(share=("x", "y", "z")), "must be numbers, but could not convert"),
        (rows()[:0], "needs a layer with a share"),
    ],
)
def test_frames_without_locality_are_refused(frame, message):
    with pytest.raises(InputError, match=message) as caught:
        locality_bars(frame)
    assert "\n" not in str(caught.value)


# ---- both ----------------------------------------------------------------------------------------


def both(name="a"):
    return [
        logit_map_grid({name: drawn(2, 3, 8, 8), "b": drawn(2, 1, 8, 8)}, [name, "c"],
                       quantity=name),
        locality_bars(pd.concat([rows(name), rows("b")]), ylabel=name),
    ]  # fmt: skip


def test_same_data_same_bytes_in_the_colours_of_the_theme():
    for svg, again in zip(both(), both(), strict=True):
        assert svg == again
        assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox=')
        assert re.findall(r"(?<!, )#[0-9a-f]{6}\b", re.sub("stop-color=.{9}", "", svg)) == []
        assert svg.count("http") == 1
    maps = logit_map_grid(drawn(10, 3, 32, 32), list("abcdefghij"))
    assert len(maps.encode()) < 60_000


def test_names_are_text_whatever_they_are():
    for svg in both(EVIL):
        assert "<b>" not in svg
        assert "数据 κ $x$" in " ".join(words_of(svg))


def test_a_page_takes_them_both():
    figures = [Figure(title=f"picture {i}", svg=svg, alt="Drawn.") for i, svg in enumerate(both())]
    page = render("Maps", [Section(title="Maps", blocks=figures)])
    assert page.count('role="img"') == 2
    assert page.count("data:image/png") == 4
