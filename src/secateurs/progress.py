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

    def __call__(self, row: dict[str, Any], epochs: int) -> None:
        """Show one history row."""
        name = f"{self.title} {row['phase']}".strip()
        loss = f"loss {row['loss']:.4f}"
        if self.bar is not None:
            if name not in self.tasks:
                self.tasks[name] = self.bar.add_task(name, total=epochs, loss=loss)
            self.bar.update(self.tasks[name], completed=row["epoch"], loss=loss)
        elif row["epoch"] == epochs:
            elapsed = time.monotonic() - self.begin
            self.console.print(f"{name}: {epochs} epochs, {loss}, {elapsed:.0f} s")
            self.begin = time.monotonic()
