"""Students of a known teacher: all seeds, alphas and arms of a pruning round in one stack.

A student is pruned in rounds by the magnitude of its hidden weights; the readout stays dense. What
is trained at each density, and how:

    ticket      the mask of the ticket one round before, trained and pruned; start w0
    no rewind   mask of its own: trained on from where the round before ended, centred at m w0
    re-init     the ticket's mask; hidden weights and readout of another draw
    shuffled    the ticket's mask with its positions permuted; start w0
    top start   the largest |w0|; start w0

Each is centred at its own masked start. Sparse students keep the dense one's learning rate. Changes
of features and weights are told from m w0, of re-init from its own start.
"""

import base64
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from secateurs import device as devices
from secateurs.experiments.spec import StudentTeacherCell, TaskRows
from secateurs.experiments.store import Outcome
from secateurs.masks.selection import highest
from secateurs.measures.regime import log_spaced
from secateurs.networks.teacher import Student, Task, draw_task
from secateurs.regime import stacked
from secateurs.regime.centring import FLOAT32_UP_TO
from secateurs.regime.dial import lr_at
from secateurs.regime.stacked import Layers
from secateurs.seeds import stream

__all__ = ["DENSE", "digest", "n_steps", "step_seconds", "study"]

DENSE = "dense"

_FEATURE_ROWS, _KERNEL_ROWS = 256, 128
"""Test rows on which preactivations and kernels are compared."""

_ALPHA_STAR = 1.0
"""Alpha below which the learning rate shrinks with it: of a width of 64, and of all with the
mean-field readout."""

_N_KEPT, _N_TIMES = 18, 6
"""Log-spaced steps at which features are compared, and at which heatmaps are kept."""


def _task(rows: TaskRows, seed: int) -> Task:
    return draw_task(
        n_inputs=rows.n_inputs,
        n_relevant=4 if rows.dataset == "sparse teacher" else None,
        n_train=rows.n_train,
        n_test=rows.n_test,
        generator=stream(seed, "student_teacher", rows.dataset),
    )


def digest(rows: TaskRows) -> str:
    """Return a hash of the rows of the first seed: equal for equal ones."""
    task = _task(rows, rows.split)
    parts = (task.x_train, task.y_train, task.x_test, task.y_test)
    return hashlib.sha256(b"".join(p.numpy().tobytes() for p in parts)).hexdigest()[:16]


# ---- cost --------------------------------------------------------------------------------------


def _n_replicas(cell: StudentTeacherCell) -> int:
    base = cell.n_seeds * len(cell.alphas)
    transfers = base * (len(cell.alphas) - 1) if cell.follow else 0
    return base * (1 + cell.rounds * len(cell.arms)) + transfers


def n_steps(cell: StudentTeacherCell) -> int:
    """Return how many steps of single students a cell takes.

    >>> n_steps(StudentTeacherCell(rows=TaskRows(dataset="sparse teacher"), follow=0))
    410000
    """
    return _n_replicas(cell) * cell.steps


@lru_cache(maxsize=64)
def step_seconds(rows: TaskRows, width: int) -> float:
    """Return the time of one step of one student in a stack on this machine, tried out."""
    generator = stream(0, "estimate")
    n, d = 4, rows.n_inputs
    weights = tuple(
        torch.randn(n, *shape, generator=generator) for shape in ((width, d), (1, width))
    )
    x = torch.randn(n, rows.n_train, d, generator=generator)
    begin = time.process_time()
    with devices.one_thread():
        stacked.train(weights, x, x[:, :, :1], scales=(0.2, 0.2), alpha=1.0, lr=1e-3, steps=20)
    return (time.process_time() - begin) / (20 * n)


# ---- what the arms share -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """One replica for each seed and alpha, seeds first; [replicas, ...] throughout."""

    cell: StudentTeacherCell
    scales: tuple[float, float]
    seeds: list[int]
    alpha: Tensor
    lr: Tensor
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    relevant: Tensor
    start: Layers
    fresh: Layers

    @property
    def n(self) -> int:
        return len(self.alpha)

    @property
    def steps_kept(self) -> list[int]:
        return log_spaced(self.cell.steps, _N_KEPT)


