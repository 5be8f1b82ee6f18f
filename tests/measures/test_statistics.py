import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from scipy import stats
from statsmodels.stats.multitest import multipletests

from reference import signed_rank, within_ranks
from secateurs.errors import InputError
from secateurs.measures import statistics


def results(seed=0, *, arms=("dense", "ticket", "random"), n_datasets=6, n_splits=5):
    """A full tidy frame of three arms, the second a little better than the first."""
    rng = np.random.default_rng(seed)
    rows = [
        {"arm": arm, "dataset": f"set{d}", "split": s, "accuracy": value, "error": 1 - value}
        for d in range(n_datasets)
        for s in range(n_splits)
        for i, arm in enumerate(arms)
        for value in [0.7 + 0.02 * d + 0.01 * (i == 1) + 0.02 * rng.standard_normal()]
    ]
    return pd.DataFrame(rows)


finite = st.floats(-1e3, 1e3, allow_subnormal=False)
pairs_of_values = st.lists(st.tuples(finite, finite), min_size=2, max_size=12)


# Pairs


def test_pairs_are_made_by_data_set_and_split_whatever_the_order_of_rows():
    frame = results()
    one, n_unpaired = statistics.pair(frame, arm="ticket", baseline="dense", value="accuracy")
    assert n_unpaired == 0
    assert len(one) == 30
    cells = frame.set_index(["arm", "dataset", "split"])["accuracy"]
    for row in one.itertuples():
        assert row.arm == cells["ticket", row.dataset, row.split]
        assert row.baseline == cells["dense", row.dataset, row.split]
        assert row.difference == row.arm - row.baseline
    other, _ = statistics.pair(
        frame.sample(frac=1, random_state=1), arm="ticket", baseline="dense", value="accuracy"
    )
    pd.testing.assert_frame_equal(one, other)


def unpaired_frames():
    frame = results()
    yield "an absent row", frame.drop(index=1)  # ticket, set0, split 0
    yield "a missing value", frame.assign(accuracy=frame["accuracy"].where(frame.index != 1))
    yield (
        "an infinite value",
        frame.assign(accuracy=frame["accuracy"].mask(frame.index == 1, np.inf)),
    )


@pytest.mark.parametrize("frame", [pytest.param(f, id=name) for name, f in unpaired_frames()])
def test_an_unpaired_split_is_refused_or_dropped_and_counted(frame):
    names = {"arm": "ticket", "baseline": "dense", "value": "accuracy"}
    with pytest.raises(InputError, match="1 of 30 without, the first at data set set0, split 0;"):
        statistics.pair(frame, **names)
    table, n_unpaired = statistics.pair(frame, **names, unpaired="drop")
    assert (len(table), n_unpaired) == (29, 1)
    assert not ((table["dataset"] == "set0") & (table["split"] == 0)).any()
    found = statistics.compare(frame, **names, unpaired="drop")
    assert (found.n_pairs, found.n_unpaired) == (29, 1)
    swapped = statistics.compare(
        frame, arm="dense", baseline="ticket", value="accuracy", unpaired="drop"
    )
    assert (swapped.n_pairs, swapped.n_unpaired) == (29, 1)


def test_arms_without_a_common_split_are_refused_even_when_dropping():
    frame = results()
    frame = frame[(frame["arm"] == "dense") == (frame["split"] < 2)]
    with pytest.raises(InputError, match=r"finish those runs$"):
        statistics.pair(frame, arm="ticket", baseline="dense", value="accuracy", unpaired="drop")


def test_other_names_of_columns():
    frame = results().rename(columns={"dataset": "task", "split": "fold"})
    found = statistics.compare(
        frame, arm="ticket", baseline="dense", value="accuracy", dataset="task", split="fold"
    )
    same = statistics.compare(results(), arm="ticket", baseline="dense", value="accuracy")
    assert found.difference == same.difference
    pd.testing.assert_frame_equal(found.per_dataset, same.per_dataset)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda f: f, {"arm": "tickets"}, "arm must be one of 'dense', 'ticket', 'random'"),
        (lambda f: f, {"baseline": "omp"}, "baseline must be one of .* got 'omp'"),
        (lambda f: f, {"value": "auc"}, "got no auc"),
        (lambda f: f.drop(columns="split"), {}, "got no split"),
        (lambda f: pd.concat([f, f.iloc[[1]]]), {}, "'ticket' at data set set0, split 0;"),
        (
            lambda f: f.assign(split=f["split"].where(f.index != 1)),
            {},
            "none named in .* split nan;",
        ),
        (lambda f: f.assign(accuracy=f["accuracy"].astype(str)), {}, "accuracy must be numbers"),
        (lambda f: f, {"unpaired": "ignore"}, "unpaired must be 'refuse' or 'drop'"),
    ],
    ids=["arm", "baseline", "value", "split", "repeated", "blank", "words", "unpaired"],
)
def test_bad_frames_are_refused_in_one_line(change, settings, message):
    settings = {"arm": "ticket", "baseline": "dense", "value": "accuracy"} | settings
    with pytest.raises(InputError, match=message) as raised:
        statistics.pair(change(results()), **settings)
    assert "\n" not in str(raised.value)


