"""How the default parent and search were chosen: validation rows of the tuning sets only.

For each tuning set a fixed, stratified 20% of the rows is set aside and never read. The rest is
split 75/25 into training and validation by each seed. Every arm is a ticket at r = 8 (or the dense
network), unweighted cross-entropy; the endpoint, named beforehand, is balanced accuracy on the
validation rows, averaged over sets and seeds, with log-loss and accuracy beside it.

    python benchmarks/tune_default.py STAGE [--seeds 3] [--jobs 2] [--out runs/tune]

Cells are JSON files; a killed run resumes. `--table` only prints what is there.
"""

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from sklearn.model_selection import train_test_split

from secateurs import Data, PhaseConfig, TicketConfig, find_ticket
from secateurs.data.prepare import encode_frame, fit_preparation
from secateurs.data.views import corruption
from secateurs.measures.regime import weight_movement
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_
from secateurs.optimizers import SGD, AdamW
from secateurs.preparation import groups
from secateurs.seeds import stream
from secateurs.training import outputs

SETS = {"credit-g": None, "vehicle": None, "cnae-9": None, "arrhythmia": None}
MORE = {**SETS, "jungle_chess_2pcs_raw_endgame_complete": 2000}
PARENTS = {
    "9x512": (512,) * 9,
    "3x512": (512,) * 3,
    "2x1024": (1024,) * 2,
    "2x512": (512,) * 2,
    "3x1024": (1024,) * 3,
    "1x2048": (2048,),
    "3x256": (256,) * 3,
}
FINALISTS = ("2x512", "2x1024")


