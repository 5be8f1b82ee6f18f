"""Seconds a criterion takes, 100 SynFlow rounds among them, and what a mask costs a training step.

Variants run interleaved in one process on one thread; each figure is the 10th percentile of process
CPU time over the rounds. Networks are LeNet-300-100 (100 rows of 784) and ResNet-18 (32x32 inputs).

    python benchmarks/bench_criteria.py [--rounds 5] [--steps 400] [--skip-resnet]
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs import Data, PhaseConfig, criteria, masks, schedules
from secateurs.networks.init import initialise_
from secateurs.optimizers import AdamW
from secateurs.seeds import stream
from secateurs.training import train

Batch = tuple[Tensor, Tensor]
BATCH_SIZE, LR = 60, 1.2e-3  # Frankle & Carbin 2019


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or n_in != n_out:
            self.shortcut.append(nn.Conv2d(n_in, n_out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


def resnet18() -> nn.Module:
    """Return ResNet-18 as it is used on CIFAR-10: no pooling at the start, 11.2M weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    n_in = 64
    for n_out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(n_in, n_out, stride), Block(n_out, n_out, 1)]
        n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def lenet() -> nn.Module:
    """Return LeNet-300-100; "encoder" and "decoder" are the names that the training loop knows."""
    network = nn.Sequential()
    first, second = nn.Linear(784, 300), nn.Linear(300, 100)
    network.add_module("encoder", nn.Sequential(first, nn.ReLU(), second, nn.ReLU()))
    network.add_module("decoder", nn.Linear(100, 10))
    return network


def started(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a network with the start weights of one seed."""
    network = make()
    initialise_(network, generator=stream(0, "init"))
    return network


def drawn(n: int, *shape: int) -> Batch:
    """Return n rows of noise, with classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, *shape, generator=generator), torch.randint(10, (n,), generator=generator)


def synflow_rounds(network: nn.Module, example: Tensor, n_rounds: int, density: float) -> None:
    """Prune in SynFlow's rounds, selection and masking included."""
    score = partial(criteria.synflow, example=example)
    rounds = schedules.exponential(density, rounds=n_rounds)
    # the 1x1 shortcuts of a ResNet are the first to go
    masks.keep_in_rounds(network, score, rounds, allow_empty=True)


def low(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the 10th percentile of each variant's CPU seconds, interleaved, the first left out."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for i in range(rounds + 1):
        for name, run in variants.items():
            begin = time.process_time()
            run()
            if i:
                spent[name].append(time.process_time() - begin)
    return {name: float(np.percentile(values, 10)) for name, values in spent.items()}


def table_of_criteria(name: str, network: nn.Module, batch: Batch, rounds: int) -> None:
    """Print the seconds of each criterion on one network."""
    scores = criteria.synflow(network, batch[0])
    n = sum(score.numel() for score in scores.values())
    one = low(
        {
            "magnitude": lambda: criteria.magnitude(network),
            "lamp": lambda: criteria.lamp(network),
            "snip": lambda: criteria.snip(network, [batch]),
            "grasp": lambda: criteria.grasp(network, [batch]),
            "wanda": lambda: criteria.wanda(network, [batch]),
            "synflow": lambda: criteria.synflow(network, batch[0]),
            "keep_top": lambda: masks.keep_top(scores, 0.01, allow_empty=True),
        },
        rounds,
    )
    hundred = low(
        {"synflow": lambda: synflow_rounds(network, batch[0], 100, 0.01)}, 1 + rounds // 3
    )
    print(f"\n{name}: {n:,} weights, {len(batch[0])} rows, seconds")
    for criterion, seconds in one.items():
        print(f"  {criterion:<28} {seconds:9.4f}")
    print(f"  {'synflow + keep_top, 100 rounds':<28} {hundred['synflow']:7.2f}")


def table_of_steps(n_steps: int, rounds: int) -> None:
    """Print a training step of LeNet-300-100, ours under a mask and a bare torch loop's."""
    x, y = drawn(n_steps * BATCH_SIZE, 784)
    data = Data(train=(x, y))
    phase = PhaseConfig(
        epochs=1, batch_size=BATCH_SIZE, optimizer=AdamW(lr=LR, weight_decay=0, schedule="constant")
    )
    mask = masks.keep_top(criteria.magnitude(started(lenet)), 0.211)

    def ours(mask: masks.Mask | None) -> None:
        train(
            started(lenet), data, phase, name="bench", seed=0, prunable=list(mask or {}), mask=mask
        )

    def bare() -> None:
        network = started(lenet)
        optimizer = torch.optim.Adam(network.parameters(), lr=LR, fused=True)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        for rows in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()

    variants = {"bare torch loop": bare, "ours": lambda: ours(None), "masked": lambda: ours(mask)}
    seconds = low(variants, rounds)
    print(f"\nLeNet-300-100, a training step of {BATCH_SIZE} rows, {n_steps} steps a run, ms")
    for name, value in seconds.items():
        ratio = value / seconds["bare torch loop"]
        print(f"  {name:<28} {1e3 * value / n_steps:9.3f}   / bare loop {ratio:5.2f}")


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--skip-resnet", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"1 thread, {args.rounds} rounds, p10 of CPU seconds")
    table_of_criteria("LeNet-300-100", started(lenet), drawn(100, 784), args.rounds)
    table_of_steps(args.steps, args.rounds)
    if not args.skip_resnet:
        table_of_criteria("ResNet-18", started(resnet18), drawn(100, 3, 32, 32), args.rounds)


if __name__ == "__main__":
    main()