# Means over data sets


def test_every_data_set_counts_the_same_however_many_splits_it_has():
    found = statistics.mean_over_datasets([0.0, 0.0, 0.0, 0.0, 1.0, 2.0], [*"aaaa", "b", "c"])
    assert found.mean == 1
    assert found.standard_error == pytest.approx(1 / 3**0.5)
    assert found.n_datasets == 3


def test_one_data_set_has_a_mean_and_no_standard_error():
    found = statistics.mean_over_datasets([1.0, 3.0], ["a", "a"])
    assert (found.mean, found.n_datasets) == (2, 1)
    assert np.isnan(found.standard_error)
    assert np.isnan(statistics.mean_over_datasets([], []).mean)


@pytest.mark.parametrize(
    ("values", "datasets"),
    [([1.0, np.nan], ["a", "b"]), ([1.0], ["a", "b"]), ([1.0, 2.0], ["a", None])],
    ids=["nan", "lengths", "blank"],
)
def test_values_without_number_or_data_set_are_refused(values, datasets):
    with pytest.raises(InputError):
        statistics.mean_over_datasets(values, datasets)


# The corrected resampled t-test


def test_corrected_t_by_hand():
    # d = .1 .2 .3: mean .2, variance .01; 60/20/20: (1/3 + 20/60) * .01
    test = statistics.corrected_t([0.8, 0.8, 0.8], [0.7, 0.6, 0.5], test_share=0.25)
    assert test.difference == pytest.approx(0.2)
    assert test.standard_error == pytest.approx((2 / 3 * 0.01) ** 0.5)
    assert test.t == pytest.approx(0.2 / (2 / 3 * 0.01) ** 0.5)  # 2.449
    # with 2 degrees of freedom the distribution has a closed form
    assert test.p == pytest.approx(1 - test.t / (2 + test.t**2) ** 0.5)
    assert test.df == 2


@given(values=pairs_of_values)
def test_without_a_test_share_it_is_the_plain_paired_test(values):
    one, other = np.array(values).T
    test = statistics.corrected_t(one, other, test_share=0)
    spread = np.std(one - other)
    if spread > 1e-6:  # below, scipy warns of cancellation
        plain = stats.ttest_rel(one, other)
        assert test.t == pytest.approx(plain.statistic, rel=1e-12)
        assert test.p == pytest.approx(plain.pvalue, rel=1e-9, abs=1e-300)
        assert test.df == plain.df


@given(values=pairs_of_values, share=st.floats(0, 0.9))
def test_swapping_the_arms_flips_the_sign_and_keeps_p(values, share):
    one, other = np.array(values).T
    there = statistics.corrected_t(one, other, test_share=share)
    back = statistics.corrected_t(other, one, test_share=share)
    assert (back.difference, back.t) == (-there.difference, -there.t)
    assert (back.standard_error, back.p) == (there.standard_error, there.p)
    d = one - other
    assert statistics.wilcoxon(d) == statistics.wilcoxon(-d)
    assert statistics.win_tie_loss(d) == statistics.win_tie_loss(-d)[::-1]


@given(values=pairs_of_values, shares=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)))
def test_a_larger_test_share_never_finds_more(values, shares):
    one, other = np.array(values).T
    small, large = (statistics.corrected_t(one, other, test_share=s) for s in sorted(shares))
    assert large.p >= small.p


