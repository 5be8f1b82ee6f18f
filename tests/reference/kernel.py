"""Slow and obvious twins of the kernels: whole Jacobians by autograd, descent step by step."""

import torch


def jacobian(network, x, mask=None):
    """[rows, outputs, weights] of f(x; m * w), one number at a time; the network's w holds m."""
    mask = mask or {}
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    before = {name: p.detach().clone() for name, p in named}
    with torch.no_grad():
        for name, p in named:
            if name in mask:
                p.mul_(mask[name])
    rows = []
    for row in x:
        for value in network(row[None]).flatten():
            grads = torch.autograd.grad(
                value, [p for _, p in named], retain_graph=True, allow_unused=True
            )
            parts = []
            for (name, p), grad in zip(named, grads, strict=True):
                g = torch.zeros_like(p) if grad is None else grad
                parts.append((g * mask[name] if name in mask else g).flatten())
            rows.append(torch.cat(parts))
    with torch.no_grad():
        for name, p in named:
            p.copy_(before[name])
    return torch.stack(rows).view(len(x), -1, rows[0].numel())


def full(one, two):
    """[P, C, P', C] from two Jacobians."""
    return torch.einsum("nci,mdi->ncmd", one, two)


def trace(one, two):
    """[P, P'], the mean over outputs."""
    return torch.einsum("nci,mci->nm", one, two) / one.shape[1]


def descent(kernel, f0, y, lr, steps):
    """Outputs after `steps` steps on |F - y|^2 / (2 n), one after another; kernel [n, C, n, C]."""
    outputs = f0.clone()
    for _ in range(steps):
        outputs = outputs - lr / len(y) * torch.einsum("ncmd,md->nc", kernel, outputs - y)
    return outputs


def alignment(kernel, targets):
    """The cosine of HKH and HYY'H with H written out."""
    n = len(kernel)
    h = torch.eye(n, dtype=kernel.dtype) - 1 / n
    one, two = h @ kernel @ h, h @ targets @ targets.T @ h
    return float((one * two).sum() / (one.norm() * two.norm()))
