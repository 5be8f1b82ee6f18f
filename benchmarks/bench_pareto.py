"""The fair picture: accuracy of tickets and their rivals against latency on one thread, and bytes.

    python benchmarks/runtime_models.py pareto      train the networks first; goes on where it was
    python benchmarks/bench_pareto.py fit           accuracies of networks and trees, every split
    python benchmarks/bench_pareto.py time          latencies, one split, all engines interleaved
    python benchmarks/bench_pareto.py table [--html PAGE]   what is there, fronts, who wins where

Networks run in ours (fp32, and int8 weights) and in ONNX Runtime (fp32, and dynamic int8); the
dense ones of every width are trained by the tickets' own recipe. XGBoost and CatBoost have their
default settings at several numbers of trees. Rows are encoded before any clock starts. Accuracies
are of the test rows of paired 60/20/20 splits; whatever is chosen here is chosen on validation
rows. Peers and --during: see bench_runtime.py. Results are lines of JSON in --out.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import runtime_engines as engines
import runtime_fronts as fronts
import runtime_trees as trees
import torch
from bench_runtime import _quiet, limits, machine, timed
from runtime_engines import AbsentError, Case
from runtime_models import COMPRESSIONS, N_SPLITS, ROOT, TABLES, WIDTHS, rows
from runtime_networks import chain
from runtime_page import save

from secateurs import runtime
from secateurs.loading import load

BATCHES = (1, 1024)
NETWORKS = [f"ticket-{r}" for r in COMPRESSIONS] + [f"dense-{w}" for w in WIDTHS]
OURS = {"ours": "fp32", "ours_int8": "int8"}
ENGINES = (*(OURS if hasattr(runtime, "compile") else ()), "ort", "ort_int8")
FAMILIES = {"ticket": "tickets", "dense": "dense networks", "xgboost": "XGBoost"}


def family(name: str) -> str:
    """Return what kind of model a name is of."""
    return FAMILIES.get(name.split("-")[0].split(",")[0], "CatBoost")


# --- accuracy --------------------------------------------------------------------------------


def _scores(run, parts) -> dict[str, float]:
    """Return the share of validation and test rows whose class is right."""
    return {
        name: float((run(x).argmax(1) == codes).mean())
        for name, (x, codes) in zip(("val", "test"), parts, strict=True)
    }


def _network(folder: Path, parts, missing) -> Iterator[dict]:
    """Yield the accuracy and bytes of a network in each engine."""
    clf = load(folder)
    network = chain(clf.members_[0])
    for engine in missing:
        if engine in OURS:
            made = runtime.compile(network, precision=OURS[engine], tune=False)
            n_bytes, run = len(made.to_bytes()), made
        else:
            case = Case(network=network, x=parts[0][0][:1])
            made, n_bytes = engines.onnx_session(case, int8=engine == "ort_int8")
            run = partial(_answer, made)
        yield {"engine": engine, "n_bytes": n_bytes} | _scores(run, parts)


def _answer(session: Callable, x: np.ndarray) -> np.ndarray:
    return session(None, {"x": x})[0]


def _fit(table: str, split: int, there: set) -> Iterator[dict]:
    """Yield what is not there of one split."""
    folder = ROOT / "pareto" / table / f"split-{split}"
    trained = [name for name in NETWORKS if (folder / name / "model.json").exists()]
    if len(trained) < len(NETWORKS):
        print(f"{folder}: {len(trained)} of {len(NETWORKS)} networks are trained", flush=True)
    if not trained:
        return
    data = rows(table, split)
    clf = load(folder / trained[0])
    codes = [np.searchsorted(clf.classes_, y) for _, y in data]
    about = {"table": table, "split": split}
    parts = [(clf._encode(X).numpy(), c) for (X, _), c in zip(data[1:], codes[1:], strict=True)]
    for name in trained:
        missing = [e for e in ENGINES if (table, split, name, e) not in there]
        for row in _network(folder / name, parts, missing):
            yield about | {"model": name} | row
    read = trees.Codes(clf.preparation_, data[0][0])
    parts = [(read(X), c) for (X, _), c in zip(data, codes, strict=True)]
    for kind in ("xgboost", "catboost"):
        if any((t, s, e) == (table, split, kind) for t, s, _, e in there):
            continue
        for name, model in getattr(trees, kind)(*parts[0], read, seed=split).items():
            (folder / f"{name}.bin").write_bytes(model["blob"])
            row = about | {"model": name, "engine": kind, "n_bytes": len(model["blob"])}
            yield row | _scores(model["run"], parts[1:])


# --- latency ---------------------------------------------------------------------------------


def _runs(table: str, split: int, batch: int) -> tuple[dict, dict]:
    """Return calls by (model, engine), and why others are absent."""
    folder = ROOT / "pareto" / table / f"split-{split}"
    X, _ = rows(table, split)[2]
    X = X.iloc[np.resize(np.arange(len(X)), batch)]
    runs, absent = {}, {}
    for name in NETWORKS:
        clf = load(folder / name)
        x = clf._encode(X).numpy()
        case = Case(network=chain(clf.members_[0]), x=x)
        expected = engines.reference(case.network, x)
        for engine in (*ENGINES, "onednn"):
            try:
                run = engines.MAKERS[engine](case)
                engines.error(engine, run(), expected)
                runs[name, engine] = run
            except AbsentError as err:
                absent[f"{name}, {engine}"] = str(err)
    codes = trees.Codes(clf.preparation_, rows(table, split)[0][0])
    x = codes(X)
    for path in sorted(folder.glob("*.bin")):
        blob, name = path.read_bytes(), path.stem
        kind = name.split(",")[0]
        if kind == "xgboost":
            made = {kind: trees.read_xgboost(blob)}
        else:
            made = {kind: trees.read_catboost(blob, codes.named)}
        try:
            made["ort"] = getattr(trees, f"{kind}_onnx")(blob, codes.named)
            right = made[kind](x).argmax(1)
            other = made["ort"](x)
            if (right == (other.argmax(1) if other.ndim == 2 else other)).mean() < 0.999:
                del made["ort"]
                absent[f"{name}, ort"] = "predicts otherwise"
        except AbsentError as err:
            absent[f"{name}, ort"] = str(err)
        for engine, run in made.items():
            runs[name, engine] = lambda run=run: run(x)
    return runs, absent


def _whole(table: str, split: int, batch: int) -> dict[str, Callable]:
    """Return calls of one ticket that begin at the table's own values, by what they are given."""
    clf = load(ROOT / "pareto" / table / f"split-{split}/ticket-8")
    X, _ = rows(table, split)[2]
    frame = X.iloc[np.resize(np.arange(len(X)), batch)].reset_index(drop=True)
    columns = {name: frame[name].to_numpy() for name in frame}
    compiled = clf.compile()
    return {
        "estimator, data frame": lambda: clf.predict_proba(frame),
        "compiled, data frame": lambda: compiled.predict_proba(frame),
        "compiled, arrays": lambda: compiled.predict_proba(columns),
    }


