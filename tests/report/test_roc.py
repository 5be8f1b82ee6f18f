"""ROC curves are read back: areas as scikit-learn has them, points where the rates are."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from secateurs.errors import InputError
from secateurs.report.drawing import GREY, PALETTE
from secateurs.report.roc import roc

EVIL = "κ $x$ <b> & “q”\x00"


def scored(seed, shift=1.0, n=200):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, n)
    return truth, (truth * shift + generator.normal(size=n)).round(1)  # with ties


def rates(truth, score):
    return roc_curve(truth, score)[:2]


def words_of(svg):
    return [e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]


def line(svg, colour):
    """Return the points of a curve, and what its frame is, as its diagonal shows it."""
    found = {}
    for e in ElementTree.fromstring(svg).iter():
        if e.tag.endswith("path") and "L" in e.get("d", "") and "stroke:var" in e.get("style", ""):
            name = re.search(r"stroke:var\(--\w+, (#\w+)\)", e.get("style"))[1]
            if e.get("clip-path") is None:
                points = np.array(re.findall(r"[\d.]+", e.get("d")), dtype=float).reshape(-1, 2)
                found.setdefault(name, points)
    (left, bottom), (right, top) = found[GREY][0], found[GREY][-1]
    return (found[colour] - [left, bottom]) / [right - left, top - bottom]


@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0, 9.0])
def test_the_area_is_that_of_scikit_learn(shift):
    truth, score = scored(0, shift)
    assert f"AUC {roc_auc_score(truth, score):.3f}" in words_of(roc({"a": rates(truth, score)}))


def test_curves_stand_where_their_rates_are():
    curves = {name: rates(*scored(i, shift=i + 0.5)) for i, name in enumerate("abc")}
    svg = roc(curves)
    for (x, y), colour in zip(curves.values(), PALETTE, strict=False):
        assert line(svg, colour) == pytest.approx(np.column_stack([x, y]), abs=0.001)


def test_the_diagonal_is_that_of_the_frame():
    svg = roc({"a": ([0, 0.5, 1], [0, 0.5, 1])})
    assert line(svg, PALETTE[0])[1] == pytest.approx([0.5, 0.5], abs=0.001)
    assert "AUC 0.500" in words_of(svg)
    ticks = [w for w in words_of(svg) if re.fullmatch(r"[\d.]+", w)]
    assert sorted(set(ticks)) == ["0", "0.25", "0.5", "0.75", "1"]


def test_curves_differ_by_more_than_colour():
    svg = roc({name: ([0, 1], [0, 1]) for name in "abcdefg"})
    looks = re.findall(r'd="M[^"]*L[^"]*" style="([^"]*stroke-width:1.75[^"]*)"', svg)
    assert len(looks) == len(set(looks)) == 7


def test_names_are_text_whatever_they_are():
    svg = roc({EVIL: ([0, 1], [0, 1])}, xlabel=EVIL, ylabel=EVIL)
    assert "<b>" not in svg
    assert words_of(svg).count(EVIL.replace("\x00", "\N{REPLACEMENT CHARACTER}")) == 3


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "needs a curve, got none"),
        ({"a": ([0, 1], [0, 0.5, 1])}, r"got shapes \[2\] and \[3\]"),
        ({"a": ([0], [0])}, "two or more"),
        ({"a": ([0, 0.9], [0, 1])}, "must ascend from 0 to 1, got 0 to 0.9"),
        ({"a": ([0, 1], [0.1, 1])}, "must ascend from 0 to 1, got 0.1 to 1"),
        ({"a": ([0, 0.6, 0.5, 1], [0, 0, 1, 1])}, "must ascend"),
        ({"a": ([0, np.nan, 1], [0, 0.5, 1])}, "must ascend"),
    ],
)
def test_what_is_no_curve_is_refused(curves, message):
    with pytest.raises(InputError, match=message) as caught:
        roc(curves)
    assert "\n" not in str(caught.value)
