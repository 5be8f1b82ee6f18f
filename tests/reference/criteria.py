"""Slow and obvious twins of the criteria: whole Hessians, all paths, one loop a number."""

import itertools
import math

import torch
import torch.nn.functional as F


def lamp(weight):
    """w^2 over the sum of squares of the weights that rank no higher; of equals the first leads."""
    flat = weight.flatten().double().abs().tolist()
    scores = []
    for i, w in enumerate(flat):
        bigger = [u for j, u in enumerate(flat) if u > w or (u == w and j <= i)]
        scores.append(w * w / sum(u * u for u in bigger) if w else 0.0)
    return torch.tensor(scores, dtype=torch.float64).view(weight.shape)


def _loss(weights, biases, x, y, temperature):
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = x @ weight.T + bias
        x = torch.tanh(x) if i < len(weights) - 1 else x
    return F.cross_entropy(x / temperature, y)


def _flattened(weights, biases, x, y, temperature):
    """Return the loss as a function of all weights in one vector, and that vector."""
    sizes = [w.numel() for w in weights]

    def loss(flat):
        parts = [p.view_as(w) for p, w in zip(flat.split(sizes), weights, strict=True)]
        return _loss(parts, biases, x, y, temperature)

    return loss, torch.cat([w.flatten() for w in weights])


def _split(flat, weights):
    sizes = [w.numel() for w in weights]
    return [p.view_as(w) for p, w in zip(flat.split(sizes), weights, strict=True)]


def snip(weights, biases, x, y):
    """|w * dL/dw| by central differences, one weight after the other (tanh network, float64)."""
    loss, flat = _flattened(weights, biases, x, y, 1.0)
    step = 1e-5
    scores = torch.empty_like(flat)
    for i in range(len(flat)):
        at = torch.zeros_like(flat)
        at[i] = step
        scores[i] = flat[i] * (loss(flat + at) - loss(flat - at)) / (2 * step)
    return _split(scores.abs(), weights)


def grasp(weights, biases, x, y, temperature):
    """w * (H g) with the whole Hessian (tanh network, float64)."""
    loss, flat = _flattened(weights, biases, x, y, temperature)
    hessian = torch.autograd.functional.hessian(loss, flat)
    g = torch.autograd.functional.jacobian(loss, flat)
    return _split(flat * (hessian @ g), weights)


def synflow(weights):
    """Sum over all paths through a weight of the product of the |weights| on the path."""
    widths = [weights[0].shape[1], *(w.shape[0] for w in weights)]
    scores = [torch.zeros_like(w, dtype=torch.float64) for w in weights]
    for path in itertools.product(*map(range, widths)):
        steps = [(i, path[i + 1], path[i]) for i in range(len(weights))]
        flow = math.prod(abs(float(weights[i][o, j])) for i, o, j in steps)
        for i, o, j in steps:
            scores[i][o, j] += flow
    return scores


def wanda_linear(weight, x):
    """|w| times the norm of the input that it multiplies."""
    rows = x.reshape(-1, weight.shape[1])
    scores = torch.zeros_like(weight)
    for o, i in itertools.product(*map(range, weight.shape)):
        total = sum(float(row[i]) ** 2 for row in rows)
        scores[o, i] = abs(float(weight[o, i])) * math.sqrt(total)
    return scores


def wanda_conv(weight, x, *, stride, padding, dilation, groups, mode="constant"):
    """|w| times the norm of all values that a kernel tap meets, in any number of dimensions."""
    kernel = weight.shape[2:]
    x = F.pad(x, [n for n in reversed(padding) for _ in range(2)], mode=mode)
    lengths = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(x.shape[2:], dilation, kernel, stride, strict=True)
    ]
    per_group = weight.shape[0] // groups
    scores = torch.zeros_like(weight)
    for o, i, *tap in itertools.product(*map(range, weight.shape)):
        channel = o // per_group * weight.shape[1] + i
        total = 0.0
        for row, *at in itertools.product(range(len(x)), *map(range, lengths)):
            place = [p * s + t * d for p, s, t, d in zip(at, stride, tap, dilation, strict=True)]
            total += float(x[(row, channel, *place)]) ** 2
        scores[(o, i, *tap)] = abs(float(weight[(o, i, *tap)])) * math.sqrt(total)
    return scores
