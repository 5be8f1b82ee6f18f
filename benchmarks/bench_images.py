"""Microseconds of convolutional networks by the kernels alone, without the engine's tuning.

    python benchmarks/bench_images.py [--networks resnet18-cifar,...] [--batches 1,32,128]
        [--densities 0.125,1] [--tiles 1,16,32,64] [--kinds sparse,dense] [--peers torch,ort]
        [--steps] [--isa avx2]

Plans of every size of tile and of both kinds of convolutions, beside dense engines of
runtime_engines.py: process CPU time of a call on one thread, 10th percentile, all interleaved in
one process; outputs are checked against float64 before. With --steps the time of each step of a
tile, in microseconds a sample, and the GFLOP/s of its kept weights.
"""

import argparse
import functools
import os
import sys
import time
from pathlib import Path

import numpy as np
import runtime_engines as engines
import torch
from runtime_networks import NETWORKS, folded, inputs

from secateurs.runtime import native as natives
from secateurs.runtime.compact import compact
from secateurs.runtime.plan import choices, plan, run, time_steps
from secateurs.runtime.program import Program
from secateurs.runtime.reading import read

SECONDS, BUDGET = 0.01, 8.0
"""Of one engine in a round, and of all rounds."""


def plans(program: Program, *, tiles: list[int], kinds: list[str], native: natives.Native) -> dict:
    """Return a plan for each size of tile and kind of convolutions."""
    made, shared = {}, {}
    for n in tiles:
        possible = choices(program, n=n, isa=native.isa)
        for kind in kinds:
            wanted = {i: kind for i, valid in enumerate(possible) if kind in valid}
            made[f"{kind}/{n}"] = plan(program, n=n, native=native, kinds=wanted, packed=shared)
    return made


def timed(runs: dict, *, rounds: int = 30) -> dict[str, float]:
    """Return the microseconds of a call, interleaved."""
    calls, once = {}, {}
    for name, call in runs.items():
        call()
        start = time.process_time()
        call()
        once[name] = max(time.process_time() - start, 1e-6)
        calls[name] = max(1, int(SECONDS / once[name]))
    whole = sum(calls[name] * once[name] for name in runs)
    rounds = max(5, min(rounds, int(BUDGET / whole)))
    spent = {name: [] for name in runs}
    for _ in range(rounds):
        for name, call in runs.items():
            start = time.process_time()
            for _ in range(calls[name]):
                call()
            spent[name].append((time.process_time() - start) / calls[name])
    return {name: 1e6 * float(np.percentile(values, 10)) for name, values in spent.items()}


def steps(program: Program, made, x: np.ndarray) -> None:
    """Print the time of each step of a plan."""
    rows = np.repeat(x, -(-made.n // len(x)), axis=0)[: made.n]
    seconds = time_steps(made, rows, repeats=20)
    for index, second in zip(made.ops, seconds, strict=True):
        op = program.ops[index]
        flops = 0
        if op.weight is not None and op.kind in ("linear", "conv2d"):
            flops = 2 * np.count_nonzero(op.weight) * int(np.prod(op.shape[1:]))
        print(
            f"    {index:3} {op.kind:9} {made.kinds[index]:8} {op.shape!s:16} "
            f"{1e6 * second / made.n:8.2f} us a sample {flops * made.n / second / 1e9:6.1f} GFLOP/s"
        )
    print(f"    all {1e6 * seconds.sum() / made.n:8.2f} us a sample")


def main() -> None:
    """Print a table of every network, density and batch."""
    parser = argparse.ArgumentParser(description=__doc__)

    def listed(kind):
        return lambda text: [kind(part) for part in text.split(",")]

    images = [name for name, (_, shape) in NETWORKS.items() if len(shape) == 3]
    parser.add_argument("--networks", type=listed(str), default=images)
    parser.add_argument("--batches", type=listed(int), default=[1, 32, 128])
    parser.add_argument("--densities", type=listed(float), default=[0.125])
    parser.add_argument("--tiles", type=listed(int), default=[1, 16, 32, 64])
    parser.add_argument("--kinds", type=listed(str), default=["sparse"])
    parser.add_argument("--peers", type=listed(str), default=["onednn", "ort"])
    parser.add_argument("--isa")
    parser.add_argument("--library", type=Path, default=natives.LIBRARY)
    parser.add_argument("--steps", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    native = natives.load(isa=args.isa, path=args.library)
    if native is None:
        sys.exit("the kernels are not built: python -m secateurs.runtime.building")
    for name in args.networks:
        for density in args.densities:
            network = folded(name, density, "random", Path())
            program = compact(read(network, example=torch.zeros(1, *NETWORKS[name][1])))
            made = plans(program, tiles=args.tiles, kinds=args.kinds, native=native)
            for batch in args.batches:
                x = inputs(name, "random", network, batch)
                expected = engines.reference(network, x[:4])
                runs = {
                    key: functools.partial(run, p, x)
                    for key, p in made.items()
                    if p.n <= max(batch, 1)
                }
                case = engines.Case(network=network, x=x)
                for peer in [p for p in args.peers if p]:
                    runs[peer] = engines.MAKERS[peer](case)
                for key, call in runs.items():
                    worst = np.abs(call()[:4] - expected).max() / np.abs(expected).max()
                    if not worst < 1e-4:
                        sys.exit(f"{key} is wrong by {worst:.2g}")
                found = timed(runs)
                peers = [found[p] for p in args.peers if p in found]
                print(f"{name} density {density:g} batch {batch} {native.isa}: microseconds")
                for key, spent in found.items():
                    ratio = f"{min(peers) / spent:6.2f}x" if peers else ""
                    print(f"  {key:12} {spent:10.0f} {ratio}", flush=True)
            if args.steps:
                for key, p in made.items():
                    print(f"  {key}, {p.n_floats * 4 >> 10} KiB a tile")
                    steps(program, p, x)


if __name__ == "__main__":
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(
            sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_NUM_THREADS": "1"}
        )
    main()
