"""Where names go beside the marks of a scatter, so that each can be read."""

import numpy as np
from numpy.typing import NDArray

from secateurs.report.drawing import Floats

__all__ = ["places"]

_TRIED = 400  # places, the nearest; the others only where those are all taken
_COVERED = 10_000.0  # what a name costs that covers another


def places(
    marks: Floats, sizes: Floats, bars: Floats, room: tuple[float, float, float, float]
) -> Floats:
    """Return [names, 2] left ends and middle heights at which no name covers another.

    Every name looks at places beside its mark and further and further away, and takes the one
    that costs least: distance, marks and bars that it covers, lines that it crosses. Names in a
    crowd choose first; then each chooses again, knowing all others.

    Args:
        marks: [names, 2] x and y in pixels.
        sizes: [names, 2] widths and heights.
        bars: [bars, 4] left, right, top, bottom of what is better not covered.
        room: left, right, top and bottom of where names may be.

    >>> marks, sizes = np.array([[50.0, 50], [50, 51]]), np.array([[30.0, 12], [30, 12]])
    >>> places(marks, sizes, np.empty((0, 4)), (0, 200, 0, 100)).tolist()
    [[59.0, 50.0], [11.0, 51.0]]
    """
    near = np.abs(marks[:, None] - marks[None]) < [120, 40]
    order = np.argsort(-near.all(axis=2).sum(axis=1), kind="stable")
    choices, costs = [], []
    for mark, size in zip(marks, sizes, strict=True):
        around = _choices(mark, size, room)
        cost = _own_costs(around, size, mark, marks, bars)
        cheapest = np.argsort(cost, kind="stable")
        choices.append(around[cheapest])
        costs.append(cost[cheapest])
    taken = np.full((len(marks), 4), np.nan)  # left, right, top, bottom
    at = np.zeros(len(marks), dtype=np.intp)
    for _ in range(4):
        before = at.copy()
        for i in order:
            others = np.delete(taken, i, axis=0)
            others = others[np.isfinite(others[:, 0])]
            for some in (slice(_TRIED), slice(None)):
                boxes = _boxes(choices[i][some], sizes[i])
                whole = costs[i][some] + _COVERED * _overlaps(boxes, others).sum(axis=1)
                whole += 25 * _crossed(choices[i][some], sizes[i], marks[i], others)
                at[i] = np.argmin(whole)
                if whole[at[i]] < _COVERED:
                    break
            taken[i] = boxes[at[i]]
        if (at == before).all():
            break
    return np.array([choices[i][k] for i, k in enumerate(at)])


def _choices(mark: Floats, size: Floats, room: tuple[float, float, float, float]) -> Floats:
    """Return [places, 2] left ends and middle heights around a mark that lie in the room."""
    (x, y), (width, height), (left, right, top, bottom) = mark, size, room
    gaps = np.array([9.0, 20.0, 36.0, 60.0, 90.0, 130.0, 180.0])
    lefts = np.concatenate([x + gaps, x - gaps - width, [x - width / 2]])
    up = np.arange(0, bottom - top, height / 3)
    levels = y + np.concatenate([-up[::-1], up[1:]])
    places = np.stack(np.meshgrid(lefts, levels, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = (places[:, 0] >= left) & (places[:, 0] + width <= right)
    inside &= (places[:, 1] - height / 2 >= top) & (places[:, 1] + height / 2 <= bottom)
    if inside.any():
        return np.asarray(places[inside])
    return np.array([[np.clip(x, left, max(left, right - width)), np.clip(y, top, bottom)]])


def _boxes(places: Floats, size: Floats) -> Floats:
    """Return [places, 4] left, right, top and bottom of a name at each place."""
    half = size[1] / 2
    return np.column_stack(
        [places[:, 0], places[:, 0] + size[0], places[:, 1] - half, places[:, 1] + half]
    )


def _overlaps(boxes: Floats, others: Floats) -> NDArray[np.bool_]:
    """Return [boxes, others] whether two of them meet."""
    a, b = boxes[:, None], others[None]
    across = (a[..., 0] < b[..., 1]) & (b[..., 0] < a[..., 1])
    found: NDArray[np.bool_] = across & (a[..., 2] < b[..., 3]) & (b[..., 2] < a[..., 3])
    return found


def _around(marks: Floats) -> Floats:
    """Return [marks, 4] left, right, top and bottom of marks."""
    return np.column_stack([marks - 6, marks + 6])[:, [0, 2, 1, 3]]


def _own_costs(places: Floats, size: Floats, mark: Floats, marks: Floats, bars: Floats) -> Floats:
    """Return [places] what a place costs whatever the other names do."""
    boxes = _boxes(places, size)
    x = np.clip(mark[0], boxes[:, 0], boxes[:, 1])
    away = np.hypot(x - mark[0], 1.5 * (places[:, 1] - mark[1]))
    covered = 40 * _overlaps(boxes, _around(marks)).sum(axis=1)
    covered += 200 * _overlaps(boxes, _around(mark[None])).sum(axis=1)
    return np.asarray(away + covered + 6 * _overlaps(boxes, bars).sum(axis=1))


def _crossed(places: Floats, size: Floats, mark: Floats, others: Floats) -> Floats:
    """Return [places] how many other names the line from a mark to its name runs through."""
    boxes = _boxes(places, size)
    ends = np.column_stack([np.clip(mark[0], boxes[:, 0], boxes[:, 1]), places[:, 1]])
    steps = np.linspace(0, 1, 9)[1:-1]
    on_line = mark + steps[:, None, None] * (ends - mark)  # [steps, places, 2]
    x, y = on_line[..., 0, None], on_line[..., 1, None]
    inside = (x > others[:, 0]) & (x < others[:, 1]) & (y > others[:, 2]) & (y < others[:, 3])
    return np.asarray(inside.any(axis=0).sum(axis=1), dtype=np.float64)
