"""Milliseconds a training step: eager torch, ours, by the other linear layer, in bf16, masked.

All variants run interleaved in one process on one thread; each figure is the 10th percentile of
process CPU time, and the last columns are ratios within the same round.

    python benchmarks/bench_training.py [--rounds 40] [--widths 512,...] [--threads 1]
"""

import argparse
import os
import platform
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from secateurs import criteria, device, masks
from secateurs.networks.dense import MLP, MLP_TAB
from secateurs.networks.init import initialise_
from secateurs.optimizers import SGD, AdamW
from secateurs.seeds import stream
from secateurs.training import PhaseConfig, _Batch, _Draws, _Steps


def network(widths: tuple[int, ...]) -> MLP:
    """Return a fresh 28-input, 2-class network."""
    built = MLP(28, 2, widths=widths)
    initialise_(built, generator=stream(0, "init"))
    return built


def eager(widths: tuple[int, ...], x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Return the step as a PyTorch user writes it: torch's own layers and default optimizer."""
    net: nn.Module = network(widths)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def ours(
    widths: tuple[int, ...],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    precision: str = "fp32",
    masked: bool = False,
    ilo: bool = False,
) -> Callable[[], None]:
    """Return the training loop's step; `ilo` adds the view pass and the contrastive term."""
    net = network(widths)
    scores = criteria.magnitude(net, only="encoder.*")
    mask = masks.keep_top(scores, 1 / 8) if masked else None
    phase = PhaseConfig(
        optimizer=SGD(lr=1e-2) if ilo else AdamW(),
        precision=precision,
        contrastive_weight=float(ilo),
    )
    steps = _Steps(net, phase, "encoder", list(scores), mask, x.device)
    drawn = torch.Generator()
    draws = _Draws(view=drawn, dropout=drawn, mixup=np.random.default_rng(0))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    rows = _Batch(x=x, y=y, weight=None, at_centre=None)
    return lambda: steps(rows, lambda batch, _: batch + noise, draws) and None


def by_other_linear(step: Callable[[], None]) -> tuple[str, Callable[[], None]]:
    """Return the step by the linear layer that is not chosen on this CPU, and its name."""
    onednn = not device._is_amd_avx512()

    def other() -> None:
        chosen, device._is_amd_avx512 = device._is_amd_avx512, lambda: onednn
        try:
            step()
        finally:
            device._is_amd_avx512 = chosen

    return "by oneDNN" if onednn else "by torch", other


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--widths", type=lambda s: tuple(map(int, s.split(","))), default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(args.batch, 28, generator=generator)
    y = torch.randint(2, (args.batch,), generator=generator)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"{args.threads} thread(s), batch {args.batch}, {args.rounds} rounds, p10 of CPU ms")
    for widths in [args.widths] if args.widths else [MLP_TAB, (512,) * 3, (1024,) * 2, (16,) * 2]:
        name, other = by_other_linear(ours(widths, x, y))
        variants = {
            "eager AdamW": eager(widths, x, y),
            "ours": ours(widths, x, y),
            name: other,
            "ours + mask": ours(widths, x, y, masked=True),
            "ours bf16": ours(widths, x, y, precision="bf16"),
            "ours ILO": ours(widths, x, y, ilo=True),
        }
        spent: dict[str, list[float]] = {name: [] for name in variants}
        for step in variants.values():
            for _ in range(3):
                step()
        for _ in range(args.rounds):
            for name, step in variants.items():
                begin = time.process_time()
                step()
                spent[name].append(1e3 * (time.process_time() - begin))
        low = {name: float(np.percentile(values, 10)) for name, values in spent.items()}
        print(f"\n{'x'.join(map(str, (len(widths), widths[0])))}")
        for name, value in low.items():
            print(f"  {name:<12} {value:8.2f} ms   eager / this {low['eager AdamW'] / value:5.2f}")
        print(f"  mask overhead {100 * (low['ours + mask'] / low['ours'] - 1):+.1f} %")


if __name__ == "__main__":
    main()
