"""Is one arm better than another? Paired resplits within data sets, inference over data sets.

A results frame is tidy: one row for each (arm, data set, split), a column for each value. A split
is one resplit of a data set into train and test, the same rows for every arm, so arms are compared
by differences on equal splits. Resplits of one data set share most of their rows and are not
independent: claims rest on the spread over data sets (Demšar 2006, JMLR 7), and within one data
set on the corrected resampled t-test (Nadeau and Bengio 2003, Machine Learning 52). What goes with
a gain is told by ranks within data sets.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from secateurs.errors import InputError

__all__ = [
    "ENOUGH_DATASETS",
    "ArmComparison",
    "Endpoint",
    "Interval",
    "Mean",
    "RankCorrelation",
    "TTest",
    "Verdict",
    "compare",
    "compare_family",
    "corrected_t",
    "endpoint",
    "holm",
    "mean_over_datasets",
    "pair",
    "rank_correlation",
    "wilcoxon",
    "win_tie_loss",
]

ENOUGH_DATASETS = 6
"""With fewer, no outcome brings the signed-rank test below .05 (5 give 1/16 at best): the t
interval then rests on the assumption that differences are normal over data sets."""

Verdict = Literal["met", "not shown", "inferior"]

_EXACT = 50  # differences; beyond, the normal approximation is as good


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean of per-data-set means; the standard error is NaN for a single data set."""

    mean: float
    standard_error: float
    n_datasets: int