def _bench(cell: StudentTeacherCell, device: torch.device) -> _Bench:
    n_alphas = len(cell.alphas)
    dtype = torch.float64 if max(cell.alphas) > FLOAT32_UP_TO else torch.float32
    seeds = [cell.rows.split + i for i in range(cell.n_seeds)]
    tasks = [_task(cell.rows, seed) for seed in seeds]

    def each(parts: Sequence[Tensor]) -> Tensor:
        whole = torch.stack(list(parts)).to(device=device)
        whole = whole if whole.dtype == torch.bool else whole.to(dtype)
        return whole.repeat_interleave(n_alphas, 0)

    def drawn(name: str) -> tuple[Layers, tuple[float, float]]:
        students = [
            Student(
                cell.rows.n_inputs, width=cell.width, readout=cell.readout,
                generator=stream(seed, "student", name),
            )
            for seed in seeds
        ]  # fmt: skip
        layers = (
            each([s.hidden.detach() for s in students]),
            each([s.readout.detach() for s in students]),
        )
        return layers, students[0].scales

    start, scales = drawn("start")
    x = each([task.x_train for task in tasks])
    alphas = list(cell.alphas) * cell.n_seeds
    # the kernel of the start does not depend on alpha
    first = tuple(layer[::n_alphas] for layer in start)
    lazy = stacked.largest_eigenvalues(first, x[::n_alphas], scales=scales)
    rates = [
        lr_at(alpha, lr=1 / float(top), alpha_star=_ALPHA_STAR, n_layers=2)
        for top, alpha in zip(lazy.repeat_interleave(n_alphas).tolist(), alphas, strict=True)
    ]
    return _Bench(
        cell=cell,
        scales=scales,
        seeds=[seed for seed in seeds for _ in cell.alphas],
        alpha=torch.tensor(alphas, dtype=dtype, device=device),
        lr=torch.tensor(rates, dtype=dtype, device=device),
        x=x,
        y=each([task.y_train for task in tasks])[:, :, None],
        x_test=each([task.x_test for task in tasks]),
        y_test=each([task.y_test for task in tasks])[:, :, None],
        relevant=each([task.teacher.relevant for task in tasks]),
        start=start,
        fresh=drawn("fresh")[0],
    )


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """Students that are trained: a mask, where they start and what they are centred at."""

    mask: Tensor
    start: Layers
    reference: Layers


@dataclass(frozen=True, kw_only=True)
class _Done:
    """Trained students; `reference` is masked."""

    mask: Tensor
    reference: Layers
    end: Layers
    snapshots: dict[int, Layers]


def _pruned(weights: Layers, mask: Tensor) -> Layers:
    return weights[0] * mask, weights[1]


def _train(
    bench: _Bench, arms: Sequence[_Arm], *, lr: Tensor | None = None, alpha: Tensor | None = None
) -> list[_Done]:
    """Train the students of all arms in one stack."""
    n = len(arms)
    masks = torch.cat([arm.mask for arm in arms])
    reference = tuple(torch.cat(parts) for parts in zip(*(a.reference for a in arms), strict=True))
    done = stacked.train(
        [torch.cat(parts) for parts in zip(*(arm.start for arm in arms), strict=True)],
        bench.x.repeat(n, 1, 1),
        bench.y.repeat(n, 1, 1),
        scales=bench.scales,
        alpha=(bench.alpha if alpha is None else alpha).repeat(n),
        lr=(bench.lr if lr is None else lr).repeat(n),
        steps=bench.cell.steps,
        masks=(None if bool(masks.all()) else masks, None),
        reference=reference,
        at=bench.steps_kept,
    )
    found = []
    for i, arm in enumerate(arms):
        part = slice(i * bench.n, (i + 1) * bench.n)
        snapshots: dict[int, Layers] = {
            step: (first[part], second[part]) for step, (first, second) in done.snapshots.items()
        }
        found.append(
            _Done(
                mask=arm.mask,
                reference=_pruned(arm.reference, arm.mask),
                end=snapshots[bench.cell.steps],
                snapshots=snapshots,
            )
        )
    return found


# ---- masks -------------------------------------------------------------------------------------


def _top(weights: Tensor, n_kept: int, *, alive: Tensor | None = None) -> Tensor:
    """Return the mask of the largest weights of each replica."""
    flat = None if alive is None else alive.flatten(1)
    return highest(weights.abs().flatten(1), n_kept, alive=flat).view(weights.shape)


def _shuffled(bench: _Bench, mask: Tensor, level: int) -> Tensor:
    rows = []
    for seed, alpha, kept in zip(bench.seeds, bench.alpha.tolist(), mask.flatten(1), strict=True):
        generator = stream(seed, "shuffled", level, f"{alpha:g}")
        rows.append(kept[torch.randperm(len(kept), generator=generator).to(kept.device)])
    return torch.stack(rows).view(mask.shape)


