"""How far a run is: one live line on a terminal, a plain line now and then elsewhere."""

import sys
import time
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

__all__ = ["RunProgress", "Standing", "duration"]

_EVERY_SHARE = 0.1
_EVERY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stands.

    Args:
        n_cells: that there were to do.
        n_settled: of them that are done or failed.
        n_failed: of them that failed.
        share: of the estimated work that is settled, in [0, 1].
        seconds: since the run began.
        running: titles of the cells that are being computed, the oldest first.
    """

    n_cells: int
    n_settled: int
    n_failed: int
    share: float
    seconds: float
    running: tuple[str, ...] = ()

    @property
    def left(self) -> float | None:
        """Seconds to go at the pace so far; None before anything is settled.

        >>> Standing(n_cells=4, n_settled=1, n_failed=0, share=0.25, seconds=10.0).left
        30.0
        """
        return self.seconds * (1 - self.share) / self.share if self.share else None


def duration(seconds: float) -> str:
    """Return a time in the unit that a person would choose.

    >>> duration(8), duration(600), duration(9000)
    ('8 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _line(now: Standing) -> str:
    parts = [f"{now.n_settled} of {now.n_cells} cells"]
    if now.n_failed:
        parts.append(f"{now.n_failed} failed")
    parts.append(duration(now.seconds))
    if now.left is not None and now.n_settled < now.n_cells:
        parts.append(f"about {duration(now.left)} left")
    return ", ".join(parts)


class RunProgress:
    """Callable for `run(progress=...)`; use as a context manager.

    Args:
        title: said before everything, such as the name of the table.
    """

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.console = Console(file=sys.stderr)
        self.bar: Progress | None = None
        self.task: Any = None
        self.last: Standing | None = None
        self.said: Standing | None = None
        self.said_at = time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            running = Column(no_wrap=True, overflow="ellipsis", ratio=1)
            self.bar = Progress(
                BarColumn(bar_width=20),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                TextColumn(
                    "{task.fields[running]}", style="dim", markup=False, table_column=running
                ),
                console=self.console,
                expand=True,
            )
            self.task = self.bar.add_task(self.title, total=1.0, running="")
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.update(self.task, running="")
            self.bar.stop()
        elif self.last is not None and self.last is not self.said:
            self._say(self.last)

    def __call__(self, now: Standing) -> None:
        """Show where the run stands."""
        self.last = now
        if self.bar is not None:
            self.bar.update(
                self.task,
                completed=now.share,
                description=self._titled(_line(now)),
                running=" | ".join(now.running),
            )
            return
        before = self.said
        n_before, share_before = (before.n_settled, before.share) if before else (0, 0.0)
        if now.n_settled > n_before and (
            now.n_settled == now.n_cells
            or now.share - share_before >= _EVERY_SHARE
            or time.monotonic() - self.said_at >= _EVERY_SECONDS
        ):
            self._say(now)

    def _titled(self, line: str) -> str:
        return f"{self.title}: {line}" if self.title else line

    def _say(self, now: Standing) -> None:
        line = self._titled(_line(now))
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.said, self.said_at = now, time.monotonic()
