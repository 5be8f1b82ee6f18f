"""The main job on real data, as a user runs it: slow, skipped where the shared data is absent."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow


def table(name: str) -> Path:
    root = os.environ.get("SECATEURS_DATA")
    if not root or not (path := Path(root) / "tabular" / f"{name}.parquet").exists():
        pytest.skip(f"needs {name}.parquet under $SECATEURS_DATA/tabular")
    return path


CORES = 2
"""Limits are seconds on so many cores, asserted in CPU time: tests run side by side."""


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def secateurs(*arguments: object) -> subprocess.CompletedProcess[str]:
    # the command as it is used: all cores, not the one thread of a test worker
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "secateurs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(("name", "seconds"), [("credit-g", 60), ("mfeat-factors", 60)])
def test_two_thousand_rows_fit_in_a_minute_and_predict(name, seconds, tmp_path):
    data, model, out = table(name), tmp_path / "model", tmp_path / "out.csv"
    begin = cpu_seconds()
    fitted = secateurs("fit", data, "--target", "target", "--out", model)
    assert fitted.returncode == 0, fitted.stderr
    assert cpu_seconds() - begin < CORES * seconds
    scored = secateurs("evaluate", model, data, "--target", "target", "--json")
    assert json.loads(scored.stdout)["accuracy"] > 0.8
    assert secateurs("predict", model, data, "--out", out).returncode == 0
    assert len(pd.read_csv(out)) == len(pd.read_parquet(data))


def test_adult_fits_in_four_minutes(tmp_path):
    data, model = table("adult"), tmp_path / "model"
    begin = cpu_seconds()
    fitted = secateurs("fit", data, "--target", "target", "--out", model)
    assert fitted.returncode == 0, fitted.stderr
    assert cpu_seconds() - begin < CORES * 240
    scored = secateurs("evaluate", model, data, "--target", "target", "--json")
    assert json.loads(scored.stdout)["balanced_accuracy"] > 0.7
