"""What a cell does: rows, search, ticket, measures. The only part that computes."""

import copy
import dataclasses
import os
import time
import traceback
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateurs import autopilot, checkpoint, masks, model_directory, schedules, tickets, training
from secateurs import device as devices
from secateurs.data.batches import batch_spans
from secateurs.data.image_views import IMAGE_VIEWS
from secateurs.data.views import View, compose, corruption, pixel_corruption, shift
from secateurs.errors import InputError
from secateurs.experiments import material, peers, probes, student_teacher, trained
from secateurs.experiments.following import dynamics, follow, followed
from secateurs.experiments.record import (
    environment,
    peak_memory,
    predict_seconds,
    reset_peak_memory,
)
from secateurs.experiments.rows import Prepared, prepare
from secateurs.experiments.spec import (
    Cell,
    PeerCell,
    ProbeCell,
    SearchCell,
    StudentTeacherCell,
    TicketCell,
    key,
    needs,
    title,
)
from secateurs.experiments.store import Outcome, Store
from secateurs.measures.invariance import contrastive_loss
from secateurs.measures.quality import classification, probabilistic, recalls
from secateurs.measures.regime import (
    largest_overlap,
    start_mask_overlap,
    weight_histogram,
    weight_movement,
)
from secateurs.measures.size import forward_flops, n_parameters, n_parameters_kept
from secateurs.networks.init import prunable
from secateurs.preparation import feature_names, groups
from secateurs.seeds import stream
from secateurs.tickets import Searched, TicketConfig
from secateurs.training import PhaseConfig, State

__all__ = ["GAP_ROWS", "Status", "execute"]

Status = Literal["done", "already", "busy", "failed"]

GAP_ROWS = 1_024
"""Training and validation images, at most, on which the contrastive term is told each epoch."""


# --- what cells share ------------------------------------------------------------------------


def _view(cell: SearchCell | TicketCell, prepared: Prepared, device: torch.device) -> View | None:
    if cell.view is not None:
        return IMAGE_VIEWS[cell.view]()
    if not (cell.corruption_rate or cell.shift):
        return None
    x = prepared.data.train[0].to(device)
    if prepared.preparation is not None:
        return corruption(x, groups(prepared.preparation), rate=cell.corruption_rate)
    return compose(
        shift(cell.shift, fill=prepared.background),
        pixel_corruption(x, rate=cell.corruption_rate),
    )


def _quality(told: Mapping[str, NDArray[np.float64]], prepared: Prepared) -> dict[str, Any]:
    """Return every measure of [rows, classes] probabilities, by side."""
    data, classes = prepared.data, np.arange(len(prepared.classes))
    ys = {"train": data.train[1], "test": prepared.test[1]}
    if data.validation is not None:
        ys["validation"] = data.validation[1]
    prior = np.bincount(ys["train"].numpy(), minlength=len(classes)) / len(ys["train"])
    found: dict[str, Any] = {}
    for side, proba in told.items():
        y = ys[side].numpy()
        found[side] = classification(y, proba, classes)
        if side != "train":
            found[side] |= probabilistic(y, proba, classes, prior)
    shares = recalls(ys["test"].numpy(), told["test"].argmax(1), classes)
    found["test_recall"] = [None if np.isnan(share) else float(share) for share in shares]
    return found


def _bytes(network: nn.Module, snapshots: list[State], mask: masks.Mask) -> int:
    """Return what must be stored to predict: every snapshot's weights, the mask once."""
    members = []
    for state in snapshots:
        members.append(copy.deepcopy(network))
        members[-1].load_state_dict(state)
    packed = model_directory.pack(members, [mask] * len(members))
    return sum(t.numel() * t.element_size() for t in packed.values())


def _kept_proba(told: Mapping[str, NDArray[np.float64]]) -> dict[str, Tensor]:
    kept = {side: torch.from_numpy(told[side]).float() for side in told if side != "train"}
    return checkpoint.nest(**{trained.PROBA: kept})


