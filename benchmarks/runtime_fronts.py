"""Fronts of accuracy against latency and bytes, and the tables that bench_pareto.py prints."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Which calls give the same predictions, by the row of accuracies that tells them.
SAME = {
    "ours": ("ours", "ort", "onednn"),
    "ort": ("ours", "ort", "onednn"),
    "ours_int8": ("ours_int8",),
    "ort_int8": ("ort_int8",),
    "xgboost": ("xgboost",),
    "catboost": ("catboost", "ort"),
}
LABELS = {"ours": "", "ours_int8": ", int8", "ort_int8": ", ORT int8"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model on one table: accuracies by split, and what it costs."""

    name: str
    family: str
    splits: tuple[int, ...]
    val: np.ndarray
    test: np.ndarray
    n_bytes: float
    seconds: float
    latency: dict[int, tuple[float, str]]
    """Microseconds and the engine that takes them, by batch."""


def error(values: np.ndarray) -> float:
    """Return the standard error of a mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def points(fitted: list[dict], clocked: list[dict], table: str, family: Callable) -> list[Point]:
    """Return the models of a table whose latencies are known."""
    latest = {row["batch"]: row for row in clocked if row["table"] == table}
    us = {batch: {(m, e): value for m, e, value in row["latency"]} for batch, row in latest.items()}
    found = []
    own = [r for r in fitted if r["table"] == table and r["engine"] in SAME]
    for model, engine in dict.fromkeys((r["model"], r["engine"]) for r in own):
        several = {r["split"]: r for r in own if (r["model"], r["engine"]) == (model, engine)}
        at = sorted(several)
        latency = {}
        for batch, values in us.items():
            calls = {e: values[model, e] for e in SAME[engine] if (model, e) in values}
            if calls:
                best = min(calls, key=calls.__getitem__)
                latency[batch] = calls[best], best
        columns = {
            k: np.array([several[s][k] for s in at]) for k in ("val", "test", "n_bytes", "seconds")
        }
        found.append(
            Point(
                name=model + LABELS.get(engine, ""),
                family=family(model),
                splits=tuple(at),
                val=columns["val"],
                test=columns["test"],
                n_bytes=float(columns["n_bytes"].mean()),
                seconds=float(columns["seconds"].mean()),
                latency=latency,
            )
        )
    return [p for p in found if set(p.latency) == set(us)]


def front(of: list[Point], cost: Callable[[Point], float]) -> list[Point]:
    """Return the points that no cheaper one beats on validation rows, the cheapest first."""
    found: list[Point] = []
    for point in sorted(of, key=lambda p: (cost(p), -p.val.mean())):
        if not found or point.val.mean() > found[-1].val.mean():
            found.append(point)
    return found


def as_good(ticket: Point, others: list[Point], cost: Callable[[Point], float]) -> Point | None:
    """Return the cheapest one whose validation accuracy is not lower by more than its error.

    The error is that of the mean of the paired differences.
    """
    fair = []
    for other in others:
        if other.splits == ticket.splits:
            less = ticket.val - other.val
            if less.mean() <= error(less):
                fair.append(other)
    return min(fair, key=cost) if fair else None


def _print(head: list[str], lines: list[list[str]]) -> None:
    for line in (head, ["---"] * len(head), *lines):
        print("| " + " | ".join(line) + " |")


def _percent(values: np.ndarray) -> str:
    return f"{100 * values.mean():.2f} ± {100 * error(values):.2f}"


def _costs(batches: list[int]) -> dict[str, Callable[[Point], float]]:
    named = {f"batch {b}": lambda p, b=b: p.latency[b][0] for b in batches}
    return {**named, "bytes": lambda p: p.n_bytes}


def _models(own: list[Point], costs: dict) -> None:
    fronts = {name: front(own, cost) for name, cost in costs.items()}
    batches = sorted(own[0].latency)
    head = ["model", "test accuracy, %", *(f"us, batch {b}" for b in batches), "kB", "CPU s to fit"]
    lines = []
    for point in sorted(own, key=lambda p: (p.family, -p.n_bytes)):
        us = [f"{point.latency[b][0]:.4g} ({point.latency[b][1]})" for b in batches]
        on = [name for name, several in fronts.items() if point in several]
        costs_ = [f"{point.n_bytes / 1e3:.4g}", f"{point.seconds:.3g}"]
        lines.append([point.name, _percent(point.test), *us, *costs_, ", ".join(on)])
    _print([*head, "on the front of"], lines)
    for name, several in fronts.items():
        steps = " → ".join(f"{p.name} ({100 * p.test.mean():.2f})" for p in several)
        print(f"\nFront of {name}: {steps}")


def _against(own: list[Point], costs: dict, family: str, title: str) -> None:
    """Print, for each ticket, the cheapest rival that is as good."""
    rivals = [p for p in own if p.family == family]
    lines = []
    for ticket in (p for p in own if p.name.startswith("ticket") and "," not in p.name):
        for name, cost in costs.items():
            other = as_good(ticket, rivals, cost)
            if other is None:
                lines.append([ticket.name, name, "none", "-", "-", "ticket"])
                continue
            more, ratio = other.test - ticket.test, cost(ticket) / cost(other)
            lines.append([ticket.name, name, other.name, f"{_percent(more)}", f"{ratio:.2f}"])
            lines[-1].append("rival" if ratio > 1 else "ticket")
    print(f"\nThe cheapest of {title} that is as good as each ticket (fp32) on validation rows\n")
    head = ["ticket", "cost", "rival", "its test accuracy - ticket's"]
    _print([*head, "ticket's cost / rival's", "cheaper"], lines)


def show(fitted: list[dict], clocked: list[dict], family: Callable) -> None:
    """Print the tables of every set."""
    for table in dict.fromkeys(row["table"] for row in clocked):
        own = points(fitted, clocked, table, family)
        if not own:
            continue
        n = len(own[0].splits)
        print(f"\n### {table}: {n} split{'s' * (n > 1)}, mean ± standard error over them\n")
        costs = _costs(sorted(own[0].latency))
        _models(own, costs)
        for title in ("dense networks", "XGBoost", "CatBoost"):
            _against(own, costs, title, title)
    if clocked:
        last = clocked[-1]
        loads = [row["load"] for row in clocked]
        print("\nMachine:", json.dumps(last["machine"]))
        print(f"Load {min(loads):.1f} to {max(loads):.1f}; at least {last['rounds']} rounds")
        for row in {(r["table"], r["batch"]): r for r in clocked}.values():
            print(f"Columns of {row['batch']} rows of {row['table']}: {row['columns']:.0f} us")
