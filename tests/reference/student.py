"""One student at a time, by autograd: what `regime.stacked` does at once."""

import torch
from torch import Tensor


def forward(weights: list[Tensor], x: Tensor, scales, relu=True) -> Tensor:
    h = x
    for i, (w, s) in enumerate(zip(weights, scales, strict=True)):
        h = s * (h @ w.T)
        if relu and i < len(weights) - 1:
            h = h.relu()
    return h


def masked(weights, masks):
    return [w if m is None else w * m for w, m in zip(weights, masks, strict=True)]


def train(weights, x, y, *, scales, alpha, lr, steps, masks, reference=None, relu=True, at=()):
    """Return the masked weights by step; one replica, [rows, inputs] and [rows, outputs]."""
    w = [v.clone().requires_grad_() for v in weights]
    with torch.no_grad():
        centre = forward(
            masked(weights if reference is None else reference, masks), x, scales, relu
        )
    found = {}
    for step in range(steps + 1):
        if step in at:
            found[step] = [v.detach().clone() for v in masked(w, masks)]
        scaled = alpha * (forward(masked(w, masks), x, scales, relu) - centre)
        loss = (scaled - y).square().sum(1).mean() / (2 * alpha**2)
        gradients = torch.autograd.grad(loss, w)
        with torch.no_grad():
            for v, g in zip(w, gradients, strict=True):
                v.sub_(lr * g)
    return found


def jacobian(weights, masks, x, scales) -> Tensor:
    """Return [rows, weights] of a network of one output, pruned weights left in as zeros."""

    def say(*w):
        return forward(masked(w, masks), x, scales)[:, 0]

    parts = torch.autograd.functional.jacobian(say, tuple(weights))
    return torch.cat([p.flatten(1) for p in parts], 1)
