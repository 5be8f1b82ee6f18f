"""Tables: chosen on validation rows, paired, in percent, with what was published beside."""

import math

import numpy as np
import pandas as pd
import pytest

from secateurs.errors import InputError
from secateurs.measures import statistics
from secateurs.report.page import Table, Value
from secateurs.report.tables import (
    SUMMARY_COLUMNS,
    EndpointSpec,
    arms_by_dataset,
    arms_summary,
    choose_arm,
    chosen,
    endpoints,
    mean_of_sets,
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


# ---- the best of several arms --------------------------------------------------------------------

VALUE = "balanced_accuracy"
ARMS = ("dense", "IUNet", "omp")


def test_the_best_of_several_is_the_best_on_validation_rows_of_other_cells():
    watched, tested = frame(arms=ARMS, seed=1), frame(arms=ARMS, seed=2)
    best = choose_arm(watched, tested, arms=ARMS, value=VALUE, name="best")
    assert len(best) == 9
    assert set(best["arm"]) == {"best"}
    assert set(best["tried"]) == {3}
    assert best["chosen_arm"].nunique() > 1
    for _, row in best.iterrows():

        def at(cells, row=row):
            same = cells["rows.dataset"] == row["rows.dataset"]
            return cells[same & (cells["rows.split"] == row["rows.split"])].set_index("arm")

        assert at(watched)["validation.balanced_accuracy"].idxmax() == row["chosen_arm"]
        assert at(tested)["test.balanced_accuracy"][row["chosen_arm"]] == row["test." + VALUE]
    blind = tested.assign(**{"test.balanced_accuracy": 0.0, "validation.balanced_accuracy": 0.0})
    assert (
        choose_arm(watched, blind, arms=ARMS, value=VALUE, name="best")["chosen_arm"].tolist()
        == best["chosen_arm"].tolist()
    )


def test_a_choice_of_one_is_that_one_and_equal_ones_give_the_first():
    watched, tested = frame(arms=ARMS), frame(arms=ARMS, seed=3)
    only = choose_arm(watched, tested, arms=["omp"], value=VALUE, name="omp")
    cells = tested[tested["arm"] == "omp"].reset_index(drop=True)
    pd.testing.assert_frame_equal(only[cells.columns], cells, check_dtype=False)
    level = watched.assign(**{"validation.balanced_accuracy": 0.5})
    for arms in (ARMS, ARMS[::-1]):
        best = choose_arm(level, tested, arms=arms, value=VALUE, name="best")
        assert set(best["chosen_arm"]) == {arms[0]}


def test_seeds_of_a_split_are_chosen_together():
    watched = pd.concat([frame(arms=ARMS, seed=i).assign(seed=i) for i in range(3)])
    best = choose_arm(watched, watched, arms=ARMS, value=VALUE, name="best")
    assert len(best) == 27
    assert (best.groupby(["rows.dataset", "rows.split"])["chosen_arm"].nunique() == 1).all()
    means = watched.groupby(["rows.dataset", "rows.split", "arm"])["validation." + VALUE].mean()
    for (dataset, split), part in best.groupby(["rows.dataset", "rows.split"]):
        assert means[dataset, split].idxmax() == part["chosen_arm"].iloc[0]


def test_a_combined_arm_is_an_arm_of_the_tables():
    watched, tested = frame(arms=ARMS, seed=1), frame(arms=ARMS, seed=2)
    best = choose_arm(watched, tested, arms=ARMS[:2], value=VALUE, name="best of 2")
    whole = pd.concat([tested, best])  # their labels of rows meet
    names = [*ARMS, "best of 2"]
    table = arms_summary(whole, VALUE, arms=names, baseline="omp", title="t")
    row = dict(zip(table.columns, table.rows[-1], strict=True))
    assert row["tried"] == 2
    by_set = best.groupby("rows.dataset")["test." + VALUE].mean()
    assert row["balanced accuracy %"].mean == pytest.approx(100 * by_set.mean())
    again = choose_arm(whole, whole, arms=["best of 2", "omp"], value=VALUE, name="of all")
    assert set(again["chosen_arm"]) <= {"best of 2", "omp"}


def test_a_candidate_that_lacks_a_split_is_refused_or_the_split_dropped():
    watched, tested = frame(arms=ARMS), frame(arms=ARMS)
    no_test = tested.drop(
        index=tested.index[(tested["arm"] == "omp") & (tested["rows.split"] == 1)]
    )
    no_validation = watched.assign(
        **{"validation." + VALUE: watched["validation." + VALUE].where(watched["arm"] != "omp")}
    )
    names = {"arms": ARMS, "value": VALUE, "name": "best"}
    with pytest.raises(
        InputError, match="3 of 9 lack some, the first data set a, split 1, of omp;"
    ):
        choose_arm(watched, no_test, **names)
    assert len(choose_arm(watched, no_test, **names, unpaired="drop")) == 6
    with pytest.raises(InputError, match="9 of 9 lack some"):
        choose_arm(no_validation, tested, **names)
    assert choose_arm(no_validation, tested, **names, unpaired="drop").empty
    assert choose_arm(watched, tested[:0], **names).empty


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda f: f.drop(columns="validation.balanced_accuracy"), {}, "set rows.validation_folds"),
        (lambda f: pd.concat([f, f]), {}, "'dense' has several configurations on one split;"),
        (lambda f: f, {"arms": []}, "needs an arm to choose"),
        (lambda f: f, {"unpaired": "ignore"}, "'refuse' or 'drop', got 3 arms and 'ignore'"),
    ],
)
def test_choices_that_are_none_are_refused(change, settings, message):
    settings = {"arms": ARMS, "value": VALUE, "name": "best"} | settings
    with pytest.raises(InputError, match=message):
        choose_arm(change(frame(arms=ARMS)), frame(arms=ARMS), **settings)


