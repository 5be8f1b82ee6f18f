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
TABULAR = {"table_2", "table_4", "table_7", "table_9", "figure_2"}
VISION = {
    "table_1", "table_3", "table_4_vision", "table_6", "figure_2_vision", "figure_3", "figure_4",
}  # fmt: skip
FEW = {"table_9": 4} | dict.fromkeys(VISION, 8)
"""Fewest cells of those that have few: one describes sets, and smoke on images is two seeds."""

SMOKE = [path for path in PAPERS if path.stem not in VISION]
"""Run one by one; `test_vision.py` runs those on images in one process, since they share cells."""


def test_there_are_papers():
    assert {path.stem for path in PAPERS} == TABULAR | VISION


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_runs_are_paired_and_have_enough_cells(path, scale):
    paper = load_paper(path)
    runs = paper.runs(scale)
    cells = {key(run.cell) for run in runs}
    assert len(cells) >= FEW.get(path.stem, 20)
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
        assert paper.PUBLISHED[("openml:233143", "tabnet")] == 85.705
        assert len(paper.PUBLISHED) == 40 * 6
        assert len(paper.runs("paper")) == 40 * 10 * 12
        assert len(paper.runs("small")) == 9 * 3 * 12


@pytest.fixture(scope="module")
def table_2():
    return load_paper(HOME / "iunet" / "table_2.py")


@pytest.fixture(scope="module")
def table_9():
    return load_paper(HOME / "iunet" / "table_9.py")


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_tables_2_and_9_run_nothing_of_their_own(scale, table_2, table_9):
    whole = load_paper(HOME / "iunet" / "table_7.py").runs(scale)
    assert table_2.runs(scale) == whole
    described = table_9.runs(scale)
    assert set(described) < set(whole)
    sets = {run.cell.rows.dataset for run in whole}
    assert {run.cell.rows.dataset for run in described} == sets
    assert len(sets) == {"smoke": 2, "small": 9, "paper": 40}[scale]


def test_table_2_as_printed_follows_from_table_7(table_2):
    printed = table_2.recipe.published("table_2_tabular_summary.csv").set_index("metric")
    shown = {row[0]: row for row in table_2.as_printed().rows}
    assert set(shown) == set(printed.columns)
    for column, (_, metric, average, wins, rank, near, _, near_rank) in shown.items():
        assert round(average.mean, 3) == printed.loc["average_accuracy", column]
        assert wins == printed.loc["num_top1", column]
        assert abs(rank.mean - printed.loc["average_rank", column]) <= 0.0005 + 1e-9
        assert metric == ("balanced" if column in ("XGB", "TABN", "MLP_TAB_C") else "unclear")
        if column == "IUNET":
            assert (round(near.mean, 2), round(near_rank.mean, 2)) == (86.66, 3.60)


def test_a_summary_counts_wins_and_ranks_with_ties_shared(table_2):
    values = pd.DataFrame({"a": [3.0, 1.0], "b": [3.0, 2.0], "c": [0.0, 3.0]})
    found = table_2.summary(values)
    assert found["top1"].tolist() == [1, 1, 1]
    assert found["rank"].tolist() == [(1.5 + 3) / 2, (1.5 + 2) / 2, (3 + 1) / 2]
    assert found["average"].tolist() == [2.0, 2.5, 1.5]


def finished(table_2, values):
    """Return a frame of `values` by arm: [data sets, splits] of balanced accuracy."""
    sets = ["vehicle", "kc1"]
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "tried": 1,
                "rows.dataset": dataset,
                "rows.split": split,
                "seed": 0,
                "test.balanced_accuracy": value,
                "test.accuracy": 1 - value,
            }
            for arm, by_set in values.items()
            for dataset, splits in zip(sets, by_set, strict=False)
            for split, value in enumerate(splits)
        ]
    )


def test_table_2_compares_what_is_finished_with_what_was_published_of_the_same(table_2):
    frame = finished(
        table_2,
        {
            "majority": [[0.25, 0.25], [0.5, 0.5]],
            "dense": [[0.7, 0.8], [0.6, 0.6]],
            "IUNet": [[0.8, 0.9], [0.5, 0.5]],
            "xgboost": [[0.6, 0.6]],  # not finished on kc1
        },
    )
    balanced, plain, _ = table_2.table(frame)
    rows = {row[0]: row for row in balanced.rows}
    assert "over 1 data sets" in balanced.note
    assert "Left out: 1 data sets" in balanced.note
    assert "Not finished anywhere: omp-paper, beta-Lasso, tabnet." in balanced.note
    assert rows["tabnet"][2:] == [None] * 6
    assert rows["majority"][2:] == [None] * 6
    means = {arm: round(rows[arm][1].mean, 6) for arm in ("majority", "dense", "IUNet", "xgboost")}
    assert means == {"majority": 25, "dense": 75, "IUNet": 85, "xgboost": 60}
    assert [rows[arm][3].mean for arm in ("IUNet", "dense", "xgboost")] == [1, 2, 3]
    assert [rows[arm][2] for arm in ("IUNet", "dense", "xgboost")] == [1, 0, 0]
    assert rows["IUNet"][4] == "unclear"
    assert rows["xgboost"][4] == "balanced"
    assert rows["IUNet"][5].mean == 81.805
    assert [rows[arm][7].mean for arm in ("IUNet", "dense", "xgboost")] == [1, 2, 3]
    in_accuracy = {row[0]: row for row in plain.rows}
    assert [in_accuracy[arm][3].mean for arm in ("IUNet", "dense", "xgboost")] == [3, 2, 1]


