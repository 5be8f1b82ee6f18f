"""The one training loop: ILO or any loss, masks kept exactly, resumable, watched.

This is the only place that enforces masks: weights are masked after every step, and the mask is
asserted whenever a state leaves the loop. Optimizers work weight by weight, so that what a pruned
weight's gradient and momentum do reaches nothing else; masking the gradients too would double the
cost and change no bit.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs import checkpoint, masks, objectives, optimizers
from secateurs.data.batches import Data, batch_spans, epoch_batches
from secateurs.data.views import View
from secateurs.descriptions import LATER
from secateurs.device import Precision, Replayed, arithmetic
from secateurs.errors import DivergedError, InputError
from secateurs.masks import Mask
from secateurs.networks.dense import drawing_from
from secateurs.regime import centring
from secateurs.seeds import derive, stream

__all__ = [
    "CHECKPOINT_SECONDS",
    "FOLLOW_STEPS",
    "TILE",
    "PhaseConfig",
    "Progress",
    "State",
    "Trained",
    "View",
    "Watch",
    "outputs",
    "reestimate_statistics_",
    "repeated",
    "train",
]

State = dict[str, Tensor]
Progress = Callable[[dict[str, Any], int], None]
Watch = Callable[[nn.Module, int], dict[str, Any]]
"""What else a row tells: called with the network and the epoch (or step), from 1, at its end."""

TILE = 128
"""Rows of a forward pass outside training: always this many, padded, so that the outputs of a row
do not depend, to the bit, on how many rows it came with."""

CHECKPOINT_SECONDS = 5.0

FOLLOW_STEPS = 100
"""Steps between two rows of a curve: those between two evaluations in Frankle & Carbin 2019."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseConfig:
    """One training phase.

    Args:
        epochs: passes over the training rows.
        batch_size: rows a step.
        optimizer: `SGD`, `AdamW` or `BetaLasso`.
        loss: `objectives.cross_entropy`, `objectives.mse` or a callable (outputs, y, weight).
        loss_weight: factor on that term; 0 leaves the contrastive term alone.
        contrastive: `objectives.nce` (ILO), `supcon`, `infonce`, or a callable (h, h', y, T).
        contrastive_weight: lambda; at 0 no view is drawn.
        temperature: of the contrastive term.
        precision: "fp32" or "bf16".
        snapshots: keep the networks at the ends of the last so many learning-rate cycles.
        mixup: a of the Beta(a, a) that rows are mixed by (Zhang et al. 2018); 0 mixes none. Not
            beside a contrastive term, which is about the rows as they are.
        steps: optimizer steps, in place of `epochs`; the last epoch may end early. With `epochs=0`
            there are none.
        alpha: the loss is that of the centred outputs F = alpha (f(x; w) - f(x; w0)), over alpha^2:
            small is rich, large lazy (see `secateurs.regime.centring`). None is no centring. Not
            beside a contrastive term, mixup, weight decay, bf16 or BatchNorm.
    """

    epochs: int = 105
    batch_size: int = 128
    optimizer: optimizers.Optimizer = optimizers.SGD()
    loss: objectives.Loss = objectives.cross_entropy
    loss_weight: float = 1.0
    contrastive: objectives.Contrastive = objectives.nce
    contrastive_weight: float = 0.0
    temperature: float = 1.0
    precision: Precision = "fp32"
    snapshots: int = 1
    mixup: float = field(default=0.0, metadata=LATER)
    steps: int | None = field(default=None, metadata=LATER)
    alpha: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch_size", 2), ("snapshots", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("loss_weight", "contrastive_weight", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be a positive number, got {self.temperature}")
        if self.mixup and self.contrastive_weight:
            raise InputError(
                f"mixup must be 0 beside a contrastive weight, got {self.mixup:g} and "
                f"{self.contrastive_weight:g}; set one of them to 0, or mix in the other phase"
            )
        if self.alpha is not None:
            self._check_alpha(self.alpha)
        if not self.epochs:  # no training is no steps: a setting may lack a word for unsetting them
            object.__setattr__(self, "steps", None)
        if self.steps is not None and (self.steps < 1 or self.snapshots > 1):
            raise InputError(
                f"steps must be at least 1, beside one snapshot, got {self.steps} and "
                f"{self.snapshots}; for no steps set epochs to 0"
            )
        ends = optimizers.cycle_ends(self.optimizer.schedule, self.epochs)
        if self.epochs and self.snapshots > len(ends):
            raise InputError(
                f"snapshots must be at most {len(ends)}, the number of learning-rate cycles in "
                f"{self.epochs} epochs, got {self.snapshots}"
            )

    def _check_alpha(self, alpha: float) -> None:
        centring.check_alpha(alpha)
        decay = getattr(self.optimizer, "weight_decay", 0.0)
        unfit = {
            "contrastive_weight=0": self.contrastive_weight,
            "mixup=0": self.mixup,
            "an optimizer with weight_decay=0 (it pulls to 0, not to the start)": decay,
            "precision='fp32'": self.precision != "fp32",
        }
        for rule, broken in unfit.items():
            if broken:
                raise InputError(
                    f"alpha needs {rule}, got alpha={alpha:g} beside {broken!r}; "
                    "change that, or set alpha to None"
                )

    def n_steps(self, n_rows: int) -> int:
        """Return the optimizer steps of the phase on so many training rows."""
        per_epoch = len(batch_spans(n_rows, self.batch_size))
        return self.epochs * per_epoch if self.steps is None else self.steps

    def n_epochs(self, n_rows: int) -> int:
        """Return the epochs that the phase begins on so many training rows."""
        per_epoch = len(batch_spans(n_rows, self.batch_size))
        return self.epochs if self.steps is None else math.ceil(self.steps / per_epoch)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a phase leaves behind besides the trained network itself.

    `snapshots` are the states at the ends of the last cycles, oldest first; the last is the final
    state. `kept` is the state after the step asked for. `complete` is False when the time limit
    ended the phase early. `curve` holds what `follow` told.
    """

    history: list[dict[str, Any]]
    snapshots: list[State]
    kept: State | None
    complete: bool
    curve: list[dict[str, Any]]


def _clone(network: nn.Module) -> State:
    return {name: t.detach().clone() for name, t in network.state_dict().items()}


@torch.no_grad()
def outputs(network: nn.Module, x: Tensor, *, tile: int = TILE) -> Tensor:
    """Return the outputs of `network` in evaluation mode, [rows, outputs].

    Runs in tiles of fixed size: a row's outputs are the same to the bit whatever its company.
    Larger tiles are faster, and other ones may differ in the last bit.

    >>> net = nn.Linear(3, 2)
    >>> outputs(net, torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """
    was_training = network.training
    network.eval()
    tiles = []
    for begin in range(0, max(len(x), 1), tile):
        rows = x[begin : begin + tile]
        padded = rows
        if len(rows) < tile:
            padded = torch.cat([rows, rows.new_zeros(tile - len(rows), *rows.shape[1:])])
        tiles.append(network(padded)[: len(rows)])
    network.train(was_training)
    return torch.cat(tiles)


def repeated(function: nn.Module, x: Tensor, *, tile: int = TILE) -> Callable[[], Tensor]:
    """Return what gives the `outputs` of a network that trains, on the same rows, when called.

    Of centred outputs the reference is evaluated once.

    >>> again = repeated(nn.Linear(3, 2), torch.ones(5, 3))
    >>> again().shape
    torch.Size([5, 2])
    """
    if not isinstance(function, centring.Centred):
        return lambda: outputs(function, x, tile=tile)
    network, alpha = function.network, function.alpha
    x = x.to(next(network.parameters()).dtype)
    reference = outputs(function.reference, x, tile=tile)
    return lambda: alpha * (outputs(network, x, tile=tile) - reference)


@torch.no_grad()
def reestimate_statistics_(network: nn.Module, x: Tensor, *, batch_size: int) -> None:
    """Set BatchNorm's running statistics to the mean over shuffled batches of `x`, in place.

    A network that was pruned or rewound without training has statistics of other weights; these
    are the rows' own (method, section 2.8, the untrained rows). Nothing else changes.

    >>> network = nn.BatchNorm1d(1)
    >>> reestimate_statistics_(network, torch.tensor([[1.0], [3.0]]), batch_size=2)
    >>> network.running_mean
    tensor([2.])
    """
    found = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [module.momentum for module in found]
    was_training = network.training
    for module in found:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
    network.eval()
    for module in found:  # nothing else, such as dropout, is to see a training pass
        module.train()
    # tables are often sorted by class: batches in their order would vary less than the rows do
    order = stream(0, "statistics")
    for rows in epoch_batches(len(x), batch_size, generator=order, device=x.device):
        network(x[rows])
    for module, momentum in zip(found, before, strict=True):
        module.momentum = momentum
    network.train(was_training)


def _full(tensor: Tensor) -> Tensor:
    """Return bfloat16 as float32: losses are never computed in half precision."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


@contextmanager
def _captured(module: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list whose only element is the module's latest output, [rows, features]."""
    latest: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        latest[:] = [_full(output.flatten(1))]

    handle = module.register_forward_hook(keep)
    try:
        yield latest
    finally:
        handle.remove()


@contextmanager
def _frozen_statistics(batchnorms: list[Any]) -> Iterator[None]:
    """Normalise by the batch without moving the running statistics: the view pass."""
    for module in batchnorms:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in batchnorms:
            module.track_running_stats = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draws:
    """The random streams of an epoch, one a purpose; those of mixup are the host's."""

    view: torch.Generator
    dropout: torch.Generator
    mixup: np.random.Generator


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """Rows of a step; `at_centre` are the outputs that an alpha subtracts."""

    x: Tensor
    y: Tensor
    weight: Tensor | None
    at_centre: Tensor | None


class _Steps:
    """The inner step: forward passes, loss, gradient, optimizer, masked weights."""

    def __init__(
        self,
        network: nn.Module,
        phase: PhaseConfig,
        encoder: str,
        prunable: Collection[str],
        mask: Mask | None,
        device: torch.device,
    ) -> None:
        self.network, self.phase, self.device = network, phase, device
        self.encoder = network.get_submodule(encoder)
        self.optimizer = optimizers.build(phase.optimizer, network, encoder_weights=prunable)
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.batchnorms = [
            m
            for m in network.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
        ]
        weights = dict(network.named_parameters())
        self.masked: list[Tensor] = [weights[name] for name in mask or {}]
        self.kept = [k.to(device, weights[n].dtype) for n, k in (mask or {}).items()]

    def set_lr(self, factor: float) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * factor

    @torch.no_grad()
    def hold(self) -> None:
        if self.masked:
            torch._foreach_mul_(self.masked, self.kept)

    def forward(self, x: Tensor) -> Tensor:
        with arithmetic(self.phase.precision, self.device):
            return _full(self.network(x))

    def mixed_loss(self, batch: _Batch, rng: np.random.Generator) -> Tensor:
        """Return mixup's loss; share and partners are drawn once for the batch."""
        phase, x, y, weight = self.phase, batch.x, batch.y, batch.weight
        share = float(rng.beta(phase.mixup, phase.mixup))
        other = torch.from_numpy(rng.permutation(len(x))).to(x.device)
        out = self.forward(share * x + (1 - share) * x[other])
        loss = share * phase.loss(out, y, weight)
        other_weight = None if weight is None else weight[other]
        return loss + (1 - share) * phase.loss(out, y[other], other_weight)

    def loss(self, batch: _Batch, view: View | None, draws: _Draws) -> tuple[Tensor, Tensor | None]:
        """Return the objective and its contrastive part."""
        phase, x, y, weight = self.phase, batch.x, batch.y, batch.weight
        if phase.alpha is not None:
            assert batch.at_centre is not None
            scaled = phase.alpha * (self.forward(x) - batch.at_centre)
            return phase.loss_weight / phase.alpha**2 * phase.loss(scaled, y, weight), None
        if phase.mixup:
            return phase.loss_weight * self.mixed_loss(batch, draws.mixup), None
        if not phase.contrastive_weight:
            return phase.loss_weight * phase.loss(self.forward(x), y, weight), None
        assert view is not None
        with _captured(self.encoder) as latest:
            logits = self.forward(x)
            h = latest[0]
            with _frozen_statistics(self.batchnorms):
                self.forward(view(x, draws.view))
            contrastive = phase.contrastive(h, latest[0], y, phase.temperature)
        total = phase.contrastive_weight * contrastive
        if phase.loss_weight:
            total = total + phase.loss_weight * phase.loss(logits, y, weight)
        return total, contrastive.detach()

    def __call__(
        self, batch: _Batch, view: View | None, draws: _Draws
    ) -> tuple[Tensor, Tensor | None]:
        self.optimizer.zero_grad(set_to_none=True)
        loss, contrastive = self.loss(batch, view, draws)
        loss.backward()
        self.optimizer.step()
        self.hold()
        return loss.detach(), contrastive

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors as "parameter/name"."""
        return {
            f"{index}/{name}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
            if isinstance(value, Tensor)
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        whole = self.optimizer.state_dict()
        whole["state"] = {}
        for key, value in tensors.items():
            index, name = key.split("/")
            whole["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(whole)


def _row(
    name: str, epoch: int, lr: float, losses: list[Tensor], parts: list[Tensor], begin: float
) -> dict[str, Any]:
    row = {"phase": name, "epoch": epoch, "lr": lr, "loss": float(torch.stack(losses).mean())}
    if parts:
        row["contrastive"] = float(torch.stack(parts).mean())
    row["seconds"] = time.monotonic() - begin
    return row


def train(
    network: nn.Module,
    data: Data,
    phase: PhaseConfig,
    *,
    name: str,
    seed: int,
    encoder: str = "encoder",
    prunable: Collection[str] = (),
    mask: Mask | None = None,
    view: View | None = None,
    keep_step: int | None = None,
    save_to: Path | None = None,
    fingerprint: str = "",
    progress: Progress | None = None,
    watch: Watch | None = None,
    follow: Watch | None = None,
    every: int | Collection[int] = FOLLOW_STEPS,
    deadline: float = math.inf,
    first_step: int = 0,
    stream_name: str | None = None,
    centre: State | None = None,
    graphed: bool = False,
) -> Trained:
    """Train `network` in place for one phase.

    Batches, views, mixtures and dropout come from streams of (seed, name, epoch), so that a phase
    resumed from the last checkpoint repeats the interrupted epoch exactly: on a CPU the result is
    the same to the bit as without the interruption.

    Args:
        network: trained in place; it and `data` must already be on one device.
        data: the rows; its validation part is only watched.
        phase: what to do.
        name: of the phase, in streams, history and messages.
        seed: root of the streams.
        encoder: name of the submodule whose output is the hidden representation h.
        prunable: names of the prunable weights.
        mask: weights to hold at zero, or None.
        view: g(x) of the contrastive term, called with the batch and a generator.
        keep_step: number of optimizer steps after which to keep a copy of the state.
        save_to: checkpoint file, written while training and at the end; read first if it exists.
        fingerprint: identity of the run; a checkpoint of another one is refused.
        progress: called with each history row and the number of epochs.
        watch: called with the network and the epoch after each; what it returns joins its row.
        follow: called with the network (with an alpha, its centred outputs) and the step, at step 0
            and after each `every` of them; what it returns is a row of the curve.
        every: see `follow`; or the steps themselves, such as `measures.regime.log_spaced` ones.
        deadline: `time.monotonic()` after which no further epoch starts; one always runs.
        first_step: the phase begins as if after so many steps, in its learning rates and batches,
            and ends where it would have: late rewinding (Frankle et al. 2020). Inside an epoch,
            views, mixtures and dropout draw from the beginning of that epoch's streams.
        stream_name: the phase whose streams, and so batches, these are; None is `name`.
        centre: with an alpha, the state whose outputs are subtracted; None is the one that the
            phase begins with. Beyond `centring.FLOAT32_UP_TO` the network is trained, and left, in
            float64. Losses are told before the division by alpha^2.
        graphed: on CUDA, record the step anew each epoch and replay it as one graph. Not beside
            mixup; only for a view and losses that compute on the device alone and draw from the
            generator given, as all else would be recorded as a constant. No result depends on it.

    Raises:
        InputError: the loss stops being finite, the checkpoint belongs to another run, the first
            step is beyond the last, or mixup in a graph.
    """
    if graphed and phase.mixup:
        raise InputError(
            f"mixup draws on the host, which no graph records, so graphed must be False beside it, "
            f"got mixup={phase.mixup:g}; set one of them to 0"
        )
    device = data.train[0].device
    n = len(data.train[0])
    per_epoch = len(batch_spans(n, phase.batch_size))
    n_epochs, n_steps = phase.n_epochs(n), phase.n_steps(n)
    if not 0 <= first_step <= n_steps:
        raise InputError(
            f"{name} must begin within its {n_steps} steps, got step {first_step}; rewind to an "
            "earlier one or train longer"
        )
    dtype = centring.widen_(network, phase.alpha)
    steps = _Steps(network, phase, encoder, prunable, mask, device)
    steps.hold()
    x, y = data.train
    function, at_centre, watched = network, None, data.validation
    if phase.alpha is not None:
        x = x.to(dtype)
        centred = centring.centre(network, phase.alpha, at=centre)
        function = centred
        with arithmetic(phase.precision, device):
            at_centre = outputs(centred.reference, x)
    on_watched = None if watched is None else repeated(function, watched[0])
    history: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    snapshots: list[State] = []
    kept: State | None = _clone(network) if keep_step == 0 else None
    first_epoch = n_epochs if first_step == n_steps else first_step // per_epoch
    begin_epoch, done = first_epoch, False

    if save_to is not None and save_to.exists():
        tensors, meta = checkpoint.load(save_to)
        if meta.get("fingerprint") != fingerprint:
            raise InputError(
                f"{save_to} was written by a run with other data or settings; "
                "continue with the same ones or remove the folder"
            )
        history, begin_epoch, done = meta["history"], meta["epoch"], meta["done"]
        curve = meta.get("curve", [])
        network.load_state_dict(checkpoint.unnest(tensors, "network"))
        steps.load_state(checkpoint.unnest(tensors, "optimizer"))
        snapshots = [checkpoint.unnest(tensors, f"snapshot-{i}") for i in range(meta["snapshots"])]
        kept = checkpoint.unnest(tensors, "kept") or kept

    def write(epoch: int, *, done: bool) -> None:
        if mask is not None:
            for state in (network.state_dict(), *snapshots):
                masks.check_held(state, mask)
        if save_to is None:
            return
        groups = {f"snapshot-{i}": state for i, state in enumerate(snapshots)}
        tensors = checkpoint.nest(
            network=network.state_dict(), optimizer=steps.state(), kept=kept or {}, **groups
        )
        meta = {
            "fingerprint": fingerprint,
            "epoch": epoch,
            "done": done,
            "history": history,
            "curve": curve,
            "snapshots": len(snapshots),
        }
        checkpoint.save(save_to, tensors, meta)

    def trace(step: int) -> None:
        due = step % every == 0 if isinstance(every, int) else step in every
        if follow is not None and (due or step in (first_step, n_steps)):
            curve.append({"phase": name, "step": step, **follow(function, step)})

    snapshot_ends = optimizers.cycle_ends(phase.optimizer.schedule, n_epochs)
    snapshot_ends = snapshot_ends[-phase.snapshots :]
    streams = stream_name or name
    written = time.monotonic()
    network.train()
    if begin_epoch == first_epoch and not curve:
        trace(first_step)
    for epoch in range(begin_epoch, 0 if done else n_epochs):
        if epoch > first_epoch and time.monotonic() > deadline:
            break
        begin = time.monotonic()
        factor = optimizers.lr_factor(phase.optimizer.schedule, epoch, n_epochs)
        steps.set_lr(factor)
        order = stream(seed, streams, "order", epoch)
        draws = _Draws(
            view=stream(seed, streams, "view", epoch, device=device),
            dropout=stream(seed, streams, "dropout", epoch, device=device),
            mixup=np.random.default_rng(derive(seed, streams, "mixup", epoch)),
        )

        def take(rows: Tensor, draws: _Draws = draws) -> tuple[Tensor, Tensor | None]:
            batch = _Batch(
                x=x[rows],
                y=y[rows],
                weight=None if data.weight is None else data.weight[rows],
                at_centre=None if at_centre is None else at_centre[rows],
            )
            return steps(batch, view, draws)

        # a graph for each epoch, as it holds one learning rate and one set of generators
        run: Any = Replayed(take, generators=[draws.view, draws.dropout]) if graphed else take
        losses, parts = [], []
        with drawing_from(network, draws.dropout):
            batches = epoch_batches(n, phase.batch_size, generator=order, device=device)
            for step, rows in enumerate(batches, start=epoch * per_epoch + 1):
                if step <= first_step:
                    continue
                if step > n_steps:
                    break
                loss, part = run(rows)
                losses.append(loss)
                parts += [] if part is None else [part]
                if step == keep_step:
                    kept = _clone(network)
                trace(step)
        row = _row(name, epoch + 1, phase.optimizer.lr * factor, losses, parts, begin)
        row["loss"] *= phase.alpha**2 if phase.alpha is not None else 1
        if not math.isfinite(row["loss"]):
            raise DivergedError(
                f"{name} diverged in epoch {epoch + 1} (loss {row['loss']}); "
                f"lower its learning rate, which is {phase.optimizer.lr:g}"
            )
        if watched is not None and on_watched is not None:
            row["validation_loss"] = float(phase.loss(on_watched(), watched[1], None))
        if watch is not None:
            row |= watch(network, epoch + 1)
        history.append(row)
        if epoch + 1 in snapshot_ends[:-1]:
            snapshots.append(_clone(network))
        if progress is not None:
            progress(row, n_epochs)
        begin_epoch = epoch + 1
        if save_to is not None and time.monotonic() - written > CHECKPOINT_SECONDS:
            write(begin_epoch, done=False)
            written = time.monotonic()
    if not done:
        write(begin_epoch, done=True)
    return Trained(
        history=history,
        snapshots=[*snapshots, _clone(network)],
        kept=kept,
        complete=begin_epoch == n_epochs,
        curve=curve,
    )
