"""Fronts of accuracy against latency and bytes, and the tables that bench_pareto.py prints."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from runtime_models import COMPRESSIONS

# Which calls give the same predictions, by the row of accuracies that tells them.
SAME = {
    "ours": ("ours", "ort", "onednn"),
    "ours_int8": ("ours_int8",),
    "ort_int8": ("ort_int8",),
    "xgboost": ("xgboost", "ort"),
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
    latency: dict[int, tuple[float, str]]
    """Microseconds and the engine that takes them, by batch."""


def error(values: np.ndarray) -> float:
    """Return the standard error of a mean; 0 of one value, which has none."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


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
        columns = {k: np.array([several[s][k] for s in at]) for k in ("val", "test", "n_bytes")}
        found.append(
            Point(
                name=model + LABELS.get(engine, ""),
                family=family(model),
                splits=tuple(at),
                val=columns["val"],
                test=columns["test"],
                n_bytes=float(columns["n_bytes"].mean()),
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
    """Print a line a model: its fp32 and int8 forms side by side."""
    fronts = {name: front(own, cost) for name, cost in costs.items()}
    batches = sorted(own[0].latency)
    named = {p.name: p for p in own}
    one = ["test, %", *(f"us, {b}" for b in batches), "kB"]
    head = ["model", *one, *(f"int8 {what}" for what in one)]
    head += [*(f"ORT int8 us, {b}" for b in batches), "on the front of"]
    lines = []
    for point in sorted(own, key=lambda p: (p.family, -p.n_bytes)):
        if ", int8" in point.name or ", ORT" in point.name:
            continue
        line = [point.name]
        forms = [p for p in (point, named.get(f"{point.name}, int8")) if p]
        for form in forms:
            us = [f"{form.latency[b][0]:.4g} ({form.latency[b][1]})" for b in batches]
            if form is not point:
                us = [f"{form.latency[b][0]:.4g}" for b in batches]
            line += [_percent(form.test), *us, f"{form.n_bytes / 1e3:.4g}"]
        line += ["-"] * (1 + 2 * len(one) - len(line))
        other = named.get(f"{point.name}, ORT int8")
        line += [f"{other.latency[b][0]:.4g}" if other else "-" for b in batches]
        forms += [other] if other else []
        on = [
            f"{name}{p.name.removeprefix(point.name)}"
            for name, several in fronts.items()
            for p in forms
            if p in several
        ]
        lines.append([*line, "; ".join(on)])
    _print(head, lines)
    for name, several in fronts.items():
        steps = " → ".join(f"{p.name} ({100 * p.test.mean():.2f})" for p in several)
        print(f"\nFront of {name}, cheapest first: {steps}")


def _cell(ticket: Point, other: Point | None, cost: Callable[[Point], float]) -> str:
    if other is None:
        return "none"
    more = other.test - ticket.test
    ratio = cost(ticket) / cost(other)
    return f"{other.name}: {ratio:.2f}x, {100 * more.mean():+.2f} ± {100 * error(more):.2f}"


def _against(own: list[Point], costs: dict, families: tuple[str, ...]) -> dict[str, int]:
    """Print the cheapest rivals that are as good; return how often one is cheaper, by family."""
    print(
        "\nCheapest rival that is as good as the ticket (fp32) on validation rows: the ticket's "
        "cost over its own (above 1 the rival is cheaper), and its test accuracy less the ticket's"
    )
    cheaper = dict.fromkeys(families, 0)
    for name, cost in costs.items():
        lines = []
        for ticket in (p for p in own if p.name.startswith("ticket") and "," not in p.name):
            line = [ticket.name]
            for family in families:
                other = as_good(ticket, [p for p in own if p.family == family], cost)
                cheaper[family] += other is not None and cost(other) < cost(ticket)
                line.append(_cell(ticket, other, cost))
            lines.append(line)
        print(f"\nCost: {name}\n")
        _print(["ticket", *families], lines)
    return cheaper


def show(fitted: list[dict], clocked: list[dict], family: Callable) -> None:
    """Print the tables of every set."""
    total: dict[str, int] = {}
    asked = 0
    for table in dict.fromkeys(row["table"] for row in clocked):
        own = points(fitted, clocked, table, family)
        if not own:
            continue
        n = len(own[0].splits)
        print(f"\n### {table}: {n} split{'s' * (n > 1)}, mean ± standard error over them\n")
        costs = _costs(sorted(own[0].latency))
        _models(own, costs)
        families = ("dense networks", "XGBoost", "CatBoost")
        for family_, n in _against(own, costs, families).items():
            total[family_] = total.get(family_, 0) + n
        asked += len(COMPRESSIONS) * len(costs)
    print(f"\nOf {asked} tickets and costs, a rival that is as good is cheaper:", total)
    if clocked:
        last = clocked[-1]
        loads = [row["load"] for row in clocked]
        print("\nMachine:", json.dumps(last["machine"]))
        print(f"Load {min(loads):.1f} to {max(loads):.1f}; at least {last['rounds']} rounds")
        print("\nFrom the values of a table to probabilities, ticket-8, microseconds\n")
        latest = {(r["table"], r["batch"]): r for r in clocked}.values()
        names = list(last["whole"])
        lines = [
            [r["table"], str(r["batch"]), *(f"{r['whole'][n]:.4g}" for n in names)] for r in latest
        ]
        _print(["table", "batch", *names], lines)
