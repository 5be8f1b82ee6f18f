"""Names beside marks: apart, inside, and near."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.report.labels import places

ROOM = (50.0, 950.0, 20.0, 450.0)
NONE = np.empty((0, 4))


def boxes(found, sizes):
    left, middle = found.T
    return np.column_stack(
        [left, left + sizes[:, 0], middle - sizes[:, 1] / 2, middle + sizes[:, 1] / 2]
    )


def touching(found, sizes):
    b = boxes(found, sizes)
    return [
        (i, j)
        for i in range(len(b))
        for j in range(i)
        if b[i, 0] < b[j, 1] and b[j, 0] < b[i, 1] and b[i, 2] < b[j, 3] and b[j, 2] < b[i, 3]
    ]


def crowd(n, seed):
    """Marks of which most stand above each other, as methods of equal size do."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(n) < 0.7, 400.0, rng.uniform(60, 940, n))
    return np.column_stack([x, rng.uniform(150, 300, n)]), np.column_stack(
        [rng.uniform(30, 150, n), np.full(n, 13.0)]
    )


@settings(max_examples=10)
@given(n=st.integers(1, 35), seed=st.integers(0, 1000))
def test_no_name_covers_another_or_leaves_the_room(n, seed):
    marks, sizes = crowd(n, seed)
    found = places(marks, sizes, NONE, ROOM)
    assert touching(found, sizes) == []
    b = boxes(found, sizes)
    assert b[:, 0].min() >= ROOM[0]
    assert b[:, 1].max() <= ROOM[1]
    assert b[:, 2].min() >= ROOM[2]
    assert b[:, 3].max() <= ROOM[3]
    again = places(marks, sizes, NONE, ROOM)
    np.testing.assert_array_equal(found, again)


def test_a_name_alone_stands_beside_its_mark_and_turns_at_the_edge():
    size = np.array([[100.0, 13.0]])
    inside = places(np.array([[500.0, 200.0]]), size, NONE, ROOM)
    assert inside.tolist() == [[509.0, 200.0]]
    at_edge = places(np.array([[940.0, 200.0]]), size, NONE, ROOM)
    assert at_edge.tolist() == [[940.0 - 9 - 100, 200.0]]


def test_names_keep_off_marks_and_bars():
    marks, sizes = np.array([[500.0, 200], [520, 200]]), np.array([[60.0, 13], [60, 13]])
    first, second = places(marks, sizes, NONE, ROOM)
    assert first[0] + 60 < 500  # to the left: its right holds the other mark
    assert second.tolist() == [529, 200]
    bar = np.array([[520.0, 523, 100, 300]])
    (alone,) = places(marks[:1], sizes[:1], bar, ROOM)
    assert alone[0] + 60 < 500


@pytest.mark.parametrize("width", [100.0, 5_000.0])
def test_a_name_without_room_is_put_somewhere_all_the_same(width):
    found = places(np.array([[20.0, 20.0]]), np.array([[width, 13.0]]), NONE, (0, 50, 0, 40))
    assert found.shape == (1, 2)
    assert np.isfinite(found).all()