def test_differences_that_never_vary():
    # 0.1 * 3 summed and divided by 3 is not 0.1: the variance must not be that rounding
    test = statistics.corrected_t([0.1] * 3, [0.0] * 3)
    assert (test.difference, test.standard_error, test.t, test.p) == (0.1, 0, np.inf, 0)
    assert statistics.corrected_t([0.0] * 3, [0.1] * 3).t == -np.inf
    same = statistics.corrected_t([0.5, 0.7], [0.5, 0.7])
    assert (same.difference, same.standard_error, same.t, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize(("n", "difference"), [(0, np.nan), (1, 0.5)])
def test_fewer_than_two_splits_have_no_p(n, difference):
    test = statistics.corrected_t([0.75] * n, [0.25] * n)
    np.testing.assert_equal(test.difference, difference)
    assert np.isnan([test.standard_error, test.t, test.p]).all()
    assert test.df == 0


@pytest.mark.parametrize(
    ("arm", "baseline", "share"),
    [
        ([1.0, 2.0], [1.0], 0.25),
        ([1.0, np.nan], [1.0, 2.0], 0.25),
        ([1.0, 2.0], [1.0, 2.0], 1.0),
        ([[1.0], [2.0]], [1.0, 2.0], 0.25),
    ],
    ids=["lengths", "nan", "share", "shape"],
)
def test_what_cannot_be_tested_is_refused(arm, baseline, share):
    with pytest.raises(InputError):
        statistics.corrected_t(arm, baseline, test_share=share)


def test_on_resplits_without_a_difference_it_errs_nominally_and_the_plain_test_far_more_often():
    # Two fixed rules that differ row by row but not in truth, measured on 10 random quarters of
    # the same 80 rows: test sets overlap, so that the 10 differences are not independent.
    rng = np.random.default_rng(0)
    n_tables, n_rows, n_splits = 1500, 80, 10
    rows = rng.standard_normal((n_tables, n_rows))
    order = rng.random((n_tables, n_splits, n_rows)).argsort(2)[..., : n_rows // 4]
    differences = np.take_along_axis(rows[:, None], order, axis=2).mean(2)
    zeros = np.zeros(n_splits)
    found = [statistics.corrected_t(d, zeros, test_share=0.25).p < 0.05 for d in differences]
    assert 0.03 < np.mean(found) < 0.07  # 3.5 standard errors to either side
    plain = stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05
    assert plain.mean() > 0.2


# Holm


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_holm_equals_statsmodels(n):
    p = np.random.default_rng(n).random(n).round(1) ** 2  # some equal, some tiny
    expected = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(statistics.holm(p), expected, rtol=1e-12, atol=0)


@given(p=st.lists(st.floats(0, 1) | st.just(np.nan), max_size=12), data=st.data())
def test_holm_leaves_nan_out_and_follows_the_order(p, data):
    adjusted, known = statistics.holm(p), ~np.isnan(p)
    np.testing.assert_array_equal(np.isnan(adjusted), ~known)
    np.testing.assert_array_equal(adjusted[known], statistics.holm(np.array(p)[known]))
    order = data.draw(st.permutations(range(len(p))))
    np.testing.assert_array_equal(statistics.holm([p[i] for i in order]), adjusted[list(order)])


@pytest.mark.parametrize("p", [[0.5, 1.5], [-0.1]])
def test_holm_refuses_what_is_no_p(p):
    with pytest.raises(InputError, match=r"a p-value is in \[0, 1\]"):
        statistics.holm(p)


# Wins and the signed-rank test


def test_wins_ties_and_losses():
    d = [0.3, -0.1, 0.0, 0.1, -0.2, 1e-9]
    assert statistics.win_tie_loss(d) == (3, 1, 2)
    assert statistics.win_tie_loss(d, tolerance=0.1) == (1, 4, 1)
    assert statistics.win_tie_loss([]) == (0, 0, 0)
    with pytest.raises(InputError, match="tolerance"):
        statistics.win_tie_loss(d, tolerance=-1)
    with pytest.raises(InputError, match="finite"):
        statistics.win_tie_loss([np.nan])


@given(d=st.lists(st.integers(-4, 4), min_size=2, max_size=9))
def test_wilcoxon_is_exact_with_ties_and_zeros(d):
    assert statistics.wilcoxon(d) == pytest.approx(signed_rank.two_sided_p(d))


@given(d=st.lists(finite, min_size=2, max_size=9, unique_by=abs))
def test_wilcoxon_is_exact_without_ties(d):
    assert statistics.wilcoxon(d) == pytest.approx(signed_rank.two_sided_p(d))


@pytest.mark.parametrize("n", [10, 30, 50, 51, 200])
def test_wilcoxon_of_many_data_sets_equals_scipy(n):
    d = np.random.default_rng(n).standard_normal(n) + 0.2
    method = "exact" if n <= 50 else "asymptotic"
    assert statistics.wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method=method).pvalue)


