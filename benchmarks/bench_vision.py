"""Images a second of a training step on images, and how much of the device's peak that is.

A step is that of the training loop: rows gathered from uint8 images on the device, SimCLR's view,
forward, backward, SGD. On a CPU all variants of a network run interleaved, and each figure is the
10th percentile of process CPU time; on CUDA of the time between two events. FLOPs are those of the
network's layers, forward and backward, without the view; the peak is that of one large matrix
product in the same run, in fp32 without TF32. "graph" is the same step, recorded and replayed.

    python benchmarks/bench_vision.py [--networks mlp_vis:2,cnn:2,resnet18:16] [--device cuda]
    python benchmarks/bench_vision.py --full --folder run/ [--arm omp] [--minutes 9] [--graphed]

`--full` trains one IUNet(MLP_VIS, alpha 8) on CIFAR-10 (100 + 100 epochs, bf16), or OMP or the
dense network at the same rate, and ends after so many minutes; the same call goes on from the last
checkpoint, until it says what the whole took.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from secateurs import Data, device
from secateurs.networks.conv import CNN, MLPVis
from secateurs.networks.init import initialise_, prunable
from secateurs.networks.pixels import Normalise
from secateurs.networks.resnet import ResNet18
from secateurs.optimizers import SGD
from secateurs.seeds import stream
from secateurs.tickets import TicketConfig, find_ticket
from secateurs.training import PhaseConfig, _Batch, _Draws, _Steps, outputs

BATCH = 128
SIZES = {
    "cpu": "mlp_vis:2,cnn:2,resnet18:16",
    "cuda": "mlp_vis:2,mlp_vis:8,cnn:2,cnn:8,resnet18:64",
}
PRECISIONS = ("fp32", "bf16")
ARMS = {
    "iunet": {},
    "omp": {"init_scale": 1.0},
    "dense": {"init_scale": 1.0, "compression": 1.0},
}


class OutOfTimeError(Exception):
    """The minutes of this call are over."""


def simclr():
    """Return SimCLR's view, or say what is missing."""
    try:
        from secateurs.data.image_views import simclr as views
    except ImportError as err:
        raise SystemExit(f"SimCLR's view is needed: secateurs.data.image_views ({err})") from err
    return views()


def made(name: str, width: int, **options) -> nn.Module:
    """Return a network for CIFAR-10's images, with its start drawn."""
    normalise = options.pop("normalise", None) or Normalise([0.5] * 3, [0.25] * 3)
    network: nn.Module
    if name == "resnet18":
        network = ResNet18(width=width, normalise=normalise)
    else:
        network = {"mlp_vis": MLPVis, "cnn": CNN}[name](width, normalise=normalise)
    initialise_(network, generator=stream(0, "init"))
    return network


def peak(precision: str, where: torch.device) -> float:
    """Return the FLOP/s of a large matrix product, by the path that Linear layers take."""
    n = 8192 if where.type == "cuda" else 2048
    one, other = torch.randn(2, n, n, device=where).unbind()
    with device.arithmetic(precision, where):
        if precision == "bf16":
            one, other = one.bfloat16(), other.bfloat16()
        seconds = timed({"": lambda: F.linear(one, other)}, rounds=8, where=where)[""]
    return 2 * n**3 / seconds


