"""SCARF's corruption, one cell at a time, on the same draws as `views.corruption`."""

import torch


def corrupt(x, reference, groups, *, rate, generator):
    n_corrupted = int(rate * len(groups) + 1e-9)
    ranks = torch.rand((len(x), len(groups)), generator=generator)
    rows = torch.randint(len(reference), (len(x), len(groups)), generator=generator)
    out = x.clone()
    for i in range(len(x)):
        best = sorted(range(len(groups)), key=lambda column: -float(ranks[i, column]))
        for column in best[:n_corrupted]:
            start, stop = groups[column]
            out[i, start:stop] = reference[rows[i, column], start:stop]
    return out
