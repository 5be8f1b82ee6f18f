from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.report.drawing import (
    bare_chart,
    fitting,
    power_of_ten,
    shorten,
    spread,
    style,
    text,
    to_svg,
    width_of,
    wrapped,
)


def centres(wanted, sizes):
    """Things in their order and touching at most: what `spread` promises, as inequalities."""
    return all(
        b - a >= (p + q) / 2 - 1e-6
        for a, b, p, q in zip(wanted, wanted[1:], sizes, sizes[1:], strict=False)
    )


@given(
    st.lists(st.tuples(st.floats(0, 200), st.sampled_from([13.0, 26.0])), min_size=1, max_size=7)
)
def test_words_never_touch_and_stay_on_the_chart(items):
    items = sorted(items)
    wanted, sizes = [w for w, _ in items], [s for _, s in items]
    found = spread(wanted, sizes, -10, 210)
    assert centres(found, sizes)
    assert min(found) >= -10 - 1e-6
    assert max(found) <= 210 + 1e-6


@given(st.lists(st.floats(20, 180), min_size=2, max_size=6))
def test_words_move_as_little_as_possible(wanted):
    wanted, sizes = sorted(wanted), [10.0] * len(wanted)
    found = np.array(spread(wanted, sizes, -200, 400))
    best = np.sum((found - wanted) ** 2)
    generator = np.random.default_rng(0)
    for _ in range(50):  # no other place that is allowed is nearer
        other = np.sort(found + generator.normal(0, 3, len(found)))
        if centres(other, sizes):
            assert np.sum((other - wanted) ** 2) >= best - 1e-6


def test_words_far_apart_stay_where_they_are():
    assert spread([10.0, 50.0, 90.0], [13.0] * 3, 0, 100) == [10.0, 50.0, 90.0]


@pytest.mark.parametrize(
    ("exponent", "words"), [(0, "1"), (-2, "0.01"), (3, "1000"), (-6, "10⁻⁶"), (-4.5, "10⁻⁴·⁵")]
)
def test_powers_of_ten_read_as_numbers_or_powers(exponent, words):
    assert power_of_ten(exponent) == words


def test_long_names_keep_both_ends():
    assert shorten("age", 10) == "age"
    assert shorten("education_is_bachelor", 12) == "educat…helor"
    assert wrapped("no PIS at the encoder learning rate of sixteen") == [
        "no PIS at the encoder",
        "learning rate of",
        "sixteen",
    ]


@given(st.text(max_size=60), st.floats(60, 400))
def test_names_are_shortened_only_as_far_as_needed(name, room):
    found = fitting(name, room)
    assert width_of(found) <= room
    assert found == name or (width_of(name) > room and "…" in found)


def test_broad_letters_take_more_room():
    assert width_of("iii") < width_of("aaa") < width_of("AAA") < width_of("MMM")
    assert width_of("数") == 12


def test_an_empty_chart_is_its_words():
    with style():
        chart = bare_chart(100, 50, left=10, right=10, top=10, bottom=10)
        chart.axes.set_axis_off()
        chart.over.append(text(1, 2, "<&>"))
        svg = to_svg(chart)
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox") == "0 0 100 50"
    assert [child.text for child in root] == ["<&>"]