@dataclass(frozen=True, kw_only=True)
class TTest:
    """A paired, two-sided t-test; standard error, t and p are NaN for fewer than 2 splits."""

    difference: float
    standard_error: float
    t: float
    p: float
    df: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmComparison:
    """One arm against a baseline; the unit of inference is the data set.

    Args:
        arm: name of the arm.
        baseline: name of what it is compared with.
        n_datasets: data sets with at least one pair.
        n_pairs: (data set, split) cells with both values.
        n_unpaired: cells left out because a value was missing.
        difference: mean over data sets of the mean paired difference, arm - baseline.
        standard_error: over data sets; NaN for one.
        wins: data sets on which the arm is better.
        ties: data sets on which the difference is within the tolerance.
        losses: data sets on which the baseline is better.
        wilcoxon_p: of the signed-rank test over data sets; NaN for one.
        per_dataset: a row for each data set: dataset, n_splits, arm_mean, baseline_mean, and
            the fields of `TTest` by `corrected_t`.
    """

    arm: Any
    baseline: Any
    n_datasets: int
    n_pairs: int
    n_unpaired: int
    difference: float
    standard_error: float
    wins: int
    ties: int
    losses: int
    wilcoxon_p: float
    per_dataset: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A two-sided t interval; NaN, with 0 degrees of freedom, where no spread can be estimated."""

    low: float
    high: float
    standard_error: float
    df: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Endpoint:
    """A comparison named beforehand, at a margin, with both sources of its uncertainty.

    Args:
        comparison: arm against baseline; `comparison.difference` is the middle of both intervals.
        margin: how much worse is still no loss; 0 asks whether the arm is better.
        level: of the intervals, such as .95.
        over_datasets: of the mean difference over data sets like these; NaN for one data set.
        within_datasets: of the mean difference on these very data sets, over resplits of them.
        p: two-sided, of a true difference at the margin, by the t of `over_datasets`: below
            1 - level exactly where the verdict is not "not shown".
        verdict: "met" if `over_datasets` lies above -margin, "inferior" if it lies below, else
            "not shown".
    """

    comparison: ArmComparison
    margin: float
    level: float
    over_datasets: Interval
    within_datasets: Interval
    p: float
    verdict: Verdict

    @property
    def too_few(self) -> bool:
        """Whether there are fewer than `ENOUGH_DATASETS` data sets."""
        return self.comparison.n_datasets < ENOUGH_DATASETS


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """A rank correlation within groups; rho and p are NaN where nothing varies within any."""

    rho: float
    p: float
    n: int
    n_groups: int


def _require(frame: pd.DataFrame, columns: list[str]) -> None:
    absent = [name for name in columns if name not in frame.columns]
    if absent:
        raise InputError(
            f"results need the columns {', '.join(columns)}, got no {', '.join(absent)}; "
            "pass the names that they have"
        )


def _numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise InputError(
            f"{what} must be a row of finite numbers, got shape {numbers.shape} with "
            f"{int((~np.isfinite(numbers)).sum())} not finite; drop those pairs"
        )
    return numbers


def _mean(units: NDArray[np.float64]) -> Mean:
    n = len(units)
    return Mean(
        mean=float(units.mean()) if n else float("nan"),
        standard_error=float(units.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"),
        n_datasets=n,
    )


def _first(cells: pd.DataFrame) -> str:
    dataset, split = cells[["dataset", "split"]].iloc[0]
    return f"data set {dataset}, split {split}"


def _values(rows: pd.DataFrame, name: Any) -> pd.Series:
    """Return the values of one arm, the last column, by data set and split, the first two."""
    *keys, value = rows.columns
    blank, repeated = rows[keys].isna().any(axis=1), rows.duplicated(keys)
    if blank.any() or repeated.any():
        raise InputError(
            f"an arm has one row for each data set and split, got several or none named in "
            f"{name!r} at {_first(rows[blank | repeated])}; average over what else varies"
        )
    if not pd.api.types.is_numeric_dtype(rows[value]):
        raise InputError(f"{value} must be numbers, got {rows[value].dtype}; convert it")
    return rows.set_index(keys)[value].astype(np.float64)


def pair(
    frame: pd.DataFrame,
    *,
    arm: Any,
    baseline: Any,
    value: str,
    dataset: str = "dataset",
    split: str = "split",
    unpaired: Literal["refuse", "drop"] = "refuse",
) -> tuple[pd.DataFrame, int]:
    """Return the splits that two arms share, and the number of splits left out.

    The table has the columns dataset, split, arm, baseline and difference = arm - baseline, in
    the order of data set and split whatever the order of the rows.

    Args:
        frame: tidy results, one row for each (arm, data set, split).
        arm: name of the arm.
        baseline: name of the arm that is subtracted.
        value: column of what is compared.
        dataset: column of the data set.
        split: column of the split.
        unpaired: what to do with a split that lacks a finite value of either arm: "refuse", or
            "drop" and count it. Runs rarely fail at random, so look why before dropping.

    Raises:
        InputError: an unknown arm or column, a cell that occurs twice or has no data set or
            split, values that are no numbers, or unpaired splits that are not to be dropped.

    >>> frame = pd.DataFrame({"arm": list("aabb"), "dataset": "kc1", "split": [0, 1, 1, 0],
    ...                       "accuracy": [0.5, 0.75, 0.5, 0.5]})
    >>> table, n_unpaired = pair(frame, arm="a", baseline="b", value="accuracy")
    >>> table["difference"].tolist(), n_unpaired
    ([0.0, 0.25], 0)
    """
    if unpaired not in ("refuse", "drop"):
        raise InputError(f"unpaired must be 'refuse' or 'drop', got {unpaired!r}")
    _require(frame, ["arm", dataset, split, value])
    sides = {}
    for side, name in {"arm": arm, "baseline": baseline}.items():
        rows = frame.loc[frame["arm"] == name, [dataset, split, value]]
        if rows.empty:
            known = ", ".join(repr(one) for one in frame["arm"].unique())
            raise InputError(f"{side} must be one of {known}, got {name!r}")
        sides[side] = _values(rows.set_axis(["dataset", "split", value], axis=1), name)
    table = pd.merge(
        sides["arm"].rename("arm").reset_index(),
        sides["baseline"].rename("baseline").reset_index(),
        on=["dataset", "split"],
        how="outer",
    )
    kept = np.isfinite(table[["arm", "baseline"]].to_numpy()).all(axis=1)
    if not kept.all() and (unpaired == "refuse" or not kept.any()):
        remedy = "finish those runs" + (", or pass unpaired='drop'" if kept.any() else "")
        raise InputError(
            f"each split needs a finite {value} of both {arm!r} and {baseline!r}, got "
            f"{int((~kept).sum())} of {len(kept)} without, the first at {_first(table[~kept])}; "
            f"{remedy}"
        )
    table = table.loc[kept].reset_index(drop=True)
    return table.assign(difference=table["arm"] - table["baseline"]), int((~kept).sum())


def mean_over_datasets(values: ArrayLike, datasets: ArrayLike) -> Mean:
    """Return mean and standard error of per-data-set means: every data set counts the same.

    Args:
        values: [rows] finite values.
        datasets: [rows] the data set of each.

    Raises:
        InputError: a value that is not finite, one without a data set, or lengths that differ.

    >>> found = mean_over_datasets([1.0, 2.0, 3.0, 5.0], ["a", "a", "a", "b"])
    >>> found.mean, round(found.standard_error, 6), found.n_datasets
    (3.5, 1.5, 2)
    """
    numbers, names = _numbers(values, "values"), np.asarray(datasets)
    if names.shape != numbers.shape or pd.isna(names).any():
        raise InputError(
            f"each value needs its data set, got {len(numbers)} values and "
            f"{int(pd.notna(names).sum())} data sets; pass two columns of one frame"
        )
    return _mean(np.asarray(pd.Series(numbers).groupby(names).mean(), dtype=np.float64))


def corrected_t(arm: ArrayLike, baseline: ArrayLike, *, test_share: float = 0.25) -> TTest:
    """Return the corrected resampled t-test of paired values on resplits of one data set.

    With J differences d_j of variance s2 (Nadeau and Bengio 2003, section 3):
    t = mean(d) / sqrt((1/J + n_test/n_train) s2), J - 1 degrees of freedom. The plain t-test
    lacks n_test/n_train: it takes J resplits for J fresh samples and finds too much.

    If all differences are equal, p is 1 where they are zero and 0 where they are not.

    Args:
        arm: [splits] values of the arm.
        baseline: [splits] values of the baseline on the same splits.
        test_share: n_test / (n_test + n_train), in [0, 1), validation rows in neither: 0.25 is
            the 60/20/20 protocol, 0 the plain paired t-test.

    Raises:
        InputError: lengths that differ, values that are not finite, or a share out of range.

    >>> test = corrected_t([0.75, 1.0, 0.5], [0.5, 0.5, 0.5], test_share=0.5)
    >>> test.difference, round(test.standard_error, 4), test.df
    (0.25, 0.2887, 2)
    """
    if not 0 <= test_share < 1:
        raise InputError(
            f"test_share must be in [0, 1), got {test_share:g}; pass n_test / (n_test + n_train)"
        )
    one, other = _numbers(arm, "arm"), _numbers(baseline, "baseline")
    if len(one) != len(other):
        raise InputError(f"pairs need equal splits, got {len(one)} and {len(other)}; use pair()")
    d = one - other
    if len(d) < 2:
        mean, nan = float(d[0]) if len(d) else float("nan"), float("nan")
        return TTest(difference=mean, standard_error=nan, t=nan, p=nan, df=0)
    # The mean of equal numbers may round to something else, which would leave a tiny variance.
    equal = bool((d == d[0]).all())
    mean, spread = (float(d[0]), 0.0) if equal else (float(d.mean()), float(d.std(ddof=1)))
    error = spread * float(np.sqrt(1 / len(d) + test_share / (1 - test_share)))
    never_varies = float(np.copysign(np.inf, mean)) if mean else 0.0
    t = mean / error if error else never_varies
    p = float(2 * stats.t.sf(abs(t), len(d) - 1))
    return TTest(difference=mean, standard_error=error, t=t, p=p, df=len(d) - 1)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return [tests] p-values adjusted by Holm's step-down method; NaN stays and does not count.

    The i-th smallest of m is multiplied by m - i + 1 and is never below its predecessor
    (Holm 1979, Scandinavian Journal of Statistics 6): the chance of any false finding among the
    m is held, however they depend on each other.

    Raises:
        InputError: a p-value outside [0, 1].

    >>> holm([0.25, 0.01, float("nan"), 0.02]).tolist()
    [0.25, 0.03, nan, 0.04]
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    bad = known[(values[known] < 0) | (values[known] > 1)]
    if len(bad):
        raise InputError(f"a p-value is in [0, 1], got {values[bad[0]]:g}; pass p, not a statistic")
    order = known[values[known].argsort(kind="stable")]
    steps = np.arange(len(order), 0, -1) * values[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def win_tie_loss(differences: ArrayLike, *, tolerance: float = 0.0) -> tuple[int, int, int]:
    """Return how many differences are above, within and below +-tolerance.

    Means of differences that cancel may round to 1e-17: a tolerance of 1e-12 makes them ties.

    Raises:
        InputError: a difference that is not finite, or a negative tolerance.

    >>> win_tie_loss([0.5, 0.0, -0.25, 0.125], tolerance=0.125)
    (1, 2, 1)
    """
    if not tolerance >= 0:
        raise InputError(
            f"tolerance must not be negative, got {tolerance:g}; pass 0 for exact ties"
        )
    d = _numbers(differences, "differences")
    wins, losses = int((d > tolerance).sum()), int((d < -tolerance).sum())
    return wins, len(d) - wins - losses, losses


def wilcoxon(differences: ArrayLike) -> float:
    """Return the two-sided p of the signed-rank test; NaN for fewer than 2 differences.

    Zeros are left out (Wilcoxon 1945); p is 1 if nothing else is there. Up to 50 differences p is
    exact, also where some have the same size, for which scipy takes its normal approximation or
    seconds. Five data sets cannot give less than 1/16.

    Raises:
        InputError: a difference that is not finite.

    >>> wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5])
    0.0625
    """
    d = _numbers(differences, "differences")
    if len(d) < 2:
        return float("nan")
    d = d[d != 0]
    if len(d) > _EXACT:
        return float(stats.wilcoxon(d, method="asymptotic").pvalue)
    ranks = np.rint(2 * stats.rankdata(np.abs(d))).astype(np.int64)  # doubled: ties have halves
    chance = np.zeros(ranks.sum() + 1)  # of each sum of the ranks of positive differences
    chance[0] = 1
    for rank in ranks:
        chance[rank:] = (chance[rank:] + chance[:-rank]) / 2
        chance[:rank] /= 2
    found = int(ranks[d > 0].sum())
    return float(min(1, 2 * min(chance[: found + 1].sum(), chance[found:].sum())))


def compare(
    frame: pd.DataFrame,
    *,
    arm: Any,
    baseline: Any,
    value: str,
    dataset: str = "dataset",
    split: str = "split",
    test_share: float = 0.25,
    tolerance: float = 0.0,
    higher_is_better: bool = True,
    unpaired: Literal["refuse", "drop"] = "refuse",
) -> ArmComparison:
    """Return all that a table says about one arm against one baseline.

    `test_share` is that of `corrected_t`, `tolerance` the largest mean difference on a data set
    that is a tie, and `higher_is_better` tells what a win is: the difference is arm - baseline
    either way. All else is as in `pair`.

    Raises:
        InputError: see `pair`, `corrected_t` and `win_tie_loss`.

    >>> frame = pd.DataFrame({"arm": list("aabb"), "dataset": ["kc1", "car"] * 2, "split": 0,
    ...                       "accuracy": [0.75, 1.0, 0.5, 0.5]})
    >>> found = compare(frame, arm="a", baseline="b", value="accuracy")
    >>> found.difference, found.standard_error, found.wins, found.wilcoxon_p
    (0.375, 0.125, 2, 0.5)
    """
    columns = {"value": value, "dataset": dataset, "split": split}
    pairs, n_unpaired = pair(frame, arm=arm, baseline=baseline, unpaired=unpaired, **columns)
    rows = []
    for name, cells in pairs.groupby("dataset", observed=True):
        test = corrected_t(cells["arm"], cells["baseline"], test_share=test_share)
        rows.append(
            {
                "dataset": name,
                "n_splits": len(cells),
                "arm_mean": float(cells["arm"].mean()),
                "baseline_mean": float(cells["baseline"].mean()),
                **asdict(test),
            }
        )
    differences = np.array([row["difference"] for row in rows])
    mean = _mean(differences)
    better = differences if higher_is_better else -differences
    wins, ties, losses = win_tie_loss(better, tolerance=tolerance)
    return ArmComparison(
        arm=arm,
        baseline=baseline,
        n_datasets=mean.n_datasets,
        n_pairs=len(pairs),
        n_unpaired=n_unpaired,
        difference=mean.mean,
        standard_error=mean.standard_error,
        wins=wins,
        ties=ties,
        losses=losses,
        wilcoxon_p=wilcoxon(differences),
        per_dataset=pd.DataFrame(rows),
    )


def compare_family(
    frame: pd.DataFrame,
    *,
    baseline: Any,
    value: str,
    arms: Iterable[Any] | None = None,
    **settings: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a table with a row for each arm against one baseline, and one by data set too.

    The first has the fields of `ArmComparison` and holm_p: wilcoxon_p adjusted over the arms.
    The second has the rows of `per_dataset` of every arm, with holm_p: p adjusted over the arms
    within each data set, which is what a study of a single data set reads.

    `arms` is the family, by default every other arm in the order of the frame; `settings` are
    those of `compare`.

    Raises:
        InputError: no arm beside the baseline, or whatever `compare` refuses.

    >>> frame = pd.DataFrame({"arm": list("abc") * 2, "dataset": ["kc1"] * 3 + ["car"] * 3,
    ...                       "split": 0, "accuracy": [0.5, 0.75, 1.0, 0.5, 1.0, 1.0]})
    >>> table, by_dataset = compare_family(frame, baseline="a", value="accuracy")
    >>> table["wilcoxon_p"].tolist(), table["holm_p"].tolist()
    ([0.5, 0.5], [1.0, 1.0])
    """
    _require(frame, ["arm"])
    arms = frame["arm"].unique() if arms is None else arms
    found = [
        compare(frame, arm=arm, baseline=baseline, value=value, **settings)
        for arm in arms
        if arm != baseline
    ]
    if not found:
        raise InputError(f"a family needs an arm beside the baseline, got {baseline!r} alone")
    names = [field.name for field in fields(ArmComparison) if field.name != "per_dataset"]
    table = pd.DataFrame([{name: getattr(one, name) for name in names} for one in found])
    table["holm_p"] = holm(table["wilcoxon_p"])
    by_dataset = pd.concat([one.per_dataset.assign(arm=one.arm) for one in found])
    by_dataset = by_dataset[["arm", *found[0].per_dataset.columns]].reset_index(drop=True)
    by_dataset["holm_p"] = by_dataset.groupby("dataset", observed=True)["p"].transform(holm)
    return table, by_dataset


