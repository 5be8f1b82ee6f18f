"""Microseconds of the linear kernels alone, against dense ones and what the core can do at most.

A chain of layers (9 x 512 by default: 28 inputs, 2 outputs, ReLU) on one tile of n samples, random
masks of one density, one thread. All variants of a row of the table run interleaved in one process,
each twice, of which the second is timed: process CPU time, 10th percentile. GFLOP/s count kept
weights for sparse kernels and all weights for dense ones. `FMA` is the share of the rate of
multiply-adds, `reads` that of reads from the nearest cache (n > 1: one vector of inputs for each
weight and vector of samples, one vector of weights for four of them, one word of indices) or from
the third cache (n = 1: the packed bytes), each measured in the same run.

    python benchmarks/bench_kernels.py [--isa avx512,avx2,portable] [--samples 1,16,32,64]
        [--densities 0.5,0.25,0.125,0.0625,0.02] [--widths 28,512,...,2] [--seconds 1]

What was tried beside what is there (Zen 5; time before over time after, by runs of variants that
are not here):

- loads are what is short, not multiply-adds: four weights by one load and shuffles in registers
  1.05 to 1.16, four columns by one 64-bit load 1.08 to 1.22 (most at n = 16), both kept;
- blocks of columns that stay in the nearest cache: 128 at n = 64 and 256 at n = 32 are best,
  1.3 at n = 64 against no blocks; 64 and 192 are worse;
- n = 128 in one tile: slower than 64, since only every other half of 512 bytes is read and half of
  the cache's sets stay unused;
- more accumulators, more unrolling: nothing; 8 sets at n = 64: spills, 0.7;
- reading the last one to three weights of a row by fours: nothing;
- prefetching weights: dense 1.4 to 2.0, sell up to 1.3 for layers that the second cache does not
  hold, both kept; rows 1.0 to 1.2 where a row of a block has 24 weights or fewer, 0.95 where it
  has more, kept for the former;
- bands of 1024 rows for layers of more: 1.0 to 1.2 at 3072 x 8192, 0.95 to 1.05 at 2048 x 2048;
- sell, 64 rows sorted in each block of columns: 1.9 slots a weight become 1.3 at density 1/8;
- gathers for one sample under AVX2: 0.7 of scalar loads, not kept;
- not built: pairs of rows that share columns (at 1/8 they share an eighth of their loads, at 1/2
  the blocked kernel is ahead of dense already), and tiles of bf16 activations (two shifts or masks
  for each vector read: by count of instructions 1.15 at most).
"""

import argparse
import ctypes
import itertools
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from secateurs.runtime import native
from secateurs.runtime.pack import Packed, aligned, pack
from secateurs.runtime.report import peaks

SPARSE_ONE = ("sell", "sell/bf16", "sell/int8", "rows", "rows/bf16", "rows/int8")
SPARSE_MANY = ("rows", "rows:128", "rows:256", "rows:256/bf16", "rows:256/int8")