def _phase_flops(
    network: nn.Module, prepared: Prepared, phase: PhaseConfig, *, first_step: int = 0
) -> int:
    """Return what training costs: three forward passes a row, twice with a contrastive term."""
    x = prepared.data.train[0]
    passes = 2 if phase.contrastive_weight else 1
    row = forward_flops(network, x[:2]) // 2
    ends = [0, *(end for _, end in batch_spans(len(x), phase.batch_size))]

    def rows(n_steps: int) -> int:
        epochs, rest = divmod(n_steps, len(ends) - 1)
        return epochs * len(x) + ends[rest]

    return 3 * passes * row * (rows(phase.n_steps(len(x))) - rows(first_step))


def _ticket_flops(
    network: nn.Module, prepared: Prepared, config: TicketConfig, history: list[dict[str, Any]]
) -> int:
    """Return what the finetuning costs, and the rounds before it that the cell did itself."""
    rounds = {row["phase"] for row in history} - {"finetune"}
    phases = [config.finetune, *(config.search for _ in rounds)]
    return sum(
        _phase_flops(network, prepared, one, first_step=tickets.first_step(config, one))
        for one in phases
    )


# --- search ----------------------------------------------------------------------------------


def _watched_epochs(epochs: int, *, ratio: float) -> set[int]:
    """Return log-spaced epochs, the last among them: measuring all would cost more than training,
    of small tables and of large layers.
    """
    spaced = {round(ratio**i) for i in range(max(epochs, 1).bit_length() * 4)}
    return {epoch for epoch in spaced if epoch < epochs} | {epochs}


def _search(cell: SearchCell, store: Store, device: torch.device) -> Outcome:
    prepared = prepare(cell.rows)
    network = material.start(cell, prepared)
    names = list(prunable(network, only="encoder.*"))
    n_epochs = cell.search.n_epochs(len(prepared.data.train[0]))
    start = {name: t.detach().clone().to(device) for name, t in network.state_dict().items()}
    scaled = {name: cell.init_scale * start[name] for name in names}

    watched = _watched_epochs(n_epochs, ratio=1.25 if prepared.pixels is None else 2)
    view = _view(cell, prepared, device)

    def watch(network: nn.Module, epoch: int) -> dict[str, Any]:
        told: dict[str, Any] = {}
        state = network.state_dict()
        if epoch in watched or prepared.pixels is not None:
            told["weight_movement"] = weight_movement(scaled, state, names)
            told["histogram"] = weight_histogram(state[name] for name in names)
        if epoch in watched:
            told["start_mask_overlap"] = largest_overlap(start, state, names)
            if prepared.pixels is not None and view is not None:
                told |= _contrastive_gap(cell, network, prepared, view, device)
        return told

    config = TicketConfig(
        search=cell.search,
        init_scale=cell.init_scale,
        only=cell.only,
        movement=cell.movement,
        rewind="start" if cell.keep_step is None else f"step:{cell.keep_step}",
    )
    every: int | Collection[int] = training.FOLLOW_STEPS
    tell = follow(cell, prepared, device)
    if cell.n_probes:
        tell, every = dynamics(cell, network, prepared, device)
    begin = time.process_time()
    searched = tickets.search(
        network,
        material.training_data(cell, prepared),
        config,
        seed=cell.seed,
        view=view,
        device=device,
        checkpoint_dir=store.checkpoint(key(cell)),
        watch=watch,
        follow=tell,
        every=every,
    )
    last = searched.history[-1]
    result = {
        "fit_seconds": time.process_time() - begin,
        "regime": {name: last[name] for name in ("weight_movement", "start_mask_overlap")},
        "loss": last["loss"],
        "flops": _phase_flops(network, prepared, cell.search),
        **_steering(searched, network, prepared, cell),
        **({"epochs": _by_epoch(searched.history)} if prepared.pixels is not None else {}),
        **({"dynamics": _columns(searched.curve)} if cell.n_probes else followed(searched.curve)),
    }
    tensors = checkpoint.nest(state=searched.state, kept=searched.kept or {})
    return Outcome(result=result, history=searched.history, tensors=tensors)