def _interval(mean: float, error: float, df: float, level: float) -> Interval:
    if not np.isfinite(error):
        nan = float("nan")
        return Interval(low=nan, high=nan, standard_error=nan, df=0)
    half = float(stats.t.ppf((1 + level) / 2, df)) * error
    return Interval(low=mean - half, high=mean + half, standard_error=error, df=df)


def _within(comparison: ArmComparison, level: float) -> Interval:
    """Return the interval of the mean over these data sets, each with the error of its resplits.

    The variance of a mean of independent means is the sum of theirs by n squared; its degrees of
    freedom are Satterthwaite's (1946, Biometrics Bulletin 2).
    """
    squares = np.asarray(comparison.per_dataset["standard_error"], dtype=np.float64) ** 2
    dfs = np.asarray(comparison.per_dataset["df"], dtype=np.float64)
    if not np.isfinite(squares).all():  # a data set with a single split
        return _interval(comparison.difference, float("nan"), 0, level)
    shares = squares / (squares.sum() or 1.0)
    df = 1 / (shares**2 / dfs).sum() if squares.any() else dfs.sum()
    error = float(np.sqrt(squares.sum())) / len(squares)
    return _interval(comparison.difference, error, float(df), level)


def endpoint(
    frame: pd.DataFrame,
    *,
    arm: Any,
    baseline: Any,
    value: str,
    margin: float = 0.0,
    level: float = 0.95,
    higher_is_better: bool = True,
    **settings: Any,
) -> Endpoint:
    """Return whether an arm is better than a baseline, or no worse than it by a margin.

    Two sources of uncertainty stand side by side. `over_datasets` is Student's t over the data
    sets' mean differences: what other data sets like these would show. `within_datasets` takes
    the data sets as given and holds only the resplits, each data set's by the corrected resampled
    t (Nadeau and Bengio 2003): how well the difference on these data sets is known. The verdict
    is that of `over_datasets`.

    Non-inferiority is one-sided: it is met where the lower limit lies above -margin (CONSORT's
    extension, Piaggio et al. 2012, JAMA 308). The lower limit of a two-sided 95% interval makes
    that a test at 2.5%, half of the two-sided level, as ICH E9 (1998, section 5.5) asks.

    Args:
        frame: tidy results, one row for each (arm, data set, split).
        arm: name of the arm.
        baseline: name of the arm that is subtracted.
        value: column of what is compared.
        margin: in the unit of `value`: .005 is half a point of a share. 0 asks for more than
            equality.
        level: of the two-sided intervals.
        higher_is_better: otherwise better is below the baseline, and -margin becomes +margin.
        settings: further ones of `compare`.

    Raises:
        InputError: a negative margin, a level outside (0, 1), or whatever `compare` refuses.

    >>> frame = pd.DataFrame({"arm": list("aaabbb"), "dataset": ["kc1", "car", "adult"] * 2,
    ...                       "split": 0, "accuracy": [0.75, 0.5, 0.625, 0.5, 0.5, 0.5]})
    >>> found = endpoint(frame, arm="a", baseline="b", value="accuracy", margin=0.25)
    >>> found.comparison.difference, round(found.over_datasets.low, 3), found.verdict
    (0.125, -0.186, 'met')
    >>> endpoint(frame, arm="a", baseline="b", value="accuracy").verdict, found.too_few
    ('not shown', True)
    """
    if not (margin >= 0 and np.isfinite(margin)):
        raise InputError(
            f"margin must be a number of at least 0, got {margin:g}; it is how much worse is "
            "still no loss"
        )
    if not 0 < level < 1:
        raise InputError(f"level must be in (0, 1), got {level:g}; pass 0.95")
    found = compare(
        frame,
        arm=arm,
        baseline=baseline,
        value=value,
        higher_is_better=higher_is_better,
        **settings,
    )
    mean, error, df = found.difference, found.standard_error, found.n_datasets - 1
    over = _interval(mean, error, df, level)
    low, high = (over.low, over.high) if higher_is_better else (-over.high, -over.low)
    above = (mean if higher_is_better else -mean) + margin
    p = float("nan")
    if np.isfinite(error):
        t = abs(above) / error if error else (np.inf if above else 0.0)
        p = float(2 * stats.t.sf(t, df))
    verdict: Verdict = "met" if low > -margin else "inferior" if high < -margin else "not shown"
    return Endpoint(
        comparison=found,
        margin=margin,
        level=level,
        over_datasets=over,
        within_datasets=_within(found, level),
        p=p,
        verdict=verdict,
    )


