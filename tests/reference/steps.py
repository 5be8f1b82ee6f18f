"""The optimisers' arithmetic written out, on plain dicts of tensors."""

import torch


def nesterov(weights, gradients, buffers, *, lr, momentum, weight_decay=0.0):
    """One SGD step with Nesterov momentum as torch defines it; `lr` is one number a weight."""
    for name, weight in weights.items():
        gradient = gradients[name] + weight_decay * weight
        first = name not in buffers
        buffers[name] = gradient if first else momentum * buffers[name] + gradient
        weights[name] = weight - lr[name] * (gradient + momentum * buffers[name])


def adamw(weights, gradients, state, *, lr, weight_decay, betas=(0.9, 0.999), eps=1e-8):
    """One AdamW step: decay first, decoupled from the gradient (Loshchilov and Hutter 2019)."""
    state["t"] = t = state.get("t", 0) + 1
    for name, weight in weights.items():
        gradient = gradients[name]
        m, v = state.get(name, (torch.zeros_like(weight), torch.zeros_like(weight)))
        m = betas[0] * m + (1 - betas[0]) * gradient
        v = betas[1] * v + (1 - betas[1]) * gradient**2
        state[name] = m, v
        direction = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
        weights[name] = weight - lr * weight_decay * weight - lr * direction


def beta_lasso(weights, gradients, *, lr, l1, beta, lasso):
    """w <- w - lr (g + l1 sign w), then w <- w [|w| >= beta l1], for the weights in `lasso`."""
    for name, weight in weights.items():
        if name not in lasso:
            weights[name] = weight - lr * gradients[name]
            continue
        moved = weight - lr * (gradients[name] + l1 * weight.sign())
        weights[name] = torch.where(moved.abs() >= beta * l1, moved, 0.0)