def _arms(bench: _Bench, level: int, before: dict[str, _Done]) -> dict[str, _Arm]:
    """Return what is trained in a round, from what the round before left."""
    n_kept = round(bench.cell.kept**level * bench.start[0][0].numel())
    ticket, start = before["ticket"], bench.start
    kept = _top(ticket.end[0], n_kept, alive=ticket.mask)
    found: dict[str, _Arm] = {}
    for name in bench.cell.arms:
        mask, begin, centre = kept, start, start
        if name == "no rewind":
            last = before["no rewind"]
            mask, begin = _top(last.end[0], n_kept, alive=last.mask), last.end
        elif name == "re-init":
            begin = centre = bench.fresh
        elif name == "shuffled":
            mask = _shuffled(bench, kept, level)
        elif name == "top start":
            mask = _top(start[0], n_kept)
        found[name] = _Arm(mask=mask, start=begin, reference=centre)
    return found


# ---- measures ----------------------------------------------------------------------------------


def _error(bench: _Bench, end: Layers, reference: Layers, *, tested: bool) -> Tensor:
    """Return the mean squared error of each replica, [replicas]."""
    x, y = (bench.x_test, bench.y_test) if tested else (bench.x, bench.y)
    return (_scaled(bench, end, reference, x) - y).square().mean((1, 2))


def _scaled(bench: _Bench, end: Layers, reference: Layers, x: Tensor) -> Tensor:
    """Return F, [replicas, rows, 1]."""
    n = len(end[0]) // bench.n
    told = [stacked.outputs(w, x.repeat(n, 1, 1), scales=bench.scales) for w in (end, reference)]
    return bench.alpha.repeat(n)[:, None, None] * (told[0] - told[1])


def _preactivations(bench: _Bench, weights: Layers) -> Tensor:
    """Return [replicas, rows, units] of the first test rows."""
    return stacked.hidden(weights, bench.x_test[:, :_FEATURE_ROWS], scales=bench.scales)