def _contrastive_gap(
    cell: SearchCell, network: nn.Module, prepared: Prepared, view: View, device: torch.device
) -> dict[str, float]:
    """Return the contrastive term of training and of validation images, the same in all epochs."""
    phase, told = cell.search, {}
    sides = {"training": prepared.data.train, "validation": prepared.data.validation}
    for side, pair in sides.items():
        if pair is None or len(pair[0]) < phase.batch_size:
            continue
        shuffled = torch.randperm(len(pair[0]), generator=stream(cell.seed, "gap", side))
        rows = shuffled[:GAP_ROWS]
        told[f"{side}_contrastive"] = contrastive_loss(
            network,
            pair[0][rows].to(device),
            pair[1][rows].to(device),
            view,
            generator=stream(cell.seed, "gap", side, "view", device=device),
            contrastive=phase.contrastive,
            temperature=phase.temperature,
            batch_size=phase.batch_size,
        )
    return told


def _steering(
    searched: Searched, network: nn.Module, prepared: Prepared, cell: SearchCell
) -> dict[str, Any]:
    """Return how the rate was found for a target movement, and what all its training cost."""
    if searched.steering is None:
        return {}
    whole, n = searched.steering, len(prepared.data.train[0])
    spent = len(whole.searches) * _phase_flops(network, prepared, cell.search)
    spent += len(whole.pilots) * _phase_flops(network, prepared, autopilot.pilot(cell.search, n))
    return {"steering": dataclasses.asdict(whole), "lr": whole.kept.rate, "flops": spent}


