"""Which weights stay, one weight at a time in plain Python: the twin of `masks.keep_top`."""

import math


def layer_densities(shapes, density, scope):
    """Return {name: density}: the one free number of the rule, halved into place."""
    n = {name: math.prod(shape) for name, shape in shapes.items()}
    last = list(shapes)[-1]

    def densities(x):
        if scope == "erk":
            return {name: min(1.0, x * sum(shape) / n[name]) for name, shape in shapes.items()}
        return {name: (0.9 if name == last else 0.8) ** (1 / x) for name in shapes}

    low, high = 1e-9, 1e9
    for _ in range(500):
        middle = math.sqrt(low * high)
        kept = sum(d * n[name] for name, d in densities(middle).items())
        low, high = (middle, high) if kept < density * sum(n.values()) else (low, middle)
    return densities(low)


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
    if scope == "output":
        kept = {}
        for name, score in scores.items():
            kept[name] = []
            for row in range(len(score)):
                part = within and {name: within[name][row]}
                one = keep_top({name: score[row]}, density, within=part)
                if one is None:
                    return None
                kept[name] += one[name]
            left = int(within[name].sum()) if within else len(kept[name])
            if sum(kept[name]) < min(min_per_layer, left):
                return None
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


def rewire(kept, keep, grow, fraction):
    """Return the new list of bool of one layer: the worst kept ones go, the best others come."""
    inside = [i for i, stays in enumerate(kept) if stays]
    outside = [i for i, stays in enumerate(kept) if not stays]
    n_moved = min(math.floor(fraction * len(inside) + 0.5), len(outside))
    stay = sorted(inside, key=lambda i: (-keep[i], i))[: len(inside) - n_moved]
    come = sorted(outside, key=lambda i: (-grow[i], i))[:n_moved]
    return [i in stay or i in come for i in range(len(kept))]
