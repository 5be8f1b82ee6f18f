"""Arms paired by seed: contrasts against scipy, verdicts at their borders, tables of them."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from secateurs.report.page import Value
from secateurs.report.paired import (
    COMPRESSION,
    END,
    MOVEMENT,
    OVERLAP,
    Contrast,
    agrees,
    contrast,
    grid,
    layers,
    left,
    minus,
    over,
    seen,
    told,
)
from secateurs.report.tables import SPLIT


def made(*rows):
    """Return a frame of (arm, compression, seed, accuracy)."""
    return pd.DataFrame(rows, columns=["arm", COMPRESSION, SPLIT, END])


FRAME = made(
    ("dense", 1.0, 0, 0.5),
    ("dense", 1.0, 1, 0.6),
    ("dense", 1.0, 2, 0.7),
    ("IUNet", 8.0, 2, 0.8),  # in another order
    ("IUNet", 8.0, 0, 0.7),
    ("IUNet", 8.0, 1, np.nan),
    ("IUNet", 16.0, 0, 0.1),
    ("OMP", 8.0, 0, 0.6),
    ("OMP", 8.0, 3, 0.9),
)

# ---- what is in a frame --------------------------------------------------------------------------


def test_values_are_those_of_the_arm_and_compression_by_seed():
    assert seen(FRAME, END, "IUNet", 8.0).to_dict() == {0: 0.7, 2: 0.8}
    assert seen(FRAME, END, "IUNet", 16.0).to_dict() == {0: 0.1}
    for nothing in (
        seen(FRAME, END, "IUNet", 4.0),
        seen(FRAME, END, "SNIP", 8.0),
        seen(FRAME, "no column", "IUNet", 8.0),
        seen(FRAME, END, "IUNet", None),
        seen(FRAME[:0], END, "IUNet", 8.0),
    ):
        assert nothing.empty


def test_a_cell_that_stands_in_two_arms_or_twice_counts_once_a_seed():
    twice = pd.concat([FRAME, FRAME[FRAME["arm"] == "IUNet"]])
    assert seen(twice, END, "IUNet", 8.0).to_dict() == {0: 0.7, 2: 0.8}


def test_differences_are_of_equal_seeds_only():
    of = minus(FRAME, END, "IUNet", "OMP", 8.0)
    assert of.to_dict() == {0: pytest.approx(0.1)}
    assert minus(FRAME, END, "IUNet", "IUNet", 8.0).to_dict() == {0: 0, 2: 0}


@pytest.mark.parametrize("compression", [8.0, 16.0])
def test_a_dense_network_is_the_same_at_any_density(compression):
    of = minus(FRAME, END, "IUNet", "dense", compression).to_dict()
    assert of == ({0: pytest.approx(0.2), 2: pytest.approx(0.1)} if compression == 8 else {0: -0.4})
    back = minus(FRAME, END, "dense", "IUNet", compression)
    assert back.to_dict() == {seed: -gap for seed, gap in of.items()}


def test_without_a_compression_there_is_no_difference():
    assert minus(FRAME, END, "dense", "dense", None).empty
    assert len(minus(FRAME, END, "dense", "dense", 8.0)) == 3


seeds = st.dictionaries(st.integers(0, 5), st.floats(0, 1), max_size=6)


@given(one=seeds, other=seeds)
def test_differences_are_those_of_a_loop_over_seeds(one, other):
    rows = [("a", 4.0, seed, v) for seed, v in one.items()]
    rows += [("b", 4.0, seed, v) for seed, v in other.items()]
    found = minus(made(*rows), END, "a", "b", 4.0)
    assert found.to_dict() == {seed: one[seed] - other[seed] for seed in one if seed in other}


@pytest.mark.parametrize(
    ("compression", "words"), [(1, "100%"), (1 / 0.512987, "51.3%"), (8, "12.5%"), (1e3, "0.1%")]
)
def test_how_much_is_left(compression, words):
    assert left(compression) == words


# ---- statistics ----------------------------------------------------------------------------------

values = st.lists(st.floats(-1, 1), min_size=2, max_size=9)


@given(values)
def test_a_contrast_is_the_t_interval_of_scipy(numbers):
    found = contrast(pd.Series(numbers))
    assert found.n == len(numbers)
    assert found.mean == pytest.approx(np.mean(numbers), abs=1e-12)
    assert found.error == pytest.approx(stats.sem(numbers), abs=1e-12)
    if np.ptp(numbers) > 1e-6:
        low, high = stats.t.interval(
            0.95, len(numbers) - 1, loc=np.mean(numbers), scale=stats.sem(numbers)
        )
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_equal_values_have_an_interval_of_no_width():
    assert contrast(pd.Series([0.1] * 3)) == Contrast(mean=0.1, error=0, n=3, low=0.1, high=0.1)


def test_one_value_has_no_interval_and_none_is_no_contrast():
    one = contrast(pd.Series([0.25]))
    assert (one.mean, one.n) == (0.25, 1)
    assert all(map(math.isnan, (one.error, one.low, one.high)))
    assert one.interval() is None
    assert one.value() == Value(25.0, error=None, digits=2)
    assert contrast(pd.Series(dtype=float)) is None
    assert told(None) is None


def test_a_contrast_is_told_in_points_or_as_it_is():
    found = Contrast(mean=0.012, error=0.001, n=3, low=-0.00001, high=0.0241)
    assert told(found) == Value(1.2, error=0.1, digits=2)
    assert told(found, scale=1.0, digits=3) == Value(0.012, error=0.001, digits=3)
    assert found.interval() == "+0.00 to +2.41"  # no negative zero
    assert found.interval(scale=1.0, digits=5) == "−0.00001 to +0.02410"


def between(low, high):
    return Contrast(mean=(low + high) / 2, error=0.1, n=3, low=low, high=high)


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "equal"),
    [
        (0.1, 0.2, "yes", "no", "no"),
        (-0.2, -0.1, "no", "yes", "no"),
        (-0.1, 0.2, "not resolved", "not resolved", "yes"),
        (0.0, 0.2, "not resolved", "not resolved", "yes"),  # an end on no difference holds it
        (-0.2, 0.0, "not resolved", "not resolved", "yes"),
    ],
)
def test_a_verdict_is_of_the_interval(low, high, above, below, equal):
    told_of = {sign: agrees(between(low, high), sign=sign) for sign in (1, -1, 0)}
    assert told_of == {1: above, -1: below, 0: equal}
    of_ratios = {sign: agrees(between(1 + low, 1 + high), sign=sign, null=1) for sign in (1, -1)}
    assert of_ratios == {1: above, -1: below}


@pytest.mark.parametrize("sign", [1, 0, -1])
def test_one_seed_and_no_seed_resolve_nothing(sign):
    assert agrees(contrast(pd.Series([9.0])), sign=sign) == "not resolved"
    assert agrees(None, sign=sign) == "no cells yet"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([], "0 seeds"),
        ([0, 0], "0 seeds"),
        ([1], "1 seed"),
        ([3, 0, 3], "3 seeds"),
        ([1, 3, 0], "1 to 3 seeds"),
    ],
)
def test_over_how_many_seeds_means_are(sizes, words):
    assert over(range(n) for n in sizes) == f"Mean ± standard error over {words}."


# ---- tables --------------------------------------------------------------------------------------


def test_a_grid_has_the_arms_that_have_anything():
    table = grid(
        "gains", ("IUNet", "SNIP", "OMP"), (8.0, 16.0), lambda a, r: seen(FRAME, END, a, r),
        note="Said.",
    )  # fmt: skip
    assert list(table.columns) == ["arm", "12.5%", "6.2%"]
    assert [row[0] for row in table.rows] == ["IUNet", "OMP"]
    (_, at_8, at_16), (_, omp, nothing) = table.rows
    assert (at_8.mean, at_16.mean, omp.mean) == pytest.approx((75, 10, 75))
    assert at_16.error is None
    assert nothing is None
    assert table.note == "Mean ± standard error over 1 to 2 seeds. Said."


def test_layers_are_those_that_some_mask_has():
    frame = FRAME.assign(
        **{
            "layer_density.a.weight": 0.25,
            "layer_density.b.weight": [np.nan] * 3 + [0.5, 0.25] + [np.nan] * 4,
            "layer_density.c.weight": np.nan,
            "size.density": 0.125,
            MOVEMENT: 2.0,
            OVERLAP: [0.5] * 8 + [np.nan],
        }
    )
    lines = [("ours", "IUNet", 8.0), ("none", "SNIP", 8.0), ("theirs", "OMP", 8.0)]
    table = layers(frame, lines, title="layers")
    assert list(table.columns) == ["mask", "a, %", "b, %", "movement", "overlap"]
    ours, theirs = table.rows
    assert ours[0] == "ours"
    assert [cell.mean for cell in ours[1:]] == pytest.approx([25, 37.5, 2, 0.5])
    assert theirs[0] == "theirs"
    assert theirs[2] is None
    assert table.note.startswith("Mean ± standard error over 2 to 3 seeds.")


def test_layers_of_an_empty_frame_are_no_rows():
    table = layers(FRAME[:0], [("ours", "IUNet", 8.0)], title="layers")
    assert list(table.columns) == ["mask", "movement", "overlap"]
    assert table.rows == []
