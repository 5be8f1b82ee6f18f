"""How much faster students train as a stack than one by one, on one core.

Variants run interleaved in one process on one thread; seconds are process CPU time for a step of
one student (24-64-1, 384 rows, masked, centred), the 10th percentile over the rounds.

    python benchmarks/bench_stacked.py [--rounds 9] [--steps 200] [--replicas 125] [--width 64]
"""

import argparse
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F

from secateurs.networks.teacher import Student, draw_task
from secateurs.regime import stacked
from secateurs.seeds import stream

ALONE = 4
"""Students that are trained one by one: their time does not depend on how many there are."""
LR = 0.1


def module_loop(students, x, y, masks, alphas, steps):
    """Train an ordinary module with an optimizer, centred, masks held after each step."""
    for student, mask, alpha in zip(students, masks, alphas, strict=True):
        with torch.no_grad():
            student.hidden.mul_(mask)
            centre = student(x)
        optimizer = torch.optim.SGD(student.parameters(), lr=LR)
        for _ in range(steps):
            loss = F.mse_loss(alpha * (student(x) - centre), y) / (2 * alpha**2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                student.hidden.mul_(mask)


def lean_loop(weights, x, y, masks, alphas, steps, scales):
    """Train by autograd with as few operations as it takes."""
    xs = scales[0] * x
    for i, alpha in enumerate(alphas):
        factor = masks[i].to(x.dtype)
        w = (weights[0][i] * factor).requires_grad_()
        a = weights[1][i].clone().requires_grad_()
        with torch.no_grad():
            target = scales[1] * ((xs @ w.T).relu() @ a.T) + y / alpha
        for _ in range(steps):
            loss = F.mse_loss(scales[1] * ((xs @ w.T).relu() @ a.T), target)
            gradients = torch.autograd.grad(loss, (w, a))
            with torch.no_grad():
                w.sub_(gradients[0].mul_(factor), alpha=LR / 2)
                a.sub_(gradients[1], alpha=LR / 2)


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=125)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = draw_task(n_relevant=4, generator=stream(0, "task"))
    x, y = task.x_train.float(), task.y_train.float()[:, None]

    def start(i: int) -> Student:
        return Student(24, width=args.width, generator=stream(i, "student")).float()

    starts = [start(i) for i in range(args.replicas)]
    weights = tuple(
        torch.stack([getattr(s, name).detach() for s in starts]) for name in ("hidden", "readout")
    )
    masks = torch.rand(weights[0].shape, generator=stream(0, "mask")) < 0.3
    alphas = [(0.05, 0.2, 1.0, 5.0, 25.0)[i % 5] for i in range(args.replicas)]
    scales = starts[0].scales
    shared = x.expand(args.replicas, -1, -1), y.expand(args.replicas, -1, -1)

    def stack() -> None:
        stacked.train(
            weights, *shared, scales=scales, alpha=torch.tensor(alphas), lr=LR, steps=args.steps,
            masks=(masks, None),
        )  # fmt: skip

    def module() -> None:
        fresh = [start(i) for i in range(ALONE)]
        module_loop(fresh, x, y, masks[:ALONE], alphas[:ALONE], args.steps)

    def lean() -> None:
        few = tuple(w[:ALONE] for w in weights)
        lean_loop(few, x, y, masks[:ALONE], alphas[:ALONE], args.steps, scales)

    variants = {"stacked": stack, "modules one by one": module, "lean autograd one by one": lean}
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for i in range(args.rounds + 1):
        for name, run in variants.items():
            begin = time.process_time()
            run()
            if i:
                n = args.replicas if name == "stacked" else ALONE
                spent[name].append((time.process_time() - begin) / (n * args.steps))
    low = {name: float(np.percentile(taken, 10)) for name, taken in spent.items()}
    for name, taken in spent.items():
        print(
            f"{name:26s} {1e6 * low[name]:7.1f} us a step of one student "
            f"(median {1e6 * np.median(taken):.1f}), {low[name] / low['stacked']:.1f} x stacked"
        )


if __name__ == "__main__":
    main()
