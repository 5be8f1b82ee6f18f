"""How the rates of `recipes.IMAGES` were chosen: on validation images, never on test images.

    python benchmarks/tune_images.py [--rows 4000] [--epochs 30] [--network cnn] [--width 8]

First the finetuning rate of the dense network, then the search rate of IUNet at r = 8 with the
best of these; 2,000 other training images are for validation. Prints a line a run and a table.
"""

import argparse
import time
import warnings

import numpy as np
import torch

from secateurs import ImageTicketClassifier
from secateurs.data.images import choose, read_images

FINETUNE = (0.03, 0.1, 0.3)
SEARCH = (3e-3, 1e-2, 3e-2, 1e-1)
SETS = ("fashion_mnist", "cifar10")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--network", default="cnn")
    parser.add_argument("--width", type=int)
    parser.add_argument("--sets", nargs="+", default=SETS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{args.network}, {args.rows:,} training images, {args.epochs} + {args.epochs} epochs")
    found = {}
    for name in args.sets:
        images = read_images(name)
        train, held = choose(images.y_train, n_validation=2000, n_train=args.rows, seed=0)
        parts = [(images.x_train[rows], images.y_train[rows]) for rows in (train, held)]

        def score(arm, rate, *, parts=parts, name=name, **settings):
            begin = time.process_time()
            clf = ImageTicketClassifier(
                network=args.network,
                width=args.width,
                search_epochs=args.epochs,
                finetune_epochs=args.epochs,
                random_state=0,
                **settings,
            ).fit(*parts[0])
            accuracy = clf.score(*parts[1])
            found[arm, rate, name] = accuracy
            moved = clf.summary_["weight_movement"]
            told = "" if moved is None else f", weights moved {moved:.2f}"
            seconds = time.process_time() - begin
            print(f"{name} {arm} {rate:g}: {accuracy:.4f}{told}, {seconds:.0f} s", flush=True)
            return accuracy

        best = max(
            FINETUNE,
            key=lambda rate: score("dense, finetune_lr", rate, compression=1, finetune_lr=rate),
        )
        for rate in SEARCH:
            score("IUNet, search_lr", rate, search_lr=rate, finetune_lr=best)
        score("small start alone, search_lr", 1e-2, contrastive_weight=0, finetune_lr=best)
    print(f"\n| arm | rate | {' | '.join(args.sets)} | mean |")
    print(f"| --- | ---: |{' ---: |' * (len(args.sets) + 1)}")
    for arm, rate in dict.fromkeys((arm, rate) for arm, rate, _ in found):
        row = [found[arm, rate, name] for name in args.sets]
        cells = " | ".join(f"{100 * one:.2f}" for one in (*row, np.mean(row)))
        print(f"| {arm} | {rate:g} | {cells} |")


if __name__ == "__main__":
    main()
