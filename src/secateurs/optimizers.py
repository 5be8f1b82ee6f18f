"""Optimizers of the two phases as frozen descriptions, and the learning rate of every epoch."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from secateurs.errors import InputError

__all__ = [
    "SGD",
    "AdamW",
    "BetaLasso",
    "LrSchedule",
    "Optimizer",
    "build",
    "cycle_ends",
    "lr_factor",
]

LrSchedule = Literal["constant", "cosine", "restarts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SGD:
    """SGD with Nesterov momentum: the search phase (method, section 2.4).

    `encoder_lr` gives the encoder's Linear and Conv weights a learning rate of their own. With
    BatchNorm after every layer init_scale kappa at `lr` equals init_scale 1 at
    `encoder_lr=lr / kappa**2`: the matched-learning-rate arm of the no-PIS ablation.
    """

    lr: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    encoder_lr: float | None = None
    schedule: LrSchedule = "constant"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """AdamW, decoupled weight decay, cosine with warm restarts: finetuning (section 2.7)."""

    lr: float = 1e-3
    weight_decay: float = 1e-2
    schedule: LrSchedule = "restarts"


@dataclass(frozen=True, kw_only=True, slots=True)
class BetaLasso:
    """beta-Lasso (Neyshabur 2020): l1 steps on the encoder's weights, then a hard threshold.

    w <- w - lr * (grad + l1 * sign(w)); then w <- w * [|w| >= beta * l1]. The threshold is in
    weight units, so it does not depend on the learning rate. Everything else takes plain SGD steps.
    """

    lr: float = 1e-3
    l1: float = 1e-5
    beta: float = 50.0
    schedule: LrSchedule = "constant"
    allow_scaled_start: bool = False


Optimizer = SGD | AdamW | BetaLasso


class _BetaLassoSteps(torch.optim.SGD):
    """Plain SGD whose groups with an `l1` shrink and threshold their weights."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and group["l1"]:
                    weight.grad.add_(weight.sign(), alpha=group["l1"])
        loss = super().step(closure)
        for group in self.param_groups:
            if group["l1"]:
                for weight in group["params"]:
                    weight.mul_(weight.abs() >= group["threshold"])
        return loss


def build(
    config: Optimizer, network: nn.Module, *, encoder_weights: Collection[str]
) -> torch.optim.Optimizer:
    """Return a fresh torch optimizer over all parameters of `network`.

    Args:
        config: the description.
        network: its trainable parameters are optimised.
        encoder_weights: names of the prunable weights, which `SGD.encoder_lr` and `BetaLasso` are
            about.

    >>> net = nn.Linear(2, 1)
    >>> groups = build(SGD(lr=0.1, encoder_lr=1.6), net, encoder_weights=["weight"]).param_groups
    >>> [group["lr"] for group in groups]
    [1.6, 0.1]
    """
    if not (math.isfinite(config.lr) and config.lr > 0):
        raise InputError(f"lr must be a positive number, got {config.lr}")
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    encoder = [p for name, p in trained if name in encoder_weights]
    rest = [p for name, p in trained if name not in encoder_weights]
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for _, p in trained)
    if isinstance(config, AdamW):
        return torch.optim.AdamW(
            [p for _, p in trained],
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=fused,
            capturable=all(p.is_cuda for _, p in trained),  # or no graph could hold its steps
        )
    if isinstance(config, BetaLasso):
        lasso = {"params": encoder, "l1": config.l1, "threshold": config.beta * config.l1}
        return _BetaLassoSteps([lasso, {"params": rest, "l1": 0.0}], lr=config.lr)
    encoder_lr = config.lr if config.encoder_lr is None else config.encoder_lr
    groups: list[dict[str, Any]] = [{"params": encoder, "lr": encoder_lr}, {"params": rest}]
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def cycle_ends(schedule: LrSchedule, epochs: int) -> tuple[int, ...]:
    """Return after how many epochs each cosine cycle ends; snapshots are taken there.

    Restarts are three cycles of 1/7, 2/7 and 4/7 of the epochs: 15, 45 and 105 of 105.

    >>> cycle_ends("restarts", 105)
    (15, 45, 105)
    >>> cycle_ends("constant", 20)
    (20,)
    """
    if schedule != "restarts":
        return (epochs,)
    ends = {max(1, round(epochs * share / 7)) for share in (1, 3)} | {epochs}
    return tuple(sorted(end for end in ends if end <= epochs))


def lr_factor(schedule: LrSchedule, epoch: int, epochs: int) -> float:
    """Return the factor on the learning rate in `epoch` (from 0): stepped per epoch, down to 0.

    >>> [round(lr_factor("restarts", epoch, 105), 2) for epoch in (0, 14, 15, 104)]
    [1.0, 0.01, 1.0, 0.0]
    """
    if schedule == "constant":
        return 1.0
    begin = 0
    for end in cycle_ends(schedule, epochs):
        if epoch < end:
            return 0.5 * (1 + math.cos(math.pi * (epoch - begin) / (end - begin)))
        begin = end
    raise ValueError(f"epoch must be below {epochs}, got {epoch}")
