"""Every paper file runs at smoke scale, survives being killed halfway, and is stamped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from secateurs.command.experiments import load_paper
from secateurs.data.tables import data_root
from secateurs.experiments.spec import key, needs
from secateurs.experiments.store import Store

HOME = Path(__file__).parents[2] / "papers"
PAPERS = sorted(p for p in HOME.glob("*/*.py") if p.stem.startswith(("table_", "figure_")))


def test_there_are_papers():
    assert {path.stem for path in PAPERS} >= {"table_4", "table_7", "figure_2"}


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_runs_are_paired_and_have_enough_cells(path, scale):
    paper = load_paper(path)
    runs = paper.runs(scale)
    cells = {key(run.cell) for run in runs}
    assert len(cells) >= 20
    places = [(run.arm, run.cell.rows.dataset, run.cell.rows.split) for run in runs]
    arms = {arm for arm, _, _ in places}
    for arm in arms:  # every arm on the same splits
        assert {p[1:] for p in places if p[0] == arm} == {p[1:] for p in places}
    assert all(needed.rows == run.cell.rows for run in runs for needed in needs(run.cell))
    assert {run.cell.rows.dataset.startswith("sklearn:") for run in runs} == {scale == "smoke"}


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_what_was_published_is_what_the_file_says(path):
    paper = load_paper(path)
    assert paper.CLAIM
    assert path.stem in paper.__doc__
    if path.stem == "table_4":
        assert paper.PUBLISHED[("arrhythmia", "IUNet")] == 74.138
        assert len(paper.PUBLISHED) == 15
    if path.stem == "table_7":
        assert paper.PUBLISHED[("adult", "dense")] == 81.968
        assert paper.PUBLISHED[("walking-activity", "xgboost")] == 61.616
        assert len(paper.runs("paper")) == 40 * 10 * 11


def test_the_papers_numbers_are_the_shared_ones():
    folder = data_root() / "paper"
    if not folder.is_dir():
        pytest.skip("needs the printed tables under SECATEURS_DATA/paper")
    for path in (HOME / "data").glob("*.csv"):
        pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(folder / path.name))


def command(path, out):
    arguments = ["paper", str(path), "--out", str(out), "--scale", "smoke", "--jobs", "2"]
    return [sys.executable, "-m", "secateurs", *arguments]


def finishes(path, store):
    done = subprocess.run(
        command(path, store.root), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert " 0 failed" in done.stdout
    page = (store.root / f"{path.stem}-smoke.html").read_text()
    assert page.count("smoke: not evidence") >= 2
    assert len(page) < 2_000_000
    asked = load_paper(path).runs("smoke")
    assert set(store.frame()["key"]) >= {key(run.cell) for run in asked}


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_smoke_finishes_and_says_that_it_is_no_evidence(path, tmp_path):
    finishes(path, Store(tmp_path / "runs"))


@pytest.mark.slow
def test_a_paper_killed_halfway_keeps_what_it_has_and_finishes(tmp_path):
    path = HOME / "iunet" / "table_4.py"
    store, begin = Store(tmp_path / "runs"), time.monotonic()
    killed = subprocess.Popen(
        command(path, store.root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while sum(map(store.finished, store.keys())) < 8:
        assert killed.poll() is None, "ended before it could be killed"
        assert time.monotonic() - begin < 100
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = {
        name: (store.folder(name) / "DONE").stat().st_mtime_ns
        for name in filter(store.finished, store.keys())
    }
    assert len(kept) < len(store.keys()) or len(kept) < 40
    finishes(path, store)
    for name, when in kept.items():
        assert (store.folder(name) / "DONE").stat().st_mtime_ns == when
