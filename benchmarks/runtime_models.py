"""Train what the runtime is measured on, into model folders; a killed run goes on where it was.

python benchmarks/runtime_models.py nine     9 layers of 512 on a table, r = 2 to 50
python benchmarks/runtime_models.py nine-layerwise    the same, each layer keeps 1/r
python benchmarks/runtime_models.py lenet    LeNet-300-100 on Fashion-MNIST, r = 2 to 50
python benchmarks/runtime_models.py pareto   tickets and small dense networks of several tables

Tables and images come from SECATEURS_DATA. A split is 60/20/20 per cent of the rows, stratified,
by its number; every model of a split sees the same rows.
"""

import argparse
import json
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from secateurs.data.tables import data_root, read_table, split_target
from secateurs.errors import RegimeWarning
from secateurs.estimator import TicketClassifier
from secateurs.image_classifier import ImageTicketClassifier

ROOT = Path("runs/runtime")
COMPRESSIONS = (2, 4, 8, 16, 50)
TABLES = {
    "sylvine": "sylvine",
    "mfeat-factors": "mfeat-factors",
    "jungle-chess": "jungle_chess_2pcs_raw_endgame_complete",
    "adult": "adult",
    "connect-4": "connect-4",
}
WIDTHS = (512, 256, 128, 64, 32, 16)
N_SPLITS = 5
NINE = "sylvine"


def rows(table, split):
    """Return (X, y) of the training, validation and test rows."""
    X, y = split_target(read_table(TABLES[table]), "target")
    at = np.arange(len(y))
    rest, test = train_test_split(at, test_size=0.2, stratify=y, random_state=split)
    train, val = train_test_split(rest, test_size=0.25, stratify=y.iloc[rest], random_state=split)
    return tuple((X.iloc[part], y.iloc[part]) for part in (train, val, test))


class _Layerwise(TicketClassifier):
    """Weights compete within their layer."""

    def _config(self, *args):
        return replace(super()._config(*args), scope="layer")

    def _description(self):
        return super()._description() | {"estimator": "TicketClassifier"}


def _fit(clf, X, y, folder):
    """Fit unless the folder is there, and save."""
    if (folder / "model.json").exists():
        return
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegimeWarning)  # the default recipe is lazy on some tables
        clf.fit(X, y)
    folder.parent.mkdir(parents=True, exist_ok=True)
    clf.save(folder)
    print(f"{folder}: {time.process_time() - begin:.0f} s CPU", flush=True)


def _tickets(X, y, folder, *, seed, **settings):
    """Fit one ticket a compression; all come from one search, whose checkpoint they share."""
    for r in COMPRESSIONS:
        clf = TicketClassifier(
            r, random_state=seed, checkpoint_dir=folder / "search", device="cpu", **settings
        )
        _fit(clf, X, y, folder / f"ticket-{r}")


def nine():
    """Train the 9x512 tickets on the first split of a table."""
    (X, y), _, _ = rows(NINE, 0)
    _tickets(X, y, ROOT / "nine", seed=0, widths=(512,) * 9)


def nine_layerwise():
    """Train tickets of the same search whose layers all keep 1/r, which leaves few neurons dead."""
    (X, y), _, _ = rows(NINE, 0)
    for r in COMPRESSIONS:
        clf = _Layerwise(
            r,
            random_state=0,
            widths=(512,) * 9,
            device="cpu",
            checkpoint_dir=ROOT / "nine-layerwise/search",
        )
        _fit(clf, X, y, ROOT / f"nine-layerwise/ticket-{r}")


def lenet():
    """Train LeNet-300-100 tickets on Fashion-MNIST by magnitude alone, 10 epochs a phase."""
    with np.load(data_root() / "vision/fashion_mnist.npz", allow_pickle=False) as file:
        x, y = file["x_train"], file["y_train"]
    folder = ROOT / "lenet"
    for r in COMPRESSIONS:
        clf = ImageTicketClassifier(
            r,
            network="lenet_300_100",
            view=None,
            contrastive_weight=0,
            search_epochs=10,
            finetune_epochs=10,
            random_state=0,
            device="cpu",
            checkpoint_dir=folder / "search",
        )
        _fit(clf, x, y, folder / f"ticket-{r}")


def pareto(tables, n_splits):
    """Train tickets and dense networks of several widths, the splits in turn."""
    for split in range(n_splits):
        for table in tables:
            folder = ROOT / "pareto" / table / f"split-{split}"
            (X, y), _, _ = rows(table, split)
            for width in WIDTHS:
                clf = TicketClassifier(1, widths=(width,) * 2, random_state=split, device="cpu")
                _fit(clf, X, y, folder / f"dense-{width}")
            _tickets(X, y, folder, seed=split)


def main():
    """Train one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("nine", "nine-layerwise", "lenet", "pareto"))
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=tuple(TABLES))
    parser.add_argument("--splits", type=int, default=N_SPLITS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.monotonic()
    if args.part == "pareto":
        pareto(args.tables, args.splits)
    else:
        {"nine": nine, "nine-layerwise": nine_layerwise, "lenet": lenet}[args.part]()
    print(json.dumps({"part": args.part, "seconds": time.monotonic() - begin, "pid": os.getpid()}))


if __name__ == "__main__":
    main()