def _by_epoch(history: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return what the figures of a search on images show: the loss, its parts, where weights are.

    `histogram` counts |w| in the bins of `measures.regime.HISTOGRAM_EDGES`; `training_contrastive`
    and `validation_contrastive` are of equal numbers of images, in evaluation mode.
    """
    names = (
        *("epoch", "loss", "contrastive", "validation_loss", "weight_movement", "histogram"),
        *("training_contrastive", "validation_contrastive"),
    )
    return {name: [row.get(name) for row in history] for name in names if name in history[0]}


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0] if name != "phase"}


# --- ticket ----------------------------------------------------------------------------------


def _ticket(cell: TicketCell, store: Store, device: torch.device) -> Outcome:
    prepared = prepare(cell.rows)
    network = material.start(cell, prepared)
    config = cell.config
    searched = material.pruned_from(cell, network, store)
    moved = dataclasses.replace(
        searched,
        start={k: t.to(device) for k, t in searched.start.items()},
        state={k: t.to(device) for k, t in searched.state.items()},
        kept=searched.kept and {k: t.to(device) for k, t in searched.kept.items()},
    )
    if cell.round_before is not None:  # the rounds before are done: one is left
        config = dataclasses.replace(config, schedule=schedules.one_shot)
    data = material.training_data(cell, prepared)
    begin = time.process_time()
    ticket = tickets.prune(
        network,
        data,
        moved,
        config,
        seed=cell.seed,
        view=_view(cell, prepared, device),
        device=device,
        checkpoint_dir=store.checkpoint(key(cell)),
        follow=follow(cell, prepared, device) if config.finetune.epochs else None,
    )
    fitting = time.process_time() - begin
    ticketed, function = ticket.network.cpu(), ticket.function.cpu()
    snapshots = [{k: t.cpu() for k, t in state.items()} for state in ticket.snapshots]
    mask = {name: kept.cpu() for name, kept in ticket.mask.items()}
    if not config.finetune.epochs:  # its statistics are those of other weights
        x = data.train[0]
        training.reestimate_statistics_(ticketed, x, batch_size=config.search.batch_size)
        snapshots = [ticketed.state_dict()]
        masks.check_held(snapshots[0], mask)

    def proba(x: Tensor) -> NDArray[np.float64]:
        members = []
        for state in snapshots[-config.finetune.snapshots :]:
            ticketed.load_state_dict(state)
            members.append(training.outputs(function, x).double().softmax(1))
        mean: NDArray[np.float64] = torch.stack(members).mean(0).numpy()
        return mean

    sides = {"train": data.train, "validation": data.validation, "test": prepared.test}
    told = {side: proba(pair[0]) for side, pair in sides.items() if pair is not None}
    packed = model_directory.pack([ticketed], [mask])
    flops = _ticket_flops(network, prepared, config, ticket.history)
    spent, seconds, curve = 0, 0.0, followed(ticket.curve)
    search, before = cell.search_cell, cell.round_before
    if before is not None:
        earlier = store.result(key(before))
        spent, seconds = earlier["flops_with_search"], earlier["fit_seconds"]
    elif search is not None:
        earlier = store.result(key(search))
        spent, seconds = earlier["flops"], earlier["fit_seconds"]
        if config.compression == 1 and not config.finetune.epochs and config.rewind == "none":
            # it is the searched network
            curve = {name: earlier[name] for name in ("curve", "early_stop") if name in earlier}
    result: dict[str, Any] = {
        **_quality(told, prepared),
        "size": {
            "density": ticket.density,
            "parameters": n_parameters(ticketed),
            "parameters_kept": n_parameters_kept(ticketed, mask),
            "bytes": _bytes(ticketed, snapshots[-config.finetune.snapshots :], mask),
        },
        "layer_density": {name: float(k.float().mean()) for name, k in mask.items()},
        "regime": _regime(cell, searched, mask),
        **curve,
        "test_rows_seen": prepared.seen,
        "flops": flops,
        "flops_with_search": flops + spent,
        "predict_seconds": predict_seconds(proba, prepared.test[0]),
        "fit_seconds": fitting + seconds,
    }
    meta: dict[str, Any] = {
        "n_inputs": data.train[0][0].numel(),
        "inputs": list(data.train[0].shape[1:]),
        "raw": prepared.pixels is not None,
        "n_outputs": len(prepared.classes),
        "widths": list(cell.widths),
        "dropout": cell.dropout,
        "skip": cell.skip,
        "network": cell.network,
        "prunable": list(mask),
    }
    if prepared.preparation is not None:
        meta["columns"] = feature_names(prepared.preparation)
        meta["groups"] = groups(prepared.preparation)
    tensors = packed | _kept_proba(told)
    return Outcome(result=result, history=ticket.history, tensors=tensors, meta=meta)


def _regime(cell: TicketCell, searched: Searched, mask: masks.Mask) -> dict[str, float | None]:
    if cell.search_cell is None:
        return {"weight_movement": None, "start_mask_overlap": None}
    scale, before = cell.config.init_scale, searched.mask
    if before is not None and cell.config.rewind in ("start", "random"):
        scale = 1.0  # where its last training began
    scaled = {name: scale * searched.start[name] for name in mask}
    if before is not None:  # what earlier rounds pruned did not move
        scaled = {name: weight * before[name] for name, weight in scaled.items()}
    return {
        "weight_movement": weight_movement(scaled, searched.state, mask),
        "start_mask_overlap": start_mask_overlap(searched.start, mask),
    }


# --- ensembles -------------------------------------------------------------------------------


def _ensemble(cell: TicketCell, store: Store) -> Outcome:
    """Average what the members predicted; what they cost adds up."""
    prepared = prepare(cell.rows)
    names = [key(member) for member in cell.members]
    results = [store.result(name) for name in names]
    told = [trained.probabilities(store, name) for name in names]
    mean = {side: np.mean([one[side] for one in told], axis=0) for side in told[0]}
    size = {
        name: sum(result["size"][name] for result in results)
        for name in ("parameters", "parameters_kept", "bytes")
    }
    added = ("flops", "flops_with_search", "predict_seconds", "fit_seconds")
    result: dict[str, Any] = {
        **_quality(mean, prepared),
        "size": {"density": results[0]["size"]["density"], **size},
        "regime": results[0]["regime"],
        "test_rows_seen": prepared.seen,
        **{name: sum(result[name] for result in results) for name in added},
    }
    return Outcome(result=result, tensors=_kept_proba(mean))


# --- peers -----------------------------------------------------------------------------------


def _peer(cell: PeerCell) -> Outcome:
    prepared = prepare(cell.rows)
    (x, y), n_classes = prepared.data.train, len(prepared.classes)
    train: Any
    watched: Any
    test: Any
    if cell.model in peers.RAW:
        assert prepared.raw is not None  # peers have rows of tables
        train, watched, test = prepared.raw
    else:
        held = prepared.data.validation
        train, test = x.numpy(), prepared.test[0].numpy()
        watched = None if held is None else held[0].numpy()
    known, codes = np.unique(y.numpy(), return_inverse=True)
    fitted = peers.fit(cell.model, train, codes, seed=cell.seed)

    def proba(features: Any) -> NDArray[np.float64]:
        whole = np.zeros((len(features), n_classes))  # classes may be absent from training
        whole[:, known] = fitted.predict_proba(features)
        return whole

    told = {"test": proba(test)}
    if prepared.data.validation is not None:
        told["validation"] = proba(watched)
    result: dict[str, Any] = {
        **_quality(told, prepared),
        "size": {"bytes": fitted.n_bytes},
        "test_rows_seen": prepared.seen,
        "predict_seconds": predict_seconds(proba, test),
        "fit_seconds": fitted.seconds,
        "library": fitted.library,
    }
    return Outcome(result=result)


# --- running a cell --------------------------------------------------------------------------


def _compute(cell: Cell, store: Store, device: str | None) -> Outcome:
    reset_peak_memory()
    wall, cpu = time.monotonic(), time.process_time()
    where = devices.pick("cpu" if isinstance(cell, PeerCell) else device)
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    with devices.one_thread():
        if isinstance(cell, SearchCell):
            outcome = _search(cell, store, where)
        elif isinstance(cell, TicketCell):
            outcome = _ensemble(cell, store) if cell.members else _ticket(cell, store, where)
        elif isinstance(cell, ProbeCell):
            outcome = probes.probe(cell, store, where)
        elif isinstance(cell, StudentTeacherCell):
            outcome = student_teacher.study(cell, where)
        else:
            outcome = _peer(cell)
    spent: dict[str, Any] = {
        "seconds": time.monotonic() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_memory": peak_memory(),
        "device": str(where),
        "data": (
            student_teacher.digest(cell.rows)
            if isinstance(cell, StudentTeacherCell)
            else prepare(cell.rows).digest
        ),
        "pid": os.getpid(),
    }
    if where.type == "cuda":
        spent["peak_device_memory"] = torch.cuda.max_memory_allocated(where)
    return dataclasses.replace(outcome, result={**outcome.result, **spent, **environment()})


def execute(cell: Cell, root: Path, *, device: str | None = None) -> Status:
    """Run a cell in this process, unless it is done or another process runs it.

    Args:
        cell: what to run; what it needs must be finished.
        root: of the store.
        device: "cpu", "cuda", ...; None picks.

    Returns:
        "done", "already" (finished before), "busy" (held by another process) or "failed" (the
        traceback is in the store).

    Raises:
        InputError: the store cannot be read or written, or a cell that this one needs is missing.
    """
    store, name = Store(root), key(cell)
    if store.finished(name):
        return "already"
    for needed in needs(cell):
        if not store.finished(key(needed)):
            raise InputError(f"{title(cell)} needs {title(needed)}, which is not finished; run it")
    with store.claim(name) as held:
        if not held:
            return "busy"
        if store.finished(name):
            return "already"
        try:
            outcome = _compute(cell, store, device)
        except Exception as err:  # whatever a cell meets must not stop the others
            lines = traceback.format_exception(err)
            last = " ".join(f"{type(err).__name__}: {err}".split())
            store.write_error(cell, {"error": last, "traceback": "".join(lines)})
            return "failed"
        store.write(cell, outcome)
    return "done"