def _correlation(a: Tensor, b: Tensor, alive: Tensor) -> Tensor:
    """Return the correlation of column-centred [rows, units], units that are not alive left out."""
    a, b = ((h - h.mean(1, keepdim=True)) * alive[:, None, :] for h in (a, b))
    both = (a * b).sum((1, 2))
    return both / (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt()


def _hsic(k: Tensor, m: Tensor) -> Tensor:
    """Return the unbiased HSIC of zero-diagonal [replicas, rows, rows] (Song et al. 2012)."""
    n = k.shape[1]
    sums = k.sum(2), m.sum(2)
    whole = (k * m).sum((1, 2)) - 2 / (n - 2) * (sums[0] * sums[1]).sum(1)
    whole += sums[0].sum(1) * sums[1].sum(1) / ((n - 1) * (n - 2))
    return whole / (n * (n - 3))


def _cka(a: Tensor, b: Tensor) -> Tensor:
    """Return the debiased linear CKA of each replica's [rows, units]."""

    def gram(h: Tensor) -> Tensor:
        k = torch.bmm(h, h.transpose(1, 2))
        k.diagonal(dim1=1, dim2=2).zero_()
        return k

    one, other = gram(a.double()), gram(b.double())
    return _hsic(one, other) / (_hsic(one, one) * _hsic(other, other)).sqrt()


def _kernel_distance(bench: _Bench, done: _Done) -> Tensor:
    """Return 1 - cos of the kernels at the start and at the end (Fort et al. 2020)."""
    masks = (None if bool(done.mask.all()) else done.mask, None)
    before, after = (
        stacked.tangent_kernel(
            w, bench.x_test[:, :_KERNEL_ROWS], scales=bench.scales, masks=masks
        ).double()
        for w in (done.reference, done.end)
    )
    sizes = before.square().sum((1, 2)) * after.square().sum((1, 2))
    return 1 - (before * after).sum((1, 2)) / sizes.sqrt()


def _movement(done: _Done) -> Tensor:
    """Return |w - start| / |start| over both layers."""
    pairs = list(zip(done.end, done.reference, strict=True))
    moved = torch.stack([(e - s).square().sum((1, 2)) for e, s in pairs]).sum(0)
    return (moved / torch.stack([s.square().sum((1, 2)) for _, s in pairs]).sum(0)).sqrt()


def _deviation(bench: _Bench, done: _Done) -> Tensor:
    """Return |F - F_lin| / |F| on test rows, F_lin linear in the weights around the start."""
    f = _scaled(bench, done.end, done.reference, bench.x_test)[:, :, 0]
    tangent = stacked.tangent_change(done.end, done.reference, bench.x_test, scales=bench.scales)
    away: Tensor = (f - bench.alpha[:, None] * tangent).norm(dim=1) / f.norm(dim=1)
    return away


def _measured(bench: _Bench, done: _Done, dense: _Done) -> dict[str, Tensor]:
    """Return every measure of one arm, [replicas] each."""
    h0, begin, end = (
        _preactivations(bench, w) for w in (done.reference, done.snapshots[0], done.end)
    )
    d0, d = (_preactivations(bench, w) for w in (dense.reference, dense.end))
    alive = done.mask.any(2)
    top = _top(bench.start[0], int(done.mask[0].sum()))
    kept = done.mask.sum((1, 2))
    on_relevant = (done.mask & bench.relevant[:, None, :]).sum((1, 2))
    return {
        "train_mse": _error(bench, done.end, done.reference, tested=False),
        "test_mse": _error(bench, done.end, done.reference, tested=True),
        "movement": _movement(done),
        "kernel_distance": _kernel_distance(bench, done),
        "deviation": _deviation(bench, done),
        "cka_start": _cka(h0.relu(), end.relu()),
        "cka_dense": _cka(d.relu(), end.relu()),
        "h_start": _correlation(begin, d0, alive),
        "h_end": _correlation(end, d, alive),
        "dh_end": _correlation(end - h0, d - d0, alive),
        "overlap": (done.mask & top).sum((1, 2)) / (done.mask | top).sum((1, 2)),
        "relevant": on_relevant / kept,
        "n_dead": (~alive).sum(1),
    }


def _plain(value: float) -> float | None:
    """Return a number of six digits; None for what is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _records(bench: _Bench, found: dict[str, Tensor], **labels: Any) -> list[dict[str, Any]]:
    columns = {name: [_plain(float(v)) for v in values] for name, values in found.items()}
    alphas = list(bench.cell.alphas) * bench.cell.n_seeds
    return [
        {"seed": seed, "alpha": alpha, **labels, **{name: c[i] for name, c in columns.items()}}
        for i, (seed, alpha) in enumerate(zip(bench.seeds, alphas, strict=True))
    ]


def _followed(bench: _Bench, name: str, done: _Done, dense: _Done) -> list[dict[str, Any]]:
    """Return how like the dense student's the features are, step by step."""
    h0, d0 = (_preactivations(bench, one.reference) for one in (done, dense))
    alive = done.mask.any(2)
    rows = []
    for step, weights in done.snapshots.items():
        h, d = _preactivations(bench, weights), _preactivations(bench, dense.snapshots[step])
        found = {
            "train_mse": _error(bench, weights, done.reference, tested=False),
            "h": _correlation(h, d, alive),
            "dh": _correlation(h - h0, d - d0, alive),
        }
        rows += _records(bench, found, arm=name, step=step)
    return rows


def _transfer(bench: _Bench, ticket: _Done) -> list[dict[str, Any]]:
    """Train the mask that each alpha found at every other alpha, rewound."""
    n, n_alphas = bench.cell.n_seeds, len(bench.cell.alphas)
    errors = _error(bench, ticket.end, ticket.reference, tested=True)
    rows = [row | {"found": row["alpha"]} for row in _records(bench, {"test_mse": errors})]
    # shifted by i places, every replica gets the mask of another alpha of its own seed
    by_seed = ticket.mask.view(n, n_alphas, *ticket.mask.shape[1:])
    shifts = range(1, n_alphas)
    arms = [
        _Arm(mask=by_seed.roll(i, 1).flatten(0, 1), start=bench.start, reference=bench.start)
        for i in shifts
    ]
    for i, done in zip(shifts, _train(bench, arms) if arms else [], strict=True):
        errors = _error(bench, done.end, done.reference, tested=True)
        for at, row in enumerate(_records(bench, {"test_mse": errors})):
            rows.append(row | {"found": bench.cell.alphas[(at - i) % n_alphas]})
    return rows


# ---- heatmaps ----------------------------------------------------------------------------------


def _matched(h: NDArray[Any], dense: NDArray[Any]) -> NDArray[np.intp]:
    """Return for each unit of the dense student the one of another that is most like it."""
    n = h.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        likeness = np.nan_to_num(np.abs(np.corrcoef(dense.T, h.T)[:n, n:]))
    matched: NDArray[np.intp] = linear_sum_assignment(-likeness)[1]
    return matched


def _heatmaps(bench: _Bench, dense: _Done, arms: dict[str, _Done]) -> dict[str, Any]:
    """Return preactivations of the first seed: [alphas, times, rows, units] of each arm as int8.

    Rows are sorted by y, units as a clustering of the dense student's at the end has them; those of
    re-init are matched to them. 127 is `scale`; -128 marks a unit without inputs.
    """
    cell, y = bench.cell, bench.y_test[0, :_FEATURE_ROWS, 0].cpu()
    order = y.argsort()
    rows = order[torch.linspace(0, len(order) - 1, cell.n_heatmap_rows).round().long()].numpy()
    steps = bench.steps_kept
    at = sorted({0, *np.linspace(len(steps) / 3, len(steps) - 1, _N_TIMES - 1).round().astype(int)})
    times = [steps[i] for i in at]
    n_alphas = len(cell.alphas)

    def seen(done: _Done, step: int) -> NDArray[Any]:
        h: NDArray[Any] = _preactivations(bench, done.snapshots[step])[:n_alphas].cpu().numpy()
        return h

    last = {name: seen(done, cell.steps) for name, done in {DENSE: dense, **arms}.items()}
    units = [leaves_list(linkage(h.T, method="average", metric="correlation")) for h in last[DENSE]]
    scale = float(np.quantile(np.abs(last[DENSE]), 0.995))
    found: dict[str, Any] = {"steps": times, "scale": scale, "y": y[rows].tolist(), "arms": {}}
    found["shape"] = [n_alphas, len(times), len(rows), cell.width]
    for name, done in {DENSE: dense, **arms}.items():
        columns = list(units)
        if name == "re-init":
            pairs = zip(last[name], last[DENSE], strict=True)
            columns = [_matched(h, d)[u] for (h, d), u in zip(pairs, units, strict=True)]
        alive = done.mask[:n_alphas].any(2).cpu().numpy()

        at_steps = [
            np.clip(np.round(127 * seen(done, t)[:, rows] / scale), -127, 127) for t in times
        ]
        whole = np.stack(
            [
                [np.where(live, h[i], -128)[:, own] for h in at_steps]
                for i, (live, own) in enumerate(zip(alive, columns, strict=True))
            ]
        ).astype(np.int8)
        found["arms"][name] = base64.b64encode(whole.tobytes()).decode()
    return found


# ---- the study ---------------------------------------------------------------------------------


def study(cell: StudentTeacherCell, device: torch.device | str = "cpu") -> Outcome:
    """Train and measure the students of a cell.

    The result has flat lists of records: `records` of every arm, density, alpha and seed,
    `followed` over the steps at one density, `transfer` of masks between alphas, `heatmaps`.

    Args:
        cell: what to train.
        device: where.

    >>> rows = TaskRows(dataset="sparse teacher", n_train=32, n_test=32)
    >>> cell = StudentTeacherCell(rows=rows, width=8, rounds=1, follow=0, steps=5)
    >>> found = study(cell).result["records"]
    >>> len(found), found[0]["arm"], found[0]["density"]
    (30, 'dense', 1.0)
    """
    bench = _bench(cell, torch.device(device))
    whole = _Arm(
        mask=torch.ones_like(bench.start[0], dtype=torch.bool),
        start=bench.start,
        reference=bench.start,
    )
    (dense,) = _train(bench, [whole])
    first = _measured(bench, dense, dense)
    records = _records(bench, first, arm=DENSE, level=0, density=1.0)
    result: dict[str, Any] = {"records": records, "followed": [], "transfer": []}
    before = dict.fromkeys(("ticket", "no rewind"), dense)
    for level in range(1, cell.rounds + 1):
        arms = _arms(bench, level, before)
        trained = dict(zip(arms, _train(bench, list(arms.values())), strict=True))
        density = float(trained["ticket"].mask[0].double().mean())
        for name, done in trained.items():
            found = _measured(bench, done, dense)
            records += _records(bench, found, arm=name, level=level, density=density)
        if level == cell.follow:
            for name, done in {DENSE: dense, **trained}.items():
                result["followed"] += _followed(bench, name, done, dense)
            result["transfer"] = _transfer(bench, trained["ticket"])
            if cell.n_heatmap_rows:
                result["heatmaps"] = _heatmaps(bench, dense, trained)
        before = before | {name: trained[name] for name in before if name in trained}
    result["test"] = {"explained": 1 - float(first["test_mse"].mean())}
    row = 2 * cell.width * (cell.rows.n_inputs + 1)
    result["flops"] = 3 * row * cell.rows.n_train * n_steps(cell)
    return Outcome(result=result)
