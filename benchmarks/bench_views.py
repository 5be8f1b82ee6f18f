"""How fast views of images are drawn, whole and part by part, beside kornia's on one core.

Variants run interleaved in one process on one thread; seconds are process CPU time for a batch of
128 colour images of 32 x 32 bytes, the 10th percentile over the rounds. kornia takes floats in
0..1, so the conversion counts; its crop is timed both ways it has, and the faster one is compared.
It draws factors by image but one order of the colour changes for a whole batch; we draw both.

First, what it is worth to work on a batch in pieces that fit a cache, in a fresh process and after
16 MB were freed once: from then on glibc keeps freed memory instead of asking for it anew.

    python benchmarks/bench_views.py [--rounds 60] [--rows 128] [--side 32]
"""

import argparse
import functools
import os
import platform
import time
import warnings
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import kornia
import numpy as np
import torch
from kornia import augmentation

from secateurs.data import image_views
from secateurs.data.image_views import (
    IMAGE_VIEWS,
    colour_jitter,
    grayscale,
    horizontal_flip,
    simclr,
)
from secateurs.seeds import stream

LABELS = {
    "simclr": "whole",
    "crop": "random resized crop",
    "flip": "horizontal flip, p = 0.5",
    "colour": "colour jitter, p = 0.8",
    "grayscale": "grayscale, p = 0.2",
}


def ours():
    parts = {"flip": horizontal_flip, "colour": colour_jitter, "grayscale": grayscale}
    views = {name: parts.get(name, make)() for name, make in IMAGE_VIEWS.items()}
    generator = stream(0, "views")
    return {name: lambda x, view=view: view(x, generator) for name, view in views.items()}


def theirs(side):
    """Return kornia's transforms of the same meaning, its crop in both modes."""
    parts = {
        f"crop {mode}": augmentation.RandomResizedCrop(
            (side, side), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), cropping_mode=mode
        )
        for mode in ("slice", "resample")
    }
    parts["flip"] = augmentation.RandomHorizontalFlip(p=0.5)
    parts["colour"] = augmentation.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8)
    parts["grayscale"] = augmentation.RandomGrayscale(p=0.2)
    for mode in ("slice", "resample"):
        names = (f"crop {mode}", "flip", "colour", "grayscale")
        parts[f"simclr {mode}"] = torch.nn.Sequential(*(parts[name] for name in names))
    return {name: lambda x, part=part: part(x.float() / 255) for name, part in parts.items()}


def timed(variants, x, rounds):
    """Return the 10th percentile and the median of CPU seconds of each, interleaved."""
    seconds = {name: [] for name in variants}
    for run in variants.values():
        run(x)
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.process_time()
            run(x)
            seconds[name].append(time.process_time() - start)
    return {name: np.percentile(all_, [10, 50]) for name, all_ in seconds.items()}


def in_pieces(x, rounds):
    """Return lines of markdown: batches in pieces and whole, in two states of the allocator."""
    view, generator = simclr(), stream(0, "pieces")

    def run(x, at_once):
        with mock.patch.object(image_views, "_AT_ONCE", at_once):
            view(x, generator)

    sizes = {"in pieces": image_views._AT_ONCE, "whole": x.numel()}
    variants = {name: functools.partial(run, at_once=size) for name, size in sizes.items()}
    lines = ["| images/s | in pieces | whole |", "| --- | ---: | ---: |"]
    for state in ("fresh process", "after 16 MB were freed"):
        found = timed(variants, x, rounds)
        cells = [f"{len(x) / one[0]:,.0f}" for one in found.values()]
        lines.append(f"| {state} | {cells[0]} | {cells[1]} |")
        torch.empty(4_000_000).fill_(1)
    return lines


def table(found, rows):
    """Return lines of markdown."""
    lines = [
        "| view | images/s | median | kornia | median | ratio | kornia's other crop |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, label in LABELS.items():
        own = rows / found["ours", name]
        kept = [
            rows / found[key] for key in found if key[0] == "kornia" and key[1].startswith(name)
        ]
        best, *others = sorted(kept, key=lambda one: -one[0])
        other = f"{others[0][0]:,.0f}" if others else ""
        lines.append(
            f"| {label} | {own[0]:,.0f} | {own[1]:,.0f} | {best[0]:,.0f} | {best[1]:,.0f} "
            f"| {own[0] / best[0]:.1f} | {other} |"
        )
    return lines


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # kornia draws from the global generator
    warnings.filterwarnings("ignore")
    shape = (arguments.rows, 3, arguments.side, arguments.side)
    x = torch.randint(256, shape, dtype=torch.uint8)
    print(
        f"torch {torch.__version__}, kornia {kornia.__version__}, Python "
        f"{platform.python_version()}, batches of {arguments.rows} x 3 x {arguments.side} x "
        f"{arguments.side} bytes, {arguments.rounds} rounds\n"
    )
    print("\n".join(in_pieces(x, arguments.rounds)), end="\n\n")
    variants = {("ours", name): run for name, run in ours().items()}
    variants |= {("kornia", name): run for name, run in theirs(arguments.side).items()}
    print("\n".join(table(timed(variants, x, arguments.rounds), arguments.rows)))


if __name__ == "__main__":
    main()
