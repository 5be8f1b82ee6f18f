"""Rows of bench_runtime.py, a line of JSON each, and the tables that are printed of them."""

import json
from pathlib import Path

import numpy as np
from runtime_engines import COMPACTED, DENSE, MAKERS, WANTED_ERROR

TARGETS = {
    ("9x512", 8): {1: 5.5, 32: 4.2, 128: 3.6, 1024: 3.3},
    ("9x512", 16): {1: 7, 32: 7, 128: 7, 1024: 6.3},
    ("resnet18-cifar", 8): {32: 1.5},
    ("resnet18-imagenet", 8): {32: 1.5},
}
"""Ratios over the best dense fp32 engine that issue 8 asks for, by network, r and batch."""


def rows_of(path: Path) -> list[dict]:
    """Return the last row of each key, in the order of their first."""
    found = {}
    if path.exists():
        for line in path.read_text().splitlines():
            row = json.loads(line)
            found[tuple(row["key"])] = row
    return list(found.values())


def kind_of(row: dict) -> str:
    """Return what a row's figures are: CPU time, or wall time with several threads."""
    return "cpu" if row["key"][4] == 1 else "wall"


def times(row: dict) -> dict[str, float]:
    """Return microseconds by engine."""
    return {e: values[kind_of(row)] for e, values in row["engines"].items()}


def _best(row: dict) -> str | None:
    us = {e: t for e, t in times(row).items() if e in DENSE}
    return min(us, key=us.get) if us else None


def unsteady(rows: list[dict], *, more: float = 1.15) -> set[tuple]:
    """Return the keys of rows in which a dense engine was slower than beside another mask.

    Masks do not change its time: neighbours on the machine did.
    """
    least: dict[tuple, float] = {}
    for row in rows:
        for engine in DENSE:
            if engine in times(row):
                of = (engine, row["key"][0], *row["key"][2:])
                least[of] = min(least.get(of, np.inf), times(row)[engine])
    return {
        tuple(row["key"])
        for row in rows
        for engine in ("onednn", "ort", "openvino")
        if engine in times(row)
        and times(row)[engine] > more * least[(engine, row["key"][0], *row["key"][2:])]
    }


def gain(row: dict, engine: str = "ours", over: str | None = None) -> float | None:
    """Return how many times as fast an engine is as another, or as the best dense fp32 one."""
    us, over = times(row), over or _best(row)
    return us[over] / us[engine] if engine in us and over in us else None


def over_compacted(row: dict) -> float | None:
    """Return how many times as fast ours is as the best dense engine without dead neurons."""
    us = times(row)
    found = [us[e] for e in COMPACTED if e in us]
    return min(found) / us["ours"] if found and "ours" in us else None


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else f"{value:{form}}"


def _line(row: dict, names: list[str]) -> list[str]:
    us = times(row)
    rate = row["flops"] / us["ours"] / 1e3 if "ours" in us else None
    limit = row["limits"]["l2_gbs"] / 4 * 2
    cells = [f"{row['key'][1]:g}", str(row["key"][3])]
    for engine in names:
        off = engine in us and row["engines"][engine]["error"] > WANTED_ERROR.get(engine, 1e-4)
        cells.append(_number(us.get(engine), ".4g") + "*" * off)
    return [
        *cells,
        _best(row) or "-",
        *map(_number, (gain(row), over_compacted(row), gain(row, over="torch"))),
        _number(gain(row, over="ort_int8")),
        *(_number(gain(row, f"ours_{p}", "ort_int8")) for p in ("bf16", "int8")),
        _number(rate, ".0f"),
        _number(rate and 100 * rate / limit, ".0f"),
        f"{row['load']:.1f}",
    ]


def _print(head: list[str], lines: list[list[str]]) -> None:
    for line in (head, ["---"] * len(head), *lines):
        print("| " + " | ".join(line) + " |")


def _title(row: dict) -> tuple:
    network, _, masked, _, threads, isa = row["key"]
    parts = [network, f"{masked} masks", f"{threads} thread{'s' * (threads > 1)}"]
    return ", ".join([*parts, *([f"{isa} only"] if isa else [])])


def table(rows: list[dict]) -> None:
    """Print a table for each network and kind of mask, the targets, and the machine."""
    for title in dict.fromkeys(map(_title, rows)):
        own = sorted(
            (r for r in rows if _title(r) == title), key=lambda r: (r["key"][1], r["key"][3])
        )
        names = [e for e in MAKERS if any(e in r["engines"] for r in own)]
        head = [
            "r",
            "batch",
            *names,
            "best dense fp32",
            "ours over it",
            "over it compacted",
            "over torch",
        ]
        head += ["over ORT int8", "bf16 over it", "int8 over it", "GFLOP/s", "% of L2", "load"]
        print(f"\n{title}: microseconds a call, {kind_of(own[0])} time p10\n")
        _print(head, [_line(row, names) for row in own])
    if any("ours" in row["engines"] for row in rows):
        _verdicts(rows)
    absent = {}
    for row in rows:
        for engine, why in row["absent"].items():
            absent.setdefault(f"{engine}: {why}", []).append(row["key"][0])
    if absent:
        print("\nAbsent:\n")
        for what, networks in sorted(absent.items()):
            print(f"- {what} ({', '.join(dict.fromkeys(networks))})")
    if rows:
        _machine(rows)


def _verdicts(rows: list[dict]) -> None:
    print("\nWhat was asked, on one thread\n")
    lines = []
    for row in rows:
        network, r, masked, batch, threads, isa = row["key"]
        wanted = TARGETS.get((network, r), {}).get(batch)
        found = gain(row)
        if masked == "trained" or threads > 1 or found is None:
            continue  # dead neurons are no merit of kernels
        if wanted is None and not (isa and r == 8):
            continue
        wanted = 2.5 if isa else wanted
        verdict = "yes" if found >= wanted else "no"
        lines.append([network, masked, isa or "best", f"{r:g}", str(batch), f"{wanted:g}"])
        lines[-1] += [f"{found:.2f}", verdict]
    _print(["network", "masks", "ISA", "r", "batch", "wanted", "found", "met"], lines)
    own = [(gain(r), r["key"]) for r in rows if r["key"][4] == 1 and gain(r)]
    worst, key = min(own)
    print(f"\nLowest of {len(own)} rows: {worst:.2f} ({', '.join(map(str, key[:4]))})")


def _machine(rows: list[dict]) -> None:
    print("\n* its largest error is above what its precision explains")
    print("\nMachine:", json.dumps(rows[-1]["machine"]))
    for what, unit in (("gflops", "GFLOP/s of a matrix product"), ("l2_gbs", "GB/s out of L2")):
        values = [row["limits"][what] for row in rows]
        print(f"One core: {np.median(values):.0f} ({min(values):.0f}-{max(values):.0f}) {unit}")
    print("Measured:", min(r["time"] for r in rows), "to", max(r["time"] for r in rows))