# ---- endpoints -----------------------------------------------------------------------------------

SPECS = [
    EndpointSpec(name="paper", arm="IUNet", baseline="dense"),
    EndpointSpec(name="product", arm="dense", baseline="IUNet", margin=0.005),
    EndpointSpec(name="later", arm="absent", baseline="dense"),
]


def test_endpoints_agree_with_the_statistics():
    cells = frame(arms=ARMS)
    table = endpoints(cells, VALUE, SPECS, title="t")
    assert [row[0] for row in table.rows] == ["paper", "product", "later"]
    for spec, cells_of_row in zip(SPECS[:2], table.rows, strict=False):
        row = dict(zip(table.columns, cells_of_row, strict=True))
        found = statistics.endpoint(
            cells,
            arm=spec.arm,
            baseline=spec.baseline,
            value="test.balanced_accuracy",
            margin=spec.margin,
            dataset="rows.dataset",
            split="rows.split",
        )
        assert (row["arm"], row["minus"]) == (spec.arm, spec.baseline)
        assert row["margin"] == 100 * spec.margin
        assert row["difference"].mean == pytest.approx(100 * found.comparison.difference)
        assert row["difference"].error == pytest.approx(100 * found.comparison.standard_error)
        for column, interval in (
            ("95% over data sets", found.over_datasets),
            ("95% on these sets", found.within_datasets),
        ):
            ends = [float(end.replace("−", "-")) for end in row[column].split(" to ")]
            assert ends == pytest.approx([100 * interval.low, 100 * interval.high], abs=0.006)
        assert row["p"] == pytest.approx(found.p, abs=1e-4)
        assert row["verdict"] == found.verdict
        for one in found.comparison.per_dataset.itertuples():
            assert row[one.dataset].mean == pytest.approx(100 * one.difference)
            assert row[one.dataset].error == pytest.approx(100 * one.standard_error)
    assert [row[5] for row in table.rows] == ["met", "inferior", "no cells yet"]
    assert table.rows[2][4] is None
    assert table.rows[2][6:] == [None] * 6
    assert "Too few data sets for a test without assumptions (3, and it takes 6" in table.note


def test_endpoints_say_how_far_they_carry():
    many = endpoints(frame(datasets=tuple("abcdef")), VALUE, SPECS[:1], title="t")
    assert "Too few" not in many.note
    one = endpoints(frame(datasets=("a",)), VALUE, SPECS[:1], title="t")
    assert "one data set says nothing of others" in one.note
    row = dict(zip(one.columns, one.rows[0], strict=True))
    assert row["95% over data sets"] is None
    assert row["95% on these sets"] is not None
    assert row["verdict"] == "not shown"
    some = frame().drop(index=[1, 2])
    assert "left out: 2." in endpoints(some, VALUE, SPECS[:1], title="t").note


def test_secondary_endpoints_are_adjusted_over_their_rows():
    cells = frame(arms=ARMS, datasets=tuple("abcdef"))
    specs = [
        EndpointSpec(name=arm, arm=arm, baseline="dense")
        for arm in ("IUNet", "omp", "absent", "dense")
    ]
    plain, adjusted = (
        endpoints(cells, VALUE, specs, title="t", holm=holm) for holm in (False, True)
    )
    column = plain.columns.index("p")
    assert adjusted.columns[column] == "p (Holm)"
    p = [np.nan if row[column] is None else row[column] for row in plain.rows]
    expected = statistics.holm(p)
    for row, one in zip(adjusted.rows, expected, strict=True):
        assert (
            (row[column] is None) if np.isnan(one) else row[column] == pytest.approx(one, abs=4e-4)
        )
    assert p[3] == 1  # an arm against itself