def arm(parent: str, lr: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Describe one arm; lr 0 is the dense network."""
    return {"parent": parent, "lr": lr, "kappa": 0.25, "ilo": 1.0, "epochs": 105, **changes}


def stage(name: str) -> tuple[list[dict[str, Any]], dict[str, int | None]]:
    """Return the arms and sets of a stage."""
    if name == "dense":
        return [arm(parent) for parent in PARENTS], SETS
    if name == "1":
        shallow = [
            arm(p, lr) for p in ("3x512", "2x1024", "2x512") for lr in (1e-3, 1e-2, 3e-2, 0.1)
        ]
        return shallow + [arm("9x512", lr) for lr in (1e-2, 0.1)], SETS
    if name == "2":
        arms = [arm(p, lr, ilo=ilo) for lr in (1e-2, 0.1) for ilo in (1.0, 0.0) for p in FINALISTS]
        arms += [arm(p, lr) for lr in (0.0, 1e-3) for p in FINALISTS]
        arms += [arm("2x512", 3e-2, epochs=epochs) for epochs in (35, 105, 210)]
        arms += [arm("2x512", 0.3), arm("2x512", 0.1, kappa=1.0)]
        return arms, MORE
    if name == "large":
        rules = [(128, 105), (128, 37), (256, 37), (512, 37), (1024, 37), (512, 105), (512, 18)]
        arms = [arm("2x512", 1e-2, batch=b, epochs=e, finetune=e) for b, e in rules]
        arms += [arm("2x512", 4e-2, batch=512, epochs=37, finetune=37)]
        return arms, {"jungle_chess_2pcs_raw_endgame_complete": None}
    raise SystemExit(f"no such stage: {name}")


def load(name: str, rows: int | None) -> tuple[pd.DataFrame, np.ndarray]:
    """Return features and class codes of the rows that tuning may see."""
    frame = pd.read_parquet(Path(os.environ["SECATEURS_DATA"]) / "tabular" / f"{name}.parquet")
    y = pd.factorize(frame.pop("target"), sort=True)[0]
    # a class of one or two rows cannot be split three ways; it joins the split unstratified
    counts = np.bincount(y)
    strata = np.where(counts[y] < 5, counts.argmax(), y)
    seen, _ = train_test_split(np.arange(len(y)), test_size=0.2, random_state=11, stratify=strata)
    if rows is not None:
        seen, _ = train_test_split(seen, train_size=rows, random_state=11, stratify=strata[seen])
    return frame.iloc[seen], y[seen]


def run(name: str, rows: int | None, seed: int, arm: dict[str, Any], out: Path) -> None:
    """Train one cell and write its result."""
    key = hashlib.sha256(json.dumps([name, rows, seed, arm], sort_keys=True).encode()).hexdigest()[
        :12
    ]
    path = out / f"{key}.json"
    if path.exists():
        return
    torch.set_num_threads(1)
    frame, y = load(name, rows)
    counts = np.bincount(y)
    strata = np.where(counts[y] < 5, counts.argmax(), y)
    rest, held = train_test_split(
        np.arange(len(y)), test_size=0.25, random_state=seed, stratify=strata
    )
    preparation = fit_preparation(frame.iloc[rest])
    x, x_val = (torch.from_numpy(encode_frame(preparation, frame.iloc[i])) for i in (rest, held))
    begin = time.process_time()
    network = MLP(x.shape[1], int(y.max()) + 1, widths=PARENTS[arm["parent"]])
    initialise_(network, generator=stream(seed, "init"))
    extra = {k: arm[k] for k in ("momentum", "schedule", "weight_decay") if k in arm}
    config = TicketConfig(
        search=PhaseConfig(
            epochs=arm["epochs"],
            batch_size=arm.get("batch", 128),
            optimizer=SGD(lr=arm["lr"] or 1e-2, **extra),
            contrastive_weight=arm["ilo"],
        ),
        finetune=PhaseConfig(
            epochs=arm.get("finetune", 105), batch_size=arm.get("batch", 128), optimizer=AdamW()
        ),
        compression=arm.get("r", 8) if arm["lr"] else 1,
        init_scale=arm["kappa"],
        scope=arm.get("scope", "global"),
    )
    ticket = find_ticket(
        network,
        Data(train=(x, torch.from_numpy(y[rest]))),
        config,
        seed=seed,
        view=corruption(x, groups(preparation)),
    )
    proba = outputs(ticket.network, x_val).double().softmax(1).numpy()
    result = {
        **arm,
        "set": name,
        "rows": rows,
        "seed": seed,
        "accuracy": accuracy_score(y[held], proba.argmax(1)),
        "balanced": balanced_accuracy_score(y[held], proba.argmax(1)),
        "log_loss": log_loss(y[held], proba, labels=range(proba.shape[1])),
        "movement": weight_movement(
            {name: arm["kappa"] * weight for name, weight in ticket.searched.start.items()},
            ticket.searched.state,
            list(ticket.mask),
        )
        if arm["lr"]
        else 0.0,
        "seconds": time.process_time() - begin,
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result))
    temporary.replace(path)


ARM = ["parent", "lr", "kappa", "ilo", "epochs", "batch", "finetune"]


def results(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the cells of the small sets, and those of the large one at full size."""
    frame = pd.DataFrame([json.loads(p.read_text()) for p in sorted(out.glob("*.json"))])
    frame = frame.reindex(columns=[*ARM, *frame.columns.difference(ARM, sort=False)])
    frame[ARM] = frame[ARM].fillna({"batch": 128, "finetune": 105})
    # a dense network has no search: its search settings say nothing
    frame.loc[frame["lr"] == 0, ["kappa", "ilo", "epochs"]] = 0
    frame[["balanced", "accuracy"]] *= 100
    full = frame["set"].str.startswith("jungle") & frame["rows"].isna()
    return frame[~full].copy(), frame[full]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row an arm: means, and differences from the dense 2x512 on the same cells.

    Arms have different numbers of cells (`n`), so compare the paired differences, in points of
    balanced accuracy, with their standard error over cells. `movement` is that of the search,
    relative to its scaled start; `seconds` are of CPU, one thread.
    """
    cells = frame.set_index(["set", "seed", *ARM])
    dense = cells.xs(("2x512", 0.0, 0.0, 0.0, 0.0), level=ARM[:5]).droplevel(["batch", "finetune"])
    paired = frame.join(dense.add_suffix("_dense"), on=["set", "seed"])
    for name in ("balanced", "accuracy", "log_loss"):
        frame["d_" + name] = paired[name] - paired[name + "_dense"]
    by = frame.groupby(ARM)
    result = by[["balanced", "d_balanced"]].mean()
    result["se"] = by["d_balanced"].sem()
    result = result.join(by[["d_accuracy", "d_log_loss", "movement", "seconds"]].mean())
    per_set = frame.pivot_table(index=ARM, columns="set", values="d_balanced")
    per_set.columns = [c[:9] for c in per_set.columns]
    return result.assign(n=by.size()).join(per_set).sort_values("d_balanced", ascending=False)


def main() -> None:
    """Run a stage and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", nargs="*")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/tune"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.table:
        cells = [
            delayed(run)(name, rows, seed, described, args.out)
            for one in args.stage
            for arms, sets in [stage(one)]
            for seed in range(args.seeds)
            for described in arms
            for name, rows in sets.items()
        ]
        Parallel(n_jobs=args.jobs)(cells)
    with pd.option_context(
        "display.width", 250, "display.max_columns", 30, "display.max_rows", 200
    ):
        small, large = results(args.out)
        print(table(small).round(2).to_string())
        print("\nthe large set at full size, one split each")
        columns = ["parent", "lr", "batch", "epochs", "balanced", "accuracy", "log_loss", "seconds"]
        print(large[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
