"""Tables: chosen on validation rows, paired, in percent, with what was published beside."""

import numpy as np
import pandas as pd
import pytest

from secateurs.errors import InputError
from secateurs.measures import statistics
from secateurs.report.page import Table, Value
from secateurs.report.tables import (
    arms_by_dataset,
    arms_summary,
    chosen,
    regime_by_dataset,
    reported_text,
)


def frame(arms=("dense", "IUNet"), datasets=("a", "b", "c"), splits=3, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {
            "arm": arm,
            "tried": 1,
            "rows.dataset": dataset,
            "rows.split": split,
            "seed": split,
            "validation.balanced_accuracy": rng.uniform(),
            "test.balanced_accuracy": 0.5 + 0.1 * i + 0.1 * rng.uniform(),
            "test.accuracy": 0.7,
            "size.density": 1.0 if arm == "dense" else 0.125,
        }
        for i, arm in enumerate(arms)
        for dataset in datasets
        for split in range(splits)
    ]
    return pd.DataFrame(rows)


def test_validation_rows_choose_and_test_rows_do_not():
    several = pd.concat([frame(arms=("lasso",), seed=i).assign(l1=i) for i in range(4)])
    several = several.reset_index(drop=True)
    best = chosen(several, "balanced_accuracy")
    assert len(best) == 9
    assert (best["tried"] == 4).all()
    for _, cells in several.groupby(["rows.dataset", "rows.split"]):
        top = cells.loc[cells["validation.balanced_accuracy"].idxmax()]
        (mine,) = best[
            (best["rows.dataset"] == top["rows.dataset"])
            & (best["rows.split"] == top["rows.split"])
        ]["l1"]
        assert mine == top["l1"]
    worse = several.assign(**{"test.balanced_accuracy": 0.0})
    assert chosen(worse, "balanced_accuracy")["l1"].tolist() == best["l1"].tolist()


def test_choosing_needs_validation_rows():
    several = pd.concat([frame(), frame()]).drop(columns="validation.balanced_accuracy")
    with pytest.raises(
        InputError, match=r"choosing needs validation rows; set rows\.validation_folds"
    ):
        chosen(several, "balanced_accuracy")
    assert (
        chosen(frame().drop(columns="validation.balanced_accuracy"), "balanced_accuracy")
        is not None
    )


def test_the_summary_agrees_with_the_statistics():
    cells = frame(arms=("dense", "IUNet", "omp"))
    table = arms_summary(
        cells,
        "balanced_accuracy",
        arms=("dense", "IUNet", "omp", "absent"),
        baseline="dense",
        title="t",
    )
    assert [row[0] for row in table.rows] == ["dense", "IUNet", "omp"]
    family, _ = statistics.compare_family(
        cells,
        baseline="dense",
        value="test.balanced_accuracy",
        dataset="rows.dataset",
        split="rows.split",
    )
    by_name = dict(zip(table.columns, table.rows[1], strict=True))
    row = family.set_index("arm").loc["IUNet"]
    assert by_name["minus dense"].mean == pytest.approx(100 * row["difference"])
    assert by_name["minus dense"].error == pytest.approx(100 * row["standard_error"])
    assert by_name["w/t/l"] == "3/0/0"
    assert by_name["p (Holm)"] == pytest.approx(row["holm_p"], abs=1e-4)
    means = cells[cells["arm"] == "IUNet"].groupby("rows.dataset")["test.balanced_accuracy"].mean()
    assert by_name["balanced accuracy %"].mean == pytest.approx(100 * means.mean())
    assert by_name["balanced accuracy %"].error == pytest.approx(100 * means.sem())
    assert by_name["density"] == 0.125
    assert "3 data sets, 3 paired splits" in table.note
    assert table.rows[0][2:5] == [None, None, None]


def test_one_data_set_has_the_error_of_corrected_splits():
    cells = frame(datasets=("a",), splits=5)
    table = arms_summary(
        cells, "balanced_accuracy", arms=("dense", "IUNet"), baseline="dense", title="t"
    )
    pivot = cells.pivot_table(index="rows.split", columns="arm", values="test.balanced_accuracy")
    expected = statistics.corrected_t(pivot["IUNet"], pivot["dense"])
    gain = table.rows[1][2]
    assert gain.error == pytest.approx(100 * expected.standard_error)
    assert table.rows[1][4] == pytest.approx(expected.p, abs=1e-4)
    assert table.rows[1][1].error is None
    assert "corrected" in table.note


def test_published_numbers_stand_beside_ours_even_without_ours():
    table = arms_by_dataset(
        frame(),
        "balanced_accuracy",
        arms=("dense", "IUNet", "XGB"),
        title="t",
        published={("a", "IUNet"): 74.138, ("b", "dense"): 1.0},
    )
    assert [row[0] for row in table.rows] == ["a", "b", "c"]
    assert table.rows[0][2].note == "published 74.14"
    assert table.rows[1][1].note == "published 1.00"
    assert table.rows[0][3] is None
    cells = frame()
    mine = cells[(cells["arm"] == "IUNet") & (cells["rows.dataset"] == "a")][
        "test.balanced_accuracy"
    ]
    assert table.rows[0][2].mean == pytest.approx(100 * mine.mean())
    assert table.rows[0][2].error == pytest.approx(100 * mine.sem())


def test_the_regime_of_each_pruned_arm_is_told():
    cells = frame(arms=("dense", "IUNet", "omp")).assign(
        **{"regime.start_mask_overlap": 0.5, "regime.weight_movement": range(27)}
    )
    cells.loc[cells["arm"] == "omp", "regime.weight_movement"] = np.nan
    table = regime_by_dataset(cells, arms=("dense", "IUNet", "omp"), title="t")
    assert [row[0] for row in table.rows] == ["a, IUNet", "b, IUNet", "c, IUNet"]
    assert [row[1].mean for row in table.rows] == [10, 13, 16]
    assert table.rows[0][2].mean == 0.5
    assert table.rows[0][3].mean == pytest.approx(70)


def test_text_is_aligned_and_complete():
    table = Table(
        title="t",
        columns=["arm", "%", "n"],
        rows=[["a", Value(50.0, error=1.0, note="published 3"), 12345], ["bb", None, None]],
    )
    lines = reported_text(table).splitlines()
    assert lines[1] == "a    50.00 ± 1.00 (published 3)  12,345"
    assert lines[2] == "bb"
