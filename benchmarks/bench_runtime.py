"""Microseconds of pruned networks on one thread: ours beside dense and sparse engines.

    python benchmarks/bench_runtime.py [--networks 9x512,...] [--densities 0.125,...]
        [--batches 1,32] [--engines ours,ort,...] [--masks random,trained,layerwise] [--rounds 30]
    python benchmarks/bench_runtime.py --threads 2             wall time
    python benchmarks/bench_runtime.py --isa avx2              ours and oneDNN kept to AVX2
    python benchmarks/bench_runtime.py --table                 print what is there

All engines of a row run interleaved in one process (DeepSparse, which needs an environment of its
own, takes its turns in another): a figure is the 10th percentile over the rounds of process CPU
time a call, and of wall time with more than one thread. Inputs are prepared, outputs are NumPy
arrays. An engine's outputs are checked against float64 before. BatchNorm is folded for all.

Random masks keep the same share of each layer of the encoder. Trained ones are those of
runtime_models.py: "trained" are tickets, whose layers compete, "layerwise" such whose layers all
keep 1/r. Where a ticket leaves neurons dead, the dense engines called "compact" run the network
without them: what ours gains over those it owes to its kernels. FLOPs are those of weights that
are left then.

Each row goes to --out as a line of JSON as soon as it is measured; a run that was killed goes on
with the next one. Of rows measured again the last counts; --unsteady measures those again in which
a dense engine was 15 % slower than beside another mask.

Peers: benchmarks/runtime-peers.txt. DeepSparse: `pip install deepsparse==1.8.0` in an environment
of Python < 3.12, and --deepsparse its python. `--during CMD` is started around each row with a
shell command as its arguments and keeps the machine quiet until that ends.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import runtime_engines as engines
import torch
from runtime_engines import AbsentError, Case
from runtime_networks import COMPRESSIONS, NETWORKS, TRAINED, folded, inputs
from runtime_rows import rows_of, table, times, unsteady

BATCHES = (1, 32, 128, 1024)
MODELS = Path("runs/runtime")
AVX2 = ("torch", "onednn", "ours", "ours_bf16", "ours_int8")
"""What can be kept from AVX-512."""
SECONDS = 0.002
"""A round of one engine takes at least so long, in as many calls as that needs."""


@contextmanager
def _quiet(command: str | None):
    """Hold the machine still, by a command that runs another one."""
    if not command:
        yield
        return
    with subprocess.Popen(
        [*command.split(), "sh", "-c", "echo; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as held:
        held.stdout.readline()
        yield
        held.stdin.close()


def timed(runs: dict, *, rounds: int, budget: float) -> dict[str, dict]:
    """Return the CPU and wall microseconds of a call of each engine, interleaved."""
    once = {}
    for name, run in runs.items():
        engines.seconds(run, 2)
        once[name] = max(engines.seconds(run, 1)[1], 1e-6)
    calls = {name: max(1, round(SECONDS / one)) for name, one in once.items()}
    round_ = sum(calls[name] * one for name, one in once.items())
    rounds = max(5, min(rounds, int(budget / round_)))
    spent: dict[str, list] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            spent[name].append([1e6 * s / calls[name] for s in engines.seconds(run, calls[name])])
    return {
        name: {
            "cpu": float(np.percentile(values, 10, axis=0)[0]),
            "wall": float(np.percentile(values, 10, axis=0)[1]),
            "median": float(np.median(values, axis=0)[0]),
            "rounds": rounds,
            "calls": calls[name],
        }
        for name, values in spent.items()
    }


@functools.cache
def _sum() -> Callable[[], float]:
    """Return a sum over 512 KiB, half of an L2 cache, as fast as the core reads."""
    two = np.ones((2, 65536), np.float32)
    try:
        import numba
    except ImportError:
        return lambda: two[0] @ two[1]

    @numba.njit(fastmath=True)
    def added(x: np.ndarray) -> np.float32:
        total = np.float32(0)
        for i in range(x.size):
            total += x[i]
        return total

    return lambda: added(two.ravel())


def limits() -> dict[str, float]:
    """Return what one core does at most: GFLOP/s of a matrix product, GB/s read from L2."""
    one = torch.ones(1024, 1024)
    weight = torch.ops.mkldnn._reorder_linear_weight(one, 1024)
    runs = {
        "product": lambda: torch.ops.mkldnn._linear_pointwise(one, weight, None, "none", [], ""),
        "read": _sum(),
    }
    found = timed(runs, rounds=20, budget=1)
    return {
        "gflops": 2 * 1024**3 / found["product"]["cpu"] / 1e3,
        "l2_gbs": 2 * 65536 * 4 / found["read"]["cpu"] / 1e3,
    }


def machine() -> dict:
    """Return what a figure depends on, beside the network."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    flags = set(Path("/proc/cpuinfo").read_text().split())
    has = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16") if f in flags]
    libraries = {}
    for name in ("secateurs", "torch", "numpy", "scipy", "onnxruntime", "openvino"):
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = "absent"
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    about = {"commit": commit, "cores": os.cpu_count(), "libraries": libraries}
    return {"cpu": cpu, "has": has, **about}


