"""Wilcoxon's signed-rank test by visiting every sign: the twin of `statistics.wilcoxon`."""

from itertools import product


def two_sided_p(differences):
    sizes = sorted(abs(d) for d in differences if d)
    # the mean place of all that have the same size
    rank = {size: sizes.index(size) + (sizes.count(size) + 1) / 2 for size in sizes}
    ranks = [rank[abs(d)] for d in differences if d]
    found = sum(rank[abs(d)] for d in differences if d > 0)
    sums = [
        sum(r for r, positive in zip(ranks, signs, strict=True) if positive)
        for signs in product([False, True], repeat=len(ranks))
    ]
    below, above = sum(s <= found for s in sums), sum(s >= found for s in sums)
    return min(1, 2 * min(below, above) / len(sums))
