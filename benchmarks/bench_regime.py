"""Seconds and memory of the tangent kernel, and what a step of a linearised network costs.

Variants run interleaved in one process on one thread: median and 10th percentile of process CPU
time. Memory is the peak of a process of its own above what it held before the call. The network is
LeNet-300-100 with 10 outputs.

    python benchmarks/bench_regime.py [--rounds 5] [--probes 512] [--few 64] [--jacobian]
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from secateurs import masks
from secateurs.measures import kernel
from secateurs.networks.init import initialise_
from secateurs.networks.lenet import LeNet300100
from secateurs.regime.linearised import linearise
from secateurs.seeds import stream

BATCH_SIZE, DENSITY = 60, 0.05


def started() -> LeNet300100:
    """Return LeNet-300-100 with the start weights of one seed."""
    network = LeNet300100(784, 10)
    initialise_(network, generator=stream(0, "init"))
    return network.eval()


def pruned(network: LeNet300100, density: float) -> masks.Mask:
    """Return a mask of random weights; which they are does not matter to the seconds."""
    generator = torch.Generator().manual_seed(1)
    scores = {
        name: torch.rand(p.shape, generator=generator)
        for name, p in network.named_parameters()
        if p.ndim == 2
    }
    return masks.keep_top(scores, density)


def by_jacobian(network: LeNet300100, x: Tensor, mask: masks.Mask | None) -> Tensor:
    """Return the kernel by blocks of the Jacobian: what networks without a closed form take."""
    source = kernel._Source(network, mask, "trace")
    total = torch.zeros(len(x), len(x))
    for i, j, part in source.by_jacobian(x, x, 10, None, same=True):
        total[i, j] += part
        if i != j:
            total[j, i] += part.T
    return total / 10


def by_hand(network: LeNet300100, x: Tensor) -> Tensor:
    """Return the kernel as torch's tutorial does, of the whole Jacobian, over the outputs' mean."""
    weights = {name: p.detach() for name, p in network.named_parameters()}
    one = jacrev(lambda w, row: functional_call(network, w, (row[None],))[0])
    parts = [part.flatten(2) for part in vmap(one, (None, 0))(weights, x).values()]
    return sum(torch.einsum("nci,mci->nm", part, part) for part in parts) / 10


def variants(n: int) -> dict[str, Callable[[], Tensor]]:
    """Return ways to a kernel of n probes, by name."""
    network, x = started(), torch.rand(n, 784, generator=torch.Generator().manual_seed(0))
    few, half = pruned(network, DENSITY), pruned(network, 0.5)
    return {
        "closed form": lambda: kernel.ntk(network, x),
        "closed form, density 5%": lambda: kernel.ntk(network, x, mask=few),
        "closed form, density 50%": lambda: kernel.ntk(network, x, mask=half),
        "Jacobian in blocks": lambda: by_jacobian(network, x, None),
        "Jacobian in blocks, density 5%": lambda: by_jacobian(network, x, few),
        "vmap(jacrev), whole": lambda: by_hand(network, x),
    }


def spent(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return CPU seconds of each way, interleaved, the first round left out."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, run in ways.items():
            begin = time.process_time()
            run()
            if i:
                seconds[name].append(time.process_time() - begin)
    return seconds


def memory(name: str, n: int) -> float:
    """Return MiB that a call adds to the peak of a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--probes", str(n)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout)


def status(field: str) -> int:
    """Return KiB from Linux's status of this process; rusage would count the parent's peak too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def print_memory(name: str, n: int) -> None:
    """Run one way and print by how many MiB the peak is above what this process held."""
    variants(2)[name]()  # what torch loads at the first call is not the kernel's
    run = variants(n)[name]
    before = status("VmRSS")
    run()
    print((status("VmHWM") - before) / 1024)


def table_of_kernels(n: int, rounds: int, names: list[str]) -> None:
    """Print seconds, memory, the ratio and the difference to the first way that takes no mask."""
    ways = {name: run for name, run in variants(n).items() if name in names}
    seconds = spent(ways, rounds)
    base = np.median(seconds[names[0]])
    print(f"\nKernel of {n} probes: CPU seconds, times the closed form, MiB at the peak")
    for name in ways:
        median, low = np.median(seconds[name]), np.percentile(seconds[name], 10)
        print(f"  {name:<32} median {median:8.3f}  p10 {low:8.3f}", end="")
        print(f"  x {median / base:7.1f}  {memory(name, n):7.0f}")
    for one, two in (
        ("closed form", "Jacobian in blocks"),
        ("closed form, density 5%", "Jacobian in blocks, density 5%"),
        ("closed form", "vmap(jacrev), whole"),
    ):
        if two in ways:
            first, second = ways[one](), ways[two]()
            apart = float((first - second).norm() / second.norm())
            print(f"  {one} and {two}: {apart:.0e} apart")


def table_of_steps(rounds: int) -> None:
    """Print a step of descent, ordinary and linearised, on one batch."""
    x = torch.rand(BATCH_SIZE, 784, generator=torch.Generator().manual_seed(0))
    y = torch.randint(10, (BATCH_SIZE,), generator=torch.Generator().manual_seed(0))
    network = started()
    reverse = linearise(network)
    reverse._forward_mode = False
    mask = pruned(network, DENSITY)
    networks = {
        "ordinary": network,
        "linearised": linearise(network),
        "linearised, density 5%": linearise(network, mask=mask),
        "linearised, reverse mode twice": reverse,
    }

    def steps(network: torch.nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

        def run() -> None:
            for _ in range(20):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(x), y).backward()
                optimizer.step()

        return run

    seconds = spent({name: steps(network) for name, network in networks.items()}, rounds)
    base = np.median(seconds["ordinary"])
    print(f"\nA step of SGD on {BATCH_SIZE} rows: CPU ms, times the ordinary step")
    for name, values in seconds.items():
        median, low = np.median(values), np.percentile(values, 10)
        print(f"  {name:<32} median {50 * median:8.3f}  p10 {50 * low:8.3f}", end="")
        print(f"  x {median / base:7.2f}")


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--probes", type=int, default=512)
    parser.add_argument("--few", type=int, default=64)
    parser.add_argument("--jacobian", action="store_true", help="at --probes too, which takes long")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory_of:
        print_memory(args.memory_of, args.probes)
        return
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"1 thread, {args.rounds} rounds, LeNet-300-100, 10 outputs")
    names = list(variants(1))
    table_of_kernels(args.few, args.rounds, names)
    # the whole Jacobian would not fit, blocks of it take long
    table_of_kernels(args.probes, args.rounds, names[:-1] if args.jacobian else names[:3])
    table_of_steps(4 * args.rounds)


if __name__ == "__main__":
    main()