def weights_of(widths: list[int], density: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Random weights whose activations keep their size."""
    weights = []
    for n_in, n_out in itertools.pairwise(widths):
        weight = rng.standard_normal((n_out, n_in)) * (2 / (density * n_in)) ** 0.5
        weight[rng.random(weight.shape) >= density] = 0
        weights.append(weight.astype(np.float32))
    return weights


def parsed(variant: str) -> dict[str, str | int | None]:
    """`rows:128/bf16` as arguments of `pack`."""
    kind, _, precision = variant.partition("/")
    kind, _, block = kind.partition(":")
    return {"kind": kind, "precision": precision or "fp32", "block": int(block) if block else None}


def ours(
    weights: list[np.ndarray], variant: str, x: np.ndarray, library: native.Native
) -> tuple[Callable[[], object], list[Packed]]:
    """A call of the whole chain in C, and its layers."""
    layers = [pack(w, activation="relu", **parsed(variant)) for w in weights]
    structs = [native.struct(layer) for layer in layers]
    n = x.shape[1]
    widest = max(max(w.shape) for w in weights)
    a, b = (aligned(np.zeros((widest, n), np.float32)) for _ in range(2))
    a[: len(x)] = x
    chain = library.function("secateurs_chain")
    pointers = (ctypes.c_void_p * len(structs))(*(ctypes.addressof(s) for s in structs))
    tiles = (ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(b.ctypes.data))

    def call(_keep: object = (structs, a, b)) -> object:
        return chain(pointers, len(structs), *tiles, ctypes.c_int64(n), 1)

    return call, layers


def packed_onednn(weights: list[np.ndarray], x: np.ndarray) -> Callable[[], object]:
    """The same chain by torch's packed oneDNN operation, ReLU fused."""
    ops = torch.ops.mkldnn
    rows = torch.from_numpy(np.ascontiguousarray(x.T))
    packed = [ops._reorder_linear_weight(torch.from_numpy(w), len(rows)) for w in weights]

    def call() -> object:
        with torch.no_grad():
            y = rows
            for weight in packed:
                y = ops._linear_pointwise(y, weight, None, "relu", [], "")
        return y

    return call


def percentile(calls: dict[str, Callable[[], object]], *, seconds: float) -> dict[str, float]:
    """Microseconds of each call: 10th percentile of process CPU time, interleaved."""
    spent: dict[str, list[int]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(spent.values()))) < 7:
        for name, call in calls.items():
            call()
            start = time.process_time_ns()
            call()
            spent[name].append(time.process_time_ns() - start)
    return {name: float(np.percentile(times, 10)) / 1e3 for name, times in spent.items()}


def line(
    name: str, us: float, layers: list[Packed] | None, n: int, n_all: int, limits: dict[str, float]
) -> str:
    """One row of the table."""
    kept = n_all if layers is None or "dense" in name else sum(p.n_kept for p in layers)
    rate = 2 * kept * n / us / 1e3
    text = f"{name:14s} {us:9.1f} us {rate:7.1f} GFLOP/s  FMA {rate * 1e9 / limits['fma']:4.0%}"
    if layers is None:
        return text
    n_bytes = sum(p.n_bytes for p in layers)
    text += f"  {n_bytes / 1e6:6.2f} MB"
    if n == 1:
        return text + f"  reads {n_bytes * 1e6 / us / limits['L3']:4.0%} of L3"
    if "rows" in name:
        return text + f"  reads {kept * (4 * n + 6) * 1e6 / us / limits['L1']:4.0%} of L1"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", default=native.isa() or "portable")
    parser.add_argument("--samples", default="1,16,32,64")
    parser.add_argument("--densities", default="0.5,0.25,0.125,0.0625,0.02")
    parser.add_argument("--widths", default=",".join(["28", *["512"] * 9, "2"]))
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    widths = [int(w) for w in args.widths.split(",")]
    rng = np.random.default_rng(0)
    for isa in args.isa.split(","):
        library = native.load(isa=isa)
        if library is None:
            raise SystemExit("the kernels are not built: python -m secateurs.runtime.building")
        limits = peaks(library)
        print(
            f"{isa}: " + ", ".join(f"{k} {v / 1e9:.0f} G/s" for k, v in limits.items()), flush=True
        )
        for n in map(int, args.samples.split(",")):
            for density in map(float, args.densities.split(",")):
                weights = weights_of(widths, density, rng)
                x = rng.standard_normal((widths[0], n)).astype(np.float32)
                names = [v for v in SPARSE_ONE if v[:4] in native.kinds(n=1, isa=isa)]
                names = [*(names if n == 1 else SPARSE_MANY), "dense1" if n == 1 else "dense"]
                made = {v: ours(weights, v, x, library) for v in names}
                calls = {v: call for v, (call, _) in made.items()}
                calls["torch oneDNN"] = packed_onednn(weights, x)
                print(f"\nn = {n}, density {density:g}", flush=True)
                n_all = sum(w.size for w in weights)
                for name, us in percentile(calls, seconds=args.seconds).items():
                    layers = made[name][1] if name in made else None
                    print("  " + line(name, us, layers, n, n_all, limits), flush=True)


if __name__ == "__main__":
    main()
