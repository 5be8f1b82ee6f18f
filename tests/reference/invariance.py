"""Distances one pair at a time, agreement one row at a time: the twins of `measures.invariance`."""

import math


def distance(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    norms = math.hypot(*a), math.hypot(*b)
    if not all(norms):  # silent ones are alike, and unlike all others
        return float(any(norms))
    return 1 - sum(p * q for p, q in zip(a, b, strict=True)) / norms[0] / norms[1]


def distances(h, h_view):
    n = len(h)
    pairs = [distance(h[i], h[j]) for i in range(n) for j in range(n) if i != j]
    own = [distance(h[i % n], h_view[i]) for i in range(len(h_view))]
    return sum(pairs) / len(pairs), sum(own) / len(own)


def rare_rows(train, test, share, n_neighbours):
    """The rarest rows as a set of positions, ties to the first."""
    means = []
    for row in test:
        near = sorted(math.dist(row.tolist(), other.tolist()) for other in train)[:n_neighbours]
        means.append(sum(near) / len(near))
    order = sorted(range(len(test)), key=lambda i: (-means[i], i))
    return set(order[: max(1, math.floor(share * len(test) + 0.5))])