def _reported(run) -> list | None:
    """Return what our engine chose for each layer."""
    report = getattr(getattr(run, "engine", None), "report", None)
    return json.loads(json.dumps(report(), default=str)) if report else None


def measure(name: str, density: float, masked: str, batch: int, args: argparse.Namespace) -> dict:
    """Return a row: every engine on one network and batch."""
    network = folded(name, density, masked, args.models)
    x = inputs(name, masked, network, batch)
    expected = engines.reference(network, x[: min(batch, 64)])
    case = Case(network=network, x=x, n_threads=args.threads, deepsparse=args.deepsparse)
    runs, absent, errors = {}, {}, {}

    def make(engine: str) -> None:
        try:
            if args.isa and engine not in AVX2:
                raise AbsentError(f"cannot be kept to {args.isa}")
            run = engines.MAKERS[engine](case)
            errors[engine] = engines.error(engine, run()[: len(expected)], expected)
            runs[engine] = run
        except AbsentError as err:
            absent[engine] = str(err)
        except Exception as err:  # one engine's failure is no reason to lose the others
            absent[engine] = f"{type(err).__name__}: {str(err).splitlines()[0][:200]}"

    tuned = [engine for engine in args.engines if engine.startswith("ours")]
    for engine in args.engines:
        if engine not in tuned:
            make(engine)
    with _quiet(args.during):
        load, begin = os.getloadavg()[0], time.monotonic()
        for engine in tuned:  # they time kernels as they are made
            make(engine)
        peak = limits()
        found = timed(runs, rounds=args.rounds, budget=args.budget)
    reports = {name: _reported(runs[name]) for name in tuned if name in runs}
    for run in runs.values():
        if isinstance(run, engines.DeepSparse):
            run.close()
    per_row = engines.flops(case)
    for engine, values in found.items():
        values["error"] = errors[engine]
    return {
        "key": [name, round(1 / density, 4), masked, batch, args.threads, args.isa or ""],
        "flops": per_row * batch,
        "engines": found,
        "absent": absent,
        "reports": {k: v for k, v in reports.items() if v},
        "limits": peak,
        "load": load,
        "seconds": time.monotonic() - begin,
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(),
    }


def _list(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=_list(str), default=list(NETWORKS))
    parser.add_argument("--densities", type=_list(float), default=[1 / r for r in COMPRESSIONS])
    parser.add_argument("--batches", type=_list(int), default=BATCHES)
    parser.add_argument("--engines", type=_list(str), default=list(engines.MAKERS))
    parser.add_argument("--masks", type=_list(str), default=["random", "trained", "layerwise"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--budget", type=float, default=4.0, help="seconds of timing a row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", choices=("avx2", "portable"))
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--deepsparse", type=Path)
    parser.add_argument("--during")
    parser.add_argument("--out", type=Path, default=MODELS / "bench.jsonl")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    parser.add_argument("--unsteady", action="store_true", help="again, where neighbours slowed it")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def _environment(args: argparse.Namespace) -> None:
    """Start again with what libraries read when they are loaded, unless it is there."""
    wanted = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(args.threads)}
    if args.isa:
        wanted |= {
            "SECATEURS_ISA": args.isa,
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        }
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def main() -> None:
    """Measure what is asked and not there, and print it."""
    args = _arguments()
    unknown = {*args.networks} - {*NETWORKS} | {*args.engines} - {*engines.MAKERS}
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    _environment(args)
    torch.set_num_threads(args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    wanted = (
        []
        if args.table
        else [
            (name, density, masked, batch)
            for name in args.networks
            for masked in args.masks
            if masked == "random" or (name, masked) in TRAINED
            for batch in args.batches
            for density in args.densities
        ]
    )
    there = {} if args.again else {tuple(r["key"]): r for r in rows_of(args.out)}
    if args.unsteady:
        disturbed = unsteady(list(there.values()))
        there = {key: row for key, row in there.items() if key not in disturbed}
    for name, density, masked, batch in wanted:
        key = (name, round(1 / density, 4), masked, batch, args.threads, args.isa or "")
        row = there.get(key, {"engines": {}, "absent": {}})
        if {*args.engines} <= {*row["engines"], *row["absent"]}:
            continue
        try:
            with torch.inference_mode():
                row = measure(name, density, masked, batch, args)
        except AbsentError as err:
            print(f"{key}: {err}", flush=True)
            continue
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(*key, "|", ", ".join(f"{e} {us:.4g}" for e, us in times(row).items()), flush=True)
    table(rows_of(args.out))


if __name__ == "__main__":
    main()
