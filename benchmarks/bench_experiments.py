"""What the machinery of experiments costs: engines, the store, its frame.

    python benchmarks/bench_experiments.py [--cells 1000] [--framed 10000] [--jobs 2]

Cells are as trivial as can be (the majority class of 150 rows), so that what is measured is what is
spent around them. Wall times, with the load of the machine beside them; CPU time for what runs in
this process alone.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from secateurs.experiments.progress import Standing
from secateurs.experiments.run import run
from secateurs.experiments.spec import PeerCell, Rows, Run, SearchCell, TicketCell, key
from secateurs.experiments.store import Outcome, Plan, Store
from secateurs.optimizers import SGD, AdamW
from secateurs.report.runs import store_page
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig


def trivial(n: int) -> list[PeerCell]:
    """Return n cells that differ in their split."""
    return [PeerCell(rows=Rows(dataset="sklearn:iris", split=i)) for i in range(n)]


def told(name: str, value: str, wanted: str = "") -> None:
    """Print one figure."""
    print(f"{name:<58} {value:>12}  {wanted}", flush=True)


def engine_overhead(folder: Path, n: int, jobs: int) -> tuple[float, float, float]:
    """Return wall seconds, seconds until the first cell is done, and overhead a cell.

    The overhead is what a worker spends on a cell beyond computing it, the start left out.
    """
    store, cells = Store(folder), trivial(n)
    ends: list[float] = []

    def note(now: Standing) -> None:
        if now.n_settled > len(ends):
            ends.append(now.seconds)

    summary = run(cells, store, jobs=jobs, progress=note)
    assert summary.done == n, summary
    computing = sum(store.result(key(cell))["seconds"] for cell in cells) / n
    each = (ends[-1] - ends[0]) / (n - 1) * jobs
    return summary.seconds, ends[0], each - computing


def resumed(folder: Path, n: int) -> float:
    """Return the seconds that a run takes that finds everything done."""
    return run(trivial(n), Store(folder)).seconds


def framed(folder: Path, n: int) -> tuple[float, float, tuple[int, int]]:
    """Return seconds to write a cell, CPU seconds for the frame of n, and its shape."""
    phase = {"epochs": 1, "batch_size": 32}
    config = TicketConfig(
        search=PhaseConfig(optimizer=SGD(lr=0.01), **phase),
        finetune=PhaseConfig(optimizer=AdamW(), **phase),
    )

    def ticket(seed: int) -> TicketCell:
        rows = Rows(dataset="sklearn:wine")
        return TicketCell(rows=rows, config=config, widths=(8, 8), seed=seed)

    model, store = Store(folder / "model"), Store(folder / "many")
    run([ticket(0)], model)
    outcome = Outcome(result=model.result(key(ticket(0))))  # as large as results are
    begin = time.perf_counter()
    for seed in range(n):
        store.write(ticket(seed), outcome)
    written = (time.perf_counter() - begin) / n
    begin = time.process_time()
    frame = store.frame()
    return written, time.process_time() - begin, frame.shape


def reported(folder: Path, n: int) -> tuple[float, int, float]:
    """Return CPU seconds and bytes of the page of n tickets, and bytes of one of 200."""
    store = Store(folder)
    config = TicketConfig(
        search=PhaseConfig(optimizer=SGD(lr=0.01), epochs=105, batch_size=128),
        finetune=PhaseConfig(optimizer=AdamW(), epochs=7),
    )

    def runs(n: int) -> list[Run]:
        return [
            Run(
                arm=f"kappa {kappa:g}",
                cell=TicketCell(
                    rows=Rows(dataset="sklearn:wine", split=split),
                    config=replace(config, init_scale=kappa),
                    widths=(64, 64),
                ),
            )
            for split in range(n // 10)
            for kappa in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
        ]

    sizes = []
    first = runs(n)[0].cell
    run([first], store)
    outcomes = {
        kind: Outcome(
            result=store.result(name),
            history=store.history(name).to_dict("records"),
            tensors=store.tensors(name)[0],
            meta=store.tensors(name)[1],
        )
        for kind, name in ((TicketCell, key(first)), (SearchCell, key(first.search_cell)))
    }
    for one in runs(n):
        store.write(one.cell, outcomes[TicketCell])
        store.write(one.cell.search_cell, outcomes[SearchCell])
    for cells in (200, n):
        plan = Plan(name="many", title="Many", runs=runs(cells), command="secateurs run many.toml")
        store.write_plan(plan)
        begin = time.process_time()
        sizes.append(len(store_page(store).encode()))
    return time.process_time() - begin, sizes[1], sizes[0]


def main(arguments: argparse.Namespace) -> None:
    """Print every figure."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load}; wall times")
    n, jobs = arguments.cells, arguments.jobs
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        timed: list[tuple[str, Callable[[], tuple[float, float, float]]]] = [
            ("in this process", lambda: engine_overhead(folder / "serial", n // 5, 1)),
            (f"{jobs} processes", lambda: engine_overhead(folder / "processes", n, jobs)),
        ]
        for label, measure in timed:
            seconds, start, overhead = measure()
            told(f"{label}: start to the first cell", f"{start:.1f} s")
            told(f"{label}: store and engine a cell", f"{1000 * overhead:.1f} ms", "<= 50 ms")
        told(
            f"{n:,} trivial cells on {jobs} processes, start included", f"{seconds:.1f} s", "< 60 s"
        )
        told("  the same again, all of them finished", f"{resumed(folder / 'processes', n):.2f} s")
        begin = time.process_time()
        Store(folder / "processes").frame()
        told(f"frame() of these {n:,} cells, CPU", f"{time.process_time() - begin:.2f} s")
        spent, large, small = reported(folder / "report", n)
        told(f"report on {n:,} tickets and their searches, CPU", f"{spent:.1f} s", "< 10 s")
        told("  bytes of the page", f"{large:,}")
        told("bytes of the page of 200 tickets", f"{small:,}", "< 2,000,000")
        written, read, shape = framed(folder, arguments.framed)
        told("write() of a cell without tensors", f"{1000 * written:.1f} ms")
        told(f"frame() of {shape[0]:,} tickets, {shape[1]} columns, CPU", f"{read:.2f} s", "< 3 s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--framed", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the store is put; a temporary folder")
    main(parser.parse_args())
