"""The method: train, score, mask, rewind, finetune.

Limiting cases are settings, not classes: `init_scale=1` and no contrastive weight is one-shot
magnitude pruning (OMP); `compression=1` the dense network (no search); `search.epochs=0` pruning at
initialisation; a geometric schedule with a rewind is iterative magnitude pruning, one round of
which starts from the ticket of the round before (`Ticket.as_searched`).
"""

import copy
import inspect
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from secateurs import autopilot, criteria, masks, schedules
from secateurs import device as devices
from secateurs.data.batches import Data
from secateurs.descriptions import LATER, fingerprint
from secateurs.errors import InputError
from secateurs.masks import Mask, Scope, Scores
from secateurs.measures.regime import weight_movement
from secateurs.networks.init import initialise_, prunable, scale_
from secateurs.optimizers import SGD, AdamW, BetaLasso
from secateurs.regime import centring
from secateurs.seeds import stream
from secateurs.training import (
    FOLLOW_STEPS,
    PhaseConfig,
    Progress,
    State,
    Trained,
    View,
    Watch,
    train,
)

__all__ = [
    "Control",
    "Searched",
    "Ticket",
    "TicketConfig",
    "density_for",
    "find_ticket",
    "first_step",
    "keep_step",
    "not_searched",
    "prune",
    "search",
    "searches",
]

