"""A live line for each phase on a terminal, one plain line at its end elsewhere.

Of tickets that are trained side by side, only the end of each is told.
"""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["PhaseProgress"]


class PhaseProgress:
    """Callable for `find_ticket(progress=...)`; use as a context manager.

    Args:
        title: said before the phase's name, such as the model that is being trained.
    """

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.console = Console(file=sys.stderr)
        self.begin = time.monotonic()
        self.bar: Progress | None = None
        self.tasks: dict[str, Any] = {}
        self.line = ""  # what is to be said about the phase so far

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        self._say()

    def __call__(self, row: dict[str, Any], epochs: int) -> None:
        """Show one history row."""
        name = f"{self.title} {row['phase']}".strip()
        loss = f"loss {row['loss']:.4f}"
        if self.bar is not None:
            if name not in self.tasks:
                self.tasks[name] = self.bar.add_task(name, total=epochs, loss=loss)
            self.bar.update(self.tasks[name], completed=row["epoch"], loss=loss)
            return
        if row["epoch"] == 1:
            self._say()  # a time limit ended the phase before
        elapsed = time.monotonic() - self.begin
        done = f"{epochs}" if row["epoch"] == epochs else f"{row['epoch']} of {epochs}"
        self.line = f"{name}: {done} epochs, {loss}, {elapsed:.0f} s"
        if row["epoch"] == epochs:
            self._say()

    def side_by_side(self, total: int, *, done: int) -> None:
        """Show how many of the tickets are found; `ended` is called for each of the others."""
        self._say()
        if self.bar is not None:
            self.tasks[""] = self.bar.add_task("tickets", total=total, completed=done, loss="")

    def ended(self, name: str, *, history: Sequence[Mapping[str, Any]]) -> None:
        """Show that a ticket has come to its end.

        Args:
            name: of the ticket.
            history: its rows, one an epoch.
        """
        loss = f"loss {history[-1]['loss']:.4f}" if history else ""
        if self.bar is not None:
            self.bar.update(self.tasks[""], advance=1, loss=loss)
            return
        epochs = Counter(row["phase"] for row in history)
        seconds = sum(row["seconds"] for row in history)
        phases = " and ".join(f"{n} {phase}" for phase, n in epochs.items()) or "no"
        self.line = ", ".join(filter(None, (f"{name}: {phases} epochs", loss, f"{seconds:.0f} s")))
        self._say()

    def _say(self) -> None:
        """Print the plain line of a phase that has come to its end."""
        if self.line:
            self.console.print(self.line, markup=False, highlight=False, soft_wrap=True)
            self.line, self.begin = "", time.monotonic()