def test_wilcoxon_of_many_tied_data_sets_is_near_its_normal_approximation():
    d = np.random.default_rng(0).integers(-3, 6, 50).astype(float)
    expected = stats.wilcoxon(d[d != 0], method="asymptotic").pvalue
    assert statistics.wilcoxon(d) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("d", "p"), [([0.0] * 5, 1), ([0.0, 0.5], 1), ([0.5], np.nan)])
def test_wilcoxon_of_next_to_nothing(d, p):
    np.testing.assert_equal(statistics.wilcoxon(d), p)


# Together


def test_a_comparison_by_hand():
    frame = pd.DataFrame(
        [
            ("new", "a", 0, 0.9), ("old", "a", 0, 0.8), ("new", "a", 1, 0.9), ("old", "a", 1, 0.6),
            ("new", "b", 0, 0.5), ("old", "b", 0, 0.6), ("new", "c", 0, 0.5), ("old", "c", 0, 0.5),
        ],
        columns=["arm", "dataset", "split", "accuracy"],
    )  # fmt: skip
    found = statistics.compare(frame, arm="new", baseline="old", value="accuracy")
    assert (found.n_datasets, found.n_pairs, found.n_unpaired) == (3, 4, 0)
    assert found.difference == pytest.approx((0.2 - 0.1 + 0) / 3)
    assert found.standard_error == pytest.approx(np.std([0.2, -0.1, 0], ddof=1) / 3**0.5)
    assert (found.wins, found.ties, found.losses) == (1, 1, 1)
    assert found.wilcoxon_p == 1  # of two that remain
    table = found.per_dataset.set_index("dataset")
    assert table["n_splits"].to_dict() == {"a": 2, "b": 1, "c": 1}
    assert table.loc["a", "arm_mean"] == pytest.approx(0.9)
    assert table.loc["a", "baseline_mean"] == pytest.approx(0.7)
    # d = .1 .3: mean .2, variance .02
    assert table.loc["a", "standard_error"] == pytest.approx((0.02 * (1 / 2 + 1 / 3)) ** 0.5)
    assert table["p"].isna().to_dict() == {"a": False, "b": True, "c": True}


def test_a_comparison_is_antisymmetric_and_does_not_see_the_order_of_rows():
    frame = results()
    there = statistics.compare(frame, arm="ticket", baseline="dense", value="accuracy")
    back = statistics.compare(
        frame.sample(frac=1, random_state=3), arm="dense", baseline="ticket", value="accuracy"
    )
    assert back.difference == -there.difference
    assert back.standard_error == there.standard_error
    assert back.wilcoxon_p == there.wilcoxon_p
    assert (back.wins, back.ties, back.losses) == (there.losses, there.ties, there.wins)
    pd.testing.assert_series_equal(back.per_dataset["p"], there.per_dataset["p"])
    pd.testing.assert_series_equal(back.per_dataset["difference"], -there.per_dataset["difference"])


def test_an_arm_equals_itself():
    found = statistics.compare(results(), arm="dense", baseline="dense", value="accuracy")
    assert (found.difference, found.standard_error, found.wilcoxon_p) == (0, 0, 1)
    assert (found.wins, found.ties, found.losses) == (0, 6, 0)
    assert (found.per_dataset["p"] == 1).all()


def test_where_lower_is_better_only_wins_and_losses_change():
    names = {"arm": "ticket", "baseline": "dense"}
    high = statistics.compare(results(), value="accuracy", **names)
    low = statistics.compare(results(), value="error", higher_is_better=False, **names)
    assert low.difference == pytest.approx(-high.difference)
    assert (low.wins, low.losses) == (high.wins, high.losses)
    assert high.wins != high.losses


def test_settings_reach_the_tests():
    names = {"arm": "ticket", "baseline": "dense", "value": "accuracy"}
    plain = statistics.compare(results(), **names, test_share=0, tolerance=1.0)
    assert plain.ties == 6
    table, _ = statistics.pair(results(), **names)
    first = table[table["dataset"] == "set0"]
    expected = stats.ttest_rel(first["arm"], first["baseline"]).pvalue
    assert plain.per_dataset["p"][0] == pytest.approx(expected)


