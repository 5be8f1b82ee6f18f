"""The verbs run, paper and report: from a file to cells, from cells to a page."""

import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from secateurs import device as devices
from secateurs.data.tables import SUFFIXES, dump_table
from secateurs.errors import InputError
from secateurs.experiments.progress import RunProgress
from secateurs.experiments.run import Summary, plan_line, run
from secateurs.experiments.spec import Run, key
from secateurs.experiments.store import Plan, Store
from secateurs.experiments.toml_file import read_toml
from secateurs.report.page import Block, Table, write, write_figures
from secateurs.report.runs import page, results, store_page
from secateurs.report.tables import reported_text

__all__ = ["SMOKE", "Options", "load_paper", "run_paper", "run_spec", "write_report"]

SMOKE = "smoke: not evidence"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where and how cells are run: what the verbs `run` and `paper` share.

    Args:
        jobs: cells at once; None is one a core.
        cluster, num_gpus, device: see `secateurs.experiments.run.run`.
        dry_run: only tell what is to do.
        finished: run nothing, draw what is finished.
        figures: folder to write each figure to as an SVG file; None writes none.
        quiet: print failures only.
    """

    jobs: int | None = None
    cluster: str | None = None
    num_gpus: float = 0.0
    device: str | None = None
    dry_run: bool = False
    finished: bool = False
    figures: Path | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise InputError(
                f"--jobs must be at least 1, got {self.jobs}; leave it out for one a core"
            )
        if self.cluster is None:
            devices.pick(self.device)  # on a cluster other machines have to have it

    def say(self, line: str) -> None:
        """Print a line, unless failures are all that is wanted."""
        if not self.quiet:
            print(line, flush=True)

    def fill(self, store: Store, plan: Plan) -> Summary | None:
        """Run what is to do of a plan; None if it was only to be told."""
        cells = [one.cell for one in plan.runs]
        if self.finished:
            store.check_writable()
            store.write_plan(plan)
            already = sum(store.finished(name) for name in {key(cell) for cell in cells})
            return Summary(done=0, already=already, failed={}, seconds=0.0)
        jobs = self.jobs or _cores()
        self.say(plan_line(cells, store, jobs=jobs))
        if self.dry_run:
            return None
        store.check_writable()
        store.write_plan(plan)
        with nullcontext() if self.quiet else RunProgress(plan.name) as progress:
            return run(
                cells,
                store,
                jobs=jobs,
                cluster=self.cluster,
                num_gpus=self.num_gpus,
                device=self.device,
                progress=progress,
            )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _close(
    options: Options,
    store: Store,
    plan: Plan,
    summary: Summary,
    draw: Callable[[pd.DataFrame, Mapping[str, Any]], Sequence[Block]],
) -> bool:
    """Print the tables, write the page, say what failed; return whether nothing did."""
    written = next(one for one in store.plans() if one["name"] == plan.name)
    frame = store.frame(written["runs"])
    blocks = [] if frame.empty else list(draw(frame, written))
    for block in blocks:
        if isinstance(block, Table):
            options.say(f"\n{block.title}\n{reported_text(block)}\n{block.note}")
    path = store.root / f"{plan.name}.html"
    write(path, page(store, written, blocks))
    if options.figures is not None:
        for picture in write_figures(options.figures, blocks):
            options.say(f"figure: {picture}")
    if plan.stamp:
        options.say(f"\n{plan.stamp}")
    options.say(
        f"\n{summary.done:,} cells done, {summary.already:,} before, {len(summary.failed):,} failed"
        f"\npage: {path}"
    )
    for name, reason in list(summary.failed.items())[:10]:
        print(f"secateurs: failed: {name}: {reason}", file=sys.stderr)
    if len(summary.failed) > 10:
        print(f"secateurs: and {len(summary.failed) - 10:,} more", file=sys.stderr)
    return not summary.failed


def run_spec(file: Path, out: Path, settings: Mapping[str, Any], options: Options) -> bool:
    """Run what a TOML file asks for; return whether no cell failed.

    Raises:
        InputError: the file or the settings cannot be used, or the store cannot be written.
    """
    runs = read_toml(file, settings)
    told = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    command = f"secateurs run {file} --out {out}"
    command += "".join(f" --set {shlex.quote(one)}" for one in told)
    plan = Plan(name=file.stem, title=file.stem, runs=runs, command=command)
    store = Store(out)
    summary = options.fill(store, plan)
    return summary is None or _close(options, store, plan, summary, results)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import its neighbours, as Python lets a script; leave nothing of them behind."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin and Path(origin).parent == folder:
                del sys.modules[name]


def load_paper(file: Path) -> ModuleType:
    """Return the module of one table or figure.

    It has `TITLE`, `CLAIM`, `PUBLISHED` (percentages by data set and arm), `runs(scale)`, and
    `table(frame)` or `figure(frame)`, which return blocks of `secateurs.report.page`. It may have
    `then(frame, scale)`, which returns the runs that finished ones choose. The file is executed:
    pass your own.

    Raises:
        InputError: no such file, or a name that it lacks.
    """
    file = file.resolve()
    if not file.is_file() or file.suffix != ".py":
        raise InputError(
            f"a paper is a Python file such as papers/iunet/table_4.py, got {file}; check the path"
        )
    described = importlib.util.spec_from_file_location(f"paper_{file.stem}", file)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    with _importable(file.parent):
        described.loader.exec_module(module)
    lacks = [n for n in ("TITLE", "CLAIM", "PUBLISHED", "runs") if not hasattr(module, n)]
    if not hasattr(module, "table") and not hasattr(module, "figure"):
        lacks.append("table or figure")
    if lacks:
        raise InputError(f"{file} must define TITLE, CLAIM, PUBLISHED, runs(scale) and "
                         f"table(frame) or figure(frame); it lacks {', '.join(lacks)}")  # fmt: skip
    return module


def _then(
    paper: ModuleType, scale: str, options: Options, store: Store, plan: Plan, told: Summary | None
) -> tuple[Plan, Summary | None]:
    """Run what the finished runs of a plan choose; return the plan that holds both."""
    if not all(store.finished(key(one.cell)) for one in plan.runs):
        options.say("these choose further runs, once all of them are finished")
        return plan, told
    rows = [{"key": key(one.cell), "arm": one.arm, "tried": one.tried} for one in plan.runs]
    plan = replace(plan, runs=[*plan.runs, *paper.then(store.frame(rows), scale)])
    summary = options.fill(store, plan)
    if told is None or summary is None:
        return plan, summary
    return plan, replace(
        summary,
        done=told.done + summary.done,
        already=summary.already - told.done,
        seconds=told.seconds + summary.seconds,
    )


def _first_splits(runs: Sequence[Run], n: int) -> list[Run]:
    """Return the runs on the first n splits of each data set."""
    if n < 1:
        raise InputError(f"--splits must be at least 1, got {n}; leave it out for all")
    splits: dict[str, set[int]] = {}
    for one in runs:
        splits.setdefault(one.cell.rows.dataset, set()).add(one.cell.rows.split)
    kept = {dataset: sorted(known)[:n] for dataset, known in splits.items()}
    return [one for one in runs if one.cell.rows.split in kept[one.cell.rows.dataset]]


def run_paper(
    file: Path, out: Path, scale: str, options: Options, *, splits: int | None = None
) -> bool:
    """Run one table or figure of a paper; return whether no cell failed.

    Args:
        file: what `load_paper` reads.
        out: store to fill.
        scale: passed to the file.
        options: where and how.
        splits: only so many splits of each data set, the first ones; None is all of the scale.

    Raises:
        InputError: the file cannot be used, the store cannot be written, or `splits` is below 1.
    """
    paper = load_paper(file)
    runs: list[Run] = paper.runs(scale)
    command = f"secateurs paper {file} --out {out} --scale {scale}"
    if splits is not None:
        runs = _first_splits(runs, splits)
        command += f" --splits {splits}"
    plan = Plan(
        name=f"{file.stem}-{scale}",
        title=paper.TITLE,
        claim=paper.CLAIM,
        runs=runs,
        value=getattr(paper, "VALUE", "balanced_accuracy"),
        baseline=getattr(paper, "BASELINE", ""),
        published=paper.PUBLISHED,
        command=command,
        stamp=SMOKE if scale == "smoke" else "",
    )
    store = Store(out)
    summary = options.fill(store, plan)
    if hasattr(paper, "then"):
        plan, summary = _then(paper, scale, options, store, plan, summary)

    def draw(frame: pd.DataFrame, _: Mapping[str, Any]) -> Sequence[Block]:
        drawn: list[Block] = []
        for name in ("figure", "table"):
            if hasattr(paper, name):
                drawn += getattr(paper, name)(frame)
        return drawn

    return summary is None or _close(options, store, plan, summary, draw)


def write_report(runs: Path, out: Path) -> None:
    """Write the page of every plan in a store, or its finished cells as a table.

    Args:
        runs: the store.
        out: a table if its name ends as one (.csv, .parquet, ...): one row a cell and plan; a page
            otherwise.

    Raises:
        InputError: nothing there, or `out` cannot be written.
    """
    store = Store(runs)
    if out.name.endswith(SUFFIXES):
        dump_table(_cells(store), out)
    else:
        write(out, store_page(store, heading=runs.name))


def _cells(store: Store) -> pd.DataFrame:
    """Return the finished cells of every plan; lists, such as widths, as JSON."""
    frames = [store.frame(plan["runs"]).assign(plan=plan["name"]) for plan in store.plans()]
    if not any(map(len, frames)):
        raise InputError(
            f"{store.root} must be a folder that `secateurs run` or `secateurs paper` filled, but "
            "no cell of a plan is finished"
        )
    cells = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    for name in cells.columns[cells.dtypes == "object"]:
        cells[name] = cells[name].map(lambda v: json.dumps(v) if isinstance(v, tuple) else v)
    return cells