Control = Literal["none", "shuffled", "top_start", "shuffled_globally", "reversed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TicketConfig:
    """How a ticket is found.

    Args:
        search: the phase before pruning; IUNet sets its `contrastive_weight` to 1 (and passes a
            view). Its `epochs=0` prunes at initialisation.
        finetune: the phase after the last pruning.
        compression: r; 1/r of the weights are kept. At 1 the dense network is finetuned, without
            a search where the rewind undoes it; with rewind "none" that is the no-prune ablation.
        compression_of: "encoder" counts r over the prunable weights, "model" over all parameters.
        criterion: scores of the searched network, higher = keep; see `secateurs.criteria`.
        scope: among whom scores compete; see `masks.keep_top`.
        min_per_layer: weights that every layer keeps.
        schedule: density -> densities of the rounds; see `secateurs.schedules`. Each round but the
            last trains by `search` again; without a search all rounds prune the start, as SynFlow.
        rewind: where the kept weights go back to: "start" (the unscaled initial weights),
            "scaled_start" (those times init_scale), "step:K" (as after K steps of the search),
            "none" (they keep their searched values), "lr:K" (those, too, but the learning rates go
            back to step K: Renda et al. 2020), "random" (fresh initial weights after the last
            pruning, back to the start in the rounds before: a control).
        control: instead of the mask found, "shuffled" has as many weights in each layer at random
            places, "shuffled_globally" as many in all, "top_start" the largest initial ones, and
            "reversed" keeps the lowest scores; "none" is no control.
        init_scale: kappa, on the Linear and Conv weights at the start of the search (PIS).
        only: shell patterns on the names of the weights to prune; None are the encoder's.
        scored_rows: training rows, drawn at random, that criteria which need data look at.
        movement: relative movement |w - w0| / |w0| that the search is to reach, w0 its scaled
            start; its learning rate is then only where `autopilot.steer` begins. None leaves the
            rate as it is. For one-shot schedules.

    A phase that repeats the search, as the rounds do, draws its batches in the order of the search,
    and begins at step K with "step:K".
    """

    search: PhaseConfig = field(default_factory=lambda: PhaseConfig(optimizer=SGD(lr=1e-2)))
    finetune: PhaseConfig = field(default_factory=lambda: PhaseConfig(optimizer=AdamW()))
    compression: float = 8.0
    compression_of: Literal["encoder", "model"] = "encoder"
    criterion: Callable[..., Scores] = criteria.magnitude
    scope: Scope = "global"
    min_per_layer: int = 1
    schedule: Callable[[float], schedules.Schedule] = schedules.one_shot
    rewind: str = "start"
    control: Control = "none"
    init_scale: float = 0.25
    only: tuple[str, ...] | None = field(default=None, metadata=LATER)
    scored_rows: int = field(default=100, metadata=LATER)
    movement: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if not 1 <= self.compression < math.inf:
            raise InputError(
                f"compression must be at least 1 (1 keeps everything), got {self.compression}"
            )
        if self.compression_of not in ("encoder", "model"):
            raise InputError(
                f"compression_of must be 'encoder' or 'model', got {self.compression_of!r}"
            )
        for name, choices in (("scope", get_args(Scope)), ("control", get_args(Control))):
            if getattr(self, name) not in choices:
                listed = ", ".join(map(repr, choices))
                raise InputError(f"{name} must be one of {listed}, got {getattr(self, name)!r}")
        if self.min_per_layer < 0:
            raise InputError(f"min_per_layer must be at least 0, got {self.min_per_layer}")
        if self.scored_rows < 1:
            raise InputError(f"scored_rows must be at least 1, got {self.scored_rows}")
        if not 0 < self.init_scale < math.inf:
            raise InputError(f"init_scale must be a positive number, got {self.init_scale}")
        keep_step(self.rewind)
        self._check_movement()
        if self.rewind.startswith("lr:") and self.finetune != self.search:
            raise InputError(
                "a rewind of learning rates is in those of the search, so finetune must equal "
                f"search, got rewind={self.rewind!r} with another; make them equal or use 'none'"
            )
        lasso = self.search.optimizer
        if isinstance(lasso, BetaLasso) and self.init_scale < 1 and not lasso.allow_scaled_start:
            raise InputError(
                f"beta-Lasso thresholds weights in their own units, so init_scale must be 1, got "
                f"{self.init_scale:g}; set it to 1 or pass BetaLasso(allow_scaled_start=True)"
            )

    def _check_movement(self) -> None:
        if self.movement is None:
            return
        if not 0 < self.movement < math.inf:
            raise InputError(f"movement must be a positive number or None, got {self.movement}")
        if self.schedule is not schedules.one_shot or self.rewind.startswith("lr:"):
            raise InputError(
                "movement is that of one search, so schedule must be one_shot and the rewind not "
                f"of learning rates, got rewind={self.rewind!r}; set movement to None"
            )


def _step(rewind: str) -> tuple[str, int]:
    """Return the kind of a rewind, and its step, 0 for those without."""
    if rewind in ("start", "scaled_start", "none", "random"):
        return rewind, 0
    kind, _, number = rewind.partition(":")
    if kind not in ("step", "lr") or not number.isdigit():
        raise InputError(
            "rewind must be 'start', 'scaled_start', 'step:K', 'lr:K', 'none' or 'random', "
            f"got {rewind!r}"
        )
    return kind, int(number)


def keep_step(rewind: str) -> int | None:
    """Return K of "step:K", None for the other choices.

    Raises:
        InputError: not a rewind choice.

    >>> keep_step("step:100")
    100
    """
    kind, step = _step(rewind)
    return step if kind == "step" else None


def first_step(config: TicketConfig, phase: PhaseConfig) -> int:
    """Return after how many steps a phase behind a pruning begins: K, where it repeats the search.

    >>> phase = PhaseConfig(epochs=3)
    >>> first_step(TicketConfig(search=phase, finetune=phase, rewind="step:100"), phase)
    100
    """
    return _step(config.rewind)[1] if phase == config.search else 0


def searches(config: TicketConfig) -> bool:
    """Return whether anything of the search is left in the ticket.

    A dense network that goes back to its start owes nothing to a search.

    >>> searches(TicketConfig(compression=1)), searches(TicketConfig(compression=1, rewind="none"))
    (False, True)
    """
    kind, step = _step(config.rewind)
    return config.compression > 1 or kind in ("none", "lr") or step > 0


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A network after its search phase; several tickets can be pruned from it.

    `start` holds the unscaled initial state, `state` the searched one, `kept` the state after the
    step of a "step:K" rewind, `mask` what earlier rounds left, `curve` what `follow` told,
    `steering` how the learning rate for a target movement was found.
    """

    start: State
    state: State
    kept: State | None
    history: list[dict[str, Any]]
    complete: bool
    mask: Mask | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)
    steering: autopilot.Steering | None = None


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A mask, the weights it started from, and the trained network that holds it.

    Args:
        network: finetuned, in evaluation mode; pruned weights are exactly zero.
        mask: kept weights by parameter name.
        start: state that the finetuning started from, before masking.
        history: one row an epoch, over all phases.
        snapshots: states at the ends of the last learning-rate cycles, the final one last.
        searched: the search, or the round before, that the mask came from.
        complete: False when a time limit ended a phase early.
        curve: what `follow` told in the last phase.
        function: what was trained: `network`, or with an alpha its outputs, scaled and centred at
            the ticket's own masked start. Its argmax is the prediction.
    """

    network: nn.Module
    mask: Mask
    start: State
    history: list[dict[str, Any]]
    snapshots: list[State]
    searched: Searched
    complete: bool
    function: nn.Module
    curve: list[dict[str, Any]] = field(default_factory=list)

    @property
    def density(self) -> float:
        """Kept fraction of the prunable weights."""
        return masks.density(self.mask)

    def as_searched(self) -> Searched:
        """Return the ticket as what the next round of iterative pruning starts from."""
        return Searched(
            start=self.searched.start,
            state=self.snapshots[-1],
            kept=self.searched.kept,
            history=self.history,
            complete=self.complete,
            mask=self.mask,
            curve=self.curve,
        )


def _fingerprint(
    network: nn.Module, data: Data, phase: PhaseConfig, view: View | None, *parts: Any
) -> str:
    """Return a hash of everything that decides a phase: a checkpoint belongs to just one."""
    tensors = [*network.state_dict().values(), *data.train, *(data.validation or ())]
    if view is not None and phase.contrastive_weight:
        # a view is any callable: what it does to a few rows is its description
        x = data.train[0][:64]
        tensors.append(view(x, stream(0, "fingerprint", device=x.device)))
    return fingerprint((phase, *parts), [*tensors, *([] if data.weight is None else [data.weight])])


def _prunable(
    network: nn.Module, config: TicketConfig, encoder: str | None
) -> tuple[str, list[str]]:
    """Return the encoder's name ("" is the whole network) and the names of what is pruned."""
    name, modules = encoder or "encoder", dict(network.named_modules())
    if name not in modules:
        if encoder is None and config.only is not None and not _contrasts(config):
            return "", list(prunable(network, only=config.only))
        children = ", ".join(child for child, _ in network.named_children()) or "none"
        raise InputError(
            f"the network must have a submodule {name!r} whose weights are pruned and whose output "
            f"is the hidden representation; pass encoder='NAME' (its submodules: {children}), or "
            "only=('*',) in the config where no contrastive term needs the representation"
        )
    only = config.only or (f"{name}.weight", f"{name}.*")
    return name, list(prunable(network, only=only))


def _contrasts(config: TicketConfig) -> bool:
    return bool(config.search.contrastive_weight or config.finetune.contrastive_weight)


def density_for(config: TicketConfig, network: nn.Module, names: list[str]) -> float:
    """Return the density of the prunable weights that `config.compression` means.

    Raises:
        InputError: so high that a layer would keep nothing, or more than pruning can give.
    """
    weights = dict(network.named_parameters())
    sizes = [weights[name].numel() for name in names]
    n = sum(sizes)
    counted = n
    if config.compression_of == "model":
        counted = sum(p.numel() for p in weights.values())
    k = counted / config.compression - (counted - n)
    least = max(config.min_per_layer, 1)
    floors = [min(least, size) for size in sizes]
    if config.scope != "layer":
        enough, needed = int(k + 0.5) >= sum(floors), float(sum(floors))
    else:
        pairs = list(zip(sizes, floors, strict=True))
        enough = all(int(k / n * size + 0.5) >= floor for size, floor in pairs)
        needed = max(n / size * floor for size, floor in pairs)
    if not enough:
        most = math.floor(10 * counted / (needed + counted - n) + 1e-6) / 10
        raise InputError(
            f"compression must leave at least {least} weight in each of the {len(names)} layers "
            f"({n:,} prunable weights), but {config.compression:g} keeps {max(int(k + 0.5), 0)}; "
            f"use a compression of at most {most:.10g} or a wider network"
        )
    return k / n


def _check(config: TicketConfig, view: View | None) -> None:
    for name, phase in (("search", config.search), ("finetune", config.finetune)):
        if phase.contrastive_weight and view is None:
            raise InputError(
                f"a contrastive weight needs a view, got {name}.contrastive_weight="
                f"{phase.contrastive_weight:g} and view=None; pass view= or set the weight to 0"
            )


def _beyond(rewind: str) -> InputError:
    return InputError(
        f"{rewind=} must lie within the search, which ends before that step; "
        "rewind to an earlier step or search longer"
    )


def not_searched(network: nn.Module) -> Searched:
    """Return the outcome of a search of no epochs: the start itself."""
    start = {key: t.detach().clone() for key, t in network.state_dict().items()}
    return Searched(start=start, state=start, kept=start, history=[], complete=True)


def search(
    network: nn.Module,
    data: Data,
    config: TicketConfig,
    *,
    seed: int = 0,
    view: View | None = None,
    encoder: str | None = None,
    device: str | torch.device | None = None,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    follow: Watch | None = None,
    every: int | Collection[int] = FOLLOW_STEPS,
    deadline: float = math.inf,
    graphed: bool = False,
) -> Searched:
    """Train the supernetwork from its scaled start: the first half of `find_ticket`.

    One search serves any number of compressions; it reads `config.search`, `config.init_scale`,
    `config.movement` and the K of a "step:K" rewind only. Arguments and errors as for
    `find_ticket`.
    """
    _check(config, view)
    where = devices.pick(device)
    network = copy.deepcopy(network).to(where)
    branch, names = _prunable(network, config, encoder)
    start = {key: t.detach().clone() for key, t in network.state_dict().items()}
    moved = data.to(where)
    at = keep_step(config.rewind)
    if _step(config.rewind)[1] > config.search.n_steps(len(data.train[0])):
        raise _beyond(config.rewind)
    identity = (
        ""
        if checkpoint_dir is None
        else _fingerprint(network, moved, config.search, view, config.init_scale, at, branch, seed)
    )
    if not config.search.epochs:
        return not_searched(network)
    scale_(network, config.init_scale)
    centring.widen_(network, config.search.alpha)
    scaled = {key: t.detach().clone() for key, t in network.state_dict().items()}

    def run(
        phase: PhaseConfig,
        *,
        name: str = "search",
        deadline: float = deadline,
        follow: Watch | None = follow,
        every: int | Collection[int] = every,
    ) -> Trained:
        rate = "" if config.movement is None else f"-{phase.optimizer.lr:g}"
        network.load_state_dict(scaled)
        return train(
            network,
            moved,
            phase,
            name=name,
            seed=seed,
            encoder=branch,
            prunable=names,
            view=view,
            keep_step=at,
            save_to=checkpoint_dir and checkpoint_dir / f"{name}{rate}.safetensors",
            fingerprint=f"{identity}{rate}",
            progress=progress,
            watch=None if name == "pilot" else watch,
            follow=follow,
            every=every,
            deadline=deadline,
            stream_name="search",
            graphed=graphed,
        )

    steering = None
    if config.movement is None:
        trained = run(config.search)
    else:
        trained, steering = autopilot.steer(
            run,
            config.search,
            config.movement,
            n_rows=len(data.train[0]),
            moved=lambda state: weight_movement(scaled, state, names),
            deadline=deadline,
        )
    if at is not None and trained.kept is None:
        raise _beyond(config.rewind)
    return Searched(
        start=start,
        state=trained.snapshots[-1],
        kept=trained.kept,
        history=trained.history,
        complete=trained.complete,
        curve=trained.curve,
        steering=steering,
    )


def _rewind(
    network: nn.Module, searched: Searched, config: TicketConfig, seed: int, *, last: bool
) -> None:
    """Put the weights where finetuning starts from; BatchNorm, biases and decoder go with them."""
    kind, _ = _step(config.rewind)
    if kind in ("none", "lr"):
        return
    network.load_state_dict(searched.start)
    if kind == "scaled_start":
        scale_(network, config.init_scale)
    elif kind == "random" and last:  # a control has the ticket's mask, and so its rounds
        initialise_(network, generator=stream(seed, "rewind"))
    elif kind == "step":
        if searched.kept is None:
            raise _beyond(config.rewind)
        network.load_state_dict(searched.kept)


def _masked_start(
    network: nn.Module, searched: Searched, config: TicketConfig, mask: Mask
) -> State:
    """Return the state at which a ticket is centred, wherever its weights go back to.

    Args:
        network: holds what finetuning starts from.
        searched: its start is that of weights which are not rewound, or to a later step.
        config: its rewind and init_scale.
        mask: the ticket's.
    """
    own = copy.deepcopy(network)
    if _step(config.rewind)[0] in ("none", "lr", "step"):
        own.load_state_dict(searched.start)
        scale_(own, config.init_scale)
    masks.apply_(own, mask)
    return dict(own.state_dict())


def _scores(
    network: nn.Module, data: Data, config: TicketConfig, names: list[str], seed: int
) -> Scores:
    """Call the criterion with what its signature asks for."""
    asked = inspect.signature(config.criterion).parameters
    arguments: dict[str, Any] = {"only": names}
    x, y = data.train
    x = x.to(next(network.parameters()).dtype) if x.is_floating_point() else x
    if "generator" in asked:
        arguments["generator"] = stream(seed, "criterion")
    if "batches" in asked:
        rows = torch.randperm(len(x), generator=stream(seed, "scored rows"))[: config.scored_rows]
        spans = rows.to(x.device).split(config.finetune.batch_size)
        arguments["batches"] = [(x[span], y[span]) for span in spans]
    if "loss" in asked:
        loss = config.search.loss
        arguments["loss"] = lambda outputs, targets: loss(outputs, targets, None)
    if "example" in asked:
        arguments["example"] = x[:1]
    scores = config.criterion(network, **arguments)
    return masks.reverse(scores) if config.control == "reversed" else scores


def _control(mask: Mask, start: State, config: TicketConfig, seed: int) -> Mask:
    if config.control == "shuffled":
        return masks.shuffle(mask, generator=stream(seed, "control"))
    if config.control == "shuffled_globally":
        return masks.shuffle(mask, generator=stream(seed, "control"), scope="global")
    if config.control == "top_start":
        return masks.top_like({name: start[name].abs() for name in mask}, mask)
    return mask


def _left(network: nn.Module, searched: Searched, config: TicketConfig, names: list[str]) -> Mask:
    """Return what is not pruned yet; a beta-Lasso search pruned what it set to zero."""
    weights = {name: network.get_parameter(name).detach() for name in names}
    mask = masks.ones(weights)
    if searched.mask is not None:
        mask = {name: searched.mask[name].to(weight.device) for name, weight in weights.items()}
    if isinstance(config.search.optimizer, BetaLasso):
        mask = {name: mask[name] & (weight != 0) for name, weight in weights.items()}
    return mask


def prune(
    network: nn.Module,
    data: Data,
    searched: Searched,
    config: TicketConfig,
    *,
    seed: int = 0,
    view: View | None = None,
    encoder: str | None = None,
    device: str | torch.device | None = None,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    follow: Watch | None = None,
    every: int | Collection[int] = FOLLOW_STEPS,
    deadline: float = math.inf,
    graphed: bool = False,
) -> Ticket:
    """Score, mask, rewind and finetune a searched network: the second half of `find_ticket`.

    Every round but the last trains with `config.search`, the last with `config.finetune`. What a
    beta-Lasso search set to zero stays pruned; with `compression=1` nothing else is.
    Arguments and errors as for `find_ticket`; `follow` and `every` as for `training.train`.
    """
    _check(config, view)
    where = devices.pick(device)
    network = copy.deepcopy(network).to(where)
    name, names = _prunable(network, config, encoder)
    for phase in (config.search, config.finetune):
        centring.widen_(network, phase.alpha)
    data = data.to(where)
    densities: schedules.Schedule = (1.0,)
    if config.compression > 1:
        densities = config.schedule(density_for(config, network, names))
    rounds: list[schedules.Schedule] = [densities]  # without a search they need no training
    if config.search.epochs:
        rounds = [(density,) for density in densities]

    for i, cuts in enumerate(rounds, start=1):
        last = i == len(rounds)
        phase = config.finetune if last else config.search
        network.load_state_dict(searched.state)
        mask = _left(network, searched, config, names)
        if cuts[-1] < 1:
            mask = masks.keep_in_rounds(
                network,
                lambda masked: _scores(masked, data, config, names, seed),
                cuts,
                within=mask,
                scope=config.scope,
                min_per_layer=config.min_per_layer,
            )
            mask = _control(mask, searched.start, config, seed) if last else mask
        _rewind(network, searched, config, seed, last=last)
        start = {key: t.detach().clone() for key, t in network.state_dict().items()}
        masks.apply_(network, mask)
        function, centre = network, None
        if phase.alpha is not None:
            centre = _masked_start(network, searched, config, mask)
            function = centring.centre(network, phase.alpha, at=centre)
        repeats, begin = phase == config.search, first_step(config, phase)
        save_to, identity = None, ""
        if checkpoint_dir is not None:
            save_to = checkpoint_dir / f"density-{cuts[-1]:.6g}.safetensors"
            kept = masks.kept_per_layer(mask)
            told = (kept, name, seed) + ((begin,) if begin else ())
            identity = _fingerprint(network, data, phase, view, *told)
        trained = train(
            network,
            data,
            phase,
            name="finetune" if last else f"round {i}",
            seed=seed,
            encoder=name,
            prunable=names,
            mask=mask,
            view=view,
            save_to=save_to,
            fingerprint=identity,
            progress=progress,
            watch=watch,
            follow=follow,
            every=every,
            deadline=deadline,
            first_step=begin,
            stream_name="search" if repeats else None,
            centre=centre,
            graphed=graphed,
        )
        ticket = Ticket(
            network=network,
            mask=mask,
            start=start,
            history=[*searched.history, *trained.history],
            snapshots=trained.snapshots,
            searched=searched,
            complete=searched.complete and trained.complete,
            function=function,
            curve=trained.curve,
        )
        searched = ticket.as_searched()
    ticket.function.eval()
    return ticket


def find_ticket(
    network: nn.Module,
    data: Data,
    config: TicketConfig | None = None,
    *,
    seed: int = 0,
    view: View | None = None,
    encoder: str | None = None,
    device: str | torch.device | None = None,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
    graphed: bool = False,
) -> Ticket:
    """Train wide, prune to the structure, rewind and finetune (method, sections 2 and 4).

    Args:
        network: its present weights are the start; it is never modified.
        data: training rows and, if wanted, validation rows to watch.
        config: the recipe; None is `TicketConfig()`.
        seed: root of every random stream.
        view: g(x), called as view(batch, generator); needed by a contrastive weight.
        encoder: name of the submodule that is pruned and whose output is the hidden
            representation; None is "encoder".
        device: "cpu", "cuda", ...; None picks.
        checkpoint_dir: folder for checkpoints; the same call with the same folder resumes.
        progress: called with each history row and the number of epochs of the phase.
        time_limit: seconds; phases share it by their cost and end at an epoch, after at least one.
        graphed: on CUDA, replay steps as recorded graphs; for views that compute on the device
            alone, see `training.train`.

    Raises:
        InputError: settings that cannot work, found before training starts where possible.

    >>> from secateurs.networks.dense import MLP
    >>> x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    >>> data = Data(train=(x, (x[:, 0] > 0).long()))
    >>> config = TicketConfig(
    ...     search=PhaseConfig(epochs=2), finetune=PhaseConfig(epochs=2), compression=4
    ... )
    >>> ticket = find_ticket(MLP(4, 2, widths=(16, 16)), data, config)
    >>> ticket.density
    0.25
    """
    config = config or TicketConfig()
    _check(config, view)
    _, names = _prunable(network, config, encoder)
    density = density_for(config, network, names)
    common: dict[str, Any] = {
        "seed": seed,
        "view": view,
        "encoder": encoder,
        "device": device,
        "checkpoint_dir": checkpoint_dir,
        "progress": progress,
        "graphed": graphed,
    }
    begin = time.monotonic()
    deadlines = [math.inf, math.inf]
    if time_limit is not None:
        rounds = len(config.schedule(density)) if config.compression > 1 else 1
        # a contrastive step costs two passes; the last round finetunes, the others search again
        n = len(data.train[0])
        searching = config.search.n_epochs(n) * (2.0 if config.search.contrastive_weight else 1.0)
        searching *= 1.0 if config.movement is None else autopilot.COST
        share = searching / (searching * rounds + config.finetune.n_epochs(n) or 1)
        deadlines = [begin + time_limit * share, begin + time_limit]
    if searches(config):
        searched = search(network, data, config, deadline=deadlines[0], **common)
    else:
        searched = not_searched(network)
    return prune(network, data, searched, config, deadline=deadlines[1], **common)