def test_a_single_data_set_claims_nothing_over_data_sets():
    found = statistics.compare(
        results(n_datasets=1), arm="ticket", baseline="dense", value="accuracy"
    )
    assert found.n_datasets == 1
    assert np.isnan([found.standard_error, found.wilcoxon_p]).all()
    assert np.isfinite([found.difference, found.per_dataset["p"][0]]).all()


def test_a_family_holds_each_comparison_and_adjusts_over_the_arms():
    frame = results()
    table, by_dataset = statistics.compare_family(frame, baseline="dense", value="accuracy")
    assert table["arm"].tolist() == ["ticket", "random"]
    for row in table.itertuples():
        one = statistics.compare(frame, arm=row.arm, baseline="dense", value="accuracy")
        assert row.difference == one.difference
        assert row.wilcoxon_p == one.wilcoxon_p
        part = by_dataset[by_dataset["arm"] == row.arm].reset_index(drop=True)
        pd.testing.assert_frame_equal(part[one.per_dataset.columns], one.per_dataset)
    np.testing.assert_array_equal(table["holm_p"], statistics.holm(table["wilcoxon_p"]))
    for _, part in by_dataset.groupby("dataset"):
        assert len(part) == 2
        np.testing.assert_array_equal(part["holm_p"], statistics.holm(part["p"]))


def test_a_family_of_one_is_not_adjusted_and_of_none_is_refused():
    table, _ = statistics.compare_family(
        results(), baseline="dense", value="accuracy", arms=["random"]
    )
    assert table["arm"].tolist() == ["random"]
    assert table["holm_p"].tolist() == table["wilcoxon_p"].tolist()
    with pytest.raises(InputError, match="an arm beside the baseline"):
        statistics.compare_family(results(arms=["dense"]), baseline="dense", value="accuracy")
    with pytest.raises(InputError, match="got no arm"):
        statistics.compare_family(results().drop(columns="arm"), baseline="dense", value="accuracy")


# Endpoints


ENDPOINT = {"arm": "ticket", "baseline": "dense", "value": "accuracy"}


def gains(*differences, n_splits=3, spread=0.0):
    """Data sets with these mean differences of ticket and dense, the splits around them."""
    around = np.linspace(-spread, spread, n_splits)
    rows = [
        {"arm": arm, "dataset": f"set{d}", "split": s, "accuracy": 0.5 + (arm == "ticket") * gain}
        for d, difference in enumerate(differences)
        for s, gain in enumerate(difference + around)
        for arm in ("ticket", "dense")
    ]
    return pd.DataFrame(rows)


def test_an_endpoint_by_hand():
    # means .01 .02 .03 .04: mean .025, variance .05/300; t(3) at 97.5% is 3.182446
    found = statistics.endpoint(gains(0.01, 0.02, 0.03, 0.04, spread=0.01), **ENDPOINT)
    error = (0.0005 / 3 / 4) ** 0.5
    assert found.comparison.difference == pytest.approx(0.025)
    assert found.over_datasets.standard_error == pytest.approx(error)
    assert found.over_datasets.low == pytest.approx(0.025 - 3.182446 * error)
    assert found.over_datasets.high == pytest.approx(0.025 + 3.182446 * error)
    assert found.over_datasets.df == 3
    # each set: -.01 0 .01 around its mean, variance .0001; 60/20/20: (1/3 + 1/3) of it; of 4 sets
    within = (2 / 3 * 0.0001 / 4) ** 0.5
    assert found.within_datasets.standard_error == pytest.approx(within)
    assert found.within_datasets.df == pytest.approx(4 * 2)  # equal variances: they add up
    assert found.within_datasets.high == pytest.approx(0.025 + stats.t.ppf(0.975, 8) * within)
    assert found.too_few


def test_over_data_sets_it_is_the_one_sample_t_test():
    frame = results()
    found = statistics.endpoint(frame, **ENDPOINT, margin=0.004, level=0.9)
    differences = found.comparison.per_dataset["difference"]
    plain = stats.ttest_1samp(differences, -0.004)
    assert found.p == pytest.approx(plain.pvalue)
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
    assert (found.over_datasets.low, found.over_datasets.high) == pytest.approx(tuple(interval))
    assert not found.too_few  # six