def rank_correlation(
    x: ArrayLike, y: ArrayLike, groups: ArrayLike, *, n_permutations: int = 9_999, seed: int = 0
) -> RankCorrelation:
    """Return Spearman's correlation within groups, and its p by permutations within groups.

    Ranks are taken within each group, as shares of its size and from its own middle, and
    correlated over all rows at once: what differs between groups, such as how hard a data set is,
    counts for nothing, and a group counts as its number of rows. With one group it is Spearman's
    rho. p is two-sided: with b of m random permutations at least as far from 0, it is
    (b + 1) / (m + 1), never 0 (Phipson and Smyth 2010, Statistical Applications in Genetics and
    Molecular Biology 9).

    The permutations take rows of a group as exchangeable. Repeats of one method on resplits are
    not: average over them first.

    Args:
        x: [rows] finite values.
        y: [rows] finite values.
        groups: [rows] the group of each, such as its data set.
        n_permutations: m.
        seed: of the permutations.

    Raises:
        InputError: values that are not finite, a row without a group, lengths that differ, or no
            permutation.

    >>> found = rank_correlation([1, 2, 3, 11, 12, 13], [7, 8, 9, 1, 2, 3], list("aaabbb"))
    >>> found.rho, found.n_groups
    (1.0, 2)
    """
    one, other, names = _numbers(x, "x"), _numbers(y, "y"), pd.Series(np.asarray(groups))
    if not len(one) == len(other) == len(names) or names.isna().any():
        raise InputError(
            f"each row needs x, y and its group, got {len(one)}, {len(other)} and "
            f"{int(names.notna().sum())}; pass three columns of one frame"
        )
    if n_permutations < 1:
        raise InputError(f"n_permutations must be at least 1, got {n_permutations}")
    rng = np.random.default_rng(seed)
    product, x_squares, y_squares = 0.0, 0.0, 0.0
    permuted = np.zeros(n_permutations)
    parts = [names.index[names == name] for name in names.unique()]
    for at in parts:
        middle = (len(at) + 1) / 2
        ranks = [(stats.rankdata(values[at]) - middle) / len(at) for values in (one, other)]
        product += float(ranks[0] @ ranks[1])
        x_squares += float(ranks[0] @ ranks[0])
        y_squares += float(ranks[1] @ ranks[1])
        many = np.broadcast_to(ranks[0], (n_permutations, len(at)))
        permuted += rng.permuted(many, axis=1) @ ranks[1]
    size = float(np.sqrt(x_squares * y_squares))
    if not size:
        nan = float("nan")
        return RankCorrelation(rho=nan, p=nan, n=len(one), n_groups=len(parts))
    as_far = int((np.abs(permuted) >= abs(product) - 1e-9 * size).sum())
    return RankCorrelation(
        rho=product / size,
        p=(as_far + 1) / (n_permutations + 1),
        n=len(one),
        n_groups=len(parts),
    )