def test_a_verdict_of_a_family_has_to_pass_holm():
    cells = frame(arms=ARMS, datasets=tuple("abcdef"))
    by_set = cells["rows.dataset"].map({name: 0.01 * i for i, name in enumerate("abcdef")})
    omp, dense = (cells["arm"] == name for name in ("omp", "dense"))
    cells.loc[dense, f"test.{VALUE}"] = 0.5
    cells.loc[omp, f"test.{VALUE}"] = 0.5 + by_set[omp]
    spec = EndpointSpec(name="omp", arm="omp", baseline="dense")
    alone = endpoints(cells, VALUE, [spec], title="t", holm=True)
    verdict, p = alone.columns.index("verdict"), alone.columns.index("p (Holm)")
    (row,) = alone.rows
    assert row[verdict] == "met"
    crowd = endpoints(cells, VALUE, [spec] * math.ceil(0.05 / row[p]), title="t", holm=True)
    assert {row[verdict] for row in crowd.rows} == {"not shown"}


def test_no_endpoint_is_refused():
    with pytest.raises(InputError, match="needs an endpoint"):
        endpoints(frame(), VALUE, [], title="t")


@pytest.mark.parametrize(
    ("test_folds", "validation_folds", "share"), [(5, 4, 0.25), (5, 0, 0.2), (2, 0, 0.5)]
)
def test_the_share_of_test_rows_is_that_of_the_cells(test_folds, validation_folds, share):
    cells = frame(datasets=("a",), splits=5).assign(
        **{"rows.test_folds": test_folds, "rows.validation_folds": validation_folds}
    )
    pivot = cells.pivot_table(index="rows.split", columns="arm", values="test.balanced_accuracy")
    expected = statistics.corrected_t(pivot["IUNet"], pivot["dense"], test_share=share)
    table = arms_summary(cells, VALUE, arms=("dense", "IUNet"), baseline="dense", title="t")
    assert table.rows[1][2].error == pytest.approx(100 * expected.standard_error)
    row = endpoints(cells, VALUE, SPECS[:1], title="t").rows[0]
    assert row[-1].error == pytest.approx(100 * expected.standard_error)


# ---- further columns -----------------------------------------------------------------------------


def test_the_summary_shows_the_columns_that_are_asked_for():
    cells = frame().assign(
        **{
            "test.roc_auc": 0.9,
            "test.calibration_error": 0.05,
            "test.log_loss": 0.4,
            "predict_seconds": 0.002,
            "fit_seconds": 12.0,
        }
    )
    cells["size.bytes"] = cells["rows.dataset"].map({"a": 1_000, "b": 10_000, "c": 100_000})
    names = ("bytes", "fit CPU s", "ms per 1,000 rows", "ROC-AUC", "calibration error", "overlap")
    table = arms_summary(
        cells, VALUE, arms=("dense", "IUNet"), baseline="dense", title="t", columns=names
    )
    assert table.columns[5:] == [*names, "tried"]
    assert table.rows[1][5:-1] == pytest.approx([10_000, 12.0, 2.0, 0.9, 0.05, None])
    assert isinstance(table.rows[1][5], int)
    assert "Bytes: geometric mean" in table.note
    assert "CPU seconds are the cell's own" not in table.note
    every = arms_summary(
        cells, VALUE, arms=("dense",), baseline="dense", title="t", columns=SUMMARY_COLUMNS
    )
    assert len(every.rows[0]) == 6 + len(SUMMARY_COLUMNS)
    with pytest.raises(InputError, match=r"columns must be among accuracy, .* got weight"):
        arms_summary(frame(), VALUE, arms=("dense",), baseline="d", title="t", columns=["weight"])


def test_a_mean_of_factors_is_geometric_and_only_of_positive_numbers():
    cells = pd.DataFrame({"rows.dataset": list("aab"), "size.bytes": [1.0, 3.0, 8.0]})
    assert mean_of_sets(cells, "size.bytes") == 5
    assert mean_of_sets(cells, "size.bytes", geometric=True) == pytest.approx(4)
    assert mean_of_sets(cells.assign(**{"size.bytes": 0}), "size.bytes", geometric=True) is None
    assert mean_of_sets(cells, "seconds") is None
    assert mean_of_sets(cells.assign(seconds=np.nan), "seconds", geometric=True) is None


@pytest.mark.parametrize(
    "table",
    [
        lambda cells: arms_by_dataset(cells, "r2", arms=["dense"], title="t"),
        lambda cells: arms_summary(cells, "r2", arms=["dense"], baseline="dense", title="t"),
        lambda cells: endpoints(
            cells, "r2", [EndpointSpec(name="e", arm="IUNet", baseline="dense")], title="t"
        ),
    ],
)
def test_a_value_that_no_cell_measures_is_refused_by_name(table):
    with pytest.raises(InputError, match=r"a table of test\.r2 needs cells that measure it"):
        table(frame())


def test_cells_of_another_kind_are_refused_by_what_they_lack():
    with pytest.raises(InputError, match=r"these lack rows\.dataset, rows\.split, seed"):
        chosen(pd.DataFrame({"arm": ["a"], "tried": [1]}), "accuracy")


def test_without_searches_the_regime_has_no_rows():
    cells = frame().drop(columns="size.density")
    assert regime_by_dataset(cells, arms=["dense", "IUNet"], title="t").rows == []
