"""A first table: does a ticket keep what its dense parent knows? Small, and said to be so.

Four sets that took no part in choosing the defaults, three paired splits of each: 20% of the rows
are tested, the rest is trained on, identical rows stay on one side. All arms see the same rows and
the same seed, have the same epochs and are chosen by nobody: one run an arm and split.

    python benchmarks/tabular_first.py [--splits 3] [--jobs 2] [--out runs/tabular_first]

Cells are JSON files; a killed run resumes. `--table` only prints what is there. Needs
SECATEURS_DATA and about two core-hours.
"""

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
import xgboost
from joblib import Parallel, delayed
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from secateurs import TicketClassifier
from secateurs.data.prepare import encode_frame, fit_preparation
from secateurs.measures.quality import classification
from secateurs.networks.dense import MLP_TAB

SETS = ("australian", "mfeat-factors", "kr-vs-kp", "sylvine")

OMP: dict[str, Any] = {"init_scale": 1.0, "contrastive_weight": 0.0}
ARMS: dict[str, dict[str, Any] | None] = {
    "majority class": None,
    "logistic regression": None,
    "XGBoost": None,
    "dense 2x128": {"compression": 1, "widths": (128, 128)},
    "dense 3x256": {"compression": 1, "widths": (256,) * 3},
    "default parent: dense": {"compression": 1},
    "default parent: omp-paper": {**OMP, "search_lr": 1e-3},
    "default parent: omp-rich": OMP,
    "default parent: omp, matched lr": {**OMP, "search_lr": 0.16},
    "default parent: IUNet": {},
    "9x512: dense": {"compression": 1, "widths": MLP_TAB},
    "9x512: omp-paper": {**OMP, "widths": MLP_TAB, "search_lr": 1e-3},
    "9x512: omp-rich": {**OMP, "widths": MLP_TAB},
    "9x512: IUNet, our search": {"widths": MLP_TAB},
    "9x512: IUNet, paper's recipe": {"preset": "paper"},
}


def split(frame: pd.DataFrame, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training and test rows: stratified, 20% tested, identical rows on one side."""
    same = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    return next(iter(folds.split(frame, y, groups=same)))


def run(name: str, seed: int, arm: str, out: Path) -> None:
    """Train and test one cell and write its result."""
    path = out / f"{name}-{seed}-{re.sub('[^a-z0-9]+', '-', arm.lower())}.json"
    if path.exists():
        return
    torch.set_num_threads(1)
    frame = pd.read_parquet(Path(os.environ["SECATEURS_DATA"]) / "tabular" / f"{name}.parquet")
    y = frame.pop("target").to_numpy().astype(str)
    train, test = split(frame, y, seed)
    X, X_test = frame.iloc[train], frame.iloc[test]
    begin = time.process_time()
    kept = 0
    settings = ARMS[arm]
    if settings is not None:
        model = TicketClassifier(random_state=seed, **settings).fit(X, y[train])
        proba, classes, kept = model.predict_proba(X_test), model.classes_, model.n_parameters_kept_
    else:
        classes, codes = np.unique(y[train], return_inverse=True)
        preparation = fit_preparation(X)
        x, x_test = encode_frame(preparation, X), encode_frame(preparation, X_test)
        if arm == "majority class":
            proba = DummyClassifier().fit(x, codes).predict_proba(x_test)
        elif arm == "logistic regression":
            fitted = LogisticRegression(max_iter=5000).fit(x, codes)
            proba, kept = fitted.predict_proba(x_test), fitted.coef_.size + fitted.intercept_.size
        else:
            booster = xgboost.XGBClassifier(
                enable_categorical=True, n_jobs=1, random_state=seed
            ).fit(X, codes)
            proba = booster.predict_proba(X_test)
    result = {
        "set": name,
        "split": seed,
        "arm": arm,
        **classification(y[test], proba.astype(np.float64), classes),
        "parameters_kept": int(kept),
        "seconds": time.process_time() - begin,
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result))
    temporary.replace(path)


def table(frame: pd.DataFrame) -> str:
    """Return the Markdown table: means over sets, standard errors over sets, paired differences."""
    sets = [name for name in SETS if name in set(frame["set"])]
    balanced = 100 * frame.pivot_table(index="arm", columns="set", values="balanced_accuracy")
    accuracy = 100 * frame.pivot_table(index="arm", columns="set", values="accuracy")
    loss = frame.pivot_table(index="arm", columns="set", values="log_loss")
    by = frame.groupby("arm")
    head = [
        "model",
        "balanced accuracy",
        "vs its dense",
        "accuracy",
        "log-loss",
        *sets,
        "parameters",
        "CPU s",
    ]
    lines = [" | ".join(head), " | ".join("---" if i == 0 else "---:" for i in range(len(head)))]
    for arm in [arm for arm in ARMS if arm in balanced.index]:
        parent = arm.split(":")[0] + ": dense"
        versus = ""
        if ":" in arm and arm != parent and parent in balanced.index:
            gain = balanced.loc[arm] - balanced.loc[parent]
            versus = f"{gain.mean():+.2f} ± {gain.sem():.2f}"
        row = balanced.loc[arm]
        lines.append(
            " | ".join(
                [
                    arm,
                    f"{row.mean():.2f} ± {row.sem():.2f}",
                    versus,
                    f"{accuracy.loc[arm].mean():.2f}",
                    f"{loss.loc[arm].mean():.3f}",
                    *(f"{row[name]:.2f}" for name in sets),
                    f"{by['parameters_kept'].mean()[arm]:,.0f}"
                    if by["parameters_kept"].mean()[arm]
                    else "",
                    f"{by['seconds'].mean()[arm]:.1f}",
                ]
            )
        )
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/tabular_first"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.table:
        cells = [(name, seed, arm) for seed in range(args.splits) for arm in ARMS for name in SETS]
        cells.sort(key=lambda cell: "paper's recipe" in cell[2])  # dear, and asked for last
        print(f"{len(cells)} cells, finished ones are skipped", flush=True)
        Parallel(n_jobs=args.jobs)(delayed(run)(*cell, args.out) for cell in cells)
    frame = pd.DataFrame([json.loads(path.read_text()) for path in sorted(args.out.glob("*.json"))])
    counts = frame.groupby("arm")["split"].nunique()
    print(f"{frame['set'].nunique()} sets, at least {counts.min()} splits; mean ± standard")
    print(
        "error over sets of the split means; differences are paired; per set: balanced accuracy\n"
    )
    print(table(frame))


if __name__ == "__main__":
    main()