def test_table_2_of_nothing_but_a_majority_is_empty_not_wrong(table_2):
    frame = finished(table_2, {"majority": [[0.25], [0.5]]})
    for table in table_2.table(frame)[:2]:
        rows = {row[0]: row for row in table.rows}
        assert rows["dense"][2:] == [None] * 6


def test_printed_cells_that_a_constant_prediction_explains(table_2):
    found = {
        (printed, column)
        for printed, row in table_2.table_7.PRINTED.drop(columns="IUNET_std").iterrows()
        for column, percent in row.items()
        if table_2.recipe.is_constant(percent, table_2.table_7.FACTS.loc[printed])
    }
    assert found == {
        ("credit-g", "MLP_TAB"),
        ("credit-g", "OMP"),
        ("kc1", "OMP"),
        ("kc1", "IUNET"),
        ("bank.", "MLP_TAB"),
        ("bank.", "OMP"),
        ("bank.", "IUNET"),
        ("apsfailure", "OMP"),
        ("apsfailure", "IUNET"),
        ("clickpred.", "OMP"),
    }


def test_table_7_says_which_printed_cells_are_of_which_metric(table_2):
    frame = finished(
        table_2,
        {"dense": [[0.7, 0.8], [0.6, 0.6]], "xgboost": [[0.6, 0.6], [0.5, 0.7]]},
    ).assign(**dict.fromkeys(["regime.weight_movement", "regime.start_mask_overlap"]))
    frame["size.density"] = 1.0
    _, balanced, plain, _ = table_2.table_7.table(frame)
    at = balanced.columns.index("xgboost")
    assert [row[at].note for row in balanced.rows] == ["published 74.97", "published 66.85"]
    assert [row[at].note for row in plain.rows] == ["", ""]
    at = balanced.columns.index("dense")
    assert [row[at].note for row in plain.rows] == ["published 80.43", "published 80.76"]
    assert "constant prediction: kc1 (OMP), kc1 (IUNET)." in plain.note


def test_table_9_reads_what_the_set_is(table_9):
    table_7 = table_9.table_7
    assert [table_7.SOURCES[name] for name in ("cnae", "skin-seg.")] == [
        "cnae-9",
        "skin-segmentation",
    ]
    assert table_7.SOURCES["ccfraud"] == "openml:233143"
    assert len(set(table_7.SOURCES.values())) == 40
    assert table_9.PUBLISHED[("kc1", "majority")] == 84.54
    name, task, sizes, printed, columns, classes, most, least, missing, twins = table_9.facts(
        "sklearn:wine"
    )
    assert (name, task, printed) == ("wine", "", "")
    assert sizes == "106 / 36 / 36"
    assert (columns.mean, classes) == (14, 3)
    assert [round(value.mean, 2) for value in (most, least)] == [39.89, 26.97]
    assert (missing.mean, twins.mean) == (0, 0)


@pytest.mark.parametrize(
    ("dataset", "task", "printed", "n_rows"),
    [("credit-g", "233088", "600 / 200 / 200", 1000), ("kc1", "233096", "1265 / 421 / 421", 2109)],
)
def test_table_9_stands_beside_what_is_printed(dataset, task, printed, n_rows, table_9):
    if not (data_root() / "tabular" / f"{dataset}.parquet").is_file():
        pytest.skip(f"needs the table {dataset} under SECATEURS_DATA/tabular")
    found = table_9.facts(dataset)
    assert (found[1], found[3]) == (task, printed)
    assert sum(map(int, found[2].split(" / "))) == n_rows
    assert found[4].note == f"printed {found[4].mean:.0f}"
    assert abs(found[6].mean - float(found[6].note.removeprefix("printed "))) < 0.02
    assert found[9].mean > 10 if dataset == "kc1" else found[9].mean == 0


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
        command(path, store.root), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert " 0 failed" in done.stdout
    page = (store.root / f"{path.stem}-smoke.html").read_text()
    assert page.count("smoke: not evidence") >= 2
    assert len(page) < 2_000_000
    asked = load_paper(path).runs("smoke")
    assert set(store.frame()["key"]) >= {key(run.cell) for run in asked}


@pytest.mark.slow
@pytest.mark.parametrize("path", SMOKE, ids=lambda path: path.stem)
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
