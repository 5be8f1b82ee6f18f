"""Sums over all tuples and all permutations: the twins of `measures.representation` and others."""

import itertools
import math


def gram(a):
    return [[sum(x * y for x, y in zip(p, q, strict=True)) for q in a] for p in a]


def hsic_1(a, b):
    """Song et al. 2012: K_ij (L_ij + L_qr - 2 L_iq), the mean over all ordered distinct i j q r."""
    k, l_ = gram(a), gram(b)
    terms = [
        k[i][j] * (l_[i][j] + l_[q][r] - 2 * l_[i][q])
        for i, j, q, r in itertools.permutations(range(len(a)), 4)
    ]
    return sum(terms) / len(terms)


def hsic_0(a, b):
    """The biased one: the same mean over all i j q r, equal ones too."""
    k, l_ = gram(a), gram(b)
    terms = [
        k[i][j] * (l_[i][j] + l_[q][r] - 2 * l_[i][q])
        for i, j, q, r in itertools.product(range(len(a)), repeat=4)
    ]
    return sum(terms) / len(terms)


def cka(a, b, hsic):
    return hsic(a, b) / math.sqrt(hsic(a, a) * hsic(b, b))


def correlation(one, other):
    mean_one, mean_other = sum(one) / len(one), sum(other) / len(other)
    one, other = [x - mean_one for x in one], [y - mean_other for y in other]
    product = sum(x * y for x, y in zip(one, other, strict=True))
    return product / math.sqrt(sum(x * x for x in one) * sum(y * y for y in other))


def best_match(h, reference):
    """Return the largest mean |corr| of columns over all one-to-one pairings."""
    ours, theirs = list(zip(*h, strict=True)), list(zip(*reference, strict=True))
    if len(ours) > len(theirs):
        ours, theirs = theirs, ours
    return max(
        sum(abs(correlation(u, v)) for u, v in zip(ours, chosen, strict=True)) / len(ours)
        for chosen in itertools.permutations(theirs, len(ours))
    )


def centred_correlation(h, reference):
    """Return the correlation of all entries, each less its column's mean."""
    flat = []
    for matrix in (h, reference):
        means = [sum(column) / len(column) for column in zip(*matrix, strict=True)]
        flat.append([x - m for row in matrix for x, m in zip(row, means, strict=True)])
    return correlation(*flat)
