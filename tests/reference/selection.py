"""Which weights stay, one weight at a time in plain Python: the twin of `masks.keep_top`."""

import math


def keep_top(scores, density, *, within=None, scope="global", min_per_layer=0):
    """Return {name: list of bool} over the flattened scores, or None where it cannot be done."""
    if scope == "layer":
        kept = {}
        for name in scores:
            part = within and {name: within[name]}
            one = keep_top({name: scores[name]}, density, within=part, min_per_layer=min_per_layer)
            if one is None:
                return None
            kept |= one
        return kept

    flat = {name: score.flatten().tolist() for name, score in scores.items()}
    alive = {
        name: within[name].flatten().tolist() if within else [True] * len(values)
        for name, values in flat.items()
    }
    n = sum(len(values) for values in flat.values())
    budget = math.floor(density * n + 0.5)
    # best first; equal scores by layer, then by position
    ranked = sorted(
        (-value, layer, i, name)
        for layer, (name, values) in enumerate(flat.items())
        for i, value in enumerate(values)
        if alive[name][i]
    )
    chosen = []
    for name in flat:
        chosen += [row for row in ranked if row[3] == name][:min_per_layer]
    if len(chosen) > budget or len(ranked) < budget:
        return None
    for row in ranked:
        if len(chosen) < budget and row not in chosen:
            chosen.append(row)
    kept = {name: [False] * len(values) for name, values in flat.items()}
    for _, _, i, name in chosen:
        kept[name][i] = True
    return kept
