"""Of what a result came: versions, revision, threads, memory."""

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

if sys.platform != "win32":
    import resource

__all__ = ["environment", "peak_memory", "predict_seconds", "reset_peak_memory"]


@cache
def environment() -> dict[str, Any]:
    """Return versions and the git revision of the source, if it is a checkout."""
    revision = None
    home = Path(__file__).parent
    if "site-packages" in home.parts:  # installed: a repository around it is somebody else's
        home = Path("/")
    try:
        told = subprocess.run(
            ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        revision = told.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        pass
    names = ("secateurs", "torch", "numpy", "scikit-learn", "pandas")
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in names},
        },
        "git": revision,
        "machine": f"{platform.machine()} {platform.system()}",
    }


def predict_seconds(predict: Callable[[Any], object], X: Any, *, rows: int = 1_000) -> float:
    """Return the CPU seconds that predicting 1,000 rows takes, at best: the 10th percentile of
    up to 20 calls within about a second.

    `X` is repeated or cut to that many rows.
    """
    at = np.arange(rows) % len(X)
    batch = X.iloc[at] if hasattr(X, "iloc") else X[at]
    taken: list[float] = []
    while len(taken) < 20 and sum(taken) < 1:
        begin = time.process_time()
        predict(batch)
        taken.append(time.process_time() - begin)
    return float(np.percentile(taken, 10))


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes, since `reset_peak_memory`; 0
    where the system does not tell."""
    if sys.platform == "win32":
        return 0
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory() -> None:
    """Let the peak start anew for this cell, where the system can; else it is the process's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
