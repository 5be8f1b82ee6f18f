"""The contrastive terms as the papers print them: one anchor at a time, no batch tricks."""

import math

import torch


def cosine(a, b):
    norms = max(float(a.norm()), 1e-12) * max(float(b.norm()), 1e-12)
    return float(a @ b) / norms


def nce(h, h_view, y, temperature=1.0):
    """Eq. 9: -cos(h_i, h'_i) + log of the sum over rows of other classes of exp cos(h_i, h'_j)."""
    terms = []
    for i in range(len(h)):
        negatives = [
            math.exp(cosine(h[i], h_view[j]) / temperature) for j in range(len(h)) if y[j] != y[i]
        ]
        positive = cosine(h[i], h_view[i]) / temperature
        terms.append(math.log(sum(negatives)) - positive if negatives else 0.0)
    return sum(terms) / len(terms)


def supcon(h, h_view, y, temperature=0.1):
    """Khosla et al. 2020, eq. 2 (L_out): the mean over positives outside of the logarithm."""
    z, labels = torch.cat([h, h_view]), torch.cat([y, y])
    terms = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        total = sum(math.exp(cosine(z[i], z[a]) / temperature) for a in others)
        positives = [p for p in others if labels[p] == labels[i]]
        logs = [cosine(z[i], z[p]) / temperature - math.log(total) for p in positives]
        terms.append(-sum(logs) / len(logs))
    return sum(terms) / len(terms)


def infonce(h, h_view, temperature=1.0):
    """SCARF, eq. 1: one's own view among all views of the batch."""
    terms = []
    for i in range(len(h)):
        similar = [cosine(h[i], h_view[j]) / temperature for j in range(len(h))]
        terms.append(math.log(sum(map(math.exp, similar))) - similar[i])
    return sum(terms) / len(terms)