def timed(variants: dict[str, Callable], *, rounds: int, where: torch.device) -> dict[str, float]:
    """Return the seconds of each variant: the 10th percentile over interleaved rounds."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for step in variants.values():
        for _ in range(5):
            step()
    for _ in range(rounds):
        for name, step in variants.items():
            if where.type == "cuda":
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                step()
                end.record()
                end.synchronize()
                spent[name].append(begin.elapsed_time(end) / 1e3)
            else:
                started = time.process_time()
                step()
                spent[name].append(time.process_time() - started)
    return {name: float(np.percentile(values, 10)) for name, values in spent.items()}


def step_of(network, x, y, *, ilo, precision, view, graphed=False):
    """Return the training loop's step on the next batch of shuffled rows."""
    phase = PhaseConfig(optimizer=SGD(lr=1e-3), contrastive_weight=float(ilo), precision=precision)
    names = list(prunable(network, only="encoder.*"))
    steps = _Steps(network.train(), phase, "encoder", names, None, x.device)
    drawn = stream(0, "view", device=x.device)
    draws = _Draws(view=drawn, dropout=drawn, mixup=np.random.default_rng(0))
    order = torch.randperm(len(x), generator=stream(0, "order")).to(x.device)
    batches = order[: len(x) // BATCH * BATCH].view(-1, BATCH)
    at = 0

    def take(rows):
        return steps(_Batch(x=x[rows], y=y[rows], weight=None, at_centre=None), view, draws)

    run = device.Replayed(take, generators=[drawn]) if graphed else take

    def step():
        nonlocal at
        run(batches[at % len(batches)])
        at += 1

    return step


def flops(make: Callable[[], nn.Module], x, y, *, ilo: bool) -> int:
    """Return the floating-point operations of a step's layers, forward and backward."""
    step = step_of(make(), x, y, ilo=ilo, precision="fp32", view=lambda rows, _: rows)
    chosen, device._is_amd_avx512 = device._is_amd_avx512, lambda: False  # oneDNN's is not counted
    try:
        with FlopCounterMode(display=False) as counted:
            step()
    finally:
        device._is_amd_avx512 = chosen
    return counted.get_total_flops()


def table(networks: str, *, rounds: int, where: torch.device) -> None:
    """Measure and print one table for each network."""
    generator = stream(0, "images")
    x = torch.randint(256, (32 * BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
    y = torch.randint(10, (len(x),), generator=generator)
    x, y, view = x.to(where), y.to(where), simclr()
    peaks = {precision: peak(precision, where) for precision in PRECISIONS}
    drawn = stream(0, "view", device=where)
    spent = timed({"": lambda: view(x[:BATCH], drawn)}, rounds=rounds, where=where)[""]
    for precision, rate in peaks.items():
        print(f"peak {precision} {rate / 1e12:9.3f} TFLOP/s")
    print(f"view alone {BATCH / spent:9.0f} images/s")
    for network in networks.split(","):
        name, width = network.split(":")

        def make(name=name, width=int(width)):
            return made(name, width).to(where)

        work = {ilo: flops(make, x, y, ilo=ilo) for ilo in (False, True)}
        kinds = {}
        for ilo in (False, True):
            for precision in PRECISIONS:
                for graphed in (False, True) if where.type == "cuda" else (False,):
                    label = "ILO" if ilo else "cross-entropy"
                    kinds[f"{label:<13} {precision}{' graph' if graphed else ''}"] = (
                        ilo,
                        precision,
                        step_of(
                            make(), x, y, ilo=ilo, precision=precision, view=view, graphed=graphed
                        ),
                    )
        found = timed({k: step for k, (_, _, step) in kinds.items()}, rounds=rounds, where=where)
        n = sum(p.numel() for p in make().parameters())
        print(f"\n{name}({width}), {n:,} parameters")
        for label, seconds in found.items():
            ilo, precision, _ = kinds[label]
            rate = work[ilo] / seconds
            print(
                f"  {label:<24} {1e3 * seconds:8.2f} ms {BATCH / seconds:9.0f} images/s "
                f"{rate / 1e12:8.3f} TFLOP/s {100 * rate / peaks[precision]:5.1f} % of peak"
            )


def full(args: argparse.Namespace, where: torch.device) -> None:
    """Train one IUNet on CIFAR-10, or go on with it, for so many minutes."""
    from secateurs.data.images import choose, read_images, statistics

    begin = time.monotonic()
    images = read_images("cifar10")
    train, validation = choose(images.y_train, n_validation=10_000, n_train=args.rows, seed=0)
    mean, std = statistics(images.x_train[train])
    x, y = torch.from_numpy(images.x_train.copy()), torch.from_numpy(images.y_train.copy())
    data = Data(train=(x[train], y[train]), validation=(x[validation], y[validation]))
    name, width = args.networks.split(":")
    network = made(name, int(width), normalise=Normalise(mean.tolist(), std.tolist()))
    sgd = SGD(lr=1e-2, schedule="cosine")
    phase = PhaseConfig(epochs=args.epochs, optimizer=sgd, precision="bf16")
    search = replace(phase, contrastive_weight=1.0 if args.arm == "iunet" else 0.0)
    config = TicketConfig(search=search, finetune=phase, **ARMS[args.arm])

    def progress(row, n_epochs):
        print(f"{row['phase']} {row['epoch']}/{n_epochs}", end=" ", flush=True)
        print(f"loss {row['loss']:.4f} {row['seconds']:.2f} s", flush=True)
        if time.monotonic() - begin > 60 * args.minutes:
            raise OutOfTimeError

    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        ticket = find_ticket(
            network,
            data,
            config,
            view=simclr(),
            device=where,
            checkpoint_dir=args.folder,
            progress=progress,
            graphed=args.graphed,
        )
    except OutOfTimeError:
        print(f"{args.minutes:g} minutes are over; the same call goes on from {args.folder}")
        return
    spent = {phase: 0.0 for phase in ("search", "finetune")}
    for row in ticket.history:
        spent[row["phase"]] += row["seconds"]
    x_test, y_test = (torch.from_numpy(t.copy()).to(where) for t in (images.x_test, images.y_test))
    right = float((outputs(ticket.network, x_test).argmax(1) == y_test).float().mean())
    print(
        f"{args.arm}, {name}({width}), density {ticket.density:.4f}: "
        f"search {spent['search'] / 60:.2f} min, finetune {spent['finetune'] / 60:.2f} min, "
        f"test accuracy {100 * right:.2f} %"
    )


def main() -> None:
    """Print the tables, or train in full."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default=None)
    parser.add_argument("--networks", default=None, help="NAME:WIDTH,...")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("vision-full"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=None, help="training rows; all by default")
    parser.add_argument("--arm", choices=ARMS, default="iunet")
    parser.add_argument("--graphed", action="store_true")
    args = parser.parse_args()
    where = device.pick(args.device)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    kind = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    print(f"{kind}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), batch {BATCH}")
    if args.full:
        args.networks = args.networks or "mlp_vis:8"
        full(args, where)
        return
    rounds = args.rounds or (50 if where.type == "cuda" else 20)
    table(args.networks or SIZES[where.type], rounds=rounds, where=where)


if __name__ == "__main__":
    main()
