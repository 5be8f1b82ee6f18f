"""The method: train, score, mask, rewind, finetune.

Limiting cases are settings, not classes: `init_scale=1` and no contrastive weight is one-shot
magnitude pruning (OMP); `compression=1` the dense network (no search); `search.epochs=0` pruning at
initialisation; a geometric schedule with a rewind is iterative magnitude pruning.
"""

import copy
import hashlib
import inspect
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from secateurs import criteria, masks, schedules
from secateurs import device as devices
from secateurs.data.batches import Data, batch_spans
from secateurs.descriptions import told_fields
from secateurs.errors import InputError
from secateurs.masks import Mask, Scores
from secateurs.networks.init import initialise_, prunable, scale_
from secateurs.optimizers import SGD, AdamW, BetaLasso
from secateurs.seeds import stream
from secateurs.training import PhaseConfig, Progress, State, Trained, View, Watch, train

__all__ = [
    "Searched",
    "Ticket",
    "TicketConfig",
    "density_for",
    "find_ticket",
    "keep_step",
    "not_searched",
    "prune",
    "search",
    "searches",
]


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
        scope: whether scores compete globally or within their layer.
        min_per_layer: weights that every layer keeps.
        schedule: density -> densities of the rounds; see `secateurs.schedules`.
        rewind: where the kept weights go back to: "start" (the unscaled initial weights),
            "scaled_start" (those times init_scale), "step:K" (as after K steps of the search),
            "none" (they keep their searched values), "random" (fresh initial weights: a control).
        control: instead of the mask found, "shuffled" has as many weights in each layer at random
            places, "top_start" the largest initial ones; "none" is no control.
        init_scale: kappa, on the Linear and Conv weights at the start of the search (PIS).
    """

    search: PhaseConfig = field(default_factory=lambda: PhaseConfig(optimizer=SGD(lr=1e-2)))
    finetune: PhaseConfig = field(default_factory=lambda: PhaseConfig(optimizer=AdamW()))
    compression: float = 8.0
    compression_of: Literal["encoder", "model"] = "encoder"
    criterion: Callable[..., Scores] = criteria.magnitude
    scope: Literal["global", "layer"] = "global"
    min_per_layer: int = 1
    schedule: Callable[[float], schedules.Schedule] = schedules.one_shot
    rewind: str = "start"
    control: Literal["none", "shuffled", "top_start"] = "none"
    init_scale: float = 0.25

    def __post_init__(self) -> None:
        if not 1 <= self.compression < math.inf:
            raise InputError(
                f"compression must be at least 1 (1 keeps everything), got {self.compression}"
            )
        if self.compression_of not in ("encoder", "model"):
            raise InputError(
                f"compression_of must be 'encoder' or 'model', got {self.compression_of!r}"
            )
        if self.scope not in ("global", "layer"):
            raise InputError(f"scope must be 'global' or 'layer', got {self.scope!r}")
        if self.control not in ("none", "shuffled", "top_start"):
            raise InputError(
                f"control must be 'none', 'shuffled' or 'top_start', got {self.control!r}"
            )
        if self.min_per_layer < 0:
            raise InputError(f"min_per_layer must be at least 0, got {self.min_per_layer}")
        if not 0 < self.init_scale < math.inf:
            raise InputError(f"init_scale must be a positive number, got {self.init_scale}")
        keep_step(self.rewind)
        lasso = self.search.optimizer
        if isinstance(lasso, BetaLasso) and self.init_scale < 1 and not lasso.allow_scaled_start:
            raise InputError(
                f"beta-Lasso thresholds weights in their own units, so init_scale must be 1, got "
                f"{self.init_scale:g}; set it to 1 or pass BetaLasso(allow_scaled_start=True)"
            )


def keep_step(rewind: str) -> int | None:
    """Return K of "step:K", None for the other choices.

    Raises:
        InputError: not a rewind choice.

    >>> keep_step("step:100")
    100
    """
    if rewind in ("start", "scaled_start", "none", "random"):
        return None
    kind, _, number = rewind.partition(":")
    if kind != "step" or not number.isdigit():
        raise InputError(
            f"rewind must be 'start', 'scaled_start', 'step:K', 'none' or 'random', got {rewind!r}"
        )
    return int(number)


def searches(config: TicketConfig) -> bool:
    """Return whether anything of the search is left in the ticket.

    A dense network that goes back to its start owes nothing to a search.

    >>> searches(TicketConfig(compression=1)), searches(TicketConfig(compression=1, rewind="none"))
    (False, True)
    """
    return config.compression > 1 or config.rewind == "none" or bool(keep_step(config.rewind))


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A network after its search phase; several tickets can be pruned from it.

    `start` holds the unscaled initial state, `state` the searched one, `kept` the state after the
    step of a "step:K" rewind.
    """

    start: State
    state: State
    kept: State | None
    history: list[dict[str, Any]]
    complete: bool


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A mask, the weights it started from, and the trained network that holds it.

    Args:
        network: finetuned, in evaluation mode; pruned weights are exactly zero.
        mask: kept weights by parameter name.
        start: state that the finetuning started from, before masking.
        history: one row an epoch, over all phases.
        snapshots: states at the ends of the last learning-rate cycles, the final one last.
        searched: the search that the mask came from.
        complete: False when a time limit ended a phase early.
    """

    network: nn.Module
    mask: Mask
    start: State
    history: list[dict[str, Any]]
    snapshots: list[State]
    searched: Searched
    complete: bool

    @property
    def density(self) -> float:
        """Kept fraction of the prunable weights."""
        return masks.density(self.mask)


def _describe(value: Any) -> Any:
    """Return a JSON-able description of a config that is the same in every process."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _describe(getattr(value, f.name)) for f in told_fields(value)}
    if isinstance(value, partial):
        return [_describe(value.func), _describe(list(value.args)), _describe(value.keywords)]
    if isinstance(value, dict):
        return {str(key): _describe(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_describe(part) for part in value]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value


def _fingerprint(
    network: nn.Module, data: Data, phase: PhaseConfig, view: View | None, *parts: Any
) -> str:
    """Return a hash of everything that decides a phase: a checkpoint belongs to just one."""
    digest = hashlib.sha256(
        json.dumps(_describe((phase, *parts)), sort_keys=True, default=repr).encode()
    )
    tensors = [*network.state_dict().values(), *data.train, *(data.validation or ())]
    if view is not None and phase.contrastive_weight:
        # a view is any callable: what it does to a few rows is its description
        x = data.train[0][:64]
        tensors.append(view(x, stream(0, "fingerprint", device=x.device)))
    for tensor in [*tensors, *([] if data.weight is None else [data.weight])]:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _encoder_weights(network: nn.Module, encoder: str | None) -> tuple[str, list[str]]:
    """Return the encoder's name and the names of its prunable weights."""
    name = encoder or "encoder"
    if name not in dict(network.named_modules()):
        children = ", ".join(child for child, _ in network.named_children()) or "none"
        raise InputError(
            f"the network must have a submodule {name!r} whose weights are pruned and whose output "
            f"is the hidden representation; pass encoder='NAME' (its submodules: {children})"
        )
    return name, list(prunable(network, only=(f"{name}.weight", f"{name}.*")))


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
    if config.scope == "global":
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


def _beyond(step: int) -> InputError:
    return InputError(
        f"rewind='step:{step}' must lie within the search, which ends before that step; "
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
    deadline: float = math.inf,
) -> Searched:
    """Train the supernetwork from its scaled start: the first half of `find_ticket`.

    One search serves any number of compressions; it reads `config.search`, `config.init_scale` and
    the K of a "step:K" rewind only. Arguments and errors as for `find_ticket`.
    """
    _check(config, view)
    where = devices.pick(device)
    network = copy.deepcopy(network).to(where)
    name, names = _encoder_weights(network, encoder)
    start = {key: t.detach().clone() for key, t in network.state_dict().items()}
    moved = data.to(where)
    at = keep_step(config.rewind)
    per_epoch = len(batch_spans(len(data.train[0]), config.search.batch_size))
    if at is not None and at > config.search.epochs * per_epoch:
        raise _beyond(at)
    fingerprint = (
        ""
        if checkpoint_dir is None
        else _fingerprint(network, moved, config.search, view, config.init_scale, at, name, seed)
    )
    if not config.search.epochs:
        return not_searched(network)
    scale_(network, config.init_scale)
    trained = train(
        network,
        moved,
        config.search,
        name="search",
        seed=seed,
        encoder=name,
        prunable=names,
        view=view,
        keep_step=at,
        save_to=checkpoint_dir and checkpoint_dir / "search.safetensors",
        fingerprint=fingerprint,
        progress=progress,
        watch=watch,
        deadline=deadline,
    )
    if at is not None and trained.kept is None:
        raise _beyond(at)
    return Searched(
        start=start,
        state=trained.snapshots[-1],
        kept=trained.kept,
        history=trained.history,
        complete=trained.complete,
    )


def _rewind(network: nn.Module, searched: Searched, config: TicketConfig, seed: int) -> None:
    """Put the weights where finetuning starts from; BatchNorm, biases and decoder go with them."""
    if config.rewind == "none":
        return
    network.load_state_dict(searched.start)
    if config.rewind == "scaled_start":
        scale_(network, config.init_scale)
    elif config.rewind == "random":
        initialise_(network, generator=stream(seed, "rewind"))
    elif config.rewind != "start":
        assert searched.kept is not None
        network.load_state_dict(searched.kept)


def _scores(network: nn.Module, config: TicketConfig, names: list[str], seed: int) -> Scores:
    """Call the criterion with what its signature asks for."""
    arguments: dict[str, Any] = {"only": names}
    if "generator" in inspect.signature(config.criterion).parameters:
        arguments["generator"] = stream(seed, "criterion")
    return config.criterion(network, **arguments)


def _control(mask: Mask, start: State, config: TicketConfig, seed: int) -> Mask:
    if config.control == "shuffled":
        return masks.shuffle(mask, generator=stream(seed, "control"))
    if config.control == "top_start":
        return masks.top_like({name: start[name].abs() for name in mask}, mask)
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
    deadline: float = math.inf,
) -> Ticket:
    """Score, mask, rewind and finetune a searched network: the second half of `find_ticket`.

    Every round but the last trains with `config.search`, the last with `config.finetune`. What a
    beta-Lasso search set to zero stays pruned; with `compression=1` nothing else is.
    Arguments and errors as for `find_ticket`.
    """
    _check(config, view)
    where = devices.pick(device)
    network = copy.deepcopy(network).to(where)
    name, names = _encoder_weights(network, encoder)
    network.load_state_dict(searched.state)
    moved = data.to(where)
    searched_weights = {key: dict(network.named_parameters())[key].detach() for key in names}
    mask = masks.ones(searched_weights)
    if isinstance(config.search.optimizer, BetaLasso):  # its zeros are pruned: it sets the density
        mask = {key: weight != 0 for key, weight in searched_weights.items()}
    history, complete = list(searched.history), searched.complete
    trained: Trained | None = None
    start = searched.start

    densities: schedules.Schedule = (1.0,)  # nothing to do in rounds
    if config.compression > 1:
        densities = config.schedule(density_for(config, network, names))
    for i, density in enumerate(densities, start=1):
        last = i == len(densities)
        if density < 1:
            mask = masks.keep_top(
                _scores(network, config, names, seed),
                density,
                within=mask,
                scope=config.scope,
                min_per_layer=config.min_per_layer,
            )
        if last and density < 1:
            mask = _control(mask, searched.start, config, seed)
        _rewind(network, searched, config, seed)
        start = {key: t.detach().clone() for key, t in network.state_dict().items()}
        masks.apply_(network, mask)
        phase = config.finetune if last else config.search
        title = "finetune" if last else f"round {i}"
        save_to = fingerprint = None
        if checkpoint_dir is not None:
            save_to = checkpoint_dir / f"density-{density:.6g}.safetensors"
            kept = masks.kept_per_layer(mask)
            fingerprint = _fingerprint(network, moved, phase, view, kept, name, seed)
        trained = train(
            network,
            moved,
            phase,
            name=title,
            seed=seed,
            encoder=name,
            prunable=names,
            mask=mask,
            view=view,
            save_to=save_to,
            fingerprint=fingerprint or "",
            progress=progress,
            watch=watch,
            deadline=deadline,
        )
        history += trained.history
        complete = complete and trained.complete
    assert trained is not None
    network.eval()
    return Ticket(
        network=network,
        mask=mask,
        start=start,
        history=history,
        snapshots=trained.snapshots,
        searched=searched,
        complete=complete,
    )


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
    _, names = _encoder_weights(network, encoder)
    density = density_for(config, network, names)
    common: dict[str, Any] = {
        "seed": seed,
        "view": view,
        "encoder": encoder,
        "device": device,
        "checkpoint_dir": checkpoint_dir,
        "progress": progress,
    }
    begin = time.monotonic()
    deadlines = [math.inf, math.inf]
    if time_limit is not None:
        rounds = len(config.schedule(density))
        # a contrastive step costs two passes; the last round finetunes, the others search again
        searching = config.search.epochs * (2 if config.search.contrastive_weight else 1)
        share = searching / (searching * rounds + config.finetune.epochs or 1)
        deadlines = [begin + time_limit * share, begin + time_limit]
    if searches(config):
        searched = search(network, data, config, deadline=deadlines[0], **common)
    else:
        searched = not_searched(network)
    return prune(network, data, searched, config, deadline=deadlines[1], **common)