def test_within_one_data_set_it_is_the_corrected_t_and_nothing_is_shown_of_others():
    frame = results(n_datasets=1)
    found = statistics.endpoint(frame, **ENDPOINT, margin=1.0)
    test = statistics.corrected_t(
        *(frame[frame["arm"] == arm]["accuracy"].to_numpy() for arm in ("ticket", "dense"))
    )
    assert found.within_datasets.standard_error == pytest.approx(test.standard_error)
    assert found.within_datasets.df == pytest.approx(test.df)
    at_level = statistics.endpoint(frame, **ENDPOINT, level=1 - test.p).within_datasets
    assert min(abs(at_level.low), abs(at_level.high)) == pytest.approx(0, abs=1e-9)
    assert np.isnan([found.over_datasets.low, found.over_datasets.high, found.p]).all()
    assert (found.verdict, found.too_few) == ("not shown", True)


def test_unequal_variances_take_degrees_of_freedom():
    one = gains(0.0, n_splits=4, spread=0.1)
    other = gains(0.0, n_splits=4, spread=0.001).assign(dataset="quiet")
    found = statistics.endpoint(pd.concat([one, other]), **ENDPOINT).within_datasets
    assert 3 < found.df < 3.01  # as if there were only the loud one
    welch = statistics.endpoint(pd.concat([one, one.assign(dataset="x")]), **ENDPOINT)
    assert welch.within_datasets.df == pytest.approx(6)


def test_a_single_split_has_no_spread_within():
    frame = pd.concat([gains(0.1, 0.2), gains(0.1, n_splits=1).assign(dataset="once")])
    found = statistics.endpoint(frame, **ENDPOINT)
    assert np.isnan([found.within_datasets.low, found.within_datasets.standard_error]).all()
    assert np.isfinite([found.over_datasets.low, found.p]).all()


@pytest.mark.parametrize(
    ("differences", "margin", "verdict"),
    [
        ((0.02, 0.02, 0.03), 0.0, "met"),
        ((0.00, 0.02, 0.01), 0.0, "not shown"),
        ((-0.02, -0.02, -0.03), 0.0, "inferior"),
        ((-0.002, -0.001, -0.003), 0.005, "met"),  # worse, but by less than the margin
        ((-0.002, -0.001, -0.003), 0.004, "not shown"),  # lower limit -.0045
        ((-0.02, -0.021, -0.022), 0.005, "inferior"),
        ((0.01, 0.01, 0.01), 0.0, "met"),  # no spread at all
        ((0.0, 0.0, 0.0), 0.0, "not shown"),
        ((0.0, 0.0, 0.0), 0.001, "met"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(differences, margin, verdict):
    found = statistics.endpoint(gains(*differences), **ENDPOINT, margin=margin)
    assert found.verdict == verdict
    assert (found.p < 0.05) == (verdict != "not shown")
    frame = gains(*differences).assign(error=lambda f: 1 - f["accuracy"])
    swapped = statistics.endpoint(
        frame, arm="ticket", baseline="dense", value="error", margin=margin, higher_is_better=False
    )
    assert swapped.verdict == verdict
    assert swapped.p == pytest.approx(found.p, rel=1e-6)
    assert swapped.over_datasets.high == pytest.approx(-found.over_datasets.low, abs=1e-12)


@given(
    d=st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=8),
    margins=st.tuples(st.floats(0, 0.2), st.floats(0, 0.2)),
)
def test_what_is_met_at_a_margin_is_met_at_a_wider_one(d, margins):
    found = [
        statistics.endpoint(gains(*d, n_splits=1), **ENDPOINT, margin=m).verdict
        for m in sorted(margins)
    ]
    order = ["inferior", "not shown", "met"]
    assert order.index(found[0]) <= order.index(found[1])


def test_the_intervals_hold_what_they_promise():
    # Data sets drawn from a population of mean .01: their own means spread by .02, splits by .01.
    rng = np.random.default_rng(0)
    n, held, own = 250, 0, 0
    for _ in range(n):
        means = 0.01 + 0.02 * rng.standard_normal(5)
        frame = gains(*means, n_splits=4)
        noise = 0.01 * rng.standard_normal((5, 4))
        frame.loc[frame["arm"] == "ticket", "accuracy"] += noise.ravel()
        found = statistics.endpoint(frame, **ENDPOINT, test_share=0)  # splits are independent here
        held += found.over_datasets.low < 0.01 < found.over_datasets.high
        own += found.within_datasets.low < means.mean() < found.within_datasets.high
    assert 0.9 < held / n < 0.99  # 3.5 standard errors to either side
    assert 0.9 < own / n < 0.99


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": -0.005}, "margin must be a number of at least 0, got -0.005"),
        ({"margin": np.nan}, "margin must be"),
        ({"level": 95}, r"level must be in \(0, 1\), got 95"),
        ({"unpaired": "ignore"}, "unpaired must be"),
    ],
)
def test_endpoints_that_are_none_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        statistics.endpoint(results(), **ENDPOINT, **settings)


