"""Milliseconds a member and step: members one after another, stacked in one process, in processes.

Eight members take turns within a process; stacked, their weights are one tensor a layer, multiplied
by torch.bmm, with one BatchNorm, one optimizer and one mask over all. Each round runs every way
once; wall and process CPU time are the 10th percentile over rounds.

    python benchmarks/bench_ensemble.py [--rounds 60] [--members 8] [--processes 2]
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs import criteria, masks
from secateurs.data.batches import Data
from secateurs.data.views import corruption
from secateurs.device import onednn_is_exact
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_
from secateurs.objectives import nce
from secateurs.optimizers import SGD, AdamW
from secateurs.seeds import stream
from secateurs.training import PhaseConfig, train

INPUTS, CLASSES, ROWS, BATCH = 28, 2, 2048, 128
STEPS = ROWS // BATCH
PHASES = ("search", "finetune")


def table() -> tuple[Tensor, Tensor]:
    """Return rows [ROWS, INPUTS] and classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, INPUTS, generator=generator)
    return x, torch.randint(CLASSES, (ROWS,), generator=generator)


def batches(seed: int) -> Iterator[Tensor]:
    """Yield row numbers for ever, in a member's own order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(ROWS, generator=generator).split(BATCH)


def network(widths: tuple[int, ...], seed: int) -> MLP:
    """Return the member that a seed starts from."""
    built = MLP(INPUTS, CLASSES, widths=widths)
    initialise_(built, generator=stream(seed, "init"))
    return built


def in_turn(widths: tuple[int, ...], phase: str, members: range) -> Callable[[], None]:
    """Return an epoch of every member, as the product trains it."""
    x, y = table()
    data = Data(train=(x, y))
    view = corruption(x, [(i, i + 1) for i in range(INPUTS)])
    config = PhaseConfig(epochs=1, batch_size=BATCH, optimizer=AdamW())
    if phase == "search":
        sgd = SGD(lr=1e-2)
        config = PhaseConfig(epochs=1, batch_size=BATCH, optimizer=sgd, contrastive_weight=1.0)
    networks = {seed: network(widths, seed) for seed in members}
    kept: dict[int, Any] = dict.fromkeys(members)
    if phase == "finetune":
        scores = {seed: criteria.magnitude(net, only="encoder.*") for seed, net in networks.items()}
        kept = {seed: masks.keep_top(one, 1 / 8) for seed, one in scores.items()}

    def epoch() -> None:
        for seed, net in networks.items():
            train(net, data, config, name=phase, seed=seed, mask=kept[seed], view=view)

    return epoch


class Stacked(nn.Module):
    """The members' networks as one: weights [members, out, in], activations [members, out, rows].

    In this layout the batch is the last dimension, so that one call normalises every neuron of
    every member over its own rows without a copy.
    """

    def __init__(
        self, networks: list[MLP], *, multiply: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.multiply = multiply

        def stack(of: Callable[[MLP], Tensor]) -> nn.Parameter:
            return nn.Parameter(torch.stack([of(net).detach() for net in networks]))

        depth = len(networks[0].encoder) // 3
        self.weights = nn.ParameterList(
            stack(lambda net, i=i: net.encoder[3 * i].weight) for i in range(depth)
        )
        self.scales, self.shifts = (
            nn.ParameterList(
                nn.Parameter(torch.stack([getattr(n.encoder[3 * i + 1], name) for n in networks]))
                for i in range(depth)
            )
            for name in ("weight", "bias")
        )
        self.decoder = stack(lambda net: net.decoder.weight)
        self.bias = stack(lambda net: net.decoder.bias)
        sizes = [weight.shape[0] * weight.shape[1] for weight in self.weights]
        self.statistics = [(torch.zeros(size), torch.ones(size)) for size in sizes]

    def encode(self, x: Tensor, *, track: bool) -> Tensor:
        """Return h, [members, features, rows]."""
        for weight, scale, shift, (mean, var) in zip(
            self.weights, self.scales, self.shifts, self.statistics, strict=True
        ):
            out = self.multiply(weight, x)
            flat = F.batch_norm(
                out.view(1, -1, out.shape[-1]),
                mean if track else None,
                var if track else None,
                scale.flatten(),
                shift.flatten(),
                training=True,
            )
            x = F.relu(flat).view_as(out)
        return x

    def decode(self, h: Tensor) -> Tensor:
        """Return logits [members * rows, classes]."""
        out = torch.bmm(self.decoder, h) + self.bias[:, :, None]
        return out.transpose(1, 2).reshape(-1, out.shape[1])


class _EachByOneDnn(torch.autograd.Function):
    """[members, out, in] x [members, in, rows] by oneDNN, member by member."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(weight, x)
        return _onednn_each(weight, x.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        weight, x = ctx.saved_tensors
        (g,) = grads
        grad_x = _onednn_each(weight.transpose(1, 2), g.transpose(1, 2))
        return _onednn_each(g, x), grad_x if ctx.needs_input_grad[1] else None


def _onednn_each(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b^T for every member."""
    linear = torch.ops.mkldnn._linear_pointwise
    pairs = zip(a, b, strict=True)
    return torch.stack(
        [linear(p.contiguous(), q.contiguous(), None, "none", [], "") for p, q in pairs]
    )


def stacked(
    widths: tuple[int, ...], phase: str, members: range, *, onednn: bool = False
) -> Callable[[], None]:
    """Return an epoch of all members at once, by the same objective, optimizer and mask."""
    x, y = table()
    view = corruption(x, [(i, i + 1) for i in range(INPUTS)])
    net = Stacked(
        [network(widths, seed) for seed in members],
        multiply=_EachByOneDnn.apply if onednn else torch.bmm,
    )
    orders = [batches(seed) for seed in members]
    draws = torch.Generator().manual_seed(0)
    kept = [
        torch.stack([masks.keep_top({"w": w.abs()}, 1 / 8)["w"] for w in weight.detach()]).float()
        for weight in net.weights
    ]
    optimizer: torch.optim.Optimizer
    if phase == "search":
        optimizer = torch.optim.SGD(
            net.parameters(), lr=1e-2, momentum=0.9, nesterov=True, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2, fused=True)

    def step() -> None:
        rows = torch.stack([next(order) for order in orders])
        batch, target = x[rows], y[rows]
        optimizer.zero_grad()
        h = net.encode(batch.transpose(1, 2), track=True)
        # the mean of a batch for each member, the sum over members
        loss = F.cross_entropy(net.decode(h), target.flatten()) * len(rows)
        if phase == "search":
            changed = view(batch.flatten(0, 1), draws).view_as(batch)
            other = net.encode(changed.transpose(1, 2), track=False)
            pairs = zip(h.transpose(1, 2), other.transpose(1, 2), target, strict=True)
            loss = loss + torch.stack([nce(a, b, t, 1.0) for a, b, t in pairs]).sum()
        loss.backward()
        optimizer.step()
        if phase == "finetune":
            with torch.no_grad():
                torch._foreach_mul_(list(net.weights), kept)

    def epoch() -> None:
        for _ in range(STEPS):
            step()

    return epoch


def timed(epoch: Callable[[], None]) -> float:
    """Return the CPU seconds of one epoch in this process."""
    begin = time.process_time()
    epoch()
    return time.process_time() - begin


def serve(pipe: Any, widths: tuple[int, ...], members: range) -> None:
    """Run epochs of this process's members when told to; answer with their CPU seconds."""
    torch.set_num_threads(1)
    ways = {phase: in_turn(widths, phase, members) for phase in PHASES}
    while (phase := pipe.recv()) is not None:
        pipe.send(timed(ways[phase]))


@contextmanager
def served(widths: tuple[int, ...], members: range, n: int) -> Iterator[Callable[[str], float]]:
    """Yield what runs a phase's epoch in n processes and returns their CPU seconds together."""
    context, pipes, processes = get_context("spawn"), [], []
    for i in range(n):
        ours, theirs = context.Pipe()
        arguments = (theirs, widths, members[i::n])
        processes.append(context.Process(target=serve, args=arguments, daemon=True))
        processes[-1].start()
        pipes.append(ours)

    def run(phase: str) -> float:
        for pipe in pipes:
            pipe.send(phase)
        return sum(pipe.recv() for pipe in pipes)

    yield run
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()


def measured(
    widths: tuple[int, ...], members: range, processes: int, rounds: int
) -> dict[tuple[str, str], Any]:
    """Return the p10 of [wall, CPU] milliseconds a member and step, by phase and way."""
    spent: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with served(widths, members, processes) as by_processes:
        ways: dict[tuple[str, str], Callable[[], float]] = {}
        for phase in PHASES:
            several = {
                "one after another": in_turn(widths, phase, members),
                "stacked, bmm": stacked(widths, phase, members),
            }
            if onednn_is_exact():
                several["stacked, oneDNN"] = stacked(widths, phase, members, onednn=True)
            ways |= {(phase, name): partial(timed, epoch) for name, epoch in several.items()}
            ways[phase, f"{processes} processes"] = partial(by_processes, phase)
        for run in ways.values():
            run()
        for _ in range(rounds):
            for way, run in ways.items():
                begin = time.perf_counter()
                cpu = run()
                spent.setdefault(way, []).append((time.perf_counter() - begin, cpu))
    each = 1e3 / (len(members) * STEPS)
    return {way: each * np.percentile(times, 10, axis=0) for way, times in spent.items()}


def main() -> None:
    """Measure and print one table for each size of network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, "
        f"{args.members} members, batch {BATCH}, {args.rounds} rounds, p10; "
        f"load average {os.getloadavg()[0]:.1f} before"
    )
    for widths in ((512, 512), (64, 64)):
        low = measured(widths, range(args.members), args.processes, args.rounds)
        print(f"\n{f'{len(widths)}x{widths[0]}':<27} {'wall ms':>9} {'CPU ms':>8}  ratio of wall")
        for (phase, way), (wall, cpu) in low.items():
            ratio = wall / low[phase, "one after another"][0]
            print(f"  {phase:<8} {way:<18}{wall:8.3f} {cpu:8.3f} {ratio:9.2f}")


if __name__ == "__main__":
    main()
