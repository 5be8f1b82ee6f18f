"""Spearman's rho within groups by visiting every permutation: twin of `rank_correlation`."""

from itertools import chain, permutations, product


def _centred(values):
    """The mean place among the sorted of each value, from the middle, as a share of their number"""
    order = sorted(values)
    places = [order.index(v) + (order.count(v) - 1) / 2 for v in values]
    return [(place - (len(values) - 1) / 2) / len(values) for place in places]


def _rho(x_ranks, y_ranks):
    xs, ys = list(chain(*x_ranks)), list(chain(*y_ranks))
    above = sum(a * b for a, b in zip(xs, ys, strict=True))
    return above / (sum(a * a for a in xs) * sum(b * b for b in ys)) ** 0.5


def rho_and_p(groups):
    """`groups` is a list of (x, y); p is the share of all arrangements at least as far from 0."""
    x_ranks = [_centred(x) for x, _ in groups]
    y_ranks = [_centred(y) for _, y in groups]
    found = _rho(x_ranks, y_ranks)
    every = product(*(permutations(ranks) for ranks in x_ranks))
    others = [_rho([list(one) for one in arranged], y_ranks) for arranged in every]
    return found, sum(abs(one) >= abs(found) - 1e-9 for one in others) / len(others)