def _time(table: str, batch: int, args: argparse.Namespace) -> dict:
    with torch.inference_mode():
        runs, absent = _runs(table, args.split, batch)
        whole = _whole(table, args.split, batch)
        with _quiet(args.during):
            load_ = os.getloadavg()[0]
            peak = limits()
            found = timed(runs, rounds=args.rounds, budget=args.budget)
            prepared = timed(whole, rounds=10, budget=1)
    return {
        "table": table,
        "batch": batch,
        "latency": [[*key, values["cpu"]] for key, values in found.items()],
        "rounds": min(values["rounds"] for values in found.values()),
        "absent": absent,
        "whole": {name: values["cpu"] for name, values in prepared.items()},
        "load": load_,
        "limits": peak,
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(),
    }


# --- files -----------------------------------------------------------------------------------


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _append(path: Path, row: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=("fit", "time", "table"), default="table")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--splits", type=int, default=N_SPLITS)
    parser.add_argument("--split", type=int, default=0, help="whose models are timed")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--budget", type=float, default=8.0)
    parser.add_argument("--during")
    parser.add_argument("--html", type=Path, help="of table: a page of figures, too")
    parser.add_argument("--out", type=Path, default=ROOT)
    args = parser.parse_args()
    wanted = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fitted, clocked = args.out / "pareto.jsonl", args.out / "pareto-latency.jsonl"
    if args.part == "fit":
        known = _lines(fitted)
        there = {(r["table"], r["split"], r["model"], r["engine"]) for r in known}
        for split in range(args.splits):
            for table in args.tables:
                for row in _fit(table, split, there):
                    _append(fitted, row)
                    print(row, flush=True)
    elif args.part == "time":
        for table in args.tables:
            for batch in BATCHES:
                row = _time(table, batch, args)
                _append(clocked, row)
                print(table, batch, f"{len(row['latency'])} models", flush=True)
    else:
        found = _lines(fitted), _lines(clocked)
        fronts.show(*found, family)
        if args.html:
            names = dict.fromkeys(row["table"] for row in found[1])
            own = {name: fronts.points(*found, name, family) for name in names}
            save(args.html, {k: v for k, v in own.items() if v}, "bench_pareto.py table --html")


if __name__ == "__main__":
    main()
