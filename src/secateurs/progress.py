"""A live line for each phase on a terminal, one plain line at its end elsewhere."""

import sys
import time
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

    def _say(self) -> None:
        """Print the plain line of a phase that has come to its end."""
        if self.line:
            self.console.print(self.line, markup=False, highlight=False, soft_wrap=True)
            self.line, self.begin = "", time.monotonic()