# Rank correlation within groups


small = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4)


@given(groups=st.lists(small, min_size=1, max_size=2))
def test_rank_correlation_agrees_with_every_permutation(groups):
    x, y = (np.array([row[i] for rows in groups for row in rows], float) for i in range(2))
    names = [g for g, rows in enumerate(groups) for _ in rows]
    found = statistics.rank_correlation(x, y, names, n_permutations=2_000)
    assert (found.n, found.n_groups) == (len(x), len(groups))
    if np.isnan(found.rho):
        assert np.isnan(found.p)
        varies = [[len({row[i] for row in rows}) > 1 for rows in groups] for i in range(2)]
        assert not (any(varies[0]) and any(varies[1]))
        return
    rho, p = within_ranks.rho_and_p([tuple(zip(*rows, strict=True)) for rows in groups])
    assert found.rho == pytest.approx(rho, abs=1e-12)
    assert found.p == pytest.approx(p, abs=5 * (0.25 / 2_000) ** 0.5)


@given(rows=st.lists(st.tuples(finite, finite), min_size=3, max_size=12, unique_by=lambda r: r[0]))
def test_in_one_group_it_is_spearman(rows):
    x, y = np.array(rows).T
    found = statistics.rank_correlation(x, y, ["a"] * len(x), n_permutations=1)
    if len(set(y)) > 1:
        assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    else:
        assert np.isnan(found.rho)


def test_what_differs_between_groups_counts_for_nothing():
    rng = np.random.default_rng(0)
    x, y, names = rng.standard_normal(60), rng.standard_normal(60), np.repeat([*"abc"], 20)
    plain = statistics.rank_correlation(x, y, names)
    shift = np.repeat([0.0, 100.0, 200.0], 20)
    shifted = statistics.rank_correlation(np.exp(x) + shift, y**3 + 5 * shift, names)
    assert shifted == plain
    assert stats.spearmanr(x + shift, y + shift).statistic > 0.8
    assert abs(plain.rho) < 0.3
    assert plain.p > 0.05


def test_the_order_of_rows_does_not_change_rho_and_the_seed_is_its_own():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(30)
    y, names = x + rng.standard_normal(30), rng.choice([*"abc"], 30)
    found = statistics.rank_correlation(x, y, names)
    order = rng.permutation(30)
    again = statistics.rank_correlation(x[order], y[order], names[order], seed=5)
    assert again.rho == pytest.approx(found.rho)
    assert again.p == pytest.approx(found.p, abs=0.01)
    assert statistics.rank_correlation(x, y, names) == found
    assert statistics.rank_correlation(-x, y, names).rho == pytest.approx(-found.rho)


def test_without_a_connection_p_is_level():
    rng = np.random.default_rng(2)
    names = np.repeat([*"abcd"], 6)
    found = [
        statistics.rank_correlation(*rng.standard_normal((2, 24)), names, n_permutations=99).p
        for _ in range(600)
    ]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=3.5 * 0.0089)
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=3.5 * 0.0204)
    assert min(found) >= 0.01


@pytest.mark.parametrize(
    ("x", "y", "groups", "settings", "message"),
    [
        ([1.0, 2.0], [1.0], ["a", "a"], {}, "got 2, 1 and 2"),
        ([1.0, 2.0], [1.0, 2.0], ["a", None], {}, "got 2, 2 and 1"),
        ([1.0, np.nan], [1.0, 2.0], ["a", "a"], {}, "x must be a row of finite numbers"),
        ([1.0, 2.0], [1.0, 2.0], ["a", "a"], {"n_permutations": 0}, "at least 1, got 0"),
    ],
)
def test_rows_that_cannot_be_ranked_are_refused(x, y, groups, settings, message):
    with pytest.raises(InputError, match=message):
        statistics.rank_correlation(x, y, groups, **settings)
